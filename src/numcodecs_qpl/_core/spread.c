/* Run one function in several threads at once. These are C threads that run no Python code. So a signal handler cannot
   end the wait for them, and a fork or the interpreter's end needs no special treatment. */

#include "spread.h"

#include <pthread.h>
#include <signal.h>

enum { MAX_HELPERS = 255 };

void spread(Work work, void *argument, int count)
{
    pthread_t helpers[MAX_HELPERS];
    sigset_t all, before;
    int started = 0;
    if (count > 1) {
        /* The caller's threads handle signals: a helper inherits a mask that blocks all of them. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        while (started < count - 1 && started < MAX_HELPERS && !pthread_create(&helpers[started], NULL, work, argument))
            started++;
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    work(argument);
    while (started)
        pthread_join(helpers[--started], NULL);
}

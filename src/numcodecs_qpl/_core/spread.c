/* One function in several threads at once. These are C threads: no Python runs in them, so no signal handler can end the
   wait for them, and they need no care at a fork or at the interpreter's end. */

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
        /* Signals are for the threads that know of them: a helper inherits this mask. */
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

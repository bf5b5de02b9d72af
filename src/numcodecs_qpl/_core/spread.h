/* One function in several threads at once. */

#ifndef NUMCODECS_QPL_SPREAD_H
#define NUMCODECS_QPL_SPREAD_H

typedef void *(*Work)(void *argument);

/* Call `work` in this thread and in `count` - 1 others at once, and return when all calls have ended. The calls have to
   take pieces from one shared list until none is left, so that it does not matter how many threads can be started. */
void spread(Work work, void *argument, int count);

#endif

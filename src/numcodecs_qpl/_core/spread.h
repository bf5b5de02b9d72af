/* Run one function in several threads at once. */

#ifndef NUMCODECS_QPL_SPREAD_H
#define NUMCODECS_QPL_SPREAD_H

typedef void *(*Work)(void *argument);

/* Call `work` in this thread and in `count` - 1 others at once, and return when all calls have ended. Fewer threads may
   start, so the calls must take pieces from one shared list until none is left. */
void spread(Work work, void *argument, int count);

#endif

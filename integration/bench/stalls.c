// Says when its core stood still: it sleeps for a quarter of a millisecond again and again, goes before every other
// program, and prints when it should have woken and how late it did (CLOCK_MONOTONIC), both in seconds, where that
// was later than a quarter of a millisecond. No program of this machine can delay it, only the host and the kernel.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <time.h>

static const long step_ns = 250000, second_ns = 1000000000;

int main(void) {
  struct sched_param first = {.sched_priority = 50};
  if (sched_setscheduler(0, SCHED_FIFO, &first) != 0) {
    perror("stalls: SCHED_FIFO");
    return 1;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  struct timespec due, now;
  clock_gettime(CLOCK_MONOTONIC, &due);
  for (;;) {
    due.tv_nsec += step_ns;
    if (due.tv_nsec >= second_ns) {
      due.tv_nsec -= second_ns;
      due.tv_sec++;
    }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    clock_gettime(CLOCK_MONOTONIC, &now);
    long late_ns = (now.tv_sec - due.tv_sec) * second_ns + now.tv_nsec - due.tv_nsec;
    if (late_ns > step_ns) {
      printf("%ld.%09ld %.6f\n", (long)due.tv_sec, due.tv_nsec, late_ns / 1e9);
      due = now;
    }
  }
}

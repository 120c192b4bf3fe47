/* backoff.h: how long to wait before a dead child is started again (LIF-7). Pure arithmetic, no clock, no allocation.
 *
 * A child has credit for restarts at once: at most three, one is spent by each, one is earned by every second of life.
 * Thus a kill after a healthy run, or a few in a row, cost no wait, and a crash loop soon does: without credit the wait
 * is 100 ms, doubling to 30 s, each with 20 % of jitter. 60 s of being ready forget everything.
 *
 * A life that never became ready speaks against the version, not for bad luck: with all credit there it is tried again
 * at once, and takes all of it. One that says that its environment or its arguments are wrong always waits. */
#ifndef GATEHOUSE_SUPERVISOR_BACKOFF_H
#define GATEHOUSE_SUPERVISOR_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#define BACKOFF_CREDIT_MAX 3
#define BACKOFF_CREDIT_EARN_MS 1000
#define BACKOFF_FIRST_MS 100
#define BACKOFF_LONGEST_MS 30000
#define BACKOFF_FORGET_MS 60000

struct backoff {
  unsigned spent; /* credit that is gone; 0 in a new one */
  unsigned waits; /* waits in a row */
};

/* A life that ended. */
struct backoff_life {
  uint64_t uptime_ms;
  uint64_t ready_ms; /* of it, since it first was ready */
  bool ready;        /* it ever was */
  bool hopeless;     /* at once is not sooner than now: nothing will have changed */
};

/* The wait in milliseconds after that life. random: any 32 bits. */
uint32_t backoff_next(struct backoff *backoff, const struct backoff_life *life, uint32_t random);

/* Forgets: an operator ordered the start. */
void backoff_reset(struct backoff *backoff);

#endif

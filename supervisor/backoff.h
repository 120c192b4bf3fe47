/* backoff.h: how long to wait before a dead child is started again (LIF-7). Pure arithmetic, no clock, no allocation.
 *
 * A child has credit for restarts at once: at most three, one is spent by each, one is earned by every second of life.
 * Thus a kill after a healthy run, or a few in a row, cost no wait, and a crash loop soon does: without credit the wait
 * is 100 ms, doubling to 30 s, each with 20 % of jitter. A life of 60 s forgets everything. */
#ifndef GATEHOUSE_SUPERVISOR_BACKOFF_H
#define GATEHOUSE_SUPERVISOR_BACKOFF_H

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

/* The wait in milliseconds after a life of uptime_ms. random: any 32 bits. */
uint32_t backoff_next(struct backoff *backoff, uint64_t uptime_ms, uint32_t random);

/* Forgets: an operator ordered the start. */
void backoff_reset(struct backoff *backoff);

#endif

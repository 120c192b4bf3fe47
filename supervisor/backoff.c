/* backoff.c: see backoff.h. */
#include "supervisor/backoff.h"

void backoff_reset(struct backoff *backoff) {
  *backoff = (struct backoff){0};
}

static uint32_t jittered(uint32_t wait_ms, uint32_t random) {
  uint32_t fifth = wait_ms / 5;
  uint32_t with_jitter = wait_ms - fifth + random % (2 * fifth + 1);
  return with_jitter < BACKOFF_LONGEST_MS ? with_jitter : BACKOFF_LONGEST_MS;
}

uint32_t backoff_next(struct backoff *backoff, const struct backoff_life *life, uint32_t random) {
  if (life->ready && life->ready_ms >= BACKOFF_FORGET_MS)
    backoff_reset(backoff);
  uint64_t earned = life->ready ? life->uptime_ms / BACKOFF_CREDIT_EARN_MS : 0;
  backoff->spent -= earned < backoff->spent ? (unsigned)earned : backoff->spent;
  bool at_once = backoff->spent < (life->ready ? BACKOFF_CREDIT_MAX : 1);
  backoff->spent = life->ready && at_once ? backoff->spent + 1 : BACKOFF_CREDIT_MAX;
  if (at_once && !life->hopeless)
    return 0;
  uint32_t wait_ms = BACKOFF_FIRST_MS;
  for (unsigned i = 0; i < backoff->waits && wait_ms < BACKOFF_LONGEST_MS; i++)
    wait_ms *= 2;
  if (wait_ms < BACKOFF_LONGEST_MS)
    backoff->waits++;
  else
    wait_ms = BACKOFF_LONGEST_MS;
  return jittered(wait_ms, random);
}

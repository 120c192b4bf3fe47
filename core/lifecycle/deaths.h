/* deaths.h: how often and of what a module dies, and when that is too often (LIF-8). Pure: the time is given, nothing
 * is allocated, nothing is done. One account per module; it speaks of deaths that nobody ordered.
 *
 * A module that never became ready in that life is a bad version: the program, its configuration or its promises are
 * wrong, and the same start will end the same way. One that dies later is an incident: it served, and will again. */
#ifndef GATEHOUSE_CORE_LIFECYCLE_DEATHS_H
#define GATEHOUSE_CORE_LIFECYCLE_DEATHS_H

#include <stdbool.h>
#include <stdint.h>

#define LIFECYCLE_DEATHS_KEPT 17 /* one more than quarantine.deaths may be */

enum lifecycle_death_cause {
#define LIFECYCLE_DEATH(name, text) LIFECYCLE_DEATH_##name,
#include "core/lifecycle/death_causes.def"
#undef LIFECYCLE_DEATH
  LIFECYCLE_DEATH_CAUSE_COUNT
};
const char *lifecycle_death_cause_name(enum lifecycle_death_cause cause);
/* "bad version" or "incident". */
const char *lifecycle_death_kind_name(bool was_ready);

struct lifecycle_intensity {
  uint32_t deaths;      /* more than so many in the window are too many; 0: never */
  uint32_t window_ms;   /* */
  uint32_t late_starts; /* so many in a row are too many; 0: never */
};

struct lifecycle_deaths {
  int64_t at_ms[LIFECYCLE_DEATHS_KEPT]; /* a ring of the newest */
  uint64_t count;
  uint32_t late_starts; /* in a row, without a ready one between */
  uint32_t by_cause[LIFECYCLE_DEATH_CAUSE_COUNT];
};

enum lifecycle_verdict {
  LIFECYCLE_VERDICT_GO_ON,
  LIFECYCLE_VERDICT_TOO_OFTEN, /* more than the limit within the window */
  LIFECYCLE_VERDICT_TOO_LATE,  /* not ready in time, again and again */
};

/* Accounts for a death at now_ms (monotonic milliseconds) and says what follows. */
enum lifecycle_verdict lifecycle_deaths_add(struct lifecycle_deaths *deaths,
                                            const struct lifecycle_intensity *intensity,
                                            enum lifecycle_death_cause cause, int64_t now_ms);
/* Deaths within the window that ends at now_ms, as far as they are kept. */
uint32_t lifecycle_deaths_recent(const struct lifecycle_deaths *deaths, uint32_t window_ms, int64_t now_ms);
/* It became ready: late starts before this do not count any more. */
void lifecycle_deaths_ready(struct lifecycle_deaths *deaths);
/* An operator begins anew: what was no longer counts against it; the totals stay. */
void lifecycle_deaths_forgive(struct lifecycle_deaths *deaths);

#endif

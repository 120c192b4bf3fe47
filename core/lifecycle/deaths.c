/* deaths.c: see deaths.h. */
#include "core/lifecycle/deaths.h"

#include <stddef.h>

static const char *const cause_names[LIFECYCLE_DEATH_CAUSE_COUNT] = {
#define LIFECYCLE_DEATH(name, text) text,
#include "core/lifecycle/death_causes.def"
#undef LIFECYCLE_DEATH
};

const char *lifecycle_death_cause_name(enum lifecycle_death_cause cause) {
  return cause < LIFECYCLE_DEATH_CAUSE_COUNT ? cause_names[cause] : "unknown";
}

const char *lifecycle_death_kind_name(bool was_ready) {
  return was_ready ? "incident" : "bad version";
}

uint32_t lifecycle_deaths_recent(const struct lifecycle_deaths *deaths, uint32_t window_ms, int64_t now_ms) {
  uint64_t kept = deaths->count < LIFECYCLE_DEATHS_KEPT ? deaths->count : LIFECYCLE_DEATHS_KEPT;
  uint32_t recent = 0;
  for (size_t i = 0; i < kept; i++)
    recent += now_ms - deaths->at_ms[i] < window_ms;
  return recent;
}

enum lifecycle_verdict lifecycle_deaths_add(struct lifecycle_deaths *deaths,
                                            const struct lifecycle_intensity *intensity,
                                            enum lifecycle_death_cause cause, int64_t now_ms) {
  deaths->at_ms[deaths->count++ % LIFECYCLE_DEATHS_KEPT] = now_ms;
  deaths->by_cause[cause]++;
  if (cause == LIFECYCLE_DEATH_START)
    deaths->late_starts++;
  if (intensity->late_starts > 0 && deaths->late_starts >= intensity->late_starts)
    return LIFECYCLE_VERDICT_TOO_LATE;
  if (intensity->deaths > 0 && lifecycle_deaths_recent(deaths, intensity->window_ms, now_ms) > intensity->deaths)
    return LIFECYCLE_VERDICT_TOO_OFTEN;
  return LIFECYCLE_VERDICT_GO_ON;
}

void lifecycle_deaths_ready(struct lifecycle_deaths *deaths) {
  deaths->late_starts = 0;
}

void lifecycle_deaths_forgive(struct lifecycle_deaths *deaths) {
  deaths->late_starts = 0;
  deaths->count = 0;
}

/* verdict.c: see verdict.h. */
#include "core/lifecycle/verdict.h"

#include <stdio.h>

static uint64_t grown(uint64_t begin, uint64_t now) {
  return now >= begin ? now - begin : now;
}

static struct lifecycle_tally tally_since(const struct lifecycle_tally *begin, const struct lifecycle_tally *now) {
  struct lifecycle_tally since = {.requests = grown(begin->requests, now->requests),
                                  .errors = grown(begin->errors, now->errors)};
  for (size_t i = 0; i < LATENCY_BUCKETS; i++)
    since.latency[i] = grown(begin->latency[i], now->latency[i]);
  return since;
}

struct lifecycle_sample lifecycle_sample_since(const struct lifecycle_sample *begin,
                                               const struct lifecycle_sample *now) {
  struct lifecycle_sample since = {.told = tally_since(&begin->told, &now->told),
                                   .seen = tally_since(&begin->seen, &now->seen),
                                   .stalled = now->stalled};
  if (begin->memory_bytes && now->memory_bytes > begin->memory_bytes)
    since.memory_bytes = now->memory_bytes - begin->memory_bytes;
  return since;
}

bool lifecycle_error_is_fault(enum error_category category) {
  static const bool faults[] = {[ERROR_CATEGORY_UNAVAILABLE] = true, [ERROR_CATEGORY_INTERNAL] = true};
  return (size_t)category < sizeof(faults) / sizeof(faults[0]) && faults[category];
}

static uint64_t measured(const struct lifecycle_tally *tally) {
  uint64_t count = 0;
  for (size_t i = 0; i < LATENCY_BUCKETS; i++)
    count += tally->latency[i];
  return count;
}

uint64_t lifecycle_latency_percentile(const struct lifecycle_tally *tally, unsigned percent) {
  uint64_t count = measured(tally), wanted = (count * percent + 99) / 100, seen = 0;
  for (size_t i = 0; i < LATENCY_BUCKETS && count > 0; i++)
    if ((seen += tally->latency[i]) >= wanted && seen > 0)
      return latency_bucket_end_us(i);
  return 0;
}

/* One who counts, and what is counted, in the words of the history. */
struct witness {
  const char *noun;
  struct lifecycle_tally old, candidate;
};

static struct lifecycle_tally with_stalled(const struct lifecycle_sample *sample) {
  struct lifecycle_tally tally = sample->seen;
  tally.requests += sample->stalled;
  tally.errors += sample->stalled;
  return tally;
}

static bool errors_hold(const struct lifecycle_criteria *criteria, const struct witness *witness, char *why,
                        size_t why_bytes) {
  const struct lifecycle_tally *old = &witness->old, *candidate = &witness->candidate;
  if (candidate->requests < criteria->error_calls || candidate->errors < LIFECYCLE_ERRORS_MIN)
    return true;
  double rate = 100.0 * (double)candidate->errors / (double)candidate->requests;
  double before = old->requests > 0 ? 100.0 * (double)old->errors / (double)old->requests : 0;
  if (rate <= before + criteria->error_points)
    return true;
  snprintf(why, why_bytes, "%.1f %% of its %llu %s failed, and %.1f %% of the %llu of the old one", rate,
           (unsigned long long)candidate->requests, witness->noun, before, (unsigned long long)old->requests);
  return false;
}

static bool latency_holds(const struct lifecycle_criteria *criteria, const struct witness *witness, char *why,
                          size_t why_bytes) {
  static const unsigned percents[] = {50, 95};
  const struct lifecycle_tally *old = &witness->old, *candidate = &witness->candidate;
  if (criteria->latency_percent == 0 || measured(candidate) < criteria->latency_calls ||
      measured(old) < criteria->latency_calls)
    return true;
  for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
    uint64_t took_us = lifecycle_latency_percentile(candidate, percents[i]);
    uint64_t before_us = lifecycle_latency_percentile(old, percents[i]);
    if (took_us * 100 <= before_us * criteria->latency_percent || took_us <= before_us + LIFECYCLE_LATENCY_FLOOR_US)
      continue;
    snprintf(why, why_bytes, "%u %% of its %s took up to %.1f ms, and %.1f ms those of the old one", percents[i],
             witness->noun, (double)took_us / 1000, (double)before_us / 1000);
    return false;
  }
  return true;
}

bool lifecycle_verdict(const struct lifecycle_criteria *criteria, const struct lifecycle_sample *old,
                       const struct lifecycle_sample *candidate, char *why, size_t why_bytes) {
  static bool (*const rules[])(const struct lifecycle_criteria *, const struct witness *, char *,
                               size_t) = {errors_hold, latency_holds};
  const struct witness witnesses[] = {{"requests", old->told, candidate->told},
                                      {"calls that the core saw", with_stalled(old), with_stalled(candidate)}};
  for (size_t w = 0; w < sizeof(witnesses) / sizeof(witnesses[0]); w++)
    for (size_t r = 0; r < sizeof(rules) / sizeof(rules[0]); r++)
      if (!rules[r](criteria, &witnesses[w], why, why_bytes))
        return false;
  if (criteria->memory_bytes == 0 || candidate->memory_bytes <= criteria->memory_bytes)
    return true;
  snprintf(why, why_bytes, "it grew by %llu MiB, and may by %llu", (unsigned long long)(candidate->memory_bytes >> 20),
           (unsigned long long)(criteria->memory_bytes >> 20));
  return false;
}

/* verdict.c: see verdict.h. */
#include "core/lifecycle/verdict.h"

#include <stdio.h>

static uint64_t grown(uint64_t begin, uint64_t now) {
  return now >= begin ? now - begin : now;
}

struct lifecycle_sample lifecycle_sample_since(const struct lifecycle_sample *begin,
                                               const struct lifecycle_sample *now) {
  struct lifecycle_sample since = {.requests = grown(begin->requests, now->requests),
                                   .errors = grown(begin->errors, now->errors)};
  for (size_t i = 0; i < LIFECYCLE_LATENCY_BUCKETS; i++)
    since.latency[i] = grown(begin->latency[i], now->latency[i]);
  if (begin->memory_bytes && now->memory_bytes > begin->memory_bytes)
    since.memory_bytes = now->memory_bytes - begin->memory_bytes;
  return since;
}

/* Where the next bucket begins. */
static uint64_t bucket_end_us(size_t bucket) {
  size_t next = bucket + 1;
  return next < 4 ? next : (uint64_t)(4 + next % 4) << (next / 4 - 1);
}

static uint64_t measured(const struct lifecycle_sample *sample) {
  uint64_t count = 0;
  for (size_t i = 0; i < LIFECYCLE_LATENCY_BUCKETS; i++)
    count += sample->latency[i];
  return count;
}

uint64_t lifecycle_latency_percentile(const struct lifecycle_sample *sample, unsigned percent) {
  uint64_t count = measured(sample), wanted = (count * percent + 99) / 100, seen = 0;
  for (size_t i = 0; i < LIFECYCLE_LATENCY_BUCKETS && count > 0; i++)
    if ((seen += sample->latency[i]) >= wanted && seen > 0)
      return bucket_end_us(i);
  return 0;
}

static bool errors_hold(const struct lifecycle_criteria *criteria, const struct lifecycle_sample *old,
                        const struct lifecycle_sample *candidate, char *why, size_t why_bytes) {
  if (candidate->requests < criteria->error_calls || candidate->errors < LIFECYCLE_ERRORS_MIN)
    return true;
  double rate = 100.0 * (double)candidate->errors / (double)candidate->requests;
  double before = old->requests > 0 ? 100.0 * (double)old->errors / (double)old->requests : 0;
  if (rate <= before + criteria->error_points)
    return true;
  snprintf(why, why_bytes, "%.1f %% of its %llu requests failed, and %.1f %% of the %llu of the old one", rate,
           (unsigned long long)candidate->requests, before, (unsigned long long)old->requests);
  return false;
}

static bool latency_holds(const struct lifecycle_criteria *criteria, const struct lifecycle_sample *old,
                          const struct lifecycle_sample *candidate, char *why, size_t why_bytes) {
  static const unsigned percents[] = {50, 95};
  if (criteria->latency_percent == 0 || measured(candidate) < criteria->latency_calls ||
      measured(old) < criteria->latency_calls)
    return true;
  for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
    uint64_t took_us = lifecycle_latency_percentile(candidate, percents[i]);
    uint64_t before_us = lifecycle_latency_percentile(old, percents[i]);
    if (took_us * 100 <= before_us * criteria->latency_percent || took_us <= before_us + LIFECYCLE_LATENCY_FLOOR_US)
      continue;
    snprintf(why, why_bytes, "%u %% of its requests took up to %.1f ms, and %.1f ms those of the old one", percents[i],
             (double)took_us / 1000, (double)before_us / 1000);
    return false;
  }
  return true;
}

bool lifecycle_verdict(const struct lifecycle_criteria *criteria, const struct lifecycle_sample *old,
                       const struct lifecycle_sample *candidate, char *why, size_t why_bytes) {
  if (!errors_hold(criteria, old, candidate, why, why_bytes) ||
      !latency_holds(criteria, old, candidate, why, why_bytes))
    return false;
  if (criteria->memory_bytes == 0 || candidate->memory_bytes <= criteria->memory_bytes)
    return true;
  snprintf(why, why_bytes, "it grew by %llu MiB, and may by %llu", (unsigned long long)(candidate->memory_bytes >> 20),
           (unsigned long long)(criteria->memory_bytes >> 20));
  return false;
}

/* verdict.h: whether a candidate holds beside the process that it is to replace (LIF-9). Pure: two samples of the time
 * that both served, the criteria, a verdict. Numbers come from the modules themselves (ModuleStats), from what the core
 * saw of their work, so that one which counts wrong or not at all is judged too, and from the kernel. */
#ifndef GATEHOUSE_CORE_LIFECYCLE_VERDICT_H
#define GATEHOUSE_CORE_LIFECYCLE_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/error.h"
#include "sdk/base/latency.h"

#define LIFECYCLE_LATENCY_FLOOR_US 1000 /* nobody notices less than a millisecond more */
#define LIFECYCLE_ERRORS_MIN 2          /* one failure is no rate */
#define LIFECYCLE_STALL_US 5000000      /* a call without an answer for so long */

struct lifecycle_criteria {
  uint32_t error_points;    /* percentage points above the old one's rate */
  uint32_t error_calls;     /* looked at after so many requests to the candidate */
  uint32_t latency_percent; /* of the old one's, at the median and the 95th percentile; 0: not looked at */
  uint32_t latency_calls;   /* looked at after so many requests to each */
  uint64_t memory_bytes;    /* growth of the candidate; 0: not looked at */
};
#define LIFECYCLE_CRITERIA_DEFAULT                                                                                     \
  { .error_points = 1, .error_calls = 20, .latency_percent = 200, .latency_calls = 50, .memory_bytes = 256u << 20 }

/* What somebody counted of one process. */
struct lifecycle_tally {
  uint64_t requests, errors;
  uint64_t latency[LATENCY_BUCKETS];
};

struct lifecycle_sample {
  struct lifecycle_tally told; /* by the module itself: its clients' requests */
  struct lifecycle_tally seen; /* by the core: calls to it, and plans that it carried out */
  uint64_t stalled;            /* of those, under way for LIFECYCLE_STALL_US by now: they count as failed */
  uint64_t memory_bytes;       /* resident; 0: unknown */
};

/* Whether an answer with this error speaks against whoever gave it: not what its caller, a policy or an upstream did,
 * but what it could not do itself, or not in time. */
bool lifecycle_error_is_fault(enum error_category category);

/* What happened from begin to now. Counters that went back began anew. Memory: the growth. Stalled: as it is now. */
struct lifecycle_sample lifecycle_sample_since(const struct lifecycle_sample *begin,
                                               const struct lifecycle_sample *now);

/* The upper end, in microseconds, of the bucket in which that share (in percent) of the requests ends; 0: none. */
uint64_t lifecycle_latency_percentile(const struct lifecycle_tally *tally, unsigned percent);

/* True: the candidate holds so far. False: why says what does not. Both samples are of lifecycle_sample_since. */
bool lifecycle_verdict(const struct lifecycle_criteria *criteria, const struct lifecycle_sample *old,
                       const struct lifecycle_sample *candidate, char *why, size_t why_bytes);

#endif

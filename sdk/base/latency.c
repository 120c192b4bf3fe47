/* latency.c: see latency.h. */
#include "sdk/base/latency.h"

size_t latency_bucket(int64_t took_us) {
  uint64_t us = took_us > 0 ? (uint64_t)took_us : 0;
  size_t bucket = us;
  if (us >= 4) {
    unsigned octave = 63 - (unsigned)__builtin_clzll(us);
    bucket = 4 * (octave - 1) + ((us >> (octave - 2)) & 3);
  }
  return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

uint64_t latency_bucket_end_us(size_t bucket) {
  size_t next = bucket + 1;
  return next < 4 ? next : (uint64_t)(4 + next % 4) << (next / 4 - 1);
}

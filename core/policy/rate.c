/* rate.c: token buckets (SPI-18). Units are millionths of one request, so that slow rates fill exactly: a bucket gains
 * rate_per_minute / 60 units each microsecond. The number of buckets is bounded; room is made only by dropping one that
 * would be full by now, which forgets nothing. If the longest unused ones are not full either, a new key is refused. */
#include <string.h>

#include "core/policy/policy_internal.h"

#define UNIT INT64_C(1000000)
#define MINUTE_S 60
#define EVICTION_LOOKS 8

/* Content at now_us, never above the capacity. */
static int64_t bucket_level(const struct rate_bucket *bucket, int64_t now_us) {
  int64_t gained, missing = bucket->capacity - bucket->units;
  int64_t elapsed_us = now_us > bucket->updated_us ? now_us - bucket->updated_us : 0;
  if (__builtin_mul_overflow(elapsed_us, (int64_t)bucket->rate_per_minute, &gained) || gained / MINUTE_S >= missing)
    return bucket->capacity;
  return bucket->units + gained / MINUTE_S;
}

static void bucket_drop(struct policy *policy, struct rate_bucket *bucket) {
  HASH_DEL(policy->buckets, bucket);
  TAILQ_REMOVE(&policy->buckets_by_use, bucket, by_use);
  base_free(bucket);
}

void rate_free_all(struct policy *policy) {
  struct rate_bucket *bucket, *next;
  HASH_ITER(hh, policy->buckets, bucket, next)
  bucket_drop(policy, bucket);
}

static bool room_made(struct policy *policy, int64_t now_us) {
  if (HASH_COUNT(policy->buckets) < policy->rate_buckets_max)
    return true;
  struct rate_bucket *bucket = TAILQ_FIRST(&policy->buckets_by_use);
  for (int look = 0; bucket != NULL && look < EVICTION_LOOKS; look++) {
    if (bucket_level(bucket, now_us) == bucket->capacity) {
      bucket_drop(policy, bucket);
      return true;
    }
    bucket = TAILQ_NEXT(bucket, by_use);
  }
  return false;
}

/* The bucket of a key, most recently used; NULL when there is no room for it. */
static struct rate_bucket *bucket_get(struct policy *policy, const char *key, uint32_t rate_per_minute,
                                      int64_t capacity, int64_t now_us) {
  uint8_t hash[POLICY_HASH_BYTES];
  struct rate_bucket *bucket = NULL;
  const struct hash_part part = {key, strlen(key)};
  policy_hash_parts(policy, &part, 1, hash);
  HASH_FIND(hh, policy->buckets, hash, sizeof(bucket->key), bucket);
  if (bucket != NULL) {
    TAILQ_REMOVE(&policy->buckets_by_use, bucket, by_use);
  } else {
    if (!room_made(policy, now_us))
      return NULL;
    bucket = BASE_NEW(struct rate_bucket);
    memcpy(bucket->key, hash, sizeof(bucket->key));
    bucket->units = bucket->capacity = capacity;
    bucket->updated_us = now_us;
    bucket->rate_per_minute = rate_per_minute;
    HASH_ADD(hh, policy->buckets, key, sizeof(bucket->key), bucket);
  }
  TAILQ_INSERT_TAIL(&policy->buckets_by_use, bucket, by_use);
  return bucket;
}

static bool refuse(uint64_t wait_ms, uint32_t *retry_after_ms, struct error *err) {
  uint32_t wait = wait_ms > UINT32_MAX ? UINT32_MAX : wait_ms == 0 ? 1 : (uint32_t)wait_ms;
  if (retry_after_ms != NULL)
    *retry_after_ms = wait;
  error_set(err, ERR_RATE_LIMIT_EXCEEDED, NULL);
  if (err != NULL)
    err->retry_after_ms = wait;
  return false;
}

bool policy_rate_take(struct policy *policy, const char *key, uint32_t rate_per_minute, uint32_t burst,
                      uint32_t *retry_after_ms, struct error *err) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  const uint64_t minute_ms = UINT64_C(1000) * MINUTE_S;
  if (rate_per_minute == 0)
    return refuse(minute_ms, retry_after_ms, err);
  int64_t now_us = policy_monotonic_us(policy);
  int64_t capacity = (burst == 0 ? 1 : (int64_t)burst) * UNIT;
  struct rate_bucket *bucket = bucket_get(policy, key, rate_per_minute, capacity, now_us);
  if (bucket == NULL)
    return refuse(1000, retry_after_ms, err);
  int64_t level = bucket_level(bucket, now_us);
  if (bucket->capacity != capacity ||
      bucket->rate_per_minute != rate_per_minute) { /* a changed limit counts from now */
    bucket->units = level = level < capacity ? level : capacity;
    bucket->updated_us = now_us;
    bucket->capacity = capacity;
    bucket->rate_per_minute = rate_per_minute;
  }
  if (level < UNIT) { /* the bucket stays as it is: refusals must not eat the fractions it gains */
    uint64_t missing = (uint64_t)(UNIT - level) * MINUTE_S;
    return refuse(missing / rate_per_minute / 1000 + 1, retry_after_ms, err);
  }
  bucket->units = level - UNIT;
  bucket->updated_us = now_us;
  return true;
}

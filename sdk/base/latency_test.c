/* latency_test.c: every duration lies in the bucket that ends above it. */
#include "sdk/base/latency.h"

#include "sdk/base/test.h"

START_TEST(a_duration_lies_between_the_ends_of_its_bucket_and_of_the_one_before) {
  for (int64_t us = 0; us < INT64_C(1) << 32; us = us * 9 / 8 + 1) {
    size_t bucket = latency_bucket(us);
    ck_assert_uint_lt((uint64_t)us, latency_bucket_end_us(bucket));
    ck_assert(bucket == 0 || (uint64_t)us >= latency_bucket_end_us(bucket - 1));
  }
}
END_TEST

START_TEST(what_is_too_short_or_too_long_has_a_bucket) {
  ck_assert_uint_eq(latency_bucket(-5), 0);
  ck_assert_uint_eq(latency_bucket(INT64_MAX), LATENCY_BUCKETS - 1);
}
END_TEST

TEST_MAIN("latency", a_duration_lies_between_the_ends_of_its_bucket_and_of_the_one_before,
          what_is_too_short_or_too_long_has_a_bucket)

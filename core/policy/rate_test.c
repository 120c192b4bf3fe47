/* rate_test.c: SPI-18: token buckets fill exactly, say when to come back, and never forget to make room. */
#include "core/policy/policy_test_support.h"

static bool take(struct policy *policy, const char *key, uint32_t rate, uint32_t burst, uint32_t *wait_ms) {
  struct error err = {0};
  bool taken = policy_rate_take(policy, key, rate, burst, wait_ms, &err);
  ck_assert(taken || error_is(&err, ERR_RATE_LIMIT_EXCEEDED));
  ck_assert(taken || (err.retryable && err.retry_after_ms >= 1));
  return taken;
}

START_TEST(spi18_burst_then_rate_then_retry_after) {
  struct policy *policy = policy_start((struct policy_options){0});
  uint32_t wait_ms = 0;
  for (int i = 0; i < 20; i++)
    ck_assert(take(policy, "tool:a", 100, 20, NULL));
  ck_assert(!take(policy, "tool:a", 100, 20, &wait_ms));
  ck_assert_uint_ge(wait_ms, 600); /* 100 a minute: one each 600 ms */
  ck_assert_uint_le(wait_ms, 601);
  ck_assert(take(policy, "tool:b", 100, 20, NULL)); /* another key, another bucket */
  clock_move_ms(599);
  ck_assert(!take(policy, "tool:a", 100, 20, NULL));
  clock_move_ms(2);
  ck_assert(take(policy, "tool:a", 100, 20, NULL));
  ck_assert(!take(policy, "tool:a", 100, 20, NULL));
  clock_move_ms(3600 * 1000);
  for (int i = 0; i < 20; i++)
    ck_assert(take(policy, "tool:a", 100, 20, NULL));
  ck_assert(!take(policy, "tool:a", 100, 20, NULL));
  policy_free(&policy);
}
END_TEST

START_TEST(spi18_hammering_does_not_starve_a_slow_bucket) {
  struct policy *policy = policy_start((struct policy_options){0});
  int taken = 0;
  for (int i = 0; i < 120000; i++) { /* a call each millisecond for two minutes, one a minute allowed */
    taken += policy_rate_take(policy, "k", 1, 1, NULL, NULL);
    clock_move_ms(1);
  }
  ck_assert_int_eq(taken, 2);
  policy_free(&policy);
}
END_TEST

START_TEST(spi18_edge_values_fail_closed) {
  struct policy *policy = policy_start((struct policy_options){0});
  ck_assert(!take(policy, "zero", 0, 10, NULL));
  ck_assert(take(policy, "one", 1, 0, NULL));
  ck_assert(!take(policy, "one", 1, 0, NULL));
  ck_assert(take(policy, "most", UINT32_MAX, UINT32_MAX, NULL));
  test_clock.monotonic_us = INT64_MAX / 2;
  ck_assert(take(policy, "most", UINT32_MAX, UINT32_MAX, NULL));
  test_clock.monotonic_us = 0; /* a clock that steps back gives nothing */
  ck_assert(!take(policy, "one", 0, 0, NULL));
  ck_assert(take(policy, "", 1, 1, NULL));
  policy_free(&policy);
}
END_TEST

START_TEST(spi18_a_lowered_limit_counts_at_once) {
  struct policy *policy = policy_start((struct policy_options){0});
  ck_assert(take(policy, "k", 6000, 100, NULL));
  ck_assert(take(policy, "k", 60, 1, NULL));
  ck_assert(!take(policy, "k", 60, 1, NULL));
  policy_free(&policy);
}
END_TEST

START_TEST(spi18_full_table_refuses_new_keys_and_forgets_only_full_buckets) {
  struct policy *policy = policy_start((struct policy_options){.rate_buckets_max = 4});
  const char *const keys[] = {"a", "b", "c", "d"};
  for (size_t i = 0; i < 4; i++)
    ck_assert(take(policy, keys[i], 60, 1, NULL));
  ck_assert(!take(policy, "e", 60, 1, NULL));
  for (size_t i = 0; i < 4; i++)
    ck_assert(!take(policy, keys[i], 60, 1, NULL)); /* nobody's limit was forgotten */
  clock_move_ms(1001);
  ck_assert(take(policy, "e", 60, 1, NULL));
  policy_free(&policy);
}
END_TEST

TEST_MAIN("core.policy.rate", spi18_burst_then_rate_then_retry_after, spi18_hammering_does_not_starve_a_slow_bucket,
          spi18_edge_values_fail_closed, spi18_a_lowered_limit_counts_at_once,
          spi18_full_table_refuses_new_keys_and_forgets_only_full_buckets)

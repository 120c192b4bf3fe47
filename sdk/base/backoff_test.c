/* backoff_test.c: the waits between tries (TRN-6). */
#include "sdk/base/backoff.h"

#include "sdk/base/test.h"

START_TEST(trn_6_waits_double_up_to_the_longest_with_a_fifth_of_jitter) {
  static const uint32_t middles[] = {50, 100, 200, 400, 800, 1600, 2000, 2000};
  for (unsigned failures = 1; failures <= sizeof(middles) / sizeof(middles[0]); failures++) {
    uint32_t middle = middles[failures - 1], least = UINT32_MAX, most = 0;
    for (int i = 0; i < 1000; i++) {
      uint32_t wait = backoff_ms(50, 2000, failures);
      least = wait < least ? wait : least;
      most = wait > most ? wait : most;
    }
    ck_assert_uint_ge(least, middle - middle / 5);
    ck_assert_uint_le(most, middle + middle / 5);
    ck_assert_msg(least < middle - middle / 8 && most > middle + middle / 8, "%u to %u", least, most);
  }
}
END_TEST

START_TEST(many_failures_and_no_wait_at_all_are_fine) {
  ck_assert_uint_le(backoff_ms(UINT32_MAX / 2, UINT32_MAX / 2, UINT32_MAX), UINT32_MAX / 2 + UINT32_MAX / 10);
  ck_assert_uint_eq(backoff_ms(0, 2000, 1), 0);
  ck_assert_uint_eq(backoff_ms(1, 2000, 1), 1);
}
END_TEST

TEST_MAIN("base.backoff", trn_6_waits_double_up_to_the_longest_with_a_fifth_of_jitter,
          many_failures_and_no_wait_at_all_are_fine)

/* backoff_test.c: the waits of LIF-7 as a table. */
#include "supervisor/backoff.h"

#include "sdk/base/test.h"

static const struct {
  const char *name;
  unsigned spent, waits;
  uint64_t uptime_ms;
  uint32_t random, wait_ms;
  unsigned spent_after, waits_after;
} cases[] = {
    {"a first death costs no wait", 0, 0, 5, 0, 0, 1, 0},
    {"the third in a row costs none", 2, 0, 0, 0, 0, 3, 0},
    {"the fourth waits 100 ms less jitter", 3, 0, 0, 0, 80, 3, 1},
    {"jitter reaches 20 % more", 3, 0, 0, 40, 120, 3, 1},
    {"the next doubles", 3, 1, 0, 40, 200, 3, 2},
    {"the ninth is 25.6 s", 3, 8, 0, 5120, 25600, 3, 9},
    {"then 30 s is the longest", 3, 9, 0, 0, 24000, 3, 9},
    {"never more than 30 s", 3, 9, 0, 12000, 30000, 3, 9},
    {"a second of life earns one credit", 3, 4, 1000, 0, 0, 3, 4},
    {"not quite a second earns none", 3, 0, 999, 0, 80, 3, 1},
    {"two seconds earn two", 3, 4, 2500, 0, 0, 2, 4},
    {"credit is at most three", 1, 0, 50000, 0, 0, 1, 0},
    {"sixty seconds forget everything", 3, 9, 60000, 0, 0, 1, 0},
    {"a very long life too", 3, 9, UINT64_MAX, 0, 0, 1, 0},
};

START_TEST(the_wait_follows_the_table) {
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct backoff backoff = {cases[i].spent, cases[i].waits};
    uint32_t wait_ms = backoff_next(&backoff, cases[i].uptime_ms, cases[i].random);
    ck_assert_msg(wait_ms == cases[i].wait_ms, "%s: %u", cases[i].name, wait_ms);
    ck_assert_msg(backoff.spent == cases[i].spent_after && backoff.waits == cases[i].waits_after, "%s: %u %u",
                  cases[i].name, backoff.spent, backoff.waits);
  }
}
END_TEST

START_TEST(a_crash_loop_never_gets_faster_and_ends_at_the_longest_wait) {
  struct backoff backoff = {0};
  uint32_t before = 0;
  for (int i = 0; i < 1000; i++) {
    uint32_t wait_ms = backoff_next(&backoff, 0, UINT32_MAX / 2);
    ck_assert_uint_le(wait_ms, BACKOFF_LONGEST_MS);
    if (i < 10)
      ck_assert_uint_ge(wait_ms + wait_ms / 2, before);
    before = wait_ms;
  }
  ck_assert_uint_ge(before, 24000);
}
END_TEST

TEST_MAIN("supervisor.backoff", the_wait_follows_the_table, a_crash_loop_never_gets_faster_and_ends_at_the_longest_wait)

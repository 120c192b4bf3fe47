/* backoff_test.c: the waits of LIF-7 as a table. */
#include "supervisor/backoff.h"

#include "sdk/base/test.h"

/* Ages in milliseconds; ready_ms -1: it never was. */
static const struct {
  const char *name;
  unsigned spent, waits;
  uint64_t uptime_ms;
  int64_t ready_ms;
  uint32_t random, wait_ms;
  unsigned spent_after, waits_after;
} cases[] = {
    {"a first death costs no wait", 0, 0, 5, 1, 0, 0, 1, 0},
    {"the third in a row costs none", 2, 0, 0, 0, 0, 0, 3, 0},
    {"the fourth waits 100 ms less jitter", 3, 0, 0, 0, 0, 80, 3, 1},
    {"jitter reaches 20 % more", 3, 0, 0, 0, 40, 120, 3, 1},
    {"the next doubles", 3, 1, 0, 0, 40, 200, 3, 2},
    {"the ninth is 25.6 s", 3, 8, 0, 0, 5120, 25600, 3, 9},
    {"then 30 s is the longest", 3, 9, 0, 0, 0, 24000, 3, 9},
    {"never more than 30 s", 3, 9, 0, 0, 12000, 30000, 3, 9},
    {"a second of life earns one credit", 3, 4, 1000, 900, 0, 0, 3, 4},
    {"not quite a second earns none", 3, 0, 999, 900, 0, 80, 3, 1},
    {"two seconds earn two", 3, 4, 2500, 2400, 0, 0, 2, 4},
    {"credit is at most three", 1, 0, 50000, 50000, 0, 0, 1, 0},
    {"sixty seconds ready forget everything", 3, 9, 60100, 60000, 0, 0, 1, 0},
    {"sixty seconds of which some were not ready do not", 3, 9, 60000, 59999, 0, 0, 1, 9},
    {"a very long life too", 3, 9, UINT64_MAX, INT64_MAX, 0, 0, 1, 0},
    {"one that was never ready is tried again once", 0, 0, 5, -1, 0, 0, 3, 0},
    {"and waits the second time", 3, 0, 5, -1, 0, 80, 3, 1},
    {"one that was never ready has no credit beside another's death", 1, 0, 5, -1, 0, 80, 3, 1},
    {"a long life that was never ready earns nothing", 3, 4, 600000, -1, 0, 1280, 3, 5},
};

START_TEST(the_wait_follows_the_table_lif_7) {
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct backoff backoff = {cases[i].spent, cases[i].waits};
    const struct backoff_life life = {.uptime_ms = cases[i].uptime_ms,
                                      .ready = cases[i].ready_ms >= 0,
                                      .ready_ms = cases[i].ready_ms >= 0 ? (uint64_t)cases[i].ready_ms : 0};
    uint32_t wait_ms = backoff_next(&backoff, &life, cases[i].random);
    ck_assert_msg(wait_ms == cases[i].wait_ms, "%s: %u", cases[i].name, wait_ms);
    ck_assert_msg(backoff.spent == cases[i].spent_after && backoff.waits == cases[i].waits_after, "%s: %u %u",
                  cases[i].name, backoff.spent, backoff.waits);
  }
}
END_TEST

START_TEST(a_life_without_hope_waits_from_the_first_time) {
  struct backoff backoff = {0};
  const struct backoff_life life = {.ready = true, .ready_ms = 30000, .uptime_ms = 30000, .hopeless = true};
  ck_assert_uint_eq(backoff_next(&backoff, &life, 0), 80);
  ck_assert_uint_eq(backoff_next(&backoff, &life, 0), 160);
}
END_TEST

START_TEST(a_crash_loop_never_gets_faster_and_ends_at_the_longest_wait) {
  struct backoff backoff = {0};
  const struct backoff_life life = {.ready = true};
  uint32_t before = 0;
  for (int i = 0; i < 1000; i++) {
    uint32_t wait_ms = backoff_next(&backoff, &life, UINT32_MAX / 2);
    ck_assert_uint_le(wait_ms, BACKOFF_LONGEST_MS);
    if (i < 10)
      ck_assert_uint_ge(wait_ms + wait_ms / 2, before);
    before = wait_ms;
  }
  ck_assert_uint_ge(before, 24000);
}
END_TEST

TEST_MAIN("supervisor.backoff", the_wait_follows_the_table_lif_7, a_life_without_hope_waits_from_the_first_time,
          a_crash_loop_never_gets_faster_and_ends_at_the_longest_wait)

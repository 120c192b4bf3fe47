/* verdict_test.c: the criteria of a probation, as a table. */
#include "core/lifecycle/verdict.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

struct side {
  uint64_t requests, errors, fast, slow; /* fast: in bucket 40, slow: in bucket 60 */
  uint64_t grown_mib;
};

static const struct {
  const char *name;
  struct side old, candidate;
  const char *why; /* NULL: it holds */
} rows[] = {
    {"nothing happened", {0}, {0}, NULL},
    {"nobody failed", {1000, 0, 1000, 0, 0}, {1000, 0, 1000, 0, 0}, NULL},
    {"five percent fail", {100, 0, 100, 0, 0}, {100, 5, 100, 0, 0}, "5.0 % of its 100 requests failed"},
    {"both fail alike", {100, 5, 100, 0, 0}, {100, 6, 100, 0, 0}, NULL},
    {"more than a point above", {100, 5, 100, 0, 0}, {100, 7, 100, 0, 0}, "7.0 % of its 100 requests failed"},
    {"too few to say", {100, 0, 100, 0, 0}, {19, 19, 19, 0, 0}, NULL},
    {"enough to say", {100, 0, 100, 0, 0}, {20, 2, 20, 0, 0}, "10.0 %"},
    {"one failure is no rate", {100, 0, 100, 0, 0}, {20, 1, 20, 0, 0}, NULL},
    {"the old one was not asked", {0}, {40, 2, 40, 0, 0}, "5.0 % of its 40 requests failed, and 0.0 % of the 0"},
    {"all slow", {100, 0, 100, 0, 0}, {100, 0, 0, 100, 0}, "50 % of its requests"},
    {"one in ten slow", {100, 0, 100, 0, 0}, {100, 0, 90, 10, 0}, "95 % of its requests"},
    {"one in fifty slow", {100, 0, 100, 0, 0}, {100, 0, 98, 2, 0}, NULL},
    {"both slow", {100, 0, 0, 100, 0}, {100, 0, 0, 100, 0}, NULL},
    {"too few times of the candidate", {100, 0, 100, 0, 0}, {49, 0, 0, 49, 0}, NULL},
    {"too few times of the old one", {49, 0, 49, 0, 0}, {100, 0, 0, 100, 0}, NULL},
    {"it grew", {0}, {0, 0, 0, 0, 257}, "it grew by 257 MiB"},
    {"it grew a little", {0}, {0, 0, 0, 0, 256}, NULL},
    {"the old one grew", {0, 0, 0, 0, 1000}, {0}, NULL},
};

/* What the core saw, while the old one and the candidate say that they served so many requests well. */
struct seen {
  uint64_t requests, errors, fast, slow, stalled;
};
static const struct {
  const char *name;
  uint64_t old_told, candidate_told;
  struct seen old, candidate;
  const char *why;
} seen_rows[] = {
    {"it lies",
     1000,
     1000,
     {100, 0, 100, 0, 0},
     {100, 5, 100, 0, 0},
     "5.0 % of its 100 calls that the core saw failed"},
    {"it counts nothing", 1000, 0, {100, 0, 100, 0, 0}, {20, 2, 20, 0, 0}, "10.0 % of its 20 calls"},
    {"it says that it is quick", 100, 100, {100, 0, 100, 0, 0}, {100, 0, 0, 100, 0}, "50 % of its calls that the core"},
    {"both are as they say", 100, 100, {100, 0, 100, 0, 0}, {100, 0, 100, 0, 0}, NULL},
    {"both fail alike", 0, 0, {100, 7, 0, 0, 0}, {100, 8, 0, 0, 0}, NULL},
    {"calls to it hang", 0, 0, {100, 0, 0, 0, 0}, {60, 0, 0, 0, 40}, "40.0 % of its 100"},
    {"calls to both hang", 0, 0, {60, 0, 0, 0, 40}, {60, 0, 0, 0, 40}, NULL},
};

static struct lifecycle_sample sample_of(const struct side *side) {
  struct lifecycle_sample sample = {.told = {.requests = side->requests, .errors = side->errors},
                                    .memory_bytes = side->grown_mib << 20};
  sample.told.latency[40] = side->fast;
  sample.told.latency[60] = side->slow;
  return sample;
}

START_TEST(a_candidate_is_judged_by_what_the_old_one_does_at_the_same_time_lif_9) {
  const struct lifecycle_criteria criteria = LIFECYCLE_CRITERIA_DEFAULT;
  const struct lifecycle_sample old = sample_of(&rows[_i].old), candidate = sample_of(&rows[_i].candidate);
  char why[256] = "";
  bool holds = lifecycle_verdict(&criteria, &old, &candidate, why, sizeof(why));
  ck_assert_msg(holds == !rows[_i].why, "%s: %s", rows[_i].name, why);
  ck_assert_msg(holds || strstr(why, rows[_i].why), "%s: %s", rows[_i].name, why);
}
END_TEST

static struct lifecycle_sample sample_seen(uint64_t told, const struct seen *seen) {
  struct lifecycle_sample sample = {.told = {.requests = told},
                                    .seen = {.requests = seen->requests, .errors = seen->errors},
                                    .stalled = seen->stalled};
  sample.told.latency[40] = told;
  sample.seen.latency[40] = seen->fast;
  sample.seen.latency[60] = seen->slow;
  return sample;
}

START_TEST(a_candidate_is_judged_by_what_the_core_sees_whatever_it_says_lif_9) {
  const struct lifecycle_criteria criteria = LIFECYCLE_CRITERIA_DEFAULT;
  const struct lifecycle_sample old = sample_seen(seen_rows[_i].old_told, &seen_rows[_i].old);
  const struct lifecycle_sample candidate = sample_seen(seen_rows[_i].candidate_told, &seen_rows[_i].candidate);
  char why[256] = "";
  bool holds = lifecycle_verdict(&criteria, &old, &candidate, why, sizeof(why));
  ck_assert_msg(holds == !seen_rows[_i].why, "%s: %s", seen_rows[_i].name, why);
  ck_assert_msg(holds || strstr(why, seen_rows[_i].why), "%s: %s", seen_rows[_i].name, why);
}
END_TEST

START_TEST(criteria_can_be_turned_off) {
  const struct lifecycle_criteria criteria = {.error_points = 100, .error_calls = 1};
  const struct side fast = {100, 0, 100, 0, 0}, bad = {100, 100, 0, 100, 100000};
  const struct lifecycle_sample old = sample_of(&fast), candidate = sample_of(&bad);
  char why[256];
  ck_assert(lifecycle_verdict(&criteria, &old, &candidate, why, sizeof(why)));
}
END_TEST

START_TEST(a_difference_that_nobody_notices_is_none) {
  const struct lifecycle_criteria criteria = LIFECYCLE_CRITERIA_DEFAULT;
  struct lifecycle_sample old = {0}, candidate = {0};
  char why[256];
  old.told.latency[20] = candidate.told.latency[28] = 100; /* 80 and 320 microseconds */
  ck_assert_uint_eq(lifecycle_latency_percentile(&candidate.told, 50), 4 * lifecycle_latency_percentile(&old.told, 50));
  ck_assert(lifecycle_verdict(&criteria, &old, &candidate, why, sizeof(why)));
}
END_TEST

START_TEST(counters_that_went_back_began_anew) {
  struct lifecycle_sample begin = {
      .told = {.requests = 100, .errors = 10}, .seen = {.requests = 5}, .stalled = 3, .memory_bytes = 5000};
  struct lifecycle_sample now = {
      .told = {.requests = 30, .errors = 12}, .seen = {.requests = 9}, .stalled = 2, .memory_bytes = 4000};
  begin.told.latency[3] = 7;
  now.told.latency[3] = 9;
  const struct lifecycle_sample since = lifecycle_sample_since(&begin, &now);
  ck_assert_uint_eq(since.told.requests, 30);
  ck_assert_uint_eq(since.told.errors, 2);
  ck_assert_uint_eq(since.told.latency[3], 2);
  ck_assert_uint_eq(since.seen.requests, 4);
  ck_assert_uint_eq(since.stalled, 2);
  ck_assert_uint_eq(since.memory_bytes, 0);
}
END_TEST

START_TEST(only_what_a_module_could_not_do_itself_speaks_against_it) {
  for (enum error_category category = ERROR_CATEGORY_NONE; category <= ERROR_CATEGORY_INTERNAL + 1; category++)
    ck_assert_int_eq(lifecycle_error_is_fault(category),
                     category == ERROR_CATEGORY_UNAVAILABLE || category == ERROR_CATEGORY_INTERNAL);
}
END_TEST

START_TEST(percentiles_are_the_ends_of_buckets) {
  struct lifecycle_tally sample = {0};
  ck_assert_uint_eq(lifecycle_latency_percentile(&sample, 50), 0);
  sample.latency[0] = 50;
  sample.latency[4] = 45; /* 4 microseconds */
  sample.latency[LATENCY_BUCKETS - 1] = 5;
  ck_assert_uint_eq(lifecycle_latency_percentile(&sample, 50), 1);
  ck_assert_uint_eq(lifecycle_latency_percentile(&sample, 51), 5);
  ck_assert_uint_eq(lifecycle_latency_percentile(&sample, 95), 5);
  ck_assert_uint_eq(lifecycle_latency_percentile(&sample, 96), 4ull << 31);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("verdict");
  TCase *cases = tcase_create("all");
  tcase_add_loop_test(cases, a_candidate_is_judged_by_what_the_old_one_does_at_the_same_time_lif_9, 0,
                      sizeof(rows) / sizeof(rows[0]));
  tcase_add_loop_test(cases, a_candidate_is_judged_by_what_the_core_sees_whatever_it_says_lif_9, 0,
                      sizeof(seen_rows) / sizeof(seen_rows[0]));
  tcase_add_test(cases, criteria_can_be_turned_off);
  tcase_add_test(cases, a_difference_that_nobody_notices_is_none);
  tcase_add_test(cases, counters_that_went_back_began_anew);
  tcase_add_test(cases, only_what_a_module_could_not_do_itself_speaks_against_it);
  tcase_add_test(cases, percentiles_are_the_ends_of_buckets);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

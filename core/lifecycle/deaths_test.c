/* deaths_test.c: restart intensity by a clock that the test moves (LIF-8). */
#include "core/lifecycle/deaths.h"
#include "sdk/base/test.h"

static const struct lifecycle_intensity usual = {.deaths = 5, .window_ms = 60000, .late_starts = 2};

#define GO_ON LIFECYCLE_VERDICT_GO_ON
#define TOO_OFTEN LIFECYCLE_VERDICT_TOO_OFTEN
#define TOO_LATE LIFECYCLE_VERDICT_TOO_LATE

/* Lives end at these times, all by a signal; the last verdict is the row's. */
static const struct {
  const char *what;
  int64_t at_ms[24];
  unsigned count;
  enum lifecycle_verdict last;
} lives[] = {
    {"five at once", {1, 2, 3, 4, 5}, 5, GO_ON},
    {"six at once", {1, 2, 3, 4, 5, 6}, 6, TOO_OFTEN},
    {"six within a minute less a millisecond", {0, 1, 2, 3, 4, 59999}, 6, TOO_OFTEN},
    {"six, the first a minute ago", {0, 1, 2, 3, 4, 60000}, 6, GO_ON},
    {"one every twelve seconds", {0, 12000, 24000, 36000, 48000, 60000, 72000}, 7, GO_ON},
    {"one every eleven seconds", {0, 11000, 22000, 33000, 44000, 55000}, 6, TOO_OFTEN},
    {"more than are kept",
     {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24},
     24,
     TOO_OFTEN},
};

START_TEST(more_than_five_deaths_in_a_minute_are_too_many_lif_8) {
  for (size_t row = 0; row < sizeof(lives) / sizeof(lives[0]); row++) {
    struct lifecycle_deaths deaths = {0};
    enum lifecycle_verdict verdict = GO_ON;
    for (unsigned i = 0; i < lives[row].count; i++)
      verdict = lifecycle_deaths_add(&deaths, &usual, LIFECYCLE_DEATH_SIGNAL, lives[row].at_ms[i]);
    ck_assert_msg(verdict == lives[row].last, "%s: %d", lives[row].what, verdict);
    ck_assert_uint_eq(deaths.by_cause[LIFECYCLE_DEATH_SIGNAL], lives[row].count);
  }
}
END_TEST

START_TEST(two_late_starts_in_a_row_are_too_many_lif_8) {
  struct lifecycle_deaths deaths = {0};
  ck_assert_int_eq(lifecycle_deaths_add(&deaths, &usual, LIFECYCLE_DEATH_START, 0), GO_ON);
  ck_assert_int_eq(lifecycle_deaths_add(&deaths, &usual, LIFECYCLE_DEATH_SIGNAL, 100000), GO_ON);
  ck_assert_int_eq(lifecycle_deaths_add(&deaths, &usual, LIFECYCLE_DEATH_START, 200000), TOO_LATE);
}
END_TEST

START_TEST(a_ready_life_between_forgets_the_late_start) {
  struct lifecycle_deaths deaths = {0};
  lifecycle_deaths_add(&deaths, &usual, LIFECYCLE_DEATH_START, 0);
  lifecycle_deaths_ready(&deaths);
  ck_assert_int_eq(lifecycle_deaths_add(&deaths, &usual, LIFECYCLE_DEATH_START, 1), GO_ON);
}
END_TEST

START_TEST(an_operator_who_releases_begins_anew_and_totals_stay) {
  struct lifecycle_deaths deaths = {0};
  for (int i = 0; i < 6; i++)
    lifecycle_deaths_add(&deaths, &usual, LIFECYCLE_DEATH_EXIT, i);
  lifecycle_deaths_forgive(&deaths);
  ck_assert_int_eq(lifecycle_deaths_add(&deaths, &usual, LIFECYCLE_DEATH_EXIT, 7), GO_ON);
  ck_assert_uint_eq(lifecycle_deaths_recent(&deaths, 60000, 7), 1);
  ck_assert_uint_eq(deaths.by_cause[LIFECYCLE_DEATH_EXIT], 7);
}
END_TEST

START_TEST(limits_of_zero_never_hold_anything_down) {
  static const struct lifecycle_intensity none = {.window_ms = 60000};
  struct lifecycle_deaths deaths = {0};
  for (int i = 0; i < 100; i++)
    ck_assert_int_eq(lifecycle_deaths_add(&deaths, &none, LIFECYCLE_DEATH_START, i), GO_ON);
}
END_TEST

START_TEST(a_bad_version_and_an_incident_have_names_of_their_own) {
  ck_assert_str_eq(lifecycle_death_kind_name(false), "bad version");
  ck_assert_str_eq(lifecycle_death_kind_name(true), "incident");
  ck_assert_str_eq(lifecycle_death_cause_name(LIFECYCLE_DEATH_MEMORY), "memory limit");
}
END_TEST

TEST_MAIN("lifecycle deaths", more_than_five_deaths_in_a_minute_are_too_many_lif_8,
          two_late_starts_in_a_row_are_too_many_lif_8, a_ready_life_between_forgets_the_late_start,
          an_operator_who_releases_begins_anew_and_totals_stay, limits_of_zero_never_hold_anything_down,
          a_bad_version_and_an_incident_have_names_of_their_own)

/* probe_test.c: thresholds of probes (LIF-4), answer by answer. */
#include "core/lifecycle/probe.h"
#include "sdk/base/test.h"

/* '+' an answer, '-' none; what is said at the last of them. */
static const struct {
  const char *answers;
  uint32_t failures, successes;
  enum lifecycle_probe_news last;
} rows[] = {
    {"-", 3, 1, LIFECYCLE_PROBE_SAME},      {"--", 3, 1, LIFECYCLE_PROBE_SAME},
    {"---", 3, 1, LIFECYCLE_PROBE_FAILED},  {"----", 3, 1, LIFECYCLE_PROBE_FAILED},
    {"--+--", 3, 1, LIFECYCLE_PROBE_SAME},  {"--+---", 3, 1, LIFECYCLE_PROBE_FAILED},
    {"-", 1, 1, LIFECYCLE_PROBE_FAILED},    {"+", 1, 1, LIFECYCLE_PROBE_PASSED},
    {"+", 1, 2, LIFECYCLE_PROBE_SAME},      {"++", 1, 2, LIFECYCLE_PROBE_PASSED},
    {"+-+", 2, 2, LIFECYCLE_PROBE_SAME},    {"+-++", 2, 2, LIFECYCLE_PROBE_PASSED},
    {"-+-+-+", 2, 2, LIFECYCLE_PROBE_SAME},
};

START_TEST(only_so_many_answers_in_a_row_are_news_lif_4) {
  for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
    const struct lifecycle_probe_config config = {.failures = rows[row].failures, .successes = rows[row].successes};
    struct lifecycle_probe probe = {0};
    enum lifecycle_probe_news news = LIFECYCLE_PROBE_SAME;
    for (const char *answer = rows[row].answers; *answer; answer++)
      news = lifecycle_probe_count(&probe, &config, *answer == '+');
    ck_assert_msg(news == rows[row].last, "%s with %u and %u: %d", rows[row].answers, rows[row].failures,
                  rows[row].successes, news);
  }
}
END_TEST

TEST_MAIN("lifecycle probe", only_so_many_answers_in_a_row_are_news_lif_4)

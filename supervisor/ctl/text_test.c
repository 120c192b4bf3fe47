/* text_test.c: what people read: durations, sizes, times, safe text, tables. */
#include <string.h>

#include "sdk/base/test.h"
#include "supervisor/ctl/ctl_internal.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

START_TEST(durations_are_short_and_exact_enough) {
  static const struct {
    uint64_t ms;
    const char *text;
  } cases[] = {{0, "0ms"},
               {999, "999ms"},
               {1000, "1s"},
               {59999, "59s"},
               {60000, "1m00s"},
               {200000, "3m20s"},
               {3600000, "1h00m"},
               {18120000, "5h02m"},
               {86400000, "1d00h"},
               {1051200000, "12d04h"},
               {UINT64_MAX, "213503982334d14h"}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    char text[32];
    ctl_duration_format(cases[i].ms, text);
    ck_assert_str_eq(text, cases[i].text);
  }
}
END_TEST

START_TEST(durations_are_read_or_refused) {
  static const struct {
    const char *text;
    bool ok;
    uint64_t ms;
  } cases[] = {{"8h", true, 28800000},
               {"90", true, 90000},
               {"250ms", true, 250},
               {"1h30m", true, 5400000},
               {"2d", true, 172800000},
               {"0s", true, 0},
               {"", false, 0},
               {"h", false, 0},
               {"8 h", false, 0},
               {"-5s", false, 0},
               {"1.5h", false, 0},
               {"5x", false, 0},
               {"1h30", false, 0},
               {"5sm", false, 0},
               {"200000d", false, 0},
               {"99999999999999999999s", false, 0},
               {"999999999999999999999999999999s", false, 0},
               {"18446744073709551615ms", false, 0}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    uint64_t ms = 0;
    ck_assert_msg(ctl_duration_parse(cases[i].text, &ms) == cases[i].ok, "%s", cases[i].text);
    if (cases[i].ok)
      ck_assert_msg(ms == cases[i].ms, "%s", cases[i].text);
  }
}
END_TEST

START_TEST(sizes_have_one_digit_behind_the_point_and_never_four_before_it) {
  static const struct {
    uint64_t bytes;
    const char *text;
  } cases[] = {{0, "0B"},
               {1023, "1023B"},
               {1024, "1.0K"},
               {1536, "1.5K"},
               {102400, "100K"},
               {1048575, "1.0M"},
               {24536679, "23.4M"},
               {UINT64_C(1) << 30, "1.0G"},
               {UINT64_MAX, "16.0E"}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    char text[32];
    ctl_bytes_format(cases[i].bytes, text);
    ck_assert_str_eq(text, cases[i].text);
  }
}
END_TEST

START_TEST(times_are_utc_and_nothing_is_a_dash) {
  char text[32];
  ctl_time_format(0, text);
  ck_assert_str_eq(text, "-");
  ctl_time_format(INT64_MAX, text);
  ck_assert_str_eq(text, "-");
  ctl_time_format(1795253400123, text);
  ck_assert_str_eq(text, "2026-11-21 09:30:00");
}
END_TEST

START_TEST(text_of_others_cannot_drive_the_terminal) {
  static const struct {
    const char *text, *safe;
  } cases[] = {{"plain", "plain"},
               {"a\nb\tc", "a b c"},
               {"\033[31mred", "?[31mred"},
               {"\xC2\x9B"
                "31m",
                "?31m"}, /* C1 CSI */
               {"bad \xFF byte", "bad \xEF\xBF\xBD byte"},
               {"cut \xE2\x82", "cut \xEF\xBF\xBD\xEF\xBF\xBD"},
               {"gr\xC3\xBC\xC3\x9F", "gr\xC3\xBC\xC3\x9F"},
               {"\xE2\x80\xAE"
                "evil",
                "?evil"}, /* right-to-left override */
               {"\x7F", "?"}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct buf safe = {0};
    ctl_text_append_safe(&safe, cases[i].text, strlen(cases[i].text));
    ck_assert_str_eq(safe.data, cases[i].safe);
    buf_free(&safe);
  }
}
END_TEST

START_TEST(columns_are_those_of_the_terminal) {
  ck_assert_uint_eq(ctl_text_columns("abc", 3), 3);
  ck_assert_uint_eq(ctl_text_columns("gr\xC3\xBC", 4), 3);
  ck_assert_uint_eq(ctl_text_columns("\xE6\x97\xA5\xE6\x9C\xAC", 6), 4);
  ck_assert_uint_eq(ctl_text_columns("e\xCC\x81", 3), 1);
  ck_assert_uint_eq(ctl_text_columns("\xFF", 1), 1);
}
END_TEST

static struct ctl_table *sample(void) {
  static const char *const heads[] = {"ID", "STATE", "REASON"};
  struct ctl_table *table = ctl_table_create(heads, 3);
  ctl_table_cell(table, "\xE6\x97\xA5\xE6\x9C\xAC");
  ctl_table_cell_coloured(table, "ready", CTL_COLOUR_GOOD);
  ctl_table_cell(table, NULL);
  ctl_table_cell(table, "mcp");
  ctl_table_cell_coloured(table, "failed", CTL_COLOUR_BAD);
  ctl_table_cell(table, "signal 9 (KILL), gr\xC3\xBC\xC3\x9F\x65 von hier");
  return table;
}

START_TEST(tables_are_aligned_and_complete_when_they_go_elsewhere) {
  struct ctl_table *table = sample();
  struct buf text = {0};
  ctl_table_write(table, 0, false, &text);
  ck_assert_str_eq(text.data, "ID    STATE   REASON\n"
                              "\xE6\x97\xA5\xE6\x9C\xAC  ready   -\n"
                              "mcp   failed  signal 9 (KILL), gr\xC3\xBC\xC3\x9F\x65 von hier\n");
  ctl_table_free(&table);
  ck_assert_ptr_null(table);
  buf_free(&text);
}
END_TEST

START_TEST(on_a_terminal_the_last_column_is_cut_and_states_are_coloured) {
  struct ctl_table *table = sample();
  struct buf text = {0};
  ctl_table_write(table, 35, true, &text);
  ck_assert_str_eq(text.data, "ID    STATE   REASON\n"
                              "\xE6\x97\xA5\xE6\x9C\xAC  \033[32mready\033[0m   -\n"
                              "mcp   \033[31mfailed\033[0m  signal 9 (KILL), gr\xC3\xBC\xE2\x80\xA6\n");
  ctl_table_free(&table);
  buf_free(&text);
}
END_TEST

START_TEST(json_is_indented_for_people) {
  struct buf text = {0};
  static const char json[] = "{\"a\":[1,{\"b\":\"x, y\"}],\"c\":{},\"d\":[]}";
  ctl_json_pretty(json, sizeof(json) - 1, &text);
  ck_assert_str_eq(text.data,
                   "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x, y\"\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}\n");
  buf_free(&text);
}
END_TEST

TEST_MAIN("ctl.text", durations_are_short_and_exact_enough, durations_are_read_or_refused,
          sizes_have_one_digit_behind_the_point_and_never_four_before_it, times_are_utc_and_nothing_is_a_dash,
          text_of_others_cannot_drive_the_terminal, columns_are_those_of_the_terminal,
          tables_are_aligned_and_complete_when_they_go_elsewhere,
          on_a_terminal_the_last_column_is_cut_and_states_are_coloured, json_is_indented_for_people)

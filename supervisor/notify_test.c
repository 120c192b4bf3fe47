/* notify_test.c: datagrams of children, well-formed and not. */
#include <string.h>

#include "sdk/base/str.h"
#include "sdk/base/test.h"
#include "supervisor/supervisor_internal.h"

static const struct {
  const char *data;
  size_t length;
  bool ready, watchdog, stopping, has_status;
  const char *status;
} cases[] = {
    {"READY=1", 7, true, false, false, false, ""},
    {"READY=1\nSTATUS=up\nWATCHDOG=1\n", 29, true, true, false, true, "up"},
    {"STOPPING=1\nX=y\n\n\n", 17, false, false, true, false, ""},
    {"READY=0", 7, false, false, false, false, ""},
    {"READY=11", 8, false, false, false, false, ""},
    {"ready=1", 7, false, false, false, false, ""},
    {"", 0, false, false, false, false, ""},
    {"STATUS=", 7, false, false, false, true, ""},
    {"STATUS=a\x1b[1m\x7f", 13, false, false, false, true, "a [1m "},
    {"STATUS=\xff\xfe", 9, false, false, false, false, NULL},
    {"STATUS", 6, false, false, false, false, ""},
    {"READY=1\0x", 9, false, false, false, false, ""},
};

START_TEST(a_datagram_is_parsed_by_the_table) {
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct notify_news news;
    notify_parse(cases[i].data, cases[i].length, &news);
    ck_assert_msg(news.ready == cases[i].ready && news.watchdog == cases[i].watchdog &&
                      news.stopping == cases[i].stopping && news.has_status == cases[i].has_status,
                  "case %zu: %s", i, cases[i].data);
    if (cases[i].status)
      ck_assert_str_eq(news.status, cases[i].status);
  }
}
END_TEST

START_TEST(a_long_status_is_cut_at_a_whole_character) {
  char data[7 + 300] = "STATUS=";
  memset(data + 7, 'a', 300);
  memcpy(data + 7 + CHILD_TEXT_BYTES - 2, "\xc3\xa9", 2);
  struct notify_news news;
  notify_parse(data, sizeof(data), &news);
  ck_assert_uint_eq(strlen(news.status), CHILD_TEXT_BYTES - 2);
  ck_assert(news.has_status && str_is_utf8(news.status, strlen(news.status)));
}
END_TEST

TEST_MAIN("supervisor.notify", a_datagram_is_parsed_by_the_table, a_long_status_is_cut_at_a_whole_character)

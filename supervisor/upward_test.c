/* upward_test.c: where to notify, how often to ping, and what is said about what is served. */
#include <stddef.h>
#include <string.h>

#include "sdk/base/test.h"
#include "supervisor/supervisor_internal.h"

#define BEFORE_PATH offsetof(struct sockaddr_un, sun_path)

START_TEST(a_notify_socket_is_a_path_or_an_abstract_name) {
  static const struct {
    const char *text;
    bool ok;
    size_t length; /* of the path's part of the address */
    char first;
  } cases[] = {
      {"/run/systemd/notify", true, 20, '/'},
      {"@abstract", true, 9, '\0'},
      {"@", false, 0, 0},
      {"/", false, 0, 0},
      {"", false, 0, 0},
      {NULL, false, 0, 0},
      {"vsock:2:1234", false, 0, 0},
      {"run/notify", false, 0, 0},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct sockaddr_un address;
    socklen_t length = 0;
    ck_assert_msg(upward_address(cases[i].text, &address, &length) == cases[i].ok, "case %zu", i);
    if (!cases[i].ok)
      continue;
    ck_assert_uint_eq(length, BEFORE_PATH + cases[i].length);
    ck_assert_int_eq(address.sun_path[0], cases[i].first);
    ck_assert_mem_eq(address.sun_path + 1, cases[i].text + 1, strlen(cases[i].text) - 1);
  }
}
END_TEST

START_TEST(a_notify_socket_of_full_length_fits_and_a_longer_one_is_refused) {
  char text[200];
  struct sockaddr_un address;
  socklen_t length;
  memset(text, 'x', sizeof(text));
  text[0] = '/';
  text[sizeof(address.sun_path) - 1] = '\0';
  ck_assert(upward_address(text, &address, &length));
  ck_assert_uint_eq(length, sizeof(address));
  text[sizeof(address.sun_path) - 1] = 'x';
  text[sizeof(address.sun_path)] = '\0';
  ck_assert(!upward_address(text, &address, &length));
}
END_TEST

START_TEST(the_watchdog_is_on_only_for_this_process_and_for_a_sane_interval) {
  static const struct {
    const char *interval, *pid;
    uint64_t expected;
  } cases[] = {
      {"30000000", NULL, 30000000},
      {"30000000", "77", 30000000},
      {"30000000", "78", 0},
      {"30000000", "x", 0},
      {NULL, "77", 0},
      {"", NULL, 0},
      {"0", NULL, 0},
      {"1999", NULL, 0},
      {"2000", NULL, 2000},
      {"-5", NULL, 0},
      {"18446744073709551615", NULL, 0},
      {"99999999999999999999", NULL, 0},
      {"7200000000", NULL, 7200000000},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
    ck_assert_msg(upward_watchdog_us(cases[i].interval, cases[i].pid, 77) == cases[i].expected, "case %zu", i);
}
END_TEST

static struct config_module modules[3] = {
    {.id = "mcp", .enabled = true}, {.id = "rest", .enabled = true}, {.id = "console", .enabled = false}};

/* The core and three modules, the last one switched off. */
static void fill(struct supervisor *supervisor, struct child *children, enum child_state core, bool mcp, bool rest) {
  memset(children, 0, 4 * sizeof(*children));
  *supervisor = (struct supervisor){.children = children, .child_count = 4};
  children[0] = (struct child){.id = "core", .is_core = true, .state = core};
  for (int i = 0; i < 3; i++) {
    bool ready = i == 0 ? mcp : i == 1 && rest;
    children[i + 1] = (struct child){
        .id = modules[i].id, .config = &modules[i], .ready = ready, .state = ready ? CHILD_STARTING : CHILD_BACKOFF};
  }
}

START_TEST(the_status_says_what_is_served_and_who_is_missing) {
  struct supervisor supervisor;
  struct child children[4];
  char text[UPWARD_STATUS_BYTES];
  fill(&supervisor, children, CHILD_STARTING, false, false);
  upward_status_write(&supervisor, text, sizeof(text));
  ck_assert_str_eq(text, "starting: the core is being started");
  fill(&supervisor, children, CHILD_UP, true, false);
  upward_status_write(&supervisor, text, sizeof(text));
  ck_assert_str_eq(text, "starting: 1 of 2 modules ready; not ready: rest");
  supervisor.upward.announced = true;
  upward_status_write(&supervisor, text, sizeof(text));
  ck_assert_str_eq(text, "degraded: 1 of 2 modules ready; not ready: rest");
  fill(&supervisor, children, CHILD_UP, true, true);
  upward_status_write(&supervisor, text, sizeof(text));
  ck_assert_str_eq(text, "serving: 2 of 2 modules ready");
  supervisor.upward.announced = true;
  children[0].state = CHILD_BACKOFF;
  children[0].deaths = 1;
  upward_status_write(&supervisor, text, sizeof(text));
  ck_assert_str_eq(text, "degraded: the core is down; it is being started again");
}
END_TEST

START_TEST(the_core_is_alive_while_it_starts_and_while_its_sign_of_life_is_fresh) {
  struct supervisor supervisor;
  struct child children[4];
  fill(&supervisor, children, CHILD_STARTING, true, true);
  supervisor.upward.watchdog_us = 1000000;
  ck_assert(upward_core_is_alive(&supervisor, 900000000));
  children[0].state = CHILD_BACKOFF;
  ck_assert(upward_core_is_alive(&supervisor, 900000000));
  children[0].state = CHILD_UP;
  children[0].alive_us = 5000000;
  ck_assert(upward_core_is_alive(&supervisor, 5500000));
  ck_assert(!upward_core_is_alive(&supervisor, 5500001));
}
END_TEST

START_TEST(sockets_are_handed_by_count_and_name) {
  static const struct {
    const char *pid, *count, *names;
    int expected;
    const char *first, *second;
  } cases[] = {
      {"9", "2", "mcp:console", 2, "mcp", "console"},
      {"9", "2", "mcp", 2, "mcp", ""},
      {"9", "2", NULL, 2, "", ""},
      {"9", "2", ":b", 2, "", "b"},
      {"9", "2", "a:b:c", 2, "a", "b"},
      {"9", "0", "", 0, NULL, NULL},
      {"8", "2", "a:b", 0, NULL, NULL},
      {NULL, "2", "a:b", 0, NULL, NULL},
      {"9", NULL, "a:b", 0, NULL, NULL},
      {"9", "-1", NULL, -1, NULL, NULL},
      {"9", "65", NULL, -1, NULL, NULL},
      {"9", "x", NULL, -1, NULL, NULL},
      {"x", "1", NULL, -1, NULL, NULL},
      {"9", "18446744073709551616", NULL, -1, NULL, NULL},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct handed handed[HANDED_MAX];
    struct error err = {0};
    int count = handed_parse(cases[i].pid, cases[i].count, cases[i].names, 9, handed, &err);
    ck_assert_msg(count == cases[i].expected, "case %zu: %d", i, count);
    ck_assert(error_is_set(&err) == (count < 0));
    if (count < 2)
      continue;
    ck_assert(handed[0].fd == 3 && handed[1].fd == 4);
    ck_assert_str_eq(handed[0].name, cases[i].first);
    ck_assert_str_eq(handed[1].name, cases[i].second);
  }
}
END_TEST

TEST_MAIN("supervisor.upward", a_notify_socket_is_a_path_or_an_abstract_name,
          a_notify_socket_of_full_length_fits_and_a_longer_one_is_refused,
          the_watchdog_is_on_only_for_this_process_and_for_a_sane_interval,
          the_status_says_what_is_served_and_who_is_missing,
          the_core_is_alive_while_it_starts_and_while_its_sign_of_life_is_fresh, sockets_are_handed_by_count_and_name)

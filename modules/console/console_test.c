/* console_test.c: who is served: configurations, host names, addresses of listeners. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "modules/console/console.h"
#include "sdk/base/test.h"

static const struct {
  const char *json;
  bool accepted, allow;
} configs[] = {
    {"{}", true, false},
    {"{\"allowNonLoopback\": true}", true, true},
    {"{\"allowNonLoopback\": false}", true, false},
    {"{\"allowNonLoopback\": 1}", false, false},
    {"{\"allowNonLoopback\": \"true\"}", false, false},
    {"{\"allownonloopback\": true}", false, false},
    {"[]", false, false},
    {"", false, false},
    {"{\"allowNonLoopback\": true", false, false},
};

START_TEST(a_configuration_is_read_strictly) {
  for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
    struct console_config config = {.allow_non_loopback = false};
    struct error err = {0};
    bool accepted = console_config_read(configs[i].json, strlen(configs[i].json), &config, &err);
    ck_assert_msg(accepted == configs[i].accepted, "%s", configs[i].json);
    ck_assert_msg(config.allow_non_loopback == configs[i].allow, "%s", configs[i].json);
    ck_assert_msg(accepted || error_is(&err, ERR_MODULE_CONFIG), "%s: %s", configs[i].json, err.code);
  }
}
END_TEST

static const struct {
  const char *host;
  bool local;
} hosts[] = {
    {"localhost", true},
    {"LOCALHOST:9464", true},
    {"127.0.0.1", true},
    {"127.0.0.1:9464", true},
    {"127.8.9.10:1", true},
    {"[::1]", true},
    {"[::1]:9464", true},
    {NULL, false},
    {"", false},
    {"example.com", false},
    {"localhost.evil", false},
    {"127.0.0.1.evil", false},
    {"127.0.0.1:", false},
    {"127.0.0.1:80x", false},
    {"10.0.0.1", false},
    {"[::2]", false},
    {"[::1", false},
    {"[::1]x", false},
    {"[localhost]", false},
    {"::1", false},
    {"[127.0.0.1]", false},
    {"0x7f.1", false},
    {"[::ffff:127.0.0.1]", false},
    {"localhost:80:80", false},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
};

START_TEST(only_names_of_this_machine_are_local) {
  for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
    ck_assert_msg(console_host_is_local(hosts[i].host) == hosts[i].local, "%s", hosts[i].host ? hosts[i].host : "-");
}
END_TEST

static int bound_to(const char *text) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  ck_assert_int_eq(inet_pton(AF_INET, text, &address.sin_addr), 1);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
  return fd;
}

START_TEST(a_listener_that_others_reach_needs_the_operators_word) {
  const struct console_config strict = {0}, open = {.allow_non_loopback = true};
  struct error err = {0};
  int loopback = bound_to("127.0.0.1"), any = bound_to("0.0.0.0");
  ck_assert(console_listener_check(loopback, &strict, NULL));
  ck_assert(!console_listener_check(any, &strict, &err));
  ck_assert(error_is(&err, ERR_MODULE_CONFIG));
  ck_assert(console_listener_check(any, &open, NULL));
  close(loopback);
  close(any);
}
END_TEST

START_TEST(a_unix_socket_is_local_and_a_closed_one_is_nothing) {
  const struct console_config strict = {0};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ck_assert(console_listener_check(fd, &strict, NULL));
  close(fd);
  ck_assert(!console_listener_check(fd, &strict, NULL));
}
END_TEST

TEST_MAIN("console", a_configuration_is_read_strictly, only_names_of_this_machine_are_local,
          a_listener_that_others_reach_needs_the_operators_word, a_unix_socket_is_local_and_a_closed_one_is_nothing)

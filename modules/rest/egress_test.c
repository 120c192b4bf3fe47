/* egress_test.c: one client per policy, and not without bound (RST-2). */
#include <event2/event.h>
#include <stdio.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/test.h"
#include "sdk/http/http_server.h"

static char *text(const char *value) {
  return (char *)(uintptr_t)value;
}

START_TEST(equal_policies_share_a_client) {
  struct event_base *base = http_event_base_new();
  struct rest_clients *clients = rest_clients_create(base);
  char *one[] = {text("127.0.0.1:80"), text("10.0.0.0/8")}, *other[] = {text("127.0.0.1:81")},
       *https[] = {text("https")};
  core_common_v1_EgressPolicy a = {.allow_count = 2, .allow = one, .redirects_max = 1},
                              b = {.allow_count = 2, .allow = one};
  core_common_v1_EgressPolicy c = {.allow_count = 1, .allow = other};
  core_common_v1_EgressPolicy d = {.allow_count = 1, .allow = other, .schemes_count = 1, .schemes = https};
  struct http_client *first = rest_clients_get(clients, &a, NULL);
  ck_assert_ptr_nonnull(first);
  ck_assert_ptr_eq(rest_clients_get(clients, &b, NULL), first);
  ck_assert_ptr_ne(rest_clients_get(clients, &c, NULL), first);
  ck_assert_ptr_ne(rest_clients_get(clients, &d, NULL), rest_clients_get(clients, &c, NULL));
  ck_assert_ptr_ne(rest_clients_get(clients, NULL, NULL), first);
  ck_assert_uint_eq(rest_clients_count(clients), 4);
  rest_clients_free(&clients);
  event_base_free(base);
}
END_TEST

START_TEST(the_least_used_client_goes) {
  struct event_base *base = http_event_base_new();
  struct rest_clients *clients = rest_clients_create(base);
  struct http_client *kept = rest_clients_get(clients, NULL, NULL);
  for (int i = 0; i < 100; i++) {
    char address[32];
    snprintf(address, sizeof(address), "10.0.0.%d", i);
    char *allow[] = {address};
    ck_assert_ptr_nonnull(
        rest_clients_get(clients, &(core_common_v1_EgressPolicy){.allow_count = 1, .allow = allow}, NULL));
    ck_assert_ptr_eq(rest_clients_get(clients, NULL, NULL), kept);
  }
  ck_assert_uint_eq(rest_clients_count(clients), 32);
  rest_clients_free(&clients);
  event_base_free(base);
}
END_TEST

START_TEST(what_cannot_be_read_denies) {
  static const struct {
    const char *allow, *scheme;
    enum error_code code;
  } rows[] = {
      {"10.0.0.0/99", "http", ERR_ARGUMENT_INVALID},
      {"", "http", ERR_ARGUMENT_INVALID},
      {"http://x/", "http", ERR_ARGUMENT_INVALID},
      {"10.0.0.0/8:80", "http", ERR_ARGUMENT_INVALID},
      {"x", "ftp", ERR_HTTP_URL_BLOCKED},
      {"x", "", ERR_HTTP_URL_BLOCKED},
  };
  struct event_base *base = http_event_base_new();
  struct rest_clients *clients = rest_clients_create(base);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    char *allow[] = {text(rows[i].allow)}, *schemes[] = {text(rows[i].scheme)};
    struct error err = {0};
    core_common_v1_EgressPolicy policy = {.allow_count = 1, .allow = allow, .schemes_count = 1, .schemes = schemes};
    ck_assert_ptr_null(rest_clients_get(clients, &policy, &err));
    ck_assert_msg(error_is(&err, rows[i].code), "%s: %s", rows[i].allow, err.code);
  }
  ck_assert_uint_eq(rest_clients_count(clients), 0);
  rest_clients_free(&clients);
  event_base_free(base);
}
END_TEST

TEST_MAIN("rest.egress", equal_policies_share_a_client, the_least_used_client_goes, what_cannot_be_read_denies)

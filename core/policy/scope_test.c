/* scope_test.c: SPI-20: addresses, hours and days that narrow a credential, with a clock that the test moves. */
#include "core/policy/policy_test_support.h"

static const struct {
  const char *cidr;
  const char *address;
  bool contains;
} cidr_rows[] = {
    {"192.0.2.0/24", "192.0.2.7", true},
    {"192.0.2.0/24", "192.0.3.7", false},
    {"192.0.2.129/25", "192.0.2.200", true},
    {"192.0.2.128/25", "192.0.2.127", false},
    {"192.0.2.7", "192.0.2.7", true},
    {"192.0.2.7/32", "192.0.2.8", false},
    {"0.0.0.0/0", "203.0.113.9", true},
    {"0.0.0.0/0", "2001:db8::1", false},
    {"2001:db8::/32", "2001:db8:5::1", true},
    {"2001:db8::/33", "2001:db8:8000::1", false},
    {"::/0", "2001:db8::1", true},
    {"::/0", "192.0.2.7", false},
    {"192.0.2.0/24", "::ffff:192.0.2.7", true},
    {"::ffff:192.0.2.0/120", "192.0.2.7", true},
    {"192.0.2.0/24", NULL, false},
    {"192.0.2.0/24", "", false},
    {"192.0.2.0/24", "192.0.2", false},
    {"192.0.2.0/24", "192.0.2.7:443", false},
    {"fe80::/10", "fe80::1%eth0", false},
    {"192.0.2.0/24", "0300.0.2.7", false},
};

START_TEST(spi20_cidr_blocks_contain_what_they_should) {
  for (size_t i = 0; i < COUNT(cidr_rows); i++)
    ck_assert_msg(scope_cidr_contains(cidr_rows[i].cidr, cidr_rows[i].address) == cidr_rows[i].contains, "%s in %s",
                  cidr_rows[i].address, cidr_rows[i].cidr);
}
END_TEST

START_TEST(spi20_malformed_cidr_blocks_are_refused) {
  static const char *const bad[] = {
      "",       "192.0.2.0/33",  "192.0.2.0/", "192.0.2.0/-1", "192.0.2.0/024",      "192.0.2/24",
      "::/129", "192.0.2.0/2 4", "x",          "/8",           "::ffff:192.0.2.0/24"};
  for (size_t i = 0; i < COUNT(bad); i++)
    ck_assert_msg(!scope_cidr_valid(bad[i]), "%s", bad[i]);
  ck_assert(!scope_cidr_valid(NULL));
}
END_TEST

/* Hours after Tuesday 2026-07-28T10:00:00Z. */
static const struct {
  double hours;
  bool business;
  bool weekdays;
  bool allowed;
  double end_hours; /* 0: never or not allowed */
} time_rows[] = {
    {0, true, false, true, 7},      {-1, true, false, true, 7},  {-1.001, true, false, false, 0},
    {6.999, true, false, true, 7},  {7, true, false, false, 0},  {0, false, true, true, 86},
    {85.99, false, true, true, 86}, {86, false, true, false, 0}, {133.99, false, true, false, 0},
    {134, false, true, true, 254},  {96, true, true, false, 0},  {96, true, false, true, 103},
    {0, false, false, true, 0},     {14, true, true, false, 0},  {24, true, true, true, 31},
};

START_TEST(spi20_business_hours_and_weekdays_are_utc_and_end_on_time) {
  for (size_t i = 0; i < COUNT(time_rows); i++) {
    struct policy_scope scope = {.business_hours_only = time_rows[i].business, .weekdays_only = time_rows[i].weekdays};
    int64_t at_us = (NOW_S + (int64_t)(time_rows[i].hours * 3600)) * SECOND_US;
    ck_assert_msg(scope_time_allowed(&scope, at_us) == time_rows[i].allowed, "row %zu", i);
    if (time_rows[i].end_hours > 0) {
      int64_t end_us = (NOW_S + (int64_t)(time_rows[i].end_hours * 3600)) * SECOND_US;
      ck_assert_msg(scope_window_end_us(&scope, at_us) == end_us, "end of row %zu", i);
    }
  }
}
END_TEST

static enum error_code resolve_from(struct policy *policy, const char *header, const char *address,
                                    const char *server) {
  struct error err = {0};
  const struct policy_context *context = NULL;
  struct policy_credentials credentials = presented(&header);
  credentials.client_address = address;
  credentials.server_id = server;
  if (policy_resolve(policy, &credentials, &context, &err))
    return ERR_NONE;
  return error_is(&err, ERR_AUTH_SCOPE) ? ERR_AUTH_SCOPE : ERR_INTERNAL;
}

START_TEST(spi20_a_restricted_token_works_only_from_its_addresses_and_server) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct policy_token_request request = {
      .user_email = "dev@x",
      .scope = {.server_id = "s1",
                .ip_restrictions = (const char *const[]){"192.0.2.0/24", "2001:db8::/32"},
                .ip_restriction_count = 2}};
  struct made_token token = token_make(policy, request);
  ck_assert_int_eq(resolve_from(policy, token.header, "192.0.2.7", NULL), ERR_NONE);
  ck_assert_int_eq(resolve_from(policy, token.header, "2001:db8::5", "s1"), ERR_NONE);
  ck_assert_int_eq(resolve_from(policy, token.header, "198.51.100.1", NULL), ERR_AUTH_SCOPE);
  ck_assert_int_eq(resolve_from(policy, token.header, NULL, NULL), ERR_AUTH_SCOPE);
  ck_assert_int_eq(resolve_from(policy, token.header, "192.0.2.7", "s2"), ERR_AUTH_SCOPE);
  ck_assert_int_eq(resolve_from(policy, token.header, "192.0.2.7", "s 1"), ERR_AUTH_SCOPE);
  ck_assert_str_eq(resolve(policy, token.header, ERR_NONE)->scope.server_id, "s1");
  policy_free(&policy);
}
END_TEST

START_TEST(spi20_a_context_ends_with_its_time_window) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct policy_token_request request = {.user_email = "dev@x", .scope = {.business_hours_only = true}};
  struct made_token token = token_make(policy, request);
  clock_move_ms((7 * 3600 - 10) * 1000); /* ten seconds before 17:00 */
  const struct policy_context *context = resolve(policy, token.header, ERR_NONE);
  ck_assert_int_eq(context->expires_at_ms, (NOW_S + 7 * 3600) * 1000);
  ck_assert_ptr_eq(resolve(policy, token.header, ERR_NONE), context);
  clock_move_ms(10000);
  resolve(policy, token.header, ERR_AUTH_SCOPE);
  policy_free(&policy);
}
END_TEST

START_TEST(spi20_scopes_that_are_not_understood_are_refused) {
  static const struct {
    const char *json;
    bool accepted;
  } scopes[] = {
      {"null", true},
      {"{}", true},
      {"{\"server_id\":null,\"permissions\":null,\"ip_restrictions\":null,\"time_restrictions\":null}", true},
      {"{\"permissions\":[\"tools.read\"],\"usage_limits\":{}}", true},
      {"{\"time_restrictions\":{\"weekdays_only\":true}}", true},
      {"{\"usage_limits\":{\"requests_per_hour\":5}}", false},
      {"{\"permissions\":\"tools.read\"}", false},
      {"{\"permissions\":[1]}", false},
      {"{\"ip_restrictions\":[\"10.0.0.0/99\"]}", false},
      {"{\"server_id\":7}", false},
      {"{\"server_id\":\"a b\"}", false},
      {"{\"time_restrictions\":{\"weekdays_only\":\"yes\"}}", false},
      {"{\"time_restrictions\":{\"moon\":true}}", false},
      {"{\"only_on_mars\":true}", false},
      {"[]", false},
      {"\"tools.read\"", false},
  };
  for (size_t i = 0; i < COUNT(scopes); i++) {
    struct arena *arena = arena_create(0);
    json_t *json = json_loads(scopes[i].json, JSON_DECODE_ANY, NULL);
    struct policy_scope scope;
    ck_assert_msg(scope_from_json(arena, json, &scope) == scopes[i].accepted, "%s", scopes[i].json);
    json_decref(json);
    arena_free(&arena);
  }
}
END_TEST

TEST_MAIN("core.policy.scope", spi20_cidr_blocks_contain_what_they_should, spi20_malformed_cidr_blocks_are_refused,
          spi20_business_hours_and_weekdays_are_utc_and_end_on_time,
          spi20_a_restricted_token_works_only_from_its_addresses_and_server, spi20_a_context_ends_with_its_time_window,
          spi20_scopes_that_are_not_understood_are_refused)

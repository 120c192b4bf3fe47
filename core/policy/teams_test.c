/* teams_test.c: SPI-4: every row of the tables for normalize_token_teams and resolve_session_teams (protocols.md 5.6).
 */
#include "core/policy/policy_test_support.h"

struct normal_row {
  const char *row;
  const char *claims;
  bool null;
  const char *teams; /* joined by "," */
};

static const struct normal_row normal_rows[] = {
    {"1 key missing", "{}", false, ""},
    {"1 key missing, admin", "{\"is_admin\":true}", false, ""},
    {"1 key missing, admin in user", "{\"user\":{\"is_admin\":true}}", false, ""},
    {"2 null, admin", "{\"teams\":null,\"is_admin\":true}", true, ""},
    {"2 null, admin in user", "{\"teams\":null,\"user\":{\"is_admin\":true}}", true, ""},
    {"3 null, not admin", "{\"teams\":null}", false, ""},
    {"3 null, admin false", "{\"teams\":null,\"is_admin\":false,\"user\":{\"is_admin\":false}}", false, ""},
    {"3 null, admin as text", "{\"teams\":null,\"is_admin\":\"true\"}", false, ""},
    {"3 null, admin as number", "{\"teams\":null,\"is_admin\":1}", false, ""},
    {"3 null, user no object", "{\"teams\":null,\"user\":\"is_admin\"}", false, ""},
    {"4 empty list", "{\"teams\":[]}", false, ""},
    {"4 empty list, admin", "{\"teams\":[],\"is_admin\":true}", false, ""},
    {"5 list of strings", "{\"teams\":[\"a\",\"b\"]}", false, "a,b"},
    {"5 list, admin", "{\"teams\":[\"a\"],\"is_admin\":true}", false, "a"},
    {"5 list of objects", "{\"teams\":[{\"id\":\"a\"},{\"id\":7}]}", false, "a,7"},
    {"5 mixed", "{\"teams\":[\"a\",{\"id\":\"b\",\"name\":\"x\"},3,null,true,[\"c\"],{\"name\":\"d\"}]}", false, "a,b"},
    {"5 all invalid", "{\"teams\":[1,null,{},{\"id\":null},\"\",\"a b\"]}", false, ""},
    {"5 all invalid, admin", "{\"teams\":[null],\"is_admin\":true}", false, ""},
    {"6 bare string", "{\"teams\":\"red\"}", false, ""},
    {"6 bare string, admin", "{\"teams\":\"red\",\"is_admin\":true}", false, ""},
    {"6 object", "{\"teams\":{\"id\":\"red\"}}", false, ""},
    {"6 number", "{\"teams\":5}", false, ""},
    {"6 true, admin", "{\"teams\":true,\"is_admin\":true}", false, ""},
};

static void assert_teams(const char *row, const struct policy_teams *teams, bool null, const char *expected) {
  struct buf joined = {0};
  for (size_t i = 0; i < teams->count; i++)
    buf_printf(&joined, "%s%s", i == 0 ? "" : ",", teams->ids[i]);
  ck_assert_msg(teams->kind == (null ? POLICY_TEAMS_NULL : POLICY_TEAMS_LIST), "%s: kind", row);
  ck_assert_msg(strcmp(joined.data == NULL ? "" : joined.data, expected) == 0, "%s: %s", row, joined.data);
  buf_free(&joined);
}

START_TEST(spi4_normalize_token_teams_follows_every_row) {
  for (size_t i = 0; i < COUNT(normal_rows); i++) {
    const struct normal_row *row = &normal_rows[i];
    struct arena *arena = arena_create(0);
    json_t *claims = json_loads(row->claims, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(claims);
    struct policy_teams teams = policy_normalize_token_teams(arena, claims);
    assert_teams(row->row, &teams, row->null, row->teams);
    json_decref(claims);
    arena_free(&arena);
  }
}
END_TEST

START_TEST(spi4_a_list_beyond_the_bound_is_public_only) {
  struct arena *arena = arena_create(0);
  json_t *claims = json_pack("{s:[]}", "teams");
  for (int i = 0; i <= POLICY_LIST_MAX; i++)
    json_array_append_new(json_object_get(claims, "teams"), json_string("a"));
  struct policy_teams teams = policy_normalize_token_teams(arena, claims);
  assert_teams("too long", &teams, false, "");
  json_decref(claims);
  arena_free(&arena);
}
END_TEST

static const char *const list_red[] = {"red"};
static const char *const list_both[] = {"red", "blue"};
static const char *const list_blue[] = {"blue"};

static const struct {
  const char *row;
  struct policy_teams teams;
  bool admin;
  bool null;
  const char *expected;
} stored_rows[] = {
    {"absent", {.kind = POLICY_TEAMS_ABSENT}, true, false, ""},
    {"null, admin", {.kind = POLICY_TEAMS_NULL}, true, true, ""},
    {"null", {.kind = POLICY_TEAMS_NULL}, false, false, ""},
    {"empty, admin", {.kind = POLICY_TEAMS_LIST}, true, false, ""},
    {"list", {POLICY_TEAMS_LIST, list_both, 2}, false, false, "red,blue"},
};

START_TEST(spi4_stored_teams_follow_the_same_rule) {
  for (size_t i = 0; i < COUNT(stored_rows); i++) {
    struct policy_teams teams = policy_normalize_stored_teams(&stored_rows[i].teams, stored_rows[i].admin);
    assert_teams(stored_rows[i].row, &teams, stored_rows[i].null, stored_rows[i].expected);
  }
}
END_TEST

static const struct {
  const char *row;
  const char *email;
  struct policy_teams token;
  bool null;
  const char *expected;
} session_rows[] = {
    {"1 no email", "", {.kind = POLICY_TEAMS_NULL}, false, ""},
    {"2 directory says admin", "root@x", {.kind = POLICY_TEAMS_LIST}, true, ""},
    {"2 directory says admin, list", "root@x", {POLICY_TEAMS_LIST, list_red, 1}, true, ""},
    {"3 intersection", "dev@x", {POLICY_TEAMS_LIST, list_both, 2}, false, "red"},
    {"3 empty intersection", "dev@x", {POLICY_TEAMS_LIST, list_blue, 1}, false, ""},
    {"4 missing", "dev@x", {.kind = POLICY_TEAMS_ABSENT}, false, "red"},
    {"4 null", "dev@x", {.kind = POLICY_TEAMS_NULL}, false, "red"},
    {"4 empty", "dev@x", {.kind = POLICY_TEAMS_LIST}, false, "red"},
    {"4 user without a record", "who@x", {.kind = POLICY_TEAMS_NULL}, false, ""},
};

START_TEST(spi4_session_teams_follow_every_row) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  for (size_t i = 0; i < COUNT(session_rows); i++) {
    struct arena *arena = arena_create(0);
    struct policy_teams teams =
        policy_resolve_session_teams(policy, arena, session_rows[i].email, &session_rows[i].token);
    assert_teams(session_rows[i].row, &teams, session_rows[i].null, session_rows[i].expected);
    arena_free(&arena);
  }
  policy_free(&policy);
}
END_TEST

TEST_MAIN("core.policy.teams", spi4_normalize_token_teams_follows_every_row,
          spi4_a_list_beyond_the_bound_is_public_only, spi4_stored_teams_follow_the_same_rule,
          spi4_session_teams_follow_every_row)

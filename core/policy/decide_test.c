/* decide_test.c: SPI-5, SPI-6, SPI-20: every row of the visibility table (protocols.md 5.6) and the RBAC tables (5.7).
 */
#include "core/policy/policy_test_support.h"

/* A context as resolving would make it, without a credential: rows 2 and 7b cannot be reached by API tokens. */
static struct context caller(const char *email, bool admin, struct policy_teams teams, struct policy_teams directory) {
  return (struct context){.seen = {.user_email = email, .is_admin = admin, .teams = teams},
                          .magic = CONTEXT_MAGIC,
                          .alive = true,
                          .directory_teams = directory};
}

static const char *const red[] = {"red"};
#define ALL                                                                                                            \
  { .kind = POLICY_TEAMS_NULL }
#define NONE                                                                                                           \
  { .kind = POLICY_TEAMS_LIST }
#define RED                                                                                                            \
  { POLICY_TEAMS_LIST, red, 1 }
#define PUBLIC POLICY_VISIBILITY_PUBLIC
#define TEAM POLICY_VISIBILITY_TEAM
#define PRIVATE POLICY_VISIBILITY_PRIVATE

static const struct {
  const char *row;
  const char *email;
  bool admin;
  struct policy_teams teams;
  struct policy_teams directory;
  struct policy_record_facts facts;
  bool sees;
} rows[] = {
    {"1 public, anonymous", "", false, NONE, NONE, {PUBLIC, "", ""}, true},
    {"1 public, public-only", "u@x", false, NONE, NONE, {PUBLIC, "blue", "o@x"}, true},
    {"1 public, team token", "u@x", false, RED, RED, {PUBLIC, "blue", "o@x"}, true},
    {"1 public, admin", "a@x", true, ALL, NONE, {PUBLIC, NULL, NULL}, true},
    {"2 unrestricted, no email, team", "", false, ALL, NONE, {TEAM, "blue", "o@x"}, true},
    {"2 unrestricted, no email, private", "", false, ALL, NONE, {PRIVATE, "", "o@x"}, false},
    {"2 unrestricted, no email, private without owner", "", false, ALL, NONE, {PRIVATE, "", ""}, false},
    {"3 admin, team", "a@x", true, ALL, NONE, {TEAM, "blue", "o@x"}, true},
    {"3 admin, own private", "a@x", true, ALL, NONE, {PRIVATE, "", "a@x"}, true},
    {"3 admin, another's private (#4341)", "a@x", true, ALL, NONE, {PRIVATE, "", "o@x"}, false},
    {"3 admin, unknown visibility is private", "a@x", true, ALL, NONE, {(enum policy_visibility)0, "", "o@x"}, false},
    {"4 no email, team", "", false, RED, RED, {TEAM, "red", "o@x"}, false},
    {"4 no email, private without owner", "", false, RED, RED, {PRIVATE, "", ""}, false},
    {"5 public-only, own private", "u@x", false, NONE, RED, {PRIVATE, "", "u@x"}, false},
    {"5 public-only, team of the directory", "u@x", false, NONE, RED, {TEAM, "red", "o@x"}, false},
    {"5 public-only admin, own private", "a@x", true, NONE, RED, {PRIVATE, "", "a@x"}, false},
    {"5 public-only admin, team", "a@x", true, NONE, RED, {TEAM, "red", "a@x"}, false},
    {"6 private, own", "u@x", false, RED, RED, {PRIVATE, "blue", "u@x"}, true},
    {"6 private, own, unrestricted claim", "u@x", false, ALL, NONE, {PRIVATE, "", "u@x"}, true},
    {"7 team of the token", "u@x", false, RED, RED, {TEAM, "red", "o@x"}, true},
    {"7 admin with a list, that team", "a@x", true, RED, NONE, {TEAM, "red", "o@x"}, true},
    {"7 null for a non-admin: directory teams", "u@x", false, ALL, RED, {TEAM, "red", "o@x"}, true},
    {"7 null for a non-admin: not another team", "u@x", false, ALL, RED, {TEAM, "blue", "o@x"}, false},
    {"8 private, another's", "u@x", false, RED, RED, {PRIVATE, "red", "o@x"}, false},
    {"8 another team", "u@x", false, RED, RED, {TEAM, "blue", "o@x"}, false},
    {"8 another team, own record", "u@x", false, RED, RED, {TEAM, "blue", "u@x"}, false},
    {"8 team record without a team", "u@x", false, RED, RED, {TEAM, "", "o@x"}, false},
    {"8 admin with a list, another team", "a@x", true, RED, NONE, {TEAM, "blue", "o@x"}, false},
    {"8 e-mail by prefix only", "u@x", false, RED, RED, {PRIVATE, "", "u@xy"}, false},
};

START_TEST(spi6_visibility_follows_every_row) {
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct context context = caller(rows[i].email, rows[i].admin, rows[i].teams, rows[i].directory);
    ck_assert_msg(policy_can_see(&context.seen, &rows[i].facts) == rows[i].sees, "row %s", rows[i].row);
  }
}
END_TEST

static const struct {
  const char *role;
  int count;
} role_sizes[] = {{"platform_admin", PERMISSION_COUNT},
                  {"team_admin", 43},
                  {"developer", 39},
                  {"viewer", 18},
                  {"platform_viewer", 17}};

START_TEST(spi20_built_in_roles_have_the_documented_sizes) {
  for (size_t i = 0; i < COUNT(role_sizes); i++) {
    struct permission_set set = {{0}};
    ck_assert(permission_role_builtin(role_sizes[i].role, &set));
    int count = __builtin_popcountll(set.words[0]) + __builtin_popcountll(set.words[1]);
    ck_assert_msg(count == role_sizes[i].count, "%s has %d", role_sizes[i].role, count);
  }
  ck_assert(!permission_role_builtin("owner", NULL));
}
END_TEST

START_TEST(spi20_permission_table_is_sorted_and_aliases_mean_the_same) {
  static const char *const texts[] = {
#define PERMISSION(identifier, text) text,
#define PERMISSION_ALIAS(text, identifier) text,
#include "core/policy/permissions.def"
#undef PERMISSION
#undef PERMISSION_ALIAS
  };
  for (size_t i = 0; i < COUNT(texts); i++) {
    ck_assert_msg(i == 0 || strcmp(texts[i - 1], texts[i]) < 0, "%s", texts[i]);
    ck_assert_int_ge(permission_find(texts[i], strlen(texts[i])), 0);
  }
  ck_assert_int_eq(permission_find("llm.invoke", 10), permission_find("models.invoke", 13));
  ck_assert_int_eq(permission_find("a2a.read", 8), permission_find("agents.read", 11));
  static const char *const unknown[] = {"",         "tools",  "tools.",   "tools.rea", "tools.readx", "Tools.read",
                                        "nosuch.*", "*.read", "tools.**", ".*",        "tools*",      "zzz"};
  for (size_t i = 0; i < COUNT(unknown); i++)
    ck_assert_msg(!policy_permission_is_known(unknown[i]), "%s", unknown[i]);
}
END_TEST

/* Who, with which token, may do what where (layers one and two together). */
static const char *const scope_read[] = {"tools.read"};
static const char *const scope_tools[] = {"tools.*"};
static const char *const scope_all[] = {"*"};
static const char *const scope_admin[] = {"admin.*", "tokens.read"};

static const struct {
  const char *row;
  const char *email;
  struct policy_teams teams;
  const char *const *permissions;
  size_t permission_count;
  const char *permission;
  const char *team;
  bool may;
} may_rows[] = {
    {"administrator has everything", "root@x", ALL, NULL, 0, "admin.system_config", NULL, true},
    {"even he has no unknown permission", "root@x", ALL, NULL, 0, "tools.fly", NULL, false},
    {"public-only administrator has no admin.*", "root@x", NONE, NULL, 0, "admin.system_config", NULL, false},
    {"nor admin colon style", "root@x", NONE, NULL, 0, "admin.sso_providers:read", NULL, false},
    {"but the rest", "root@x", NONE, NULL, 0, "tools.execute", NULL, true},
    {"public-only with admin scope stays without", "root@x", NONE, scope_admin, 2, "admin.dashboard", NULL, false},
    {"global role everywhere", "dev@x", RED, NULL, 0, "tools.read", "blue", true},
    {"team role in its team", "dev@x", RED, NULL, 0, "tools.execute", "red", true},
    {"team role in another team", "dev@x", RED, NULL, 0, "tools.execute", "blue", false},
    {"team role in any team", "dev@x", RED, NULL, 0, "tools.execute", NULL, true},
    {"team role not with a public-only token", "dev@x", NONE, NULL, 0, "tools.execute", NULL, false},
    {"role lacks it", "dev@x", RED, NULL, 0, "teams.delete", "red", false},
    {"no role, nothing", "none@x", NONE, NULL, 0, "tools.read", NULL, false},
    {"scope inherits with *", "dev@x", RED, scope_all, 1, "tools.execute", "red", true},
    {"scope narrows", "dev@x", RED, scope_read, 1, "tools.execute", "red", false},
    {"scope keeps what it names", "dev@x", RED, scope_read, 1, "tools.read", "red", true},
    {"scope wildcard", "dev@x", RED, scope_tools, 1, "tools.execute", "red", true},
    {"scope wildcard, other category", "dev@x", RED, scope_tools, 1, "prompts.read", "red", false},
    {"scope implies servers.use", "dev@x", RED, scope_read, 1, "servers.use", "red", true},
    {"scope does not widen", "none@x", NONE, scope_all, 1, "tools.read", NULL, false},
    {"scope does not widen what it implies", "none@x", NONE, scope_tools, 1, "servers.use", NULL, false},
    {"narrowed administrator", "root@x", ALL, scope_read, 1, "admin.dashboard", NULL, false},
};

START_TEST(spi20_roles_and_scopes_follow_every_row) {
  for (size_t i = 0; i < COUNT(may_rows); i++) {
    struct policy *policy = policy_start((struct policy_options){0});
    people_put(policy);
    struct made_token token =
        token_make(policy, (struct policy_token_request){.user_email = may_rows[i].email,
                                                         .teams = may_rows[i].teams,
                                                         .scope = {.permissions = may_rows[i].permissions,
                                                                   .permission_count = may_rows[i].permission_count}});
    const struct policy_context *context = resolve(policy, token.header, ERR_NONE);
    ck_assert_msg(policy_may(context, may_rows[i].permission, may_rows[i].team) == may_rows[i].may, "row: %s",
                  may_rows[i].row);
    policy_free(&policy);
  }
}
END_TEST

START_TEST(spi20_custom_roles_grant_and_a_change_counts_at_once) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  ck_assert(policy_user_put(
      policy, &(struct policy_user){.email = "c@x", .roles = (const char *const[]){"caller"}, .role_count = 1}, NULL));
  struct made_token token = token_make(policy, (struct policy_token_request){.user_email = "c@x"});
  ck_assert(!policy_may(resolve(policy, token.header, ERR_NONE), "tools.execute", NULL)); /* dangling role */
  struct policy_role role = {"caller", (const char *const[]){"tools.*"}, 1};
  ck_assert(policy_role_put(policy, &role, NULL));
  ck_assert(policy_may(resolve(policy, token.header, ERR_NONE), "tools.execute", NULL));
  ck_assert(policy_role_delete(policy, "caller"));
  ck_assert(!policy_may(resolve(policy, token.header, ERR_NONE), "tools.execute", NULL));

  struct error err = {0};
  role.permissions = (const char *const[]){"tools.exceute"};
  ck_assert(!policy_role_put(policy, &role, &err) && error_is(&err, ERR_ARGUMENT_INVALID));
  role = (struct policy_role){"viewer", (const char *const[]){"*"}, 1};
  ck_assert(!policy_role_put(policy, &role, &err) && error_is(&err, ERR_ARGUMENT_INVALID));
  policy_free(&policy);
}
END_TEST

START_TEST(spi5_absent_and_invisible_answer_the_same_then_permission_counts) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct made_token token =
      token_make(policy, (struct policy_token_request){.user_email = "dev@x", .teams = {POLICY_TEAMS_LIST, red, 1}});
  const struct policy_context *dev = resolve(policy, token.header, ERR_NONE);
  struct error absent = {0}, invisible = {0}, denied = {0};
  const struct policy_record_facts foreign = {TEAM, "blue", "o@x"}, own = {TEAM, "red", "o@x"}, open = {PUBLIC, "", ""};
  ck_assert(!policy_check_access(dev, NULL, "tools.read", &absent));
  ck_assert(!policy_check_access(dev, &foreign, "tools.read", &invisible));
  ck_assert(error_is(&absent, ERR_CATALOG_NOT_FOUND));
  ck_assert_int_eq(memcmp(&absent, &invisible, sizeof(absent)), 0);
  ck_assert(!policy_check_access(dev, &foreign, "teams.delete", &invisible)); /* not denied: not found */
  ck_assert_int_eq(memcmp(&absent, &invisible, sizeof(absent)), 0);
  ck_assert(policy_check_access(dev, &own, "tools.execute", NULL));
  ck_assert(!policy_check_access(dev, &own, "teams.delete", &denied));
  ck_assert(error_is(&denied, ERR_AUTH_PERMISSION_DENIED));
  ck_assert(!policy_check_access(dev, &open, "tools.execute", &denied)); /* a role of one team ends at its records */
  ck_assert(error_is(&denied, ERR_AUTH_PERMISSION_DENIED));
  ck_assert(policy_check_access(dev, &open, "tools.read", NULL));
  ck_assert(policy_check_access(dev, &own, NULL, NULL));
  policy_free(&policy);
}
END_TEST

TEST_MAIN("core.policy.decide", spi6_visibility_follows_every_row, spi20_built_in_roles_have_the_documented_sizes,
          spi20_permission_table_is_sorted_and_aliases_mean_the_same, spi20_roles_and_scopes_follow_every_row,
          spi20_custom_roles_grant_and_a_change_counts_at_once,
          spi5_absent_and_invisible_answer_the_same_then_permission_counts)

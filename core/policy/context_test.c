/* context_test.c: SPI-2, SPI-3, LIF-3: resolving, references, revocation, bounds and the canary. */
#include "core/policy/policy_test_support.h"

static const char *const red[] = {"red"};

static struct made_token dev_token(struct policy *policy) {
  return token_make(policy, (struct policy_token_request){.user_email = "dev@x", .teams = {POLICY_TEAMS_LIST, red, 1}});
}

static const struct policy_context *find(struct policy *policy, const char *module, const char *reference) {
  struct error err = {0};
  const struct policy_context *context = policy_context_find(policy, module, reference, strlen(reference), &err);
  ck_assert(context != NULL || error_is(&err, ERR_AUTH_CONTEXT_EXPIRED));
  return context;
}

START_TEST(spi2_resolving_gives_a_bound_context) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct made_token token = dev_token(policy);
  const struct policy_context *context = resolve(policy, token.header, ERR_NONE);
  ck_assert_str_eq(context->user_email, "dev@x");
  ck_assert_str_eq(context->module_id, "mcp");
  ck_assert_str_eq(context->token_id, token.id);
  ck_assert_int_eq(context->method, POLICY_AUTH_API_TOKEN);
  ck_assert_uint_eq(strlen(context->reference), POLICY_REFERENCE_LENGTH);
  ck_assert_int_eq(context->expires_at_ms, (NOW_S + 60) * 1000);
  ck_assert_ptr_eq(find(policy, "mcp", context->reference), context);
  policy_free(&policy);
}
END_TEST

START_TEST(spi2_malformed_authorization_is_refused_and_never_falls_back) {
  static const struct policy_tls_user tls = {"CN=dev", "dev@x"};
  struct policy *policy =
      policy_start((struct policy_options){.anonymous_allowed = true, .tls_users = &tls, .tls_user_count = 1});
  people_put(policy);
  struct made_token token = dev_token(policy);
  char long_token[POLICY_CREDENTIAL_MAX_BYTES + 16] = "Bearer ";
  memset(long_token + 7, 'a', POLICY_CREDENTIAL_MAX_BYTES + 1);
  char spaced[128], behind[128], lower[128];
  snprintf(spaced, sizeof(spaced), "Bearer   %s", token.value);
  snprintf(behind, sizeof(behind), "Bearer %s ", token.value);
  snprintf(lower, sizeof(lower), "bearer %s", token.value);
  const char *const bad[] = {"",           "Bearer",      "Bearer ",     "Basic ZGV2OmRldg==", token.value,
                             "Bearer a,b", "Bearer a b",  "Bearer \x01", "Bearer \xc3\xa9",    behind,
                             long_token,   "BearerX abc", "Bearer a.b",  "Bearer ...",         " Bearer abc"};
  for (size_t i = 0; i < COUNT(bad); i++) {
    struct error err = {0};
    const struct policy_context *context = NULL;
    struct policy_credentials credentials = presented(&bad[i]);
    credentials.tls_client_subject = "CN=dev";
    ck_assert_msg(!policy_resolve(policy, &credentials, &context, &err), "%s", bad[i]);
    ck_assert_msg(error_is(&err, ERR_AUTH_TOKEN_INVALID), "%s: %s", bad[i], err.code);
  }
  resolve(policy, spaced, ERR_NONE);
  resolve(policy, lower, ERR_NONE);

  const char *const twice[] = {token.header, token.header};
  struct policy_credentials credentials = presented(twice);
  credentials.authorization_count = 2;
  struct error err = {0};
  const struct policy_context *context = NULL;
  ck_assert(!policy_resolve(policy, &credentials, &context, &err) && error_is(&err, ERR_AUTH_TOKEN_INVALID));
  policy_free(&policy);
}
END_TEST

START_TEST(spi2_anonymous_and_certificates_count_only_where_allowed) {
  static const struct policy_tls_user tls = {"CN=dev", "dev@x"};
  struct error err = {0};
  const struct policy_context *context = NULL;
  struct policy_credentials nobody = {.module_id = "mcp"};
  struct policy *policy = policy_start((struct policy_options){0});
  ck_assert(!policy_resolve(policy, &nobody, &context, &err) && error_is(&err, ERR_AUTH_TOKEN_MISSING));
  nobody.tls_client_subject = "CN=dev";
  ck_assert(!policy_resolve(policy, &nobody, &context, &err) && error_is(&err, ERR_AUTH_TOKEN_MISSING));
  policy_free(&policy);

  policy = policy_start((struct policy_options){
      .anonymous_allowed = true, .anonymous_role = "platform_viewer", .tls_users = &tls, .tls_user_count = 1});
  people_put(policy);
  ck_assert(policy_resolve(policy, &nobody, &context, NULL));
  ck_assert_int_eq(context->method, POLICY_AUTH_MUTUAL_TLS);
  ck_assert_str_eq(context->user_email, "dev@x");
  ck_assert_uint_eq(context->teams.count, 1);
  nobody.tls_client_subject = "CN=dev,O=x";
  ck_assert(policy_resolve(policy, &nobody, &context, NULL));
  ck_assert_int_eq(context->method, POLICY_AUTH_ANONYMOUS);
  ck_assert(policy_may(context, "tools.read", NULL) && !policy_may(context, "admin.dashboard", NULL));
  policy_free(&policy);

  ck_assert_ptr_null(policy_create(&(struct policy_options){.anonymous_role = "nosuch"}, &err));
  ck_assert(error_is(&err, ERR_CONFIG_VALUE));
}
END_TEST

START_TEST(spi3_a_reference_is_good_for_its_module_only_and_for_60_seconds) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct made_token token = dev_token(policy);
  char reference[POLICY_REFERENCE_LENGTH + 1];
  strcpy(reference, resolve(policy, token.header, ERR_NONE)->reference);
  ck_assert_ptr_nonnull(find(policy, "mcp", reference));
  ck_assert_ptr_null(find(policy, "a2a", reference));
  ck_assert_ptr_null(find(policy, "mcp", ""));
  ck_assert_ptr_null(find(policy, "mcp", "short"));
  ck_assert_ptr_null(find(policy, "mcp", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
  clock_move_ms(59999);
  ck_assert_ptr_nonnull(find(policy, "mcp", reference));
  clock_move_ms(1);
  ck_assert_ptr_null(find(policy, "mcp", reference));
  policy_free(&policy);
}
END_TEST

START_TEST(spi3_wall_clock_steps_do_not_lengthen_a_context) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct made_token token = dev_token(policy);
  char reference[POLICY_REFERENCE_LENGTH + 1];
  strcpy(reference, resolve(policy, token.header, ERR_NONE)->reference);
  test_clock.wall_us -= 3600 * SECOND_US;
  test_clock.monotonic_us += 60 * SECOND_US;
  ck_assert_ptr_null(find(policy, "mcp", reference));
  policy_free(&policy);
}
END_TEST

START_TEST(spi2_the_same_credential_gives_the_same_context_until_it_ages) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct made_token token = dev_token(policy);
  const char *header = token.header;
  const struct policy_context *first = policy_context_hold(resolve(policy, header, ERR_NONE)), *other = NULL;
  ck_assert_ptr_eq(resolve(policy, header, ERR_NONE), first);
  struct policy_credentials credentials = presented(&header);
  struct {
    const char **field;
    const char *value;
  } changes[] = {{&credentials.module_id, "a2a"},
                 {&credentials.server_id, "s1"},
                 {&credentials.client_address, "192.0.2.8"},
                 {&credentials.protocol_family, "a2a"}};
  for (size_t i = 0; i < COUNT(changes); i++) {
    const char *kept = *changes[i].field;
    *changes[i].field = changes[i].value;
    ck_assert(policy_resolve(policy, &credentials, &other, NULL));
    ck_assert_msg(other != first, "change %zu", i);
    *changes[i].field = kept;
  }
  clock_move_ms(46000);
  const struct policy_context *fresh = resolve(policy, header, ERR_NONE);
  ck_assert_ptr_ne(fresh, first);
  ck_assert(policy_context_is_alive(policy, first)); /* what was handed out keeps its word */
  policy_context_release(&first);
  policy_free(&policy);
}
END_TEST

struct heard {
  size_t calls;
  size_t references;
  char modules[256];
};

static void listener(void *arg, const char *module_id, const char *const *references, size_t count) {
  struct heard *heard = arg;
  heard->calls++;
  heard->references += count;
  for (size_t i = 0; i < count; i++)
    ck_assert_uint_eq(strlen(references[i]), POLICY_REFERENCE_LENGTH);
  strcat(heard->modules, module_id);
  strcat(heard->modules, ";");
}

/* Each change that must end the contexts of dev@x (SPI-3); the last ones must not. */
static void revoke_token(struct policy *policy, const struct made_token *token) {
  ck_assert(policy_token_revoke(policy, token->id, NULL, NULL, NULL));
}
static void delete_user(struct policy *policy, const struct made_token *token) {
  (void)token;
  ck_assert(policy_user_delete(policy, "dev@x"));
}
static void change_user(struct policy *policy, const struct made_token *token) {
  (void)token;
  ck_assert(policy_user_put(policy, &(struct policy_user){.email = "dev@x"}, NULL));
}
static void delete_team(struct policy *policy, const struct made_token *token) {
  (void)token;
  ck_assert(policy_team_delete(policy, "red"));
}
static void delete_other_team(struct policy *policy, const struct made_token *token) {
  (void)token;
  ck_assert(policy_team_delete(policy, "blue"));
}
static void delete_other_user(struct policy *policy, const struct made_token *token) {
  (void)token;
  ck_assert(policy_user_delete(policy, "none@x"));
}
static void revoke_other_token(struct policy *policy, const struct made_token *token) {
  (void)token;
  struct made_token other = dev_token(policy);
  ck_assert(policy_token_revoke(policy, other.id, NULL, NULL, NULL));
}

static const struct {
  const char *row;
  void (*change)(struct policy *policy, const struct made_token *token);
  bool ends;
  enum error_code then;
  size_t teams_then;
} revocations[] = {
    {"token revoked", revoke_token, true, ERR_AUTH_TOKEN_INVALID, 0},
    {"user deleted", delete_user, true, ERR_AUTH_TOKEN_INVALID, 0},
    {"user left the team", change_user, true, ERR_NONE, 0},
    {"team deleted", delete_team, true, ERR_NONE, 0},
    {"another team deleted", delete_other_team, false, ERR_NONE, 1},
    {"another user deleted", delete_other_user, false, ERR_NONE, 1},
    {"another token revoked", revoke_other_token, false, ERR_NONE, 1},
};

START_TEST(spi3_revocation_ends_contexts_at_once_and_tells_each_module) {
  for (size_t i = 0; i < COUNT(revocations); i++) {
    struct policy *policy = policy_start((struct policy_options){0});
    people_put(policy);
    struct heard heard = {0};
    policy_listen(policy, listener, &heard);
    struct made_token token = dev_token(policy);
    const char *header = token.header;
    const struct policy_context *held = policy_context_hold(resolve(policy, header, ERR_NONE)), *other = NULL;
    for (int k = 0; k < 2; k++) {
      struct policy_credentials credentials = presented(&header);
      credentials.module_id = k == 0 ? "a2a" : "mcp";
      credentials.server_id = "s1";
      ck_assert(policy_resolve(policy, &credentials, &other, NULL));
    }
    uint64_t before = policy_revision(policy);
    revocations[i].change(policy, &token);
    ck_assert_uint_gt(policy_revision(policy), before);
    ck_assert_msg(policy_context_is_alive(policy, held) != revocations[i].ends, "row: %s", revocations[i].row);
    ck_assert_uint_eq(heard.calls, revocations[i].ends ? 2 : 0);
    ck_assert_uint_eq(heard.references, revocations[i].ends ? 3 : 0);
    ck_assert_str_eq(heard.modules, revocations[i].ends ? "a2a;mcp;" : "");
    ck_assert((find(policy, "mcp", held->reference) == NULL) == revocations[i].ends);
    const struct policy_context *again = resolve(policy, header, revocations[i].then);
    if (again != NULL)
      ck_assert_msg(again->teams.count == revocations[i].teams_then, "row: %s", revocations[i].row);
    policy_context_release(&held);
    policy_free(&policy);
  }
}
END_TEST

START_TEST(spi3_putting_the_same_again_changes_nothing) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct made_token token = dev_token(policy);
  const struct policy_context *context = resolve(policy, token.header, ERR_NONE);
  uint64_t before = policy_revision(policy);
  people_put(policy);
  ck_assert_uint_eq(policy_revision(policy), before);
  ck_assert(policy_context_is_alive(policy, context));
  policy_free(&policy);
}
END_TEST

START_TEST(spi3_contexts_are_bounded_and_one_module_cannot_take_all) {
  struct policy *policy = policy_start((struct policy_options){.contexts_max = 8});
  people_put(policy);
  struct made_token token = dev_token(policy);
  const char *header = token.header;
  const struct policy_context *context = NULL;
  struct error err = {0};
  struct policy_credentials credentials = presented(&header);
  char server[16];
  credentials.server_id = server;
  for (int i = 0; i < 8; i++) {
    snprintf(server, sizeof(server), "s%d", i);
    bool resolved = policy_resolve(policy, &credentials, &context, &err);
    ck_assert_msg(resolved == (i < 4), "context %d", i);
  }
  ck_assert(error_is(&err, ERR_AUTH_CONTEXT_LIMIT));
  credentials.module_id = "a2a";
  ck_assert(policy_resolve(policy, &credentials, &context, NULL));
  clock_move_ms(60000);
  credentials.module_id = "mcp";
  ck_assert(policy_resolve(policy, &credentials, &context, NULL));
  policy_free(&policy);
}
END_TEST

START_TEST(spi3_a_module_that_is_gone_takes_its_contexts_along_silently) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct heard heard = {0};
  policy_listen(policy, listener, &heard);
  struct made_token token = dev_token(policy);
  const struct policy_context *held = policy_context_hold(resolve(policy, token.header, ERR_NONE));
  ck_assert_uint_eq(policy_context_count(policy), 1);
  policy_module_forget(policy, "mcp");
  ck_assert_uint_eq(policy_context_count(policy), 0);
  policy_module_forget(policy, "nosuch");
  ck_assert(!policy_context_is_alive(policy, held));
  ck_assert_uint_eq(heard.calls, 0);
  const struct policy_context *again = resolve(policy, token.header, ERR_NONE);
  ck_assert_ptr_ne(again, held);
  policy_free(&policy);
  ck_assert_str_eq(held->user_email, "dev@x"); /* outlives even the room */
  policy_context_release(&held);
}
END_TEST

START_TEST(lif3_the_canary_is_denied_like_any_bad_token_and_noticed) {
  struct policy *policy = policy_start((struct policy_options){0});
  char *canary = policy_canary_issue(policy, "mcp");
  char *header = base_asprintf("Bearer %s", canary);
  ck_assert_uint_eq(strlen(canary), POLICY_TOKEN_LENGTH);
  ck_assert(str_starts_with(canary, "gh_"));
  ck_assert(!policy_canary_seen(policy, "mcp"));

  struct error foreign = {0}, denied = {0}, unknown = {0};
  const struct policy_context *context = NULL;
  const char *value = header;
  struct policy_credentials credentials = presented(&value);
  credentials.module_id = "a2a";
  ck_assert(!policy_resolve(policy, &credentials, &context, &foreign));
  ck_assert(!policy_canary_seen(policy, "mcp") && !policy_canary_seen(policy, "a2a"));
  credentials.module_id = "mcp";
  ck_assert(!policy_resolve(policy, &credentials, &context, &denied));
  ck_assert(policy_canary_seen(policy, "mcp"));
  value = "Bearer gh_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
  ck_assert(!policy_resolve(policy, &credentials, &context, &unknown));
  ck_assert_int_eq(memcmp(&denied, &unknown, sizeof(denied)), 0);
  ck_assert(error_is(&denied, ERR_AUTH_TOKEN_INVALID));

  char *second = policy_canary_issue(policy, "mcp");
  ck_assert_str_ne(second, canary);
  ck_assert(!policy_canary_seen(policy, "mcp"));
  resolve(policy, header, ERR_AUTH_TOKEN_INVALID); /* the old one proves nothing any more */
  ck_assert(!policy_canary_seen(policy, "mcp"));
  policy_module_forget(policy, "mcp");
  ck_assert(!policy_canary_seen(policy, "mcp"));
  base_free(second);
  base_free(canary);
  base_free(header);
  policy_free(&policy);
}
END_TEST

TEST_MAIN("core.policy.context", spi2_resolving_gives_a_bound_context,
          spi2_malformed_authorization_is_refused_and_never_falls_back,
          spi2_anonymous_and_certificates_count_only_where_allowed,
          spi3_a_reference_is_good_for_its_module_only_and_for_60_seconds,
          spi3_wall_clock_steps_do_not_lengthen_a_context,
          spi2_the_same_credential_gives_the_same_context_until_it_ages,
          spi3_revocation_ends_contexts_at_once_and_tells_each_module, spi3_putting_the_same_again_changes_nothing,
          spi3_contexts_are_bounded_and_one_module_cannot_take_all,
          spi3_a_module_that_is_gone_takes_its_contexts_along_silently,
          lif3_the_canary_is_denied_like_any_bad_token_and_noticed)

/* token_test.c: SPI-19: the life of API tokens and revocations, in memory and over a reopened SQLite store. */
#include <dirent.h>
#include <unistd.h>

#include "core/policy/policy_test_support.h"

static char folder[64], database[96];

static void folder_make(void) {
  strcpy(folder, "/tmp/gatehouse-policy-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(database, sizeof(database), "%s/store.db", folder);
}

static void folder_remove(void) {
  DIR *files = opendir(folder);
  for (struct dirent *file; files != NULL && (file = readdir(files)) != NULL;)
    unlinkat(dirfd(files), file->d_name, 0);
  closedir(files);
  rmdir(folder);
}

static struct store *store_start(const char *backend) {
  struct error err = {0};
  struct store_options options = {.backend = backend, .path = database};
  options.durability = str_equal(backend, "sqlite") ? STORE_DURABLE : STORE_EPHEMERAL;
  struct store *store = store_open(&options, &err);
  ck_assert_msg(store != NULL, "%s: %s", err.code, err.message);
  return store;
}

static void store_settle(struct store *store, const bool *done) {
  for (int i = 0; i < 40000 && !*done; i++) {
    store_dispatch(store);
    usleep(1000);
  }
  ck_assert(*done);
}

static void persisted(void *arg, const struct error *err) {
  ck_assert_ptr_null(err);
  *(bool *)arg = true;
}

static size_t visited;
static bool visit(void *arg, const struct policy_token_info *info) {
  struct policy_token_info *last = arg;
  *last = *info;
  visited++;
  return true;
}

static struct policy_token_info only_token(const struct policy *policy, const char *user) {
  struct policy_token_info info = {0};
  visited = 0;
  policy_token_list(policy, user, visit, &info);
  ck_assert_uint_eq(visited, 1);
  return info;
}

START_TEST(spi19_a_token_is_shown_once_listed_and_revoked) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct made_token token = token_make(policy, (struct policy_token_request){.user_email = "dev@x", .name = "laptop"});
  ck_assert_uint_eq(strlen(token.value), POLICY_TOKEN_LENGTH);
  ck_assert(str_starts_with(token.value, "gh_"));
  ck_assert_str_eq(only_token(policy, "dev@x").name, "laptop");
  ck_assert_int_eq(only_token(policy, NULL).revoked_at_ms, 0);
  visited = 0;
  policy_token_list(policy, "root@x", visit, &(struct policy_token_info){0});
  ck_assert_uint_eq(visited, 0);

  resolve(policy, token.header, ERR_NONE);
  bool done = false;
  ck_assert(policy_token_revoke(policy, token.id, persisted, &done, NULL) && done);
  resolve(policy, token.header, ERR_AUTH_TOKEN_INVALID);
  ck_assert_int_eq(only_token(policy, "dev@x").revoked_at_ms, NOW_S * 1000);
  ck_assert(policy_token_revoke(policy, token.id, NULL, NULL, NULL));
  struct error err = {0};
  ck_assert(!policy_token_revoke(policy, "nosuch", NULL, NULL, &err) && error_is(&err, ERR_NOT_FOUND));
  ck_assert(!policy_token_revoke(policy, NULL, NULL, NULL, &err) && error_is(&err, ERR_NOT_FOUND));
  policy_free(&policy);
}
END_TEST

START_TEST(spi19_a_token_ends_with_its_time_to_live) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct made_token token = token_make(policy, (struct policy_token_request){.user_email = "dev@x", .ttl_seconds = 90});
  ck_assert_int_eq(resolve(policy, token.header, ERR_NONE)->expires_at_ms, (NOW_S + 60) * 1000);
  clock_move_ms(60000);
  ck_assert_int_eq(resolve(policy, token.header, ERR_NONE)->expires_at_ms, (NOW_S + 90) * 1000);
  clock_move_ms(30000);
  resolve(policy, token.header, ERR_AUTH_TOKEN_INVALID);
  policy_free(&policy);
}
END_TEST

static const char *const red[] = {"red"};
static const char *const blue[] = {"blue"};
static const char *const nosuch[] = {"nosuch"};

START_TEST(spi19_requests_for_impossible_tokens_are_refused) {
  static const struct {
    struct policy_token_request request;
    enum error_code code;
  } rows[] = {
      {{.user_email = NULL}, ERR_NOT_FOUND},
      {{.user_email = "who@x"}, ERR_NOT_FOUND},
      {{.user_email = "dev@x", .name = "\xff"}, ERR_ARGUMENT_INVALID},
      {{.user_email = "dev@x", .teams = {.kind = POLICY_TEAMS_NULL}}, ERR_ARGUMENT_INVALID},
      {{.user_email = "dev@x", .teams = {POLICY_TEAMS_LIST, blue, 1}}, ERR_ARGUMENT_INVALID},
      {{.user_email = "root@x", .teams = {POLICY_TEAMS_LIST, nosuch, 1}}, ERR_ARGUMENT_INVALID},
      {{.user_email = "dev@x", .scope = {.permissions = nosuch, .permission_count = 1}}, ERR_ARGUMENT_INVALID},
      {{.user_email = "dev@x", .scope = {.ip_restrictions = nosuch, .ip_restriction_count = 1}}, ERR_ARGUMENT_INVALID},
      {{.user_email = "dev@x", .scope = {.server_id = "a b"}}, ERR_ARGUMENT_INVALID},
      {{.user_email = "dev@x", .ttl_seconds = UINT64_MAX}, ERR_OUT_OF_RANGE},
  };
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct error err = {0};
    struct made_token made = {0};
    ck_assert(!policy_token_create(policy, &rows[i].request, token_made, &made, &err));
    ck_assert_msg(error_is(&err, rows[i].code), "row %zu: %s", i, err.code);
    ck_assert(!made.done);
  }
  policy_free(&policy);
}
END_TEST

START_TEST(spi4_teams_of_tokens_keep_absent_null_and_empty_apart) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct {
    struct policy_token_request request;
    enum policy_teams_kind kind;
    size_t count;
  } rows[] = {
      {{.user_email = "root@x"}, POLICY_TEAMS_LIST, 0},
      {{.user_email = "root@x", .teams = {.kind = POLICY_TEAMS_NULL}}, POLICY_TEAMS_NULL, 0},
      {{.user_email = "root@x", .teams = {.kind = POLICY_TEAMS_LIST}}, POLICY_TEAMS_LIST, 0},
      {{.user_email = "root@x", .teams = {POLICY_TEAMS_LIST, blue, 1}}, POLICY_TEAMS_LIST, 1},
      {{.user_email = "dev@x", .teams = {POLICY_TEAMS_LIST, red, 1}}, POLICY_TEAMS_LIST, 1},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct made_token token = token_make(policy, rows[i].request);
    const struct policy_context *context = resolve(policy, token.header, ERR_NONE);
    ck_assert_msg(context->teams.kind == rows[i].kind && context->teams.count == rows[i].count, "row %zu", i);
  }
  struct made_token token = token_make(policy, rows[1].request); /* null, then no administrator any more */
  ck_assert(policy_user_put(policy, &(struct policy_user){.email = "root@x"}, NULL));
  const struct policy_context *context = resolve(policy, token.header, ERR_NONE);
  ck_assert(context->teams.kind == POLICY_TEAMS_LIST && context->teams.count == 0);
  policy_free(&policy);
}
END_TEST

/* Everything that a row holds comes back; the token itself is nowhere in it. */
START_TEST(spi19_rows_come_back_as_they_were_and_hold_no_token) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  struct made_token token =
      token_make(policy, (struct policy_token_request){.user_email = "dev@x",
                                                       .name = "n\"1",
                                                       .teams = {POLICY_TEAMS_LIST, red, 1},
                                                       .scope = {.server_id = "s1",
                                                                 .permissions = (const char *const[]){"tools.*"},
                                                                 .permission_count = 1,
                                                                 .ip_restrictions = (const char *const[]){"10.0.0.0/8"},
                                                                 .ip_restriction_count = 1,
                                                                 .weekdays_only = true},
                                                       .ttl_seconds = 5});
  char *row = token_row_encode(policy->tokens);
  ck_assert_ptr_null(strstr(row, token.value));
  ck_assert_ptr_null(strstr(row, token.value + 3));
  struct token_record *back = token_row_decode(token.id, row, strlen(row));
  ck_assert_ptr_nonnull(back);
  char *again = token_row_encode(back);
  ck_assert_str_eq(row, again);
  for (size_t cut = 0; cut < strlen(row); cut++)
    ck_assert_ptr_null(token_row_decode(token.id, row, cut));
  base_free(again);
  base_free(row);
  token_record_free(&back);
  policy_free(&policy);
}
END_TEST

START_TEST(spi19_tokens_and_revocations_survive_a_restart) {
  folder_make();
  struct store *store = store_start("sqlite");
  struct policy *policy = policy_start((struct policy_options){.store = store});
  people_put(policy);
  struct made_token good = {0}, bad = {0};
  bool done = false, jti_done = false;
  struct policy_token_request request = {.user_email = "dev@x", .teams = {POLICY_TEAMS_LIST, red, 1}};
  ck_assert(policy_token_create(policy, &request, token_made, &good, NULL));
  ck_assert(policy_token_create(policy, &request, token_made, &bad, NULL));
  store_settle(store, &good.done);
  store_settle(store, &bad.done);
  ck_assert(policy_token_revoke(policy, bad.id, persisted, &done, NULL));
  resolve(policy, bad.header, ERR_AUTH_TOKEN_INVALID); /* at once, persisted or not */
  ck_assert(policy_jwt_revoke(policy, "j1", (NOW_S + 3600) * 1000, persisted, &jti_done, NULL));
  ck_assert(policy_jwt_revoke(policy, "old", 1, NULL, NULL, NULL));
  store_settle(store, &done);
  store_settle(store, &jti_done);
  store_close(&store);
  policy_free(&policy);

  store = store_start("sqlite");
  policy = policy_start((struct policy_options){.store = store});
  resolve(policy, good.header, ERR_AUTH_TOKEN_INVALID); /* its user is not there yet */
  people_put(policy);
  resolve(policy, good.header, ERR_NONE);
  resolve(policy, bad.header, ERR_AUTH_TOKEN_INVALID);
  ck_assert(revocation_has(policy, "j1"));
  ck_assert(!revocation_has(policy, "old")); /* its token is long over */
  char *jwt = jwt_mint("{\"alg\":\"HS256\"}", "{\"sub\":\"dev@x\",\"jti\":\"j1\",\"exp\":1785236400}", JWT_KEY);
  char *header = base_asprintf("Bearer %s", jwt);
  resolve(policy, header, ERR_AUTH_TOKEN_INVALID);
  base_free(jwt);
  base_free(header);
  store_close(&store);
  policy_free(&policy);
  folder_remove();
}
END_TEST

START_TEST(spi19_a_stored_token_that_cannot_be_read_stops_the_start) {
  folder_make();
  static const char *const bad[] = {"", "{}", "[]", "{\"version\":1}", "\xff"};
  for (size_t i = 0; i < COUNT(bad); i++) {
    struct store *store = store_start("memory");
    struct store_batch *batch = store_batch_create();
    struct error err = {0};
    store_batch_put(batch, POLICY_NAMESPACE_TOKENS, "id", bad[i], strlen(bad[i]), STORE_REVISION_ANY);
    ck_assert(store_commit_sync(store, &batch, NULL, NULL));
    ck_assert_ptr_null(policy_create(&(struct policy_options){.store = store}, &err));
    ck_assert_msg(error_is(&err, ERR_STORE_CORRUPT), "row %zu: %s", i, err.code);
    store_close(&store);
  }
  folder_remove();
}
END_TEST

START_TEST(spi19_a_revocation_that_cannot_be_read_still_revokes) {
  folder_make();
  struct store *store = store_start("memory");
  struct store_batch *batch = store_batch_create();
  store_batch_put(batch, POLICY_NAMESPACE_REVOCATIONS, "j9", "?", 1, STORE_REVISION_ANY);
  ck_assert(store_commit_sync(store, &batch, NULL, NULL));
  struct policy *policy = policy_start((struct policy_options){.store = store});
  ck_assert(revocation_has(policy, "j9"));
  store_close(&store);
  policy_free(&policy);
  folder_remove();
}
END_TEST

START_TEST(spi19_a_token_that_could_not_be_stored_is_never_accepted) {
  struct policy *policy = policy_start((struct policy_options){0});
  people_put(policy);
  folder_make();
  struct store_options options = {.backend = "memory", .size_limit_bytes = 1};
  struct store *store = store_open(&options, NULL);
  ck_assert_ptr_nonnull(store);
  policy->store = store; /* a disk that is full */
  struct made_token made = {0};
  struct policy_token_request request = {.user_email = "dev@x"};
  ck_assert(policy_token_create(policy, &request, token_made, &made, NULL));
  store_settle(store, &made.done);
  ck_assert_str_eq(made.code, "store.full");
  visited = 0;
  policy_token_list(policy, NULL, visit, &(struct policy_token_info){0});
  ck_assert_uint_eq(visited, 0);
  store_close(&store);
  policy_free(&policy);
  folder_remove();
}
END_TEST

TEST_MAIN("core.policy.token", spi19_a_token_is_shown_once_listed_and_revoked, spi19_a_token_ends_with_its_time_to_live,
          spi19_requests_for_impossible_tokens_are_refused, spi4_teams_of_tokens_keep_absent_null_and_empty_apart,
          spi19_rows_come_back_as_they_were_and_hold_no_token, spi19_tokens_and_revocations_survive_a_restart,
          spi19_a_stored_token_that_cannot_be_read_stops_the_start,
          spi19_a_revocation_that_cannot_be_read_still_revokes,
          spi19_a_token_that_could_not_be_stored_is_never_accepted)

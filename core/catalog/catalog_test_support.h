/* catalog_test_support.h: what the tests of this room share: a catalog over a store, people, and short ways to apply.
 * Included by *_test.c only. */
#ifndef GATEHOUSE_CORE_CATALOG_TEST_SUPPORT_H
#define GATEHOUSE_CORE_CATALOG_TEST_SUPPORT_H

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/catalog/catalog_internal.h"
#include "sdk/base/io.h"
#include "sdk/base/secret.h"
#include "sdk/base/test.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define TEST_KEY "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

struct fixture {
  char folder[64], path[96];
  struct store *store;
  struct policy *policy;
  struct secrets *secrets;
  struct catalog *catalog;
};

__attribute__((unused)) static void fixture_start(struct fixture *fixture) {
  struct error err = {0};
  bool disk = fixture->path[0] != '\0';
  fixture->store = store_open(&(struct store_options){.backend = disk ? "sqlite" : "memory",
                                                      .path = fixture->path,
                                                      .durability = disk ? STORE_DURABLE : STORE_EPHEMERAL},
                              &err);
  ck_assert_msg(fixture->store != NULL, "%s", err.message);
  fixture->policy = policy_create(&(struct policy_options){0}, &err);
  ck_assert_msg(fixture->policy != NULL, "%s", err.message);
  setenv("GATEHOUSE_TEST_KEY", TEST_KEY, 1);
  fixture->secrets = secrets_create(&(struct secrets_options){.key_environment = "GATEHOUSE_TEST_KEY"}, &err);
  ck_assert_msg(fixture->secrets != NULL, "%s", err.message);
  fixture->catalog = catalog_open(&(struct catalog_options){fixture->store, fixture->policy, fixture->secrets}, &err);
  ck_assert_msg(fixture->catalog != NULL, "%s", err.message);
}

__attribute__((unused)) static void fixture_end(struct fixture *fixture) {
  catalog_close(&fixture->catalog);
  store_close(&fixture->store);
  policy_free(&fixture->policy);
  secrets_free(&fixture->secrets);
}

__attribute__((unused)) static void fixture_on_disk(struct fixture *fixture) {
  strcpy(fixture->folder, "/tmp/gatehouse-catalog-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(fixture->folder));
  snprintf(fixture->path, sizeof(fixture->path), "%s/store.db", fixture->folder);
}

__attribute__((unused)) static void fixture_off_disk(struct fixture *fixture) {
  static const char *const endings[] = {"", ".lock", "-wal", "-shm"};
  for (size_t i = 0; i < COUNT(endings); i++) {
    char path[128];
    snprintf(path, sizeof(path), "%s%s", fixture->path, endings[i]);
    unlink(path);
  }
  ck_assert_int_eq(rmdir(fixture->folder), 0);
}

/* ---- apply and wait ---- */

struct applied {
  bool done, ok, applied;
  size_t count;
  int actions[32];
  char codes[32][ERROR_CODE_MAX];
  char messages[32][ERROR_MESSAGE_MAX];
  char changed[32][256]; /* joined by blanks */
};

__attribute__((unused)) static void on_applied(void *arg, const Core__Admin__V1__ApplyResponse *response,
                                               const struct error *err) {
  struct applied *applied = arg;
  ck_assert(!applied->done);
  applied->done = true;
  applied->ok = err == NULL;
  ck_assert((response != NULL) == (err == NULL));
  applied->applied = response && response->applied;
  applied->count = response ? response->n_outcomes : 0;
  for (size_t i = 0; i < applied->count && i < 32; i++) {
    const Core__Admin__V1__ApplyOutcome *outcome = response->outcomes[i];
    applied->actions[i] = (int)outcome->action;
    str_copy(applied->codes[i], ERROR_CODE_MAX, outcome->error ? outcome->error->code : "");
    str_copy(applied->messages[i], ERROR_MESSAGE_MAX, outcome->error ? outcome->error->message : "");
    for (size_t k = 0; k < outcome->n_changed_fields; k++)
      snprintf(applied->changed[i] + strlen(applied->changed[i]), 256 - strlen(applied->changed[i]), "%s%s",
               k ? " " : "", outcome->changed_fields[k]);
  }
}

__attribute__((unused)) static void wait_for(struct fixture *fixture, const bool *done) {
  for (int i = 0; i < 5000 && !*done; i++)
    if (store_dispatch(fixture->store) == 0)
      usleep(1000);
  ck_assert_msg(*done, "the write never ended");
}

__attribute__((unused)) static void apply_start(struct fixture *fixture, const char *const *documents, size_t count,
                                                bool dry_run, bool prune, struct applied *applied) {
  Core__Admin__V1__ApplyRequest request = CORE__ADMIN__V1__APPLY_REQUEST__INIT;
  Core__Admin__V1__Document made[32], *pointers[32];
  *applied = (struct applied){0};
  for (size_t i = 0; i < count; i++) {
    core__admin__v1__document__init(&made[i]);
    made[i].document_json.data = (uint8_t *)(uintptr_t)documents[i];
    made[i].document_json.len = strlen(documents[i]);
    pointers[i] = &made[i];
  }
  request.n_documents = count;
  request.documents = pointers;
  request.dry_run = dry_run;
  request.prune = prune;
  catalog_apply(fixture->catalog, &request, on_applied, applied);
  ck_assert(!applied->done); /* never from inside */
}

__attribute__((unused)) static struct applied apply(struct fixture *fixture, const char *const *documents, size_t count,
                                                    bool dry_run, bool prune) {
  struct applied applied;
  apply_start(fixture, documents, count, dry_run, prune, &applied);
  wait_for(fixture, &applied.done);
  return applied;
}

#define APPLY(fixture_, ...)                                                                                           \
  apply((fixture_), (const char *const[]){__VA_ARGS__}, COUNT(((const char *const[]){__VA_ARGS__})), false, false)

__attribute__((unused)) static void must_apply(const struct applied *applied) {
  for (size_t i = 0; i < applied->count && i < 32; i++)
    ck_assert_msg(applied->codes[i][0] == '\0', "%zu: %s: %s", i, applied->codes[i], applied->messages[i]);
  ck_assert(applied->ok && applied->applied);
}

/* Everything that the catalog exports, one document a line. */
__attribute__((unused)) static void export_line(void *arg, const char *document_json, size_t length) {
  buf_append(arg, document_json, length);
  buf_append_char(arg, '\n');
}

__attribute__((unused)) static char *exported(struct fixture *fixture) {
  struct buf text = {0};
  ck_assert(catalog_export(fixture->catalog, NULL, 0, export_line, &text, NULL));
  return buf_take(&text);
}

/* ---- callers ---- */

__attribute__((unused)) static void token_keep(void *arg, const struct policy_token_info *info,
                                               const struct secret *token, const struct error *err) {
  ck_assert(err == NULL && info != NULL);
  snprintf(arg, 128, "Bearer %s", secret_reveal(token));
}

/* A context of that user with a token of those teams (team NULL: public only; "*": no team filter). */
__attribute__((unused)) static const struct policy_context *caller(struct fixture *fixture, const char *email,
                                                                   const char *team, const char *server_id) {
  char header[128] = "";
  const char *const headers[] = {header};
  struct error err = {0};
  const struct policy_context *context = NULL;
  struct policy_token_request request = {.user_email = email, .name = "test"};
  request.teams.kind = team && *team == '*' ? POLICY_TEAMS_NULL : POLICY_TEAMS_LIST;
  request.teams.ids = &team;
  request.teams.count = team && *team != '*' ? 1 : 0;
  ck_assert_msg(policy_token_create(fixture->policy, &request, token_keep, header, &err), "%s", err.message);
  struct policy_credentials credentials = {.module_id = "mcp",
                                           .authorization = headers,
                                           .authorization_count = 1,
                                           .client_address = "192.0.2.7",
                                           .server_id = server_id,
                                           .protocol_family = "mcp"};
  ck_assert_msg(policy_resolve(fixture->policy, &credentials, &context, &err), "%s", err.message);
  return policy_context_hold(context);
}

#endif

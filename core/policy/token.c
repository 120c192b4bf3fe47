/* token.c: API tokens (SPI-19). The token is 32 random bytes, so a plain SHA-256 of it is as good as a slow hash: there
 * is nothing to guess. It is found by the first half of the hash and then compared as a whole in constant time. A new
 * token is accepted once it is durable; a revoked one is refused at once, before that is durable. */
#include <string.h>

#include "core/policy/policy_internal.h"
#include "sdk/base/id.h"
#include "sdk/base/log.h"

#define HASH_INDEX_BYTES 16
#define TTL_MAX_SECONDS (UINT64_C(100) * 366 * 86400)

/* ---- The table ---- */

static void token_enter(struct policy *policy, struct token_record *record) {
  HASH_ADD_KEYPTR(hh, policy->tokens, record->info.token_id, strlen(record->info.token_id), record);
  HASH_ADD(hh_hash, policy->tokens_by_hash, hash, HASH_INDEX_BYTES, record);
}

const struct token_record *token_find(const struct policy *policy, const uint8_t hash[static POLICY_HASH_BYTES]) {
  struct token_record *record = NULL;
  HASH_FIND(hh_hash, policy->tokens_by_hash, hash, HASH_INDEX_BYTES, record);
  if (record == NULL || !str_equal_constant_time(record->hash, POLICY_HASH_BYTES, hash, POLICY_HASH_BYTES))
    return NULL;
  return record;
}

void token_free_all(struct policy *policy) {
  HASH_CLEAR(hh_hash, policy->tokens_by_hash);
  struct token_record *record, *next;
  HASH_ITER(hh, policy->tokens, record, next) {
    HASH_DEL(policy->tokens, record);
    token_record_free(&record);
  }
}

static int token_order(const struct token_record *a, const struct token_record *b) {
  return (a->info.created_at_ms > b->info.created_at_ms) - (a->info.created_at_ms < b->info.created_at_ms);
}

struct load {
  struct policy *policy;
  bool malformed;
};

static bool token_load_row(void *arg, const struct store_row *row) {
  struct load *load = arg;
  struct token_record *record = token_row_decode(row->key, row->value, row->length);
  if (record == NULL) {
    log_event(LOG_ERROR, "policy", "a stored token cannot be understood", LOG_TEXT("token_id", row->key));
    load->malformed = true;
    return false;
  }
  token_enter(load->policy, record);
  return true;
}

bool token_load_all(struct policy *policy, struct error *err) {
  struct load load = {.policy = policy};
  if (!store_scan(policy->store, POLICY_NAMESPACE_TOKENS, NULL, token_load_row, &load, err))
    return false;
  if (load.malformed)
    return error_set(err, ERR_STORE_CORRUPT, "A stored token cannot be understood.");
  HASH_SRT(hh, policy->tokens, token_order);
  return true;
}

/* ---- Create ---- */

struct token_creation {
  struct policy *policy;
  struct token_record *record;
  struct secret *token;
  policy_token_created *created;
  void *arg;
};

static void token_creation_done(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct token_creation *creation = arg;
  (void)result;
  if (err == NULL) {
    struct token_record *record = BASE_TAKE(creation->record);
    token_enter(creation->policy, record);
    creation->policy->revision++;
    creation->created(creation->arg, &record->info, creation->token, NULL);
  } else {
    creation->created(creation->arg, NULL, NULL, err);
  }
  token_record_free(&creation->record);
  secret_free(&creation->token);
  base_free(creation);
}

static bool teams_allowed(const struct policy *policy, const struct policy_user *user, const struct policy_teams *teams,
                          struct error *err) {
  if (teams->kind == POLICY_TEAMS_NULL && !user->is_admin)
    return error_set(err, ERR_ARGUMENT_INVALID, "Only an administrator's token can be without a team filter.");
  if (teams->kind != POLICY_TEAMS_LIST)
    return true;
  if (teams->count > POLICY_LIST_MAX)
    return error_set(err, ERR_ARGUMENT_TOO_LARGE, "More than %d teams.", POLICY_LIST_MAX);
  for (size_t i = 0; i < teams->count; i++) {
    bool known = policy_name_valid(teams->ids[i]) && policy_team_exists(policy, teams->ids[i]);
    if (!known || (!user->is_admin && !policy_names_contain(user->teams, user->team_count, teams->ids[i])))
      return error_set(err, ERR_ARGUMENT_INVALID, "Number %zu of the teams is not a team of the user.", i + 1);
  }
  return true;
}

static bool request_valid(const struct policy *policy, const struct policy_token_request *request, struct error *err) {
  const struct policy_user *user = directory_user(policy, request->user_email);
  if (user == NULL)
    return error_set(err, ERR_NOT_FOUND, "No such user.");
  if (request->name != NULL && (strnlen(request->name, POLICY_NAME_MAX_BYTES + 1) > POLICY_NAME_MAX_BYTES ||
                                !str_is_utf8(request->name, strlen(request->name))))
    return error_set(err, ERR_ARGUMENT_INVALID, "The token's name is too long or not UTF-8.");
  if (request->ttl_seconds > TTL_MAX_SECONDS)
    return error_set(err, ERR_OUT_OF_RANGE, "The time to live is longer than 100 years.");
  return teams_allowed(policy, user, &request->teams, err) && scope_validate(&request->scope, err);
}

static struct token_record *token_record_create(const struct policy *policy, const struct policy_token_request *request,
                                                const char *token) {
  char id[ID_UUID_BYTES];
  struct arena *arena = arena_create(512);
  struct token_record *record = arena_alloc(arena, sizeof(*record));
  struct policy_token_info *info = &record->info;
  id_uuid_v4(id);
  record->arena = arena;
  policy_hash_plain(policy, token, strlen(token), record->hash);
  info->token_id = arena_strdup(arena, id);
  info->user_email = arena_strdup(arena, request->user_email);
  info->name = arena_strdup(arena, request->name == NULL ? "" : request->name);
  info->teams.kind = request->teams.kind;
  if (request->teams.kind == POLICY_TEAMS_LIST) {
    info->teams.ids = policy_names_copy(arena, request->teams.ids, request->teams.count);
    info->teams.count = request->teams.count;
  }
  scope_copy(arena, &info->scope, &request->scope);
  info->created_at_ms = policy_wall_us(policy) / 1000;
  if (request->ttl_seconds > 0)
    info->expires_at_ms = info->created_at_ms + (int64_t)request->ttl_seconds * 1000;
  return record;
}

/* Writes the record's row; done is called on the core thread, at once when there is no store. */
static void token_persist(struct policy *policy, const struct token_record *record, uint64_t expected_revision,
                          store_done *done, void *arg) {
  if (policy->store == NULL) {
    done(arg, NULL, NULL);
    return;
  }
  char *row = token_row_encode(record);
  struct store_batch *batch = store_batch_create();
  store_batch_put(batch, POLICY_NAMESPACE_TOKENS, record->info.token_id, row, strlen(row), expected_revision);
  base_free(row);
  store_commit(policy->store, &batch, done, arg);
}

bool policy_token_create(struct policy *policy, const struct policy_token_request *request,
                         policy_token_created *created, void *arg, struct error *err) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  if (!request_valid(policy, request, err))
    return false;
  char *token = id_token(POLICY_TOKEN_PREFIX);
  struct token_creation *creation = BASE_NEW(struct token_creation);
  *creation = (struct token_creation){.policy = policy, .created = created, .arg = arg};
  creation->token = secret_from_text(token);
  creation->record = token_record_create(policy, request, token);
  secret_wipe(token, strlen(token));
  base_free(token);
  token_persist(policy, creation->record, STORE_REVISION_NONE, token_creation_done, creation);
  return true;
}

/* ---- List, revoke ---- */

void policy_token_list(const struct policy *policy, const char *user_email, policy_token_visit *visit, void *arg) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  for (const struct token_record *record = policy->tokens; record != NULL; record = record->hh.next)
    if (str_is_empty(user_email) || str_equal(record->info.user_email, user_email))
      if (!visit(arg, &record->info))
        return;
}

struct token_revocation {
  policy_done *done;
  void *arg;
};

static void token_revocation_done(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct token_revocation *revocation = arg;
  (void)result;
  if (err != NULL)
    log_error_value(LOG_ERROR, "policy", "a revocation could not be persisted; it holds until restart", err);
  if (revocation->done != NULL)
    revocation->done(revocation->arg, err);
  base_free(revocation);
}

static bool concerns_token(const struct policy *policy, const struct context *context, const void *token_id) {
  (void)policy;
  return context->seen.method == POLICY_AUTH_API_TOKEN && str_equal(context->seen.token_id, token_id);
}

bool policy_token_revoke(struct policy *policy, const char *token_id, policy_done *done, void *arg, struct error *err) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  struct token_record *record = NULL;
  if (token_id != NULL)
    HASH_FIND_STR(policy->tokens, token_id, record);
  if (record == NULL)
    return error_set(err, ERR_NOT_FOUND, "No such token.");
  if (record->info.revoked_at_ms == 0) {
    int64_t now_ms = policy_wall_us(policy) / 1000;
    record->info.revoked_at_ms = now_ms > 0 ? now_ms : 1;
    policy->revision++;
    context_revoke(policy, record->info.user_email, concerns_token, record->info.token_id);
  }
  struct token_revocation *revocation = BASE_NEW(struct token_revocation);
  *revocation = (struct token_revocation){done, arg};
  token_persist(policy, record, STORE_REVISION_ANY, token_revocation_done, revocation);
  return true;
}

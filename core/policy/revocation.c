/* revocation.c: the list of revoked JWT ids (SPI-19). An id is refused from the moment it is put here; the entry is
 * kept until the token it names would have ended anyway. */
#include <string.h>

#include "core/policy/policy_internal.h"
#include "sdk/base/log.h"

#define REVOCATION_ROW_VERSION 1
#define SWEEP_INTERVAL_MS INT64_C(3600000)

static struct revocation *revocation_find(const struct policy *policy, const char *jti) {
  struct revocation *revocation = NULL;
  HASH_FIND_STR(policy->revocations, jti, revocation);
  return revocation;
}

bool revocation_has(const struct policy *policy, const char *jti) {
  return revocation_find(policy, jti) != NULL;
}

static struct revocation *revocation_enter(struct policy *policy, const char *jti, int64_t expires_at_ms) {
  struct revocation *revocation = revocation_find(policy, jti);
  if (revocation == NULL) {
    size_t size = strlen(jti) + 1;
    revocation = base_calloc(1, sizeof(*revocation) + size);
    memcpy(revocation->jti, jti, size);
    revocation->expires_at_ms = expires_at_ms;
    HASH_ADD_STR(policy->revocations, jti, revocation);
  } else if (expires_at_ms == 0 || (revocation->expires_at_ms != 0 && expires_at_ms > revocation->expires_at_ms)) {
    revocation->expires_at_ms = expires_at_ms; /* it can only last longer */
  }
  return revocation;
}

static bool revocation_load_row(void *arg, const struct store_row *row) {
  struct policy *policy = arg;
  json_t *json = json_loadb(row->value, row->length, JSON_REJECT_DUPLICATES, NULL);
  json_int_t expires_at_ms = 0; /* a row that cannot be read still revokes, for good */
  int version = 0;
  if (json_unpack_ex(json, NULL, 0, "{s:i, s:I}", "version", &version, "expires_at_ms", &expires_at_ms) != 0 ||
      version != REVOCATION_ROW_VERSION) {
    log_event(LOG_ERROR, "policy", "a stored revocation cannot be understood; kept for good",
              LOG_TEXT("jti", row->key));
    expires_at_ms = 0;
  }
  revocation_enter(policy, row->key, expires_at_ms);
  json_decref(json);
  return true;
}

/* Forgets entries whose tokens ended, here and in the store. */
static void revocation_sweep(struct policy *policy) {
  int64_t now_ms = policy_wall_us(policy) / 1000;
  if (policy->revocations_swept_ms != 0 && now_ms - policy->revocations_swept_ms < SWEEP_INTERVAL_MS &&
      now_ms >= policy->revocations_swept_ms)
    return;
  policy->revocations_swept_ms = now_ms;
  struct store_batch *batch = policy->store == NULL ? NULL : store_batch_create();
  size_t count = 0;
  struct revocation *revocation, *next;
  HASH_ITER(hh, policy->revocations, revocation, next) {
    if (revocation->expires_at_ms == 0 || revocation->expires_at_ms > now_ms)
      continue;
    if (batch != NULL)
      store_batch_delete(batch, POLICY_NAMESPACE_REVOCATIONS, revocation->jti, STORE_REVISION_ANY);
    HASH_DEL(policy->revocations, revocation);
    base_free(revocation);
    count++;
  }
  if (batch != NULL && count > 0)
    store_commit(policy->store, &batch, NULL, NULL);
  store_batch_free(&batch);
}

bool revocation_load_all(struct policy *policy, struct error *err) {
  if (!store_scan(policy->store, POLICY_NAMESPACE_REVOCATIONS, NULL, revocation_load_row, policy, err))
    return false;
  revocation_sweep(policy);
  return true;
}

void revocation_free_all(struct policy *policy) {
  struct revocation *revocation, *next;
  HASH_ITER(hh, policy->revocations, revocation, next) {
    HASH_DEL(policy->revocations, revocation);
    base_free(revocation);
  }
}

struct revocation_write {
  policy_done *done;
  void *arg;
};

static void revocation_written(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct revocation_write *write = arg;
  (void)result;
  if (err != NULL)
    log_error_value(LOG_ERROR, "policy", "a revocation could not be persisted; it holds until restart", err);
  if (write->done != NULL)
    write->done(write->arg, err);
  base_free(write);
}

static bool concerns_jti(const struct policy *policy, const struct context *context, const void *jti) {
  (void)policy;
  return context->seen.method == POLICY_AUTH_JWT && str_equal(context->seen.token_id, jti);
}

bool policy_jwt_revoke(struct policy *policy, const char *jti, int64_t expires_at_ms, policy_done *done, void *arg,
                       struct error *err) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  if (!policy_name_valid(jti) || expires_at_ms < 0)
    return error_set(err, ERR_ARGUMENT_INVALID, "The token id or its end is not valid.");
  revocation_sweep(policy);
  struct revocation *revocation = revocation_enter(policy, jti, expires_at_ms);
  policy->revision++;
  context_revoke(policy, NULL, concerns_jti, revocation->jti);
  struct revocation_write *write = BASE_NEW(struct revocation_write);
  *write = (struct revocation_write){done, arg};
  if (policy->store == NULL) {
    revocation_written(write, NULL, NULL);
    return true;
  }
  char row[96];
  int length = snprintf(row, sizeof(row), "{\"version\":%d,\"expires_at_ms\":%lld}", REVOCATION_ROW_VERSION,
                        (long long)revocation->expires_at_ms);
  struct store_batch *batch = store_batch_create();
  store_batch_put(batch, POLICY_NAMESPACE_REVOCATIONS, jti, row, (size_t)length, STORE_REVISION_ANY);
  store_commit(policy->store, &batch, revocation_written, write);
  return true;
}

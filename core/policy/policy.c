/* policy.c: the room itself: start and end, clocks, hashing, the modules that hold contexts, and their canaries
 * (LIF-3). */
#include "core/policy/policy.h"

#include <openssl/evp.h>
#include <string.h>

#include "core/policy/policy_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/id.h"

#define CONTEXT_LIFE_MS 60000u
#define CONTEXTS_MAX 65536u
#define RATE_BUCKETS_MAX 65536u

static int64_t real_wall_us(void *arg) {
  (void)arg;
  return clock_wall_us();
}

static int64_t real_monotonic_us(void *arg) {
  (void)arg;
  return clock_monotonic_us();
}

static const struct policy_clock real_clock = {real_wall_us, real_monotonic_us, NULL};

int64_t policy_wall_us(const struct policy *policy) {
  return policy->clock.wall_us(policy->clock.arg);
}

int64_t policy_monotonic_us(const struct policy *policy) {
  return policy->clock.monotonic_us(policy->clock.arg);
}

/* ---- Hashing ---- */

static void digest_add(const struct policy *policy, const void *data, size_t length) {
  if (length > 0)
    BASE_CHECK(EVP_DigestUpdate(policy->digest, data, length) == 1);
}

void policy_hash_parts(const struct policy *policy, const struct hash_part *parts, size_t count,
                       uint8_t target[static POLICY_HASH_BYTES]) {
  BASE_CHECK(EVP_DigestInit_ex(policy->digest, policy->sha256, NULL) == 1);
  digest_add(policy, policy->hash_key, sizeof(policy->hash_key));
  for (size_t i = 0; i < count; i++) {
    uint64_t length = parts[i].length;
    digest_add(policy, &length, sizeof(length));
    digest_add(policy, parts[i].data, parts[i].length);
  }
  BASE_CHECK(EVP_DigestFinal_ex(policy->digest, target, NULL) == 1);
}

void policy_hash_plain(const struct policy *policy, const void *data, size_t length,
                       uint8_t target[static POLICY_HASH_BYTES]) {
  BASE_CHECK(EVP_DigestInit_ex(policy->digest, policy->sha256, NULL) == 1);
  digest_add(policy, data, length);
  BASE_CHECK(EVP_DigestFinal_ex(policy->digest, target, NULL) == 1);
}

/* ---- Start and end ---- */

static void tls_users_copy(struct policy *policy, const struct policy_options *options) {
  policy->tls_users = base_calloc(options->tls_user_count + 1, sizeof(*policy->tls_users));
  policy->tls_user_count = options->tls_user_count;
  for (size_t i = 0; i < options->tls_user_count; i++) {
    policy->tls_users[i].subject = base_strdup(options->tls_users[i].subject);
    policy->tls_users[i].user_email = base_strdup(options->tls_users[i].user_email);
  }
}

struct policy *policy_create(const struct policy_options *options, struct error *err) {
  struct policy *policy = BASE_NEW(struct policy);
  policy->magic = POLICY_MAGIC;
  policy->store = options->store;
  policy->clock = options->clock == NULL ? real_clock : *options->clock;
  policy->anonymous_allowed = options->anonymous_allowed;
  policy->contexts_max = options->contexts_max == 0 ? CONTEXTS_MAX : options->contexts_max;
  policy->rate_buckets_max = options->rate_buckets_max == 0 ? RATE_BUCKETS_MAX : options->rate_buckets_max;
  uint32_t life_ms = options->context_life_ms;
  policy->context_life_us = INT64_C(1000) * (life_ms == 0 || life_ms > CONTEXT_LIFE_MS ? CONTEXT_LIFE_MS : life_ms);
  policy->revision = 1;
  TAILQ_INIT(&policy->contexts_by_age);
  TAILQ_INIT(&policy->buckets_by_use);
  id_random_bytes(policy->hash_key, sizeof(policy->hash_key));
  policy->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
  policy->digest = EVP_MD_CTX_new();
  BASE_CHECK(policy->sha256 != NULL && policy->digest != NULL);
  tls_users_copy(policy, options);
  if (options->anonymous_role != NULL &&
      !permission_role_builtin(options->anonymous_role, &policy->anonymous_permissions)) {
    error_set(err, ERR_CONFIG_VALUE, "The role of anonymous callers is not a built-in role.");
    goto failed;
  }
  policy->jwt = jwt_verifier_create(options, err);
  if (policy->jwt == NULL)
    goto failed;
  if (policy->store != NULL && (!token_load_all(policy, err) || !revocation_load_all(policy, err)))
    goto failed;
  return policy;
failed:
  policy_free(&policy);
  return NULL;
}

void policy_free(struct policy **policy) {
  struct policy *gone = BASE_TAKE(*policy);
  if (gone == NULL)
    return;
  BASE_CHECK_MAGIC(gone, POLICY_MAGIC);
  context_end_all(gone);
  struct module *module, *next;
  HASH_ITER(hh, gone->modules, module, next) {
    HASH_DEL(gone->modules, module);
    base_free(module);
  }
  token_free_all(gone);
  revocation_free_all(gone);
  directory_free(gone);
  rate_free_all(gone);
  jwt_verifier_free(&gone->jwt);
  for (size_t i = 0; i < gone->tls_user_count; i++) {
    base_free((char *)gone->tls_users[i].subject);
    base_free((char *)gone->tls_users[i].user_email);
  }
  base_free(gone->tls_users);
  EVP_MD_CTX_free(gone->digest);
  EVP_MD_free(gone->sha256);
  gone->magic = 0;
  base_free(gone);
}

uint64_t policy_revision(const struct policy *policy) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  return policy->revision;
}

void policy_listen(struct policy *policy, policy_revoked *revoked, void *arg) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  policy->revoked = revoked;
  policy->revoked_arg = arg;
}

/* ---- Modules and canaries ---- */

static struct module *module_find(const struct policy *policy, const char *module_id) {
  struct module *module = NULL;
  HASH_FIND_STR(policy->modules, module_id, module);
  return module;
}

struct module *policy_module_get(struct policy *policy, const char *module_id) {
  BASE_CHECK(!str_is_empty(module_id));
  struct module *module = module_find(policy, module_id);
  if (module == NULL) {
    size_t size = strlen(module_id) + 1;
    module = base_calloc(1, sizeof(*module) + size);
    memcpy(module->id, module_id, size);
    HASH_ADD_STR(policy->modules, id, module);
  }
  return module;
}

void policy_module_forget(struct policy *policy, const char *module_id) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  struct module *module = module_find(policy, module_id);
  if (module == NULL)
    return;
  struct context *context, *next;
  HASH_ITER(hh, policy->contexts, context, next) {
    if (context->module == module)
      context_end(policy, context);
  }
  HASH_DEL(policy->modules, module);
  base_free(module);
}

char *policy_canary_issue(struct policy *policy, const char *module_id) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  struct module *module = policy_module_get(policy, module_id);
  char *canary = id_token(POLICY_TOKEN_PREFIX);
  policy_hash_plain(policy, canary, strlen(canary), module->canary_hash);
  module->canary_issued = true;
  module->canary_seen = false;
  return canary;
}

bool policy_canary_seen(const struct policy *policy, const char *module_id) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  const struct module *module = module_find(policy, module_id);
  return module != NULL && module->canary_issued && module->canary_seen;
}

void canary_present(struct policy *policy, const char *module_id, const uint8_t hash[static POLICY_HASH_BYTES]) {
  struct module *module = module_find(policy, module_id);
  if (module != NULL && module->canary_issued &&
      str_equal_constant_time(module->canary_hash, POLICY_HASH_BYTES, hash, POLICY_HASH_BYTES))
    module->canary_seen = true;
}

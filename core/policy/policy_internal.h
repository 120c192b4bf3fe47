/* policy_internal.h: what the files of core/policy share and no other room includes. One file per concern:
 *   permission.c  permission table, sets, built-in roles     directory.c  users, teams, custom roles
 *   teams.c       normalisation of token teams               scope.c      addresses, time windows, copies of scopes
 *   jwt.c         signature and claims of a JWT              token.c      API tokens; token_row.c: their rows in the
 * store revocation.c  revoked JWT ids                            identify.c   credential → identity resolve.c identity
 * → context, the cache              context.c    the registry of contexts, revocation of them decide.c      visibility
 * and RBAC                        rate.c       token buckets policy.c      the room itself, modules and canaries */
#ifndef GATEHOUSE_CORE_POLICY_INTERNAL_H
#define GATEHOUSE_CORE_POLICY_INTERNAL_H

#include <jansson.h>
#include <openssl/evp.h>
#include <sys/queue.h>

#include "core/policy/policy.h"
#include "core/store/store.h"
#include "sdk/base/alloc.h"
#include "sdk/base/arena.h"
#include "sdk/base/check.h"
#include "sdk/base/str.h"

#define uthash_malloc(size_) base_alloc(size_)
#define uthash_free(pointer_, size_) base_free(pointer_)
#include <uthash.h>

#define POLICY_HASH_BYTES 32
#define POLICY_NAMESPACE_TOKENS "policy.tokens"
#define POLICY_NAMESPACE_REVOCATIONS "policy.revocations"
#define POLICY_TOKEN_PREFIX "gh"
#define POLICY_TOKEN_LENGTH 46 /* "gh_" and 43 characters */

/* ---- Permissions ---- */

enum permission {
#define PERMISSION(identifier, text) PERMISSION_##identifier,
#define PERMISSION_ALIAS(text, identifier)
#include "core/policy/permissions.def"
#undef PERMISSION
#undef PERMISSION_ALIAS
  PERMISSION_COUNT
};

struct permission_set {
  uint64_t words[2];
};
_Static_assert(PERMISSION_COUNT <= 128, "permission_set is too small");

int permission_find(const char *text, size_t length); /* -1: unknown */
bool permission_set_has(const struct permission_set *set, int permission);
/* Adds "*", "<category>.*" or one permission; false: unknown, nothing added. */
bool permission_set_add(struct permission_set *set, const char *text);
void permission_set_union(struct permission_set *set, const struct permission_set *other);
void permission_set_intersect(struct permission_set *set, const struct permission_set *other);
void permission_set_remove_category(struct permission_set *set, const char *wildcard);
/* What a token's permission list lets through (layer one of spec/protocols.md 5.7). */
void permission_set_of_scope(struct permission_set *set, const struct policy_scope *scope);
/* False: no built-in role of that name. */
bool permission_role_builtin(const char *name, struct permission_set *set);

/* ---- Names and lists ---- */

bool policy_name_valid(const char *name); /* UTF-8, no control character or space, 1 to POLICY_NAME_MAX_BYTES */
bool policy_names_contain(const char *const *names, size_t count, const char *name);
const char *const *policy_names_copy(struct arena *arena, const char *const *names, size_t count);

/* ---- Directory ---- */

struct user_record {
  struct arena *arena; /* owns everything below */
  struct policy_user user;
  UT_hash_handle hh; /* by e-mail */
};
struct team_record {
  UT_hash_handle hh;
  char name[];
};
struct role_record {
  struct permission_set permissions;
  UT_hash_handle hh;
  char name[];
};

const struct policy_user *directory_user(const struct policy *policy, const char *email); /* NULL: none */
/* Teams the user is in and that exist, allocated in arena. user may be NULL. */
struct policy_teams directory_user_teams(const struct policy *policy, const struct policy_user *user,
                                         struct arena *arena);
void directory_role_permissions(const struct policy *policy, const char *role, struct permission_set *set); /* adds */
void directory_free(struct policy *policy);

/* ---- Teams of a credential (SPI-4) ---- */

/* spec/protocols.md 5.6, from the claims of a JWT: POLICY_TEAMS_NULL or POLICY_TEAMS_LIST, in arena. */
struct policy_teams policy_normalize_token_teams(struct arena *arena, const json_t *claims);
/* The same rule for an API token's stored teams. */
struct policy_teams policy_normalize_stored_teams(const struct policy_teams *teams, bool is_admin);
/* For tokens of use "session": what the directory says, narrowed by the token. */
struct policy_teams policy_resolve_session_teams(const struct policy *policy, struct arena *arena, const char *email,
                                                 const struct policy_teams *token_teams);
/* A list is narrowed to teams the user is in now, unless the user is an administrator. */
struct policy_teams policy_narrow_to_membership(const struct policy *policy, struct arena *arena, const char *email,
                                                const struct policy_teams *teams);
bool policy_claims_admin(const json_t *claims); /* is_admin or user.is_admin is true */

/* ---- Scope ---- */

void scope_copy(struct arena *arena, struct policy_scope *target, const struct policy_scope *source);
bool scope_validate(const struct policy_scope *scope, struct error *err);
bool scope_address_allowed(const struct policy_scope *scope, const char *address);
bool scope_time_allowed(const struct policy_scope *scope, int64_t wall_us);
int64_t scope_window_end_us(const struct policy_scope *scope,
                            int64_t wall_us); /* INT64_MAX: never; only when allowed */
bool scope_cidr_valid(const char *cidr);
bool scope_cidr_contains(const char *cidr, const char *address);
/* The `scopes` claim of a JWT or the scope of a token row; false: not understood, so refused. */
bool scope_from_json(struct arena *arena, const json_t *json, struct policy_scope *scope);
json_t *scope_to_json(const struct policy_scope *scope);

/* ---- JWT (SPI-19) ---- */

struct jwt_verifier; /* keys, issuer, audience */

/* NULL with ERR_CONFIG_VALUE. */
struct jwt_verifier *jwt_verifier_create(const struct policy_options *options, struct error *err);
void jwt_verifier_free(struct jwt_verifier **verifier);

struct jwt_claims { /* texts live in the arena */
  const char *email;
  const char *jti;
  int64_t expires_at_us;
  bool is_session;
  struct policy_teams teams; /* normalised */
  struct policy_scope scope;
};
/* Everything that can be said from the token itself; false: refused, whatever the reason. */
bool jwt_verify(const struct jwt_verifier *verifier, const char *token, size_t length, int64_t wall_us,
                struct arena *arena, struct jwt_claims *claims);

/* ---- API tokens and revocations ---- */

struct token_record {
  struct arena *arena; /* owns the texts */
  uint8_t hash[POLICY_HASH_BYTES];
  struct policy_token_info info;
  UT_hash_handle hh;      /* by id */
  UT_hash_handle hh_hash; /* by the first half of hash; the whole is then compared in constant time */
};
struct revocation {
  int64_t expires_at_ms;
  UT_hash_handle hh; /* by jti */
  char jti[];
};

bool token_load_all(struct policy *policy, struct error *err);
void token_free_all(struct policy *policy);
const struct token_record *token_find(const struct policy *policy, const uint8_t hash[static POLICY_HASH_BYTES]);
void token_record_free(struct token_record **record);
char *token_row_encode(const struct token_record *record); /* caller frees with base_free */
struct token_record *token_row_decode(const char *token_id, const void *value, size_t length); /* NULL: malformed */

bool revocation_load_all(struct policy *policy, struct error *err);
void revocation_free_all(struct policy *policy);
bool revocation_has(const struct policy *policy, const char *jti);

/* ---- Contexts ---- */

#define CONTEXT_MAGIC 0x637478u

struct context_team_grant {
  const char *team;
  struct permission_set permissions;
};

struct context {
  struct policy_context seen; /* first: what others see of it */
  uint32_t magic;
  uint32_t holds;
  bool alive;
  bool final;          /* ends with its credential: asking again would not give a later end */
  int64_t deadline_us; /* monotonic */
  struct arena *arena; /* owns the texts; the struct lives in it */
  struct policy_teams directory_teams;
  struct permission_set everywhere; /* on every record */
  struct permission_set anywhere;   /* everywhere and in some team */
  struct context_team_grant *grants;
  size_t grant_count;
  struct module *module;
  struct subject *subject;
  char reference[POLICY_REFERENCE_LENGTH + 1];
  uint8_t cache_key[POLICY_HASH_BYTES];
  bool cached;
  UT_hash_handle hh;       /* by reference */
  UT_hash_handle hh_cache; /* by cache_key */
  TAILQ_ENTRY(context) by_age;
  LIST_ENTRY(context) by_subject;
};
TAILQ_HEAD(context_queue, context);
LIST_HEAD(context_list, context);

struct subject { /* contexts of one user, while there are any */
  struct context_list contexts;
  UT_hash_handle hh;
  char email[];
};

struct module {
  uint32_t contexts;
  bool canary_issued;
  bool canary_seen;
  uint8_t canary_hash[POLICY_HASH_BYTES];
  UT_hash_handle hh;
  char id[];
};

struct module *policy_module_get(struct policy *policy, const char *module_id); /* makes it */
/* A token that nobody has: notes when it is the canary of the module that presents it. */
void canary_present(struct policy *policy, const char *module_id, const uint8_t hash[static POLICY_HASH_BYTES]);

/* Whether there is room for one more of this module, after forgetting what is over. */
bool context_has_room(struct policy *policy, const struct module *module);
/* Enters a filled context under a fresh reference. */
void context_enter(struct policy *policy, struct context *context);
struct context *context_cached(struct policy *policy, const uint8_t key[static POLICY_HASH_BYTES]);
/* Forgets one without telling; frees it when nobody holds it. */
void context_end(struct policy *policy, struct context *context);
void context_end_all(struct policy *policy);

/* Revoke: end those that the test picks, tell the listener. email NULL: look at all. */
typedef bool context_test(const struct policy *policy, const struct context *context, const void *arg);
void context_revoke(struct policy *policy, const char *email, context_test *test, const void *arg);

/* Who a credential stands for. Texts in the arena or in the directory. */
struct identity {
  const char *email; /* "" : anonymous */
  enum policy_auth_method method;
  const char *token_id;
  struct policy_teams teams;
  struct policy_scope scope;
  int64_t expires_at_us; /* wall; INT64_MAX: never */
};
/* A bearer credential (NULL: none was given) or, without one, the certificate, or anonymous. */
bool identify(struct policy *policy, const struct policy_credentials *credentials, const char *bearer,
              size_t bearer_length, struct arena *arena, struct identity *identity, struct error *err);

/* ---- Rate buckets ---- */

struct rate_bucket {
  uint8_t key[16]; /* keyed hash of the name: bounded, and no outsider can choose colliding ones */
  int64_t units;   /* millionths of one request, at updated_us */
  int64_t capacity;
  uint32_t rate_per_minute;
  int64_t updated_us;
  UT_hash_handle hh;
  TAILQ_ENTRY(rate_bucket) by_use;
};
TAILQ_HEAD(rate_queue, rate_bucket);
void rate_free_all(struct policy *policy);

/* ---- The room ---- */

#define POLICY_MAGIC 0x706f6c69u

struct policy {
  uint32_t magic;
  struct store *store;
  struct policy_clock clock;
  bool anonymous_allowed;
  struct permission_set anonymous_permissions;
  struct jwt_verifier *jwt;
  struct policy_tls_user *tls_users;
  size_t tls_user_count;
  int64_t context_life_us;
  uint32_t contexts_max;
  uint32_t rate_buckets_max;
  uint64_t revision;
  EVP_MD *sha256; /* fetched once: fetching costs more than hashing */
  EVP_MD_CTX *digest;
  uint8_t hash_key[POLICY_HASH_BYTES]; /* of this process */

  struct user_record *users;
  struct team_record *teams;
  struct role_record *roles;
  struct token_record *tokens;
  struct token_record *tokens_by_hash;
  struct revocation *revocations;
  int64_t revocations_swept_ms;

  struct module *modules;
  struct subject *subjects;
  struct context *contexts;
  struct context *contexts_cached;
  struct context_queue contexts_by_age;
  int64_t contexts_swept_us;
  policy_revoked *revoked;
  void *revoked_arg;

  struct rate_bucket *buckets;
  struct rate_queue buckets_by_use;
};

int64_t policy_wall_us(const struct policy *policy);
int64_t policy_monotonic_us(const struct policy *policy);

/* SHA-256 over parts, each preceded by its length, keyed with this process's random key; or plain, over one part. */
struct hash_part {
  const void *data;
  size_t length;
};
void policy_hash_parts(const struct policy *policy, const struct hash_part *parts, size_t count,
                       uint8_t target[static POLICY_HASH_BYTES]);
void policy_hash_plain(const struct policy *policy, const void *data, size_t length,
                       uint8_t target[static POLICY_HASH_BYTES]);

#endif

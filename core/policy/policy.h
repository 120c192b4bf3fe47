/* policy.h: who is calling, what they see, what they may do, and how often (SPI-2..6, SPI-18..20, SPI-AUTH).
 *
 * Threads. One core thread owns a `struct policy` and calls every function here; nothing locks. Callbacks run on it
 * too.
 *
 * What it owns. Users, teams and custom roles are documents of the catalog: it puts them here after each commit and at
 * start, this room only keeps the compiled form. API tokens and revoked JWT ids are persisted by this room (store
 * namespaces "policy.tokens" and "policy.revocations"). Contexts, rate buckets and canaries live in memory: after a
 * core restart every module resolves its callers again.
 *
 * Promises. Everything that is not granted is denied. A bad credential never falls back to a weaker one. A revocation
 * ends every context it concerns before the function returns, whether or not it could be persisted yet. A context is
 * never wider than its credential, its user and its scope, whichever is narrowest.
 *
 * Two layers (SPI-5): policy_can_see (visibility), then policy_may (RBAC narrowed by the token's scope);
 * policy_check_access does both and answers the same for a record that is absent and one that is invisible.
 *
 * Bounds. Contexts, rate buckets, and the sizes of credentials, lists and names are all bounded; at a bound the answer
 * is a denial. */
#ifndef GATEHOUSE_CORE_POLICY_H
#define GATEHOUSE_CORE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/error.h"
#include "sdk/base/secret.h"

struct policy;
struct store;

#define POLICY_CREDENTIAL_MAX_BYTES 8192 /* of a bearer credential */
#define POLICY_NAME_MAX_BYTES 254        /* e-mails, team, role, module, server names, jti */
#define POLICY_LIST_MAX 256              /* teams, roles, scope entries of one thing */
#define POLICY_REFERENCE_LENGTH 43       /* 32 random bytes in base64url */
#define POLICY_SKEW_SECONDS 30           /* tolerated for nbf and iat; none for exp */

/* ---- The room ---------------------------------------------------------------------------------------------------- */

/* Time, injectable for tests. wall: microseconds since 1970; monotonic: microseconds since some point. */
struct policy_clock {
  int64_t (*wall_us)(void *arg);
  int64_t (*monotonic_us)(void *arg);
  void *arg;
};

/* A key that JWTs may be signed with. The algorithm belongs to the key, never to the token (no algorithm confusion). */
struct policy_jwt_key {
  const char *kid;       /* NULL: for tokens without kid; then it must be the only key */
  const char *algorithm; /* "HS256", "RS256", "ES256" or "EdDSA" */
  const void *key; /* HS256: at least 32 bytes. Else the public key in PEM; RSA of at least 2048 bits, P-256, Ed25519 */
  size_t key_length;
};

/* A client certificate's subject, exactly as a module reports it, and the user it stands for. */
struct policy_tls_user {
  const char *subject;
  const char *user_email;
};

/* Zeroed: safe defaults. Everything is copied. */
struct policy_options {
  struct store *store;              /* borrowed, outlives the policy. NULL: tokens and revocations are not kept */
  const struct policy_clock *clock; /* NULL: the real clocks */
  bool anonymous_allowed;           /* callers without any credential get an anonymous context */
  const char *anonymous_role;       /* role of anonymous callers on public records; NULL: no permission at all */
  const struct policy_jwt_key *jwt_keys;
  size_t jwt_key_count;     /* 0: no JWT is accepted */
  const char *jwt_issuer;   /* NULL: any; else `iss` must equal it */
  const char *jwt_audience; /* NULL: any; else `aud` must contain it */
  const struct policy_tls_user *tls_users;
  size_t tls_user_count;     /* 0: certificates identify nobody */
  uint32_t context_life_ms;  /* 0: 60000, also the most */
  uint32_t contexts_max;     /* 0: 65536; one module may hold at most half of it */
  uint32_t rate_buckets_max; /* 0: 65536 */
};

/* Loads tokens and revocations from the store (blocks; start-up only). NULL with ERR_CONFIG_VALUE (weak or ambiguous
 * JWT key, unknown algorithm, unknown anonymous role), ERR_STORE_CORRUPT (a row that cannot be understood),
 * ERR_STORE_FAILED. */
struct policy *policy_create(const struct policy_options *options, struct error *err);
/* NULL-safe, nulls. Call after store_close, or when no commit of this room is under way. Contexts still held stay
 * readable until released. */
void policy_free(struct policy **policy);

/* Grows with every change of users, teams, roles, tokens or revocations: the revision of leases (BND-6). Starts at 1.
 */
uint64_t policy_revision(const struct policy *policy);

/* ---- Users, teams, roles (put by the catalog's documents) ---------------------------------------------------------
 */

struct policy_team_role {
  const char *team;
  const char *role;
};

struct policy_user {
  const char *email;
  bool is_admin; /* has platform_admin without naming it */
  const char *const *teams;
  size_t team_count;
  const char *const *roles; /* on every record */
  size_t role_count;
  const struct policy_team_role *team_roles; /* on records of one team the user is in */
  size_t team_role_count;
};

struct policy_role {
  const char *name;
  const char *const *permissions; /* of the permission table, "<category>.*" or "*" */
  size_t permission_count;
};

/* What may be put; to be asked before the document is committed. Names of roles and teams need not exist yet: a
 * dangling one grants nothing. Errors: ERR_ARGUMENT_INVALID, ERR_ARGUMENT_MISSING, ERR_ARGUMENT_TOO_LARGE; for a role
 * also when it has the name of a built-in one or an unknown permission (a typing error must not silently grant
 * nothing). */
bool policy_user_validate(const struct policy_user *user, struct error *err);
bool policy_team_validate(const char *team, struct error *err);
bool policy_role_validate(const struct policy_role *role, struct error *err);

/* Put: validates again (same errors), replaces, and ends the contexts that the change concerns (putting the same again
 * changes nothing). Delete: false when it was not there. Deleting a user ends its contexts; its API tokens are refused
 * while there is no such user. */
bool policy_user_put(struct policy *policy, const struct policy_user *user, struct error *err);
bool policy_user_delete(struct policy *policy, const char *email);
bool policy_user_exists(const struct policy *policy, const char *email);
bool policy_team_put(struct policy *policy, const char *team, struct error *err);
bool policy_team_delete(struct policy *policy, const char *team);
bool policy_team_exists(const struct policy *policy, const char *team);
bool policy_role_put(struct policy *policy, const struct policy_role *role, struct error *err);
bool policy_role_delete(struct policy *policy, const char *name);
bool policy_role_exists(const struct policy *policy, const char *name); /* built-in ones exist */

/* The permission table, for documents and --help: NULL when index is past the end. */
const char *policy_permission_name(size_t index);
bool policy_permission_is_known(const char *permission); /* also wildcards and the aliases (llm.read for models.read) */

/* ---- API tokens (SPI-19) ------------------------------------------------------------------------------------------
 */

/* Teams of a credential before and after normalisation. Absent and an empty list stay apart from null (SPI-4). */
enum policy_teams_kind {
  POLICY_TEAMS_ABSENT = 0, /* only before normalisation: public records only */
  POLICY_TEAMS_NULL = 1,   /* no team filter (administrators only) */
  POLICY_TEAMS_LIST = 2,   /* these teams and public; empty: public records only */
};
struct policy_teams {
  enum policy_teams_kind kind;
  const char *const *ids;
  size_t count;
};

/* What narrows a credential (SPI-20). Zeroed: nothing. */
struct policy_scope {
  const char *server_id;          /* NULL or "": any */
  const char *const *permissions; /* "*", "<category>.*" or exact; none: all that the roles give */
  size_t permission_count;
  const char *const *ip_restrictions; /* IPv4/IPv6 CIDR blocks or addresses; none: any client address */
  size_t ip_restriction_count;
  bool business_hours_only; /* 09:00 to 17:00 UTC */
  bool weekdays_only;       /* Monday to Friday, UTC */
};

struct policy_token_request {
  const char *user_email; /* must exist */
  const char *name;       /* for people; may be NULL */
  struct policy_teams teams;
  struct policy_scope scope;
  uint64_t ttl_seconds; /* 0: does not end by itself */
};

struct policy_token_info { /* valid during the call that hands it out; of policy_token_list until tokens change */
  const char *token_id;
  const char *user_email;
  const char *name;
  struct policy_teams teams;
  struct policy_scope scope;
  int64_t created_at_ms;
  int64_t expires_at_ms; /* 0: not by itself */
  int64_t revoked_at_ms; /* 0: it was not */
};

/* The token, shown this once: "gh_" and 43 base64url characters; the receiver copies it out, it is wiped after the
 * call. On failure info and token are NULL. */
typedef void policy_token_created(void *arg, const struct policy_token_info *info, const struct secret *token,
                                  const struct error *err);
typedef void policy_done(void *arg, const struct error *err);                     /* err NULL: persisted */
typedef bool policy_token_visit(void *arg, const struct policy_token_info *info); /* false: stop */

/* Makes a token; it is accepted from the moment that `created` is called (it is durable then). Without a store
 * `created` runs before this returns. False, and `created` is not called: ERR_NOT_FOUND (user), ERR_ARGUMENT_* (names,
 * teams the user is not in, teams null for a user that is no administrator, unknown permission, malformed CIDR, ttl).
 * Errors in `created`: ERR_STORE_*. */
bool policy_token_create(struct policy *policy, const struct policy_token_request *request,
                         policy_token_created *created, void *arg, struct error *err);
/* In order of creation; user_email NULL or "": all. */
void policy_token_list(const struct policy *policy, const char *user_email, policy_token_visit *visit, void *arg);
/* Takes effect before it returns; `done` (may be NULL) when that is persisted. If persisting fails the token stays
 * refused while this core lives, and the caller must say so. Revoking again is fine. Error: ERR_NOT_FOUND. */
bool policy_token_revoke(struct policy *policy, const char *token_id, policy_done *done, void *arg, struct error *err);

/* Puts a JWT id on the revocation list. expires_at_ms: when the entry may be forgotten (the token's exp); 0: never.
 * Effect and `done` as above. Error: ERR_ARGUMENT_INVALID. */
bool policy_jwt_revoke(struct policy *policy, const char *jti, int64_t expires_at_ms, policy_done *done, void *arg,
                       struct error *err);

/* ---- Contexts (SPI-2, SPI-3) ---------------------------------------------------------------------------------------
 */

enum policy_auth_method { /* numbered as core.common.v1.AuthMethod */
                          POLICY_AUTH_ANONYMOUS = 1,
                          POLICY_AUTH_API_TOKEN = 2,
                          POLICY_AUTH_JWT = 3,
                          POLICY_AUTH_MUTUAL_TLS = 4,
};

/* An authenticated caller. Read only; a trace belongs to a request and is not part of it. Unless held, valid until the
 * next call of policy_resolve, policy_context_find or a function that changes policy. teams of kind NULL lift the team
 * filter only where is_admin says so too; let policy_can_see decide. */
struct policy_context {
  const char *reference;  /* opaque, POLICY_REFERENCE_LENGTH characters */
  const char *module_id;  /* the only module that may use it */
  const char *user_email; /* "": anonymous */
  bool is_admin;          /* by the user's record */
  const char *token_id;   /* id of the API token or the jti; "": none */
  enum policy_auth_method method;
  struct policy_teams teams; /* normalised: NULL or LIST */
  struct policy_scope scope; /* server_id: of the token or of the request */
  int64_t expires_at_ms;     /* wall clock */
};

/* What a module saw of a request. Everything is borrowed for the call and not trusted. */
struct policy_credentials {
  const char *module_id;            /* from the channel, never from the message (TRN-4) */
  const char *const *authorization; /* values of every Authorization header; more than one is refused */
  size_t authorization_count;
  const char *client_address;     /* without port; NULL: unknown (then a token with IP restrictions is refused) */
  const char *server_id;          /* NULL or "": the default one */
  const char *protocol_family;    /* "mcp", …; NULL reads as "" */
  const char *tls_client_subject; /* NULL or "": none */
};

/* Turns credentials into a context. A credential seen again from the same module, address, server, family and subject
 * within the context's life gives the same context. Expiry: the earliest of now + life, the credential's end, and the
 * end of its time window. Errors: ERR_AUTH_TOKEN_MISSING; ERR_AUTH_TOKEN_INVALID (the same answer for malformed,
 * unknown, expired, revoked and badly signed ones); ERR_AUTH_SCOPE (good credential, but not from this address, for
 * this server, or at this time); ERR_AUTH_CONTEXT_LIMIT. */
bool policy_resolve(struct policy *policy, const struct policy_credentials *credentials,
                    const struct policy_context **context, struct error *err);

/* The live context of a reference. ERR_AUTH_CONTEXT_EXPIRED, the same for unknown, malformed, expired, revoked and
 * another module's (SPI-3). length without NUL. */
const struct policy_context *policy_context_find(struct policy *policy, const char *module_id, const char *reference,
                                                 size_t length, struct error *err);
/* For work that outlives the current call: the memory stays while held. A held context may be dead: ask before acting.
 */
const struct policy_context *policy_context_hold(const struct policy_context *context);
void policy_context_release(const struct policy_context **context); /* NULL-safe, nulls */
bool policy_context_is_alive(struct policy *policy, const struct policy_context *context);
/* Contexts kept now, of all modules; for metrics. */
size_t policy_context_count(const struct policy *policy);

/* Told, before the revoking function returns, which references of a module died by revocation (not by time), so that
 * they can be pushed to it. One listener; must not call back into policy. */
typedef void policy_revoked(void *arg, const char *module_id, const char *const *references, size_t count);
void policy_listen(struct policy *policy, policy_revoked *revoked, void *arg);

/* An instance of the module is gone: its contexts, canary and counters are forgotten, without telling the listener. */
void policy_module_forget(struct policy *policy, const char *module_id);

/* ---- The canary of LIF-3 -------------------------------------------------------------------------------------------
 */

/* A well-formed API token that is always bad; issuing again makes a new one, not yet seen. Caller frees with base_free.
 */
char *policy_canary_issue(struct policy *policy, const char *module_id);
/* Whether this module presented its current canary (and was denied). */
bool policy_canary_seen(const struct policy *policy, const char *module_id);

/* ---- Decisions (SPI-5, SPI-6, SPI-20) ------------------------------------------------------------------------------
 */

enum policy_visibility { /* numbered as core.common.v1.Visibility; anything else counts as private */
                         POLICY_VISIBILITY_PRIVATE = 1,
                         POLICY_VISIBILITY_TEAM = 2,
                         POLICY_VISIBILITY_PUBLIC = 3,
};

struct policy_record_facts {
  enum policy_visibility visibility;
  const char *team_id;     /* NULL or "": none */
  const char *owner_email; /* NULL or "": none */
};

/* Layer one: the table of spec/protocols.md 5.6. */
bool policy_can_see(const struct policy_context *context, const struct policy_record_facts *facts);
/* Layer two: roles, narrowed by the token's scope. team_id: the team of the record; NULL or "": in any team. */
bool policy_may(const struct policy_context *context, const char *permission, const char *team_id);
/* Both. facts NULL: there is no such record. Errors: ERR_CATALOG_NOT_FOUND (absent or invisible: same code, message and
 * work), ERR_AUTH_PERMISSION_DENIED. permission NULL: visibility only. */
bool policy_check_access(const struct policy_context *context, const struct policy_record_facts *facts,
                         const char *permission, struct error *err);

/* ---- Rate limits (SPI-18) ------------------------------------------------------------------------------------------
 */

/* Takes one from the bucket of key (such as "tool:<id>:user:<email>"), which fills with rate_per_minute up to burst (0
 * reads as 1). False with ERR_RATE_LIMIT_EXCEEDED and err->retry_after_ms; *retry_after_ms (may be NULL) is then at
 * least
 * 1. A rate of 0 allows nothing. When all buckets are in use a new key is refused too: no limit is ever forgotten to
 * make room for another. */
bool policy_rate_take(struct policy *policy, const char *key, uint32_t rate_per_minute, uint32_t burst,
                      uint32_t *retry_after_ms, struct error *err);

#endif

/* identify.c: from a credential to who it stands for (SPI-19). A bearer credential is an API token or a JWT by its form
 * alone; when it is refused nothing else is tried. Without one the certificate counts, and without that, where it is
 * allowed, nobody in particular. A user's record is not needed for a JWT, but without it the caller has no role and no
 * team, so it can do nothing that needs a permission. */
#include <string.h>

#include "core/policy/policy_internal.h"

static bool token_alive(const struct policy *policy, const struct token_record *record) {
  const struct policy_token_info *info = &record->info;
  if (info->revoked_at_ms != 0)
    return false;
  return info->expires_at_ms == 0 || info->expires_at_ms > policy_wall_us(policy) / 1000;
}

static bool identify_token(struct policy *policy, const char *module_id, const char *bearer, size_t length,
                           struct arena *arena, struct identity *identity) {
  uint8_t hash[POLICY_HASH_BYTES];
  policy_hash_plain(policy, bearer, length, hash);
  const struct token_record *record = token_find(policy, hash);
  if (record == NULL) {
    canary_present(policy, module_id, hash);
    return false;
  }
  const struct policy_user *user = directory_user(policy, record->info.user_email);
  if (user == NULL || !token_alive(policy, record))
    return false;
  struct policy_teams teams = policy_normalize_stored_teams(&record->info.teams, user->is_admin);
  int64_t expires_at_ms = record->info.expires_at_ms;
  *identity = (struct identity){
      .email = record->info.user_email,
      .method = POLICY_AUTH_API_TOKEN,
      .token_id = record->info.token_id,
      .teams = policy_narrow_to_membership(policy, arena, record->info.user_email, &teams),
      .scope = record->info.scope,
      .expires_at_us = expires_at_ms == 0 ? INT64_MAX : expires_at_ms * 1000,
  };
  return true;
}

static bool identify_jwt(struct policy *policy, const char *bearer, size_t length, struct arena *arena,
                         struct identity *identity) {
  struct jwt_claims claims;
  if (!jwt_verify(policy->jwt, bearer, length, policy_wall_us(policy), arena, &claims) ||
      revocation_has(policy, claims.jti))
    return false;
  *identity = (struct identity){
      .email = claims.email,
      .method = POLICY_AUTH_JWT,
      .token_id = claims.jti,
      .teams = claims.is_session ? policy_resolve_session_teams(policy, arena, claims.email, &claims.teams)
                                 : policy_narrow_to_membership(policy, arena, claims.email, &claims.teams),
      .scope = claims.scope,
      .expires_at_us = claims.expires_at_us,
  };
  return true;
}

static bool identify_certificate(const struct policy *policy, const char *subject, struct arena *arena,
                                 struct identity *identity) {
  static const struct policy_teams unsaid = {.kind = POLICY_TEAMS_ABSENT};
  for (size_t i = 0; i < policy->tls_user_count; i++) {
    const char *email = policy->tls_users[i].user_email;
    if (!str_equal(policy->tls_users[i].subject, subject) || !policy_user_exists(policy, email))
      continue;
    *identity = (struct identity){
        .email = email,
        .method = POLICY_AUTH_MUTUAL_TLS,
        .token_id = "",
        .teams = policy_resolve_session_teams(policy, arena, email, &unsaid),
        .scope = {.server_id = ""},
        .expires_at_us = INT64_MAX,
    };
    return true;
  }
  return false;
}

bool identify(struct policy *policy, const struct policy_credentials *credentials, const char *bearer,
              size_t bearer_length, struct arena *arena, struct identity *identity, struct error *err) {
  if (bearer != NULL) {
    bool opaque = bearer_length == POLICY_TOKEN_LENGTH && memchr(bearer, '.', bearer_length) == NULL;
    bool good = opaque ? identify_token(policy, credentials->module_id, bearer, bearer_length, arena, identity)
                       : identify_jwt(policy, bearer, bearer_length, arena, identity);
    return good || error_set(err, ERR_AUTH_TOKEN_INVALID, NULL);
  }
  if (!str_is_empty(credentials->tls_client_subject) &&
      identify_certificate(policy, credentials->tls_client_subject, arena, identity))
    return true;
  if (!policy->anonymous_allowed)
    return error_set(err, ERR_AUTH_TOKEN_MISSING, NULL);
  *identity = (struct identity){
      .email = "",
      .method = POLICY_AUTH_ANONYMOUS,
      .token_id = "",
      .teams = {.kind = POLICY_TEAMS_LIST},
      .scope = {.server_id = ""},
      .expires_at_us = INT64_MAX,
  };
  return true;
}

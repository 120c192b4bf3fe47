/* resolve.c: credentials to a context (SPI-2). Every way to narrow a caller is applied here, once, so that later
 * decisions are a few comparisons: teams, scope, time window, address, and the permissions that are left in each team.
 *
 * The same credential from the same place gives the same context again until three quarters of its life are over; then
 * a fresh one, so that a module never gets one that is about to end. The cache key is a keyed hash: the credential
 * itself is not kept anywhere. */
#include <string.h>
#include <strings.h>

#include "core/policy/policy_internal.h"

#define ADDRESS_MAX_BYTES 63

/* ---- The Authorization header ---- */

static bool is_token68(char character) {
  return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
         (character >= '0' && character <= '9') || memchr("-._~+/=", character, 7) != NULL;
}

/* "Bearer" 1*SP token68, nothing else. *bearer stays NULL when there is no header at all. */
static bool bearer_parse(const struct policy_credentials *credentials, const char **bearer, size_t *length) {
  static const char scheme[] = "Bearer ";
  if (credentials->authorization_count == 0)
    return true;
  const char *header = credentials->authorization[0];
  if (credentials->authorization_count > 1 || header == NULL || strncasecmp(header, scheme, sizeof(scheme) - 1) != 0)
    return false;
  header += sizeof(scheme) - 1;
  header += strspn(header, " ");
  size_t size = strnlen(header, POLICY_CREDENTIAL_MAX_BYTES + 1);
  if (size == 0 || size > POLICY_CREDENTIAL_MAX_BYTES)
    return false;
  for (size_t i = 0; i < size; i++)
    if (!is_token68(header[i]))
      return false;
  *bearer = header;
  *length = size;
  return true;
}

/* ---- The cache ---- */

static struct hash_part text_part(const char *text) {
  return (struct hash_part){text, text == NULL ? 0 : strlen(text)};
}

static void cache_key_make(const struct policy *policy, const struct policy_credentials *credentials,
                           const char *bearer, size_t bearer_length, uint8_t key[static POLICY_HASH_BYTES]) {
  const struct hash_part parts[] = {
      {bearer == NULL ? "-" : "b", 1},
      {bearer, bearer == NULL ? 0 : bearer_length},
      text_part(credentials->module_id),
      text_part(credentials->server_id),
      text_part(credentials->protocol_family),
      text_part(credentials->client_address),
      text_part(credentials->tls_client_subject),
  };
  policy_hash_parts(policy, parts, sizeof(parts) / sizeof(parts[0]), key);
}

static bool cache_fresh(const struct policy *policy, const struct context *context) {
  int64_t left_us = context->deadline_us - policy_monotonic_us(policy);
  return left_us > (context->final ? 0 : policy->context_life_us / 4);
}

/* ---- What is left of the roles ---- */

static void grant_in_team(struct context *context, const char *team, const struct permission_set *permissions) {
  for (size_t i = 0; i < context->grant_count; i++)
    if (strcmp(context->grants[i].team, team) == 0) {
      permission_set_union(&context->grants[i].permissions, permissions);
      return;
    }
  context->grants[context->grant_count++] = (struct context_team_grant){team, *permissions};
}

/* Layer one as a set: what the token lets through, whatever the roles say. */
static void layer_one(const struct context *context, struct permission_set *allowed) {
  permission_set_of_scope(allowed, &context->seen.scope);
  if (context->seen.teams.kind == POLICY_TEAMS_LIST && context->seen.teams.count == 0)
    permission_set_remove_category(allowed, "admin.*"); /* public-only */
}

static void grant_roles(const struct policy *policy, struct context *context, const struct policy_user *user) {
  const struct policy_teams *teams = &context->seen.teams;
  struct permission_set allowed;
  layer_one(context, &allowed);
  if (user == NULL) {
    if (context->seen.method == POLICY_AUTH_ANONYMOUS)
      context->everywhere = policy->anonymous_permissions;
  } else {
    if (user->is_admin)
      directory_role_permissions(policy, "platform_admin", &context->everywhere);
    for (size_t i = 0; i < user->role_count; i++)
      directory_role_permissions(policy, user->roles[i], &context->everywhere);
    context->grants = arena_alloc(context->arena, (user->team_role_count + 1) * sizeof(*context->grants));
    for (size_t i = 0; i < user->team_role_count; i++) {
      const char *team = user->team_roles[i].team;
      if (!policy_names_contain(context->directory_teams.ids, context->directory_teams.count, team) ||
          (teams->kind == POLICY_TEAMS_LIST && !policy_names_contain(teams->ids, teams->count, team)))
        continue;
      struct permission_set permissions = {{0}};
      directory_role_permissions(policy, user->team_roles[i].role, &permissions);
      permission_set_intersect(&permissions, &allowed);
      grant_in_team(context, arena_strdup(context->arena, team), &permissions);
    }
  }
  permission_set_intersect(&context->everywhere, &allowed);
  context->anywhere = context->everywhere;
  for (size_t i = 0; i < context->grant_count; i++)
    permission_set_union(&context->anywhere, &context->grants[i].permissions);
}

/* ---- Building ---- */

static bool scope_allows(const struct policy_credentials *credentials, const struct policy_scope *scope,
                         int64_t wall_us) {
  const char *server = credentials->server_id;
  if (!str_is_empty(server) &&
      (!policy_name_valid(server) || (!str_is_empty(scope->server_id) && strcmp(scope->server_id, server) != 0)))
    return false;
  return scope_address_allowed(scope, credentials->client_address) && scope_time_allowed(scope, wall_us);
}

static void context_set_end(const struct policy *policy, struct context *context, int64_t ends_at_us, int64_t wall_us) {
  int64_t life_us = policy->context_life_us;
  int64_t window_us = scope_window_end_us(&context->seen.scope, wall_us);
  if (window_us < ends_at_us)
    ends_at_us = window_us;
  if (ends_at_us - wall_us < life_us) {
    life_us = ends_at_us - wall_us;
    context->final = true;
  }
  context->deadline_us = policy_monotonic_us(policy) + life_us;
  context->seen.expires_at_ms = (wall_us + life_us) / 1000;
}

static struct context *context_build(struct policy *policy, const struct policy_credentials *credentials,
                                     const struct identity *identity, struct arena *arena, int64_t wall_us) {
  const struct policy_user *user = directory_user(policy, identity->email);
  struct context *context = arena_alloc(arena, sizeof(*context));
  context->arena = arena;
  context->seen = (struct policy_context){
      .module_id = arena_strdup(arena, credentials->module_id),
      .user_email = arena_strdup(arena, identity->email),
      .is_admin = user != NULL && user->is_admin,
      .token_id = arena_strdup(arena, identity->token_id),
      .method = identity->method,
      .teams = {identity->teams.kind, policy_names_copy(arena, identity->teams.ids, identity->teams.count),
                identity->teams.count},
  };
  scope_copy(arena, &context->seen.scope, &identity->scope);
  if (str_is_empty(context->seen.scope.server_id) && !str_is_empty(credentials->server_id))
    context->seen.scope.server_id = arena_strdup(arena, credentials->server_id);
  context->directory_teams = directory_user_teams(policy, user, arena);
  grant_roles(policy, context, user);
  context_set_end(policy, context, identity->expires_at_us, wall_us);
  return context;
}

bool policy_resolve(struct policy *policy, const struct policy_credentials *credentials,
                    const struct policy_context **out, struct error *err) {
  BASE_CHECK_MAGIC(policy, POLICY_MAGIC);
  *out = NULL;
  struct policy_credentials checked = *credentials;
  if (checked.client_address != NULL && strnlen(checked.client_address, ADDRESS_MAX_BYTES + 1) > ADDRESS_MAX_BYTES)
    checked.client_address = NULL; /* no address is this long */
  const char *bearer = NULL;
  size_t bearer_length = 0;
  if (!bearer_parse(&checked, &bearer, &bearer_length))
    return error_set(err, ERR_AUTH_TOKEN_INVALID, NULL);

  uint8_t key[POLICY_HASH_BYTES];
  cache_key_make(policy, &checked, bearer, bearer_length, key);
  struct context *context = context_cached(policy, key);
  if (context != NULL && cache_fresh(policy, context)) {
    *out = &context->seen;
    return true;
  }

  struct identity identity;
  struct arena *arena = arena_create(1024);
  int64_t wall_us = policy_wall_us(policy);
  if (!identify(policy, &checked, bearer, bearer_length, arena, &identity, err))
    goto refused;
  if (!scope_allows(&checked, &identity.scope, wall_us)) {
    error_set(err, ERR_AUTH_SCOPE, NULL);
    goto refused;
  }
  struct module *module = policy_module_get(policy, checked.module_id);
  if (!context_has_room(policy, module)) {
    error_set(err, ERR_AUTH_CONTEXT_LIMIT, NULL);
    goto refused;
  }
  context = context_build(policy, &checked, &identity, arena, wall_us);
  context->module = module;
  memcpy(context->cache_key, key, sizeof(key));
  context_enter(policy, context);
  *out = &context->seen;
  return true;
refused:
  arena_free(&arena);
  return false;
}

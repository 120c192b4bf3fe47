/* token_admin.c: TokenAdminService. A token's value leaves the process once, in the answer to its creation. */
#include <string.h>

#include "core/admin/admin_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"

/* A token without its value, pointing into info; parts must outlive it. */
struct info_parts {
  Core__Admin__V1__TokenInfo info;
  Core__Common__V1__TokenTeams teams;
  Core__Common__V1__VisibilityScope scope;
};

static void info_fill(const struct policy_token_info *info, struct info_parts *parts) {
  core__admin__v1__token_info__init(&parts->info);
  core__common__v1__token_teams__init(&parts->teams);
  core__common__v1__visibility_scope__init(&parts->scope);
  parts->info.token_id = admin_text(info->token_id);
  parts->info.user_email = admin_text(info->user_email);
  parts->info.name = admin_text(info->name);
  if (info->teams.kind != POLICY_TEAMS_ABSENT) {
    parts->teams.is_null = info->teams.kind == POLICY_TEAMS_NULL;
    parts->teams.n_team_ids = info->teams.count;
    parts->teams.team_ids = (char **)(uintptr_t)info->teams.ids;
    parts->info.teams = &parts->teams;
  }
  parts->scope.server_id = admin_text(info->scope.server_id);
  parts->scope.n_permissions = info->scope.permission_count;
  parts->scope.permissions = (char **)(uintptr_t)info->scope.permissions;
  parts->scope.n_ip_restrictions = info->scope.ip_restriction_count;
  parts->scope.ip_restrictions = (char **)(uintptr_t)info->scope.ip_restrictions;
  parts->scope.business_hours_only = info->scope.business_hours_only;
  parts->scope.weekdays_only = info->scope.weekdays_only;
  parts->info.scope = &parts->scope;
  parts->info.created_at_ms = info->created_at_ms;
  parts->info.expires_at_ms = info->expires_at_ms;
  parts->info.revoked_at_ms = info->revoked_at_ms;
}

static void token_created(void *arg, const struct policy_token_info *info, const struct secret *token,
                          const struct error *err) {
  struct admin_write *write = arg;
  if (!err)
    str_copy(write->target, sizeof(write->target), info->token_id);
  if (admin_write_done(write, "token.created", err)) {
    Core__Admin__V1__CreateTokenResponse response = CORE__ADMIN__V1__CREATE_TOKEN_RESPONSE__INIT;
    struct info_parts parts;
    info_fill(info, &parts);
    response.info = &parts.info;
    response.token = admin_text(secret_reveal(token));
    core_rpc_call_reply_message(write->call, &response.base);
  }
  base_free(write);
}

static struct policy_teams teams_read(const Core__Common__V1__TokenTeams *teams) {
  if (!teams)
    return (struct policy_teams){.kind = POLICY_TEAMS_ABSENT};
  if (teams->is_null)
    return (struct policy_teams){.kind = POLICY_TEAMS_NULL};
  return (struct policy_teams){
      .kind = POLICY_TEAMS_LIST, .ids = (const char *const *)teams->team_ids, .count = teams->n_team_ids};
}

void admin_create_token(const struct admin_call *call) {
  const Core__Admin__V1__CreateTokenRequest *request = (const void *)call->request;
  struct error err = {0};
  struct policy_token_request token = {.user_email = request->user_email,
                                       .name = request->name,
                                       .teams = teams_read(request->teams),
                                       .ttl_seconds = request->ttl_seconds};
  if (request->scope) {
    token.scope = (struct policy_scope){
        .server_id = request->scope->server_id,
        .permissions = (const char *const *)request->scope->permissions,
        .permission_count = request->scope->n_permissions,
        .ip_restrictions = (const char *const *)request->scope->ip_restrictions,
        .ip_restriction_count = request->scope->n_ip_restrictions,
        .business_hours_only = request->scope->business_hours_only,
        .weekdays_only = request->scope->weekdays_only,
    };
  }
  struct admin_write *write = admin_write_begin(call, request->user_email);
  if (!policy_token_create(call->admin->options.policy, &token, token_created, write, &err))
    token_created(write, NULL, NULL, &err);
}

/* ---- list ---- */

struct token_list {
  size_t count, capacity;
  struct info_parts **items;
};

static bool list_visit(void *arg, const struct policy_token_info *info) {
  struct token_list *list = arg;
  if (list->count == list->capacity) {
    list->capacity = list->capacity ? 2 * list->capacity : 32;
    list->items = base_realloc_array(list->items, list->capacity, sizeof(struct info_parts *));
  }
  list->items[list->count] = base_alloc(sizeof(struct info_parts));
  info_fill(info, list->items[list->count++]);
  return true;
}

void admin_list_tokens(const struct admin_call *call) {
  const Core__Admin__V1__ListTokensRequest *request = (const void *)call->request;
  Core__Admin__V1__ListTokensResponse response = CORE__ADMIN__V1__LIST_TOKENS_RESPONSE__INIT;
  struct token_list list = {0};
  policy_token_list(call->admin->options.policy, request->user_email, list_visit, &list);
  response.n_tokens = list.count;
  response.tokens = base_calloc(list.count + 1, sizeof(*response.tokens));
  for (size_t i = 0; i < list.count; i++)
    response.tokens[i] = &list.items[i]->info;
  core_rpc_call_reply_message(call->call, &response.base);
  for (size_t i = 0; i < list.count; i++)
    base_free(list.items[i]);
  base_free(list.items);
  base_free(response.tokens);
}

/* ---- revoke ---- */

static void token_revoked(void *arg, const struct error *err) {
  struct admin_write *write = arg;
  Core__Admin__V1__RevokeTokenResponse response = CORE__ADMIN__V1__REVOKE_TOKEN_RESPONSE__INIT;
  if (admin_write_done(write, "token.revoked", err))
    core_rpc_call_reply_message(write->call, &response.base);
  base_free(write);
}

void admin_revoke_token(const struct admin_call *call) {
  const Core__Admin__V1__RevokeTokenRequest *request = (const void *)call->request;
  struct error err = {0};
  struct admin_write *write = admin_write_begin(call, request->token_id);
  if (!policy_token_revoke(call->admin->options.policy, request->token_id, token_revoked, write, &err))
    token_revoked(write, &err);
}

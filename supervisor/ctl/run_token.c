/* run_token.c: `token create`, `token list`, `token revoke`. A token's value is written once, to standard output. */
#include <stdio.h>
#include <string.h>

#include "sdk/base/clock.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"

static void teams_write(const Core__Common__V1__TokenTeams *teams, struct buf *target) {
  if (!teams || (!teams->is_null && teams->n_team_ids == 0))
    buf_append_text(target, "(public only)");
  else if (teams->is_null)
    buf_append_text(target, "(all)");
  else
    for (size_t i = 0; i < teams->n_team_ids; i++)
      buf_printf(target, "%s%s", i ? "," : "", teams->team_ids[i]);
}

static int created_show(const struct ctl *ctl, const Core__Admin__V1__CreateTokenResponse *reply) {
  if (ctl->output != CTL_OUTPUT_TABLE)
    return ctl_print_message(ctl, &reply->base);
  /* The value alone goes to stdout, so that $(gatehouse token create …) is the token. */
  struct buf text = {0}, teams = {0};
  char ends[32];
  teams_write(reply->info ? reply->info->teams : NULL, &teams);
  ctl_time_format(reply->info ? reply->info->expires_at_ms : 0, ends);
  ctl_note("token %s for %s, teams %s, %s%s; its value is shown this once", reply->info ? reply->info->token_id : "?",
           reply->info ? reply->info->user_email : "?", teams.data, str_equal(ends, "-") ? "without end" : "until ",
           str_equal(ends, "-") ? "" : ends);
  ctl_text_append_safe(&text, reply->token, strlen(reply->token));
  buf_append_char(&text, '\n');
  int status = ctl_print(&text);
  explicit_bzero(text.data, text.length);
  buf_free(&text);
  buf_free(&teams);
  return status;
}

int ctl_run_token_create(struct ctl *ctl) {
  Core__Admin__V1__CreateTokenRequest request = CORE__ADMIN__V1__CREATE_TOKEN_REQUEST__INIT;
  Core__Common__V1__TokenTeams teams = CORE__COMMON__V1__TOKEN_TEAMS__INIT;
  Core__Common__V1__VisibilityScope scope = CORE__COMMON__V1__VISIBILITY_SCOPE__INIT;
  uint64_t ttl_ms = 0;
  const char *ttl = ctl_text(ctl, "ttl");
  if (!ctl_has(ctl, "user"))
    return ctl_fail_usage("token create needs --user EMAIL");
  if (ctl_has(ctl, "all-teams") && ctl_has(ctl, "team"))
    return ctl_fail_usage("either --team or --all-teams");
  if (ttl && (!ctl_duration_parse(ttl, &ttl_ms) || ttl_ms < 1000))
    return ctl_fail_usage("--ttl is a time of a second or more, such as 8h or 30d, not \"%.60s\"", ttl);
  request.user_email = ctl_borrow(ctl_text(ctl, "user"));
  request.name = ctl_borrow(ctl_text(ctl, "name"));
  request.ttl_seconds = ttl_ms / 1000;
  teams.is_null = ctl_has(ctl, "all-teams");
  teams.team_ids = ctl_texts(ctl, "team", &teams.n_team_ids);
  request.teams = &teams;
  scope.server_id = ctl_borrow(ctl_text(ctl, "server"));
  scope.permissions = ctl_texts(ctl, "permission", &scope.n_permissions);
  scope.ip_restrictions = ctl_texts(ctl, "ip", &scope.n_ip_restrictions);
  request.scope = &scope;
  int status;
  Core__Admin__V1__CreateTokenResponse *reply =
      ctl_call_or_fail(ctl, "TokenAdminService/CreateToken", &request.base, &status);
  if (reply)
    status = created_show(ctl, reply);
  ctl_message_free(reply);
  base_free(teams.team_ids);
  base_free(scope.permissions);
  base_free(scope.ip_restrictions);
  return status;
}

static void token_row(struct ctl_table *table, const Core__Admin__V1__TokenInfo *token) {
  struct buf teams = {0};
  char created[32], expires[32];
  bool ended = token->expires_at_ms && token->expires_at_ms <= clock_wall_ms();
  teams_write(token->teams, &teams);
  ctl_time_format(token->created_at_ms, created);
  ctl_time_format(token->expires_at_ms, expires);
  ctl_table_cell(table, token->token_id);
  ctl_table_cell(table, token->user_email);
  ctl_table_cell(table, teams.data);
  ctl_table_cell_coloured(table,
                          token->revoked_at_ms ? "revoked"
                          : ended              ? "expired"
                                               : "valid",
                          token->revoked_at_ms || ended ? CTL_COLOUR_BAD : CTL_COLOUR_GOOD);
  ctl_table_cell(table, created);
  ctl_table_cell(table, expires);
  ctl_table_cell(table, token->name);
  buf_free(&teams);
}

int ctl_run_token_list(struct ctl *ctl) {
  static const char *const heads[] = {"ID", "USER", "TEAMS", "STATE", "CREATED", "EXPIRES", "NAME"};
  Core__Admin__V1__ListTokensRequest request = CORE__ADMIN__V1__LIST_TOKENS_REQUEST__INIT;
  int status;
  request.user_email = ctl_borrow(ctl_text(ctl, "user"));
  Core__Admin__V1__ListTokensResponse *reply =
      ctl_call_or_fail(ctl, "TokenAdminService/ListTokens", &request.base, &status);
  if (!reply)
    return status;
  struct buf text = {0};
  struct ctl_table *table = ctl_table_create(heads, sizeof(heads) / sizeof(heads[0]));
  for (size_t i = 0; i < reply->n_tokens; i++)
    token_row(table, reply->tokens[i]);
  ctl_table_finish(&table, &text);
  return ctl_answer(ctl, reply, &text);
}

int ctl_run_token_revoke(struct ctl *ctl) {
  Core__Admin__V1__RevokeTokenRequest request = CORE__ADMIN__V1__REVOKE_TOKEN_REQUEST__INIT;
  int status;
  request.token_id = ctl->arguments[0];
  Core__Admin__V1__RevokeTokenResponse *reply =
      ctl_call_or_fail(ctl, "TokenAdminService/RevokeToken", &request.base, &status);
  if (!reply)
    return status;
  struct buf text = {0};
  buf_printf(&text, "revoked   %s\n", request.token_id);
  return ctl_answer(ctl, reply, &text);
}

/* auth.c: AuthPolicyService: translation only; policy decides. */
#include <string.h>

#include "core/spi/spi_internal.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/spi/auth/v1/auth.pb-c.h"

#define AUTHORIZATION_MAX 8

void spi_auth_resolve_caller(const struct spi_call *call) {
  const Core__Spi__Auth__V1__ResolveCallerRequest *request = (const void *)call->request;
  const char *authorization[AUTHORIZATION_MAX];
  const struct policy_context *context = NULL;
  struct error err = {0};
  struct policy_credentials credentials = {
      .module_id = lifecycle_instance_module_id(call->instance),
      .authorization = authorization,
      .client_address = spi_text_or_null(request->client_address),
      .server_id = request->server_id,
      .protocol_family = request->protocol_family,
      .tls_client_subject = request->tls_client_subject,
  };
  for (size_t i = 0; i < request->n_headers && credentials.authorization_count < AUTHORIZATION_MAX; i++)
    if (str_equal(request->headers[i]->name, "authorization"))
      authorization[credentials.authorization_count++] = request->headers[i]->value;

  if (!policy_resolve(call->spi->options.policy, &credentials, &context, &err)) {
    const char *const labels[] = {credentials.module_id, err.code, NULL};
    observe_count(call->spi->options.observe, OBSERVE_AUTH_DENIED, labels, 1);
    core_rpc_call_fail(call->call, &err);
    return;
  }
  Core__Spi__Auth__V1__ResolveCallerResponse response = CORE__SPI__AUTH__V1__RESOLVE_CALLER_RESPONSE__INIT;
  Core__Common__V1__AuthContext out = CORE__COMMON__V1__AUTH_CONTEXT__INIT;
  Core__Common__V1__Subject subject = CORE__COMMON__V1__SUBJECT__INIT;
  Core__Common__V1__TokenTeams teams = CORE__COMMON__V1__TOKEN_TEAMS__INIT;
  Core__Common__V1__VisibilityScope scope = CORE__COMMON__V1__VISIBILITY_SCOPE__INIT;
  Core__Common__V1__Lease lease;
  teams.is_null = context->teams.kind == POLICY_TEAMS_NULL;
  teams.n_team_ids = teams.is_null ? 0 : context->teams.count;
  teams.team_ids = (char **)(uintptr_t)context->teams.ids;
  subject.user_email = spi_text(context->user_email);
  subject.is_admin = context->is_admin;
  subject.token_teams = &teams;
  subject.token_id = spi_text(context->token_id);
  subject.method = (Core__Common__V1__AuthMethod)context->method;
  scope.server_id = spi_text(context->scope.server_id);
  scope.n_permissions = context->scope.permission_count;
  scope.permissions = (char **)(uintptr_t)context->scope.permissions;
  scope.n_ip_restrictions = context->scope.ip_restriction_count;
  scope.ip_restrictions = (char **)(uintptr_t)context->scope.ip_restrictions;
  scope.business_hours_only = context->scope.business_hours_only;
  scope.weekdays_only = context->scope.weekdays_only;
  spi_lease_fill(call->spi, context, &lease);
  out.subject = &subject;
  out.scope = &scope;
  out.trace = request->trace;
  out.expires_at_ms = context->expires_at_ms;
  out.reference = spi_text(context->reference);
  response.context = &out;
  response.lease = &lease;
  core_rpc_call_reply_message(call->call, &response.base);
}

void spi_auth_check_permission(const struct spi_call *call) {
  const Core__Spi__Auth__V1__CheckPermissionRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  if (!context)
    return;
  Core__Spi__Auth__V1__CheckPermissionResponse response = CORE__SPI__AUTH__V1__CHECK_PERMISSION_RESPONSE__INIT;
  Core__Common__V1__Lease lease;
  response.allowed = policy_may(context, request->permission, spi_text_or_null(request->team_id));
  response.reason_code = spi_text(response.allowed ? "" : error_code_text(ERR_AUTH_PERMISSION_DENIED));
  spi_lease_fill(call->spi, context, &lease);
  response.lease = &lease;
  core_rpc_call_reply_message(call->call, &response.base);
}

void spi_auth_check_catalog_access(const struct spi_call *call) {
  const Core__Spi__Auth__V1__CheckCatalogAccessRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  struct error err = {0};
  if (!context)
    return;
  if (!request->target) {
    core_rpc_call_fail_code(call->call, ERR_ARGUMENT_MISSING);
    return;
  }
  const struct catalog_record *record =
      catalog_find(call->spi->options.catalog, context, (enum catalog_kind)request->target->kind,
                   spi_text_or_null(request->target->id), spi_text_or_null(request->target->name), request->server_id,
                   spi_text_or_null(request->permission), &err);
  if (!record) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  Core__Spi__Auth__V1__CheckCatalogAccessResponse response = CORE__SPI__AUTH__V1__CHECK_CATALOG_ACCESS_RESPONSE__INIT;
  Core__Common__V1__Lease lease;
  spi_lease_fill(call->spi, context, &lease);
  response.record_id = spi_text(record->id);
  response.lease = &lease;
  core_rpc_call_reply_message(call->call, &response.base);
}

void spi_auth_validate_session_binding(const struct spi_call *call) {
  const Core__Spi__Auth__V1__ValidateSessionBindingRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  struct error err = {0};
  if (!context)
    return;
  if (!session_find(call->spi->options.sessions, context, request->session_id, request->server_id, &err)) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  Core__Spi__Auth__V1__ValidateSessionBindingResponse response =
      CORE__SPI__AUTH__V1__VALIDATE_SESSION_BINDING_RESPONSE__INIT;
  Core__Common__V1__Lease lease;
  spi_lease_fill(call->spi, context, &lease);
  response.lease = &lease;
  core_rpc_call_reply_message(call->call, &response.base);
}

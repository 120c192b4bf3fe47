/* status.c: StatusService and ModuleAdminService. */
#include <stdlib.h>
#include <string.h>

#include "core/admin/admin_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"

static char *copied(const char *text) {
  char *copy = strdup(text);
  if (!copy)
    abort();
  return copy;
}

/* A store that takes no writes makes the gateway degraded: what it is asked to remember is refused. */
static void store_health_fill(struct store *store, Core__Admin__V1__GetStatusResponse *response) {
  struct store_health health;
  store_health_get(store, &health);
  response->store_error = copied(health.failing ? health.code : "");
  if (!health.failing)
    return;
  response->store_failing_ms = (uint64_t)(clock_monotonic_us() - health.since_us) / 1000 + 1;
  free(response->health);
  response->health = copied("degraded");
}

void admin_get_status(const struct admin_call *call) {
  const struct admin_options *options = &call->admin->options;
  Core__Admin__V1__GetStatusResponse *response = calloc(1, sizeof(*response));
  if (!response)
    abort();
  core__admin__v1__get_status_response__init(response);
  lifecycle_status_fill(options->lifecycle, response);
  response->version = copied(GATEHOUSE_VERSION);
  response->store_backend = copied(options->store_backend);
  response->catalog_revision = catalog_revision(options->catalog);
  response->record_count = catalog_record_count(options->catalog);
  response->event_sequence = store_last_seq(options->store);
  store_health_fill(options->store, response);
  core_rpc_call_reply_message(call->call, &response->base);
  core__admin__v1__get_status_response__free_unpacked(response, NULL);
}

void admin_get_metrics(const struct admin_call *call) {
  Core__Admin__V1__GetMetricsResponse response = CORE__ADMIN__V1__GET_METRICS_RESPONSE__INIT;
  struct buf text = {0};
  observe_render(call->admin->options.observe, &text);
  response.text = admin_text(text.data);
  core_rpc_call_reply_message(call->call, &response.base);
  buf_free(&text);
}

void admin_describe_module(const struct admin_call *call) {
  const Core__Admin__V1__DescribeModuleRequest *request = (const void *)call->request;
  struct error err = {0};
  Core__Admin__V1__DescribeModuleResponse *response =
      lifecycle_describe(call->admin->options.lifecycle, request->module_id, &err);
  if (!response) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  core_rpc_call_reply_message(call->call, &response->base);
  core__admin__v1__describe_module_response__free_unpacked(response, NULL);
}

/* Carries an order out and audits it; true: the reply is to be sent. */
static bool ordered(const struct admin_call *call, enum lifecycle_order order, const char *action,
                    const char *module_id, uint32_t deadline_ms, uint64_t *generation) {
  struct error err = {0};
  bool ok = lifecycle_order(call->admin->options.lifecycle, order, module_id, deadline_ms, generation, &err);
  admin_audit(call->admin, action, module_id, ok ? NULL : &err);
  if (!ok)
    core_rpc_call_fail(call->call, &err);
  return ok;
}

void admin_restart_module(const struct admin_call *call) {
  const Core__Admin__V1__RestartModuleRequest *request = (const void *)call->request;
  Core__Admin__V1__RestartModuleResponse response = CORE__ADMIN__V1__RESTART_MODULE_RESPONSE__INIT;
  if (ordered(call, LIFECYCLE_ORDER_RESTART, "module.restarted", request->module_id, request->drain_deadline_ms,
              &response.generation))
    core_rpc_call_reply_message(call->call, &response.base);
}

void admin_drain_module(const struct admin_call *call) {
  const Core__Admin__V1__DrainModuleRequest *request = (const void *)call->request;
  Core__Admin__V1__DrainModuleResponse response = CORE__ADMIN__V1__DRAIN_MODULE_RESPONSE__INIT;
  if (ordered(call, LIFECYCLE_ORDER_DRAIN, "module.drained", request->module_id, request->deadline_ms,
              &response.generation))
    core_rpc_call_reply_message(call->call, &response.base);
}

void admin_stop_module(const struct admin_call *call) {
  const Core__Admin__V1__StopModuleRequest *request = (const void *)call->request;
  Core__Admin__V1__StopModuleResponse response = CORE__ADMIN__V1__STOP_MODULE_RESPONSE__INIT;
  if (ordered(call, LIFECYCLE_ORDER_STOP, "module.stopped", request->module_id, request->drain_deadline_ms,
              &response.generation))
    core_rpc_call_reply_message(call->call, &response.base);
}

void admin_start_module(const struct admin_call *call) {
  const Core__Admin__V1__StartModuleRequest *request = (const void *)call->request;
  Core__Admin__V1__StartModuleResponse response = CORE__ADMIN__V1__START_MODULE_RESPONSE__INIT;
  uint64_t generation;
  if (ordered(call, LIFECYCLE_ORDER_START, "module.started", request->module_id, 0, &generation))
    core_rpc_call_reply_message(call->call, &response.base);
}

static void module_released(void *arg, const struct error *err) {
  struct admin_write *write = arg;
  Core__Admin__V1__ReleaseModuleResponse response = CORE__ADMIN__V1__RELEASE_MODULE_RESPONSE__INIT;
  if (admin_write_done(write, "module.released", err))
    core_rpc_call_reply_message(write->call, &response.base);
  base_free(write);
}

void admin_release_module(const struct admin_call *call) {
  const Core__Admin__V1__ReleaseModuleRequest *request = (const void *)call->request;
  struct error err = {0};
  struct admin_write *write = admin_write_begin(call, request->module_id);
  if (!lifecycle_release(call->admin->options.lifecycle, request->module_id, module_released, write, &err))
    module_released(write, &err);
}

#define WHO "an operator" /* the socket is the operator's: nobody is named on it */

void admin_upgrade_module(const struct admin_call *call) {
  const Core__Admin__V1__UpgradeModuleRequest *request = (const void *)call->request;
  Core__Admin__V1__UpgradeModuleResponse response = CORE__ADMIN__V1__UPGRADE_MODULE_RESPONSE__INIT;
  struct error err = {0};
  if (str_equal(request->module_id, "core")) {
    admin_upgrade_core(call);
    return;
  }
  bool ok = !request->version[0] != !request->path[0] ||
            error_set(&err, ERR_ARGUMENT_INVALID, "either the path of the program or its version");
  ok = ok && lifecycle_upgrade(call->admin->options.lifecycle, request->module_id, request->path, request->version,
                               request->probation_ms, WHO, &response.generation, &err);
  admin_audit(call->admin, "module.upgrade_begun", request->module_id, ok ? NULL : &err);
  if (ok)
    core_rpc_call_reply_message(call->call, &response.base);
  else
    core_rpc_call_fail(call->call, &err);
}

void admin_configure_module(const struct admin_call *call) {
  const Core__Admin__V1__ConfigureModuleRequest *request = (const void *)call->request;
  Core__Admin__V1__ConfigureModuleResponse response = CORE__ADMIN__V1__CONFIGURE_MODULE_RESPONSE__INIT;
  struct error err = {0};
  bool ok = lifecycle_configure(call->admin->options.lifecycle, request->module_id,
                                (const char *)request->config_json.data, request->config_json.len,
                                request->probation_ms, WHO, &response.generation, &response.revision, &err);
  admin_audit(call->admin, "module.configure_begun", request->module_id, ok ? NULL : &err);
  if (ok)
    core_rpc_call_reply_message(call->call, &response.base);
  else
    core_rpc_call_fail(call->call, &err);
}

void admin_rollback_module(const struct admin_call *call) {
  const Core__Admin__V1__RollbackModuleRequest *request = (const void *)call->request;
  Core__Admin__V1__RollbackModuleResponse response = CORE__ADMIN__V1__ROLLBACK_MODULE_RESPONSE__INIT;
  struct error err = {0};
  if (str_equal(request->module_id, "core")) {
    admin_rollback_core(call);
    return;
  }
  bool ok = lifecycle_rollback(call->admin->options.lifecycle, request->module_id, WHO, &response.generation, &err);
  admin_audit(call->admin, "module.rollback_begun", request->module_id, ok ? NULL : &err);
  if (ok)
    core_rpc_call_reply_message(call->call, &response.base);
  else
    core_rpc_call_fail(call->call, &err);
}

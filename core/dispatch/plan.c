/* plan.c: execution plans (SPI-10): approved by the core, carried out by a module, good once. A plan that is never
 * reported is closed as abandoned and audited. */
#include <stdlib.h>
#include <string.h>

#include "core/dispatch/dispatch_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"

#define ABANDONED_SWEEP_MS 1000

/* protobuf-c structs hold char *: what is packed is only read. */
static char *text(const char *value) {
  return (char *)(uintptr_t)value;
}

/* ---- making ---- */

static void rest_fill(const struct catalog_record *record, struct dispatch_plan_parts *parts) {
  const Core__Admin__V1__RestSpec *spec = record->rest;
  core__common__v1__rest_plan__init(&parts->rest);
  parts->rest.method = spec->method;
  parts->rest.url_template = spec->url;
  parts->rest.n_query_mapping = spec->n_query_mapping;
  parts->rest.query_mapping = spec->query_mapping;
  parts->rest.n_header_mapping = spec->n_header_mapping;
  parts->rest.header_mapping = spec->header_mapping;
  parts->rest.content_type = spec->content_type;
  parts->rest.response_filter = spec->response_filter;
  parts->plan.egress = spec->egress;
  parts->plan.call_case = CORE__COMMON__V1__INVOCATION_PLAN__CALL_REST;
  parts->plan.rest = &parts->rest;
}

static void mcp_fill(const struct catalog_record *record, struct dispatch_plan_parts *parts) {
  core__common__v1__mcp_plan__init(&parts->mcp);
  parts->mcp.url = record->gateway->url;
  parts->mcp.transport = record->gateway->transport;
  parts->mcp.original_name = text(record->original_name);
  parts->mcp.gateway_id = text(record->kind == CATALOG_KIND_GATEWAY ? record->id : record->gateway_id);
  parts->plan.egress = record->gateway->egress;
  parts->plan.call_case = CORE__COMMON__V1__INVOCATION_PLAN__CALL_MCP;
  parts->plan.mcp = &parts->mcp;
}

bool dispatch_plan_fill(struct dispatch *dispatch, const struct catalog_record *record, const char *plan_id,
                        const void *arguments_json, size_t arguments_length, uint32_t deadline_ms,
                        Core__Common__V1__TraceContext *trace, struct dispatch_plan_parts *parts, struct error *err) {
  memset(parts, 0, sizeof(*parts));
  core__common__v1__invocation_plan__init(&parts->plan);
  if (record->rest)
    rest_fill(record, parts);
  else if (record->gateway)
    mcp_fill(record, parts);
  else
    return error_set(err, ERR_UNSUPPORTED, "nothing carries out this record");
  if (!catalog_call_headers(dispatch->options.catalog, record, &parts->call_headers, err))
    return false;
  size_t count = parts->call_headers.count;
  parts->headers = base_calloc(count + 1, sizeof(*parts->headers));
  parts->header_pointers = base_calloc(count + 1, sizeof(*parts->header_pointers));
  for (size_t i = 0; i < count; i++) {
    core__common__v1__header__init(&parts->headers[i]);
    parts->headers[i].name = parts->call_headers.items[i].name;
    parts->headers[i].value = parts->call_headers.items[i].value;
    parts->header_pointers[i] = &parts->headers[i];
  }
  core__common__v1__lease__init(&parts->lease);
  parts->lease.ttl_ms = deadline_ms;
  parts->lease.revision = catalog_revision(dispatch->options.catalog);
  parts->plan.plan_id = text(plan_id);
  parts->plan.execution_id = text(plan_id);
  parts->plan.lease = &parts->lease;
  parts->plan.n_headers = count;
  parts->plan.headers = parts->header_pointers;
  parts->plan.arguments_json.data = (uint8_t *)(uintptr_t)arguments_json;
  parts->plan.arguments_json.len = arguments_length;
  parts->plan.deadline_ms = deadline_ms;
  parts->plan.trace = trace;
  parts->plan.record_id = text(record->id);
  parts->plan.output_schema_json.data = (uint8_t *)(uintptr_t)record->output_schema_json;
  parts->plan.output_schema_json.len = strlen(record->output_schema_json);
  return true;
}

void dispatch_plan_release(struct dispatch_plan_parts *parts) {
  catalog_headers_free(&parts->call_headers);
  base_free(parts->headers);
  base_free(parts->header_pointers);
  memset(parts, 0, sizeof(*parts));
}

/* ---- keeping ---- */

static void plan_close(struct dispatch *dispatch, struct dispatch_plan *plan, enum lifecycle_outcome outcome) {
  lifecycle_witness_end(&plan->witness, outcome);
  HASH_DELETE(hash, dispatch->plans, plan);
  TAILQ_REMOVE(&dispatch->plan_order, plan, entry);
  base_free(plan);
}

static void abandoned_sweep(void *argument) {
  struct dispatch *dispatch = argument;
  int64_t now_us = clock_monotonic_us();
  struct dispatch_plan *plan, *next;
  dispatch->plan_timer = NULL;
  for (plan = TAILQ_FIRST(&dispatch->plan_order); plan; plan = next) {
    next = TAILQ_NEXT(plan, entry);
    if (plan->expires_us > now_us)
      continue;
    log_event(LOG_WARN, "dispatch", "a plan was never reported", LOG_TEXT("module", plan->module_id),
              LOG_TEXT("plan", plan->plan_id));
    observe_audit_append(dispatch->options.observe, &(struct observe_audit){.action = "plan.abandoned",
                                                                            .actor = plan->module_id,
                                                                            .target = plan->record_id,
                                                                            .outcome = "failed",
                                                                            .trace_id = plan->trace_id});
    dispatch_execution_end(dispatch, plan->plan_id, plan->family, "plan", PSG_EXECUTION_FAILED, plan->began_us,
                           "invoke.plan.abandoned", 0);
    plan_close(dispatch, plan, LIFECYCLE_OUTCOME_FAILED);
  }
  if (!TAILQ_EMPTY(&dispatch->plan_order))
    dispatch->plan_timer = core_rpc_timer_start(dispatch->options.loop, ABANDONED_SWEEP_MS, abandoned_sweep, dispatch);
}

static void plan_keep(struct dispatch *dispatch, const struct dispatch_caller *caller,
                      const struct dispatch_admission *admission, const char *plan_id) {
  struct dispatch_plan *plan = BASE_NEW(struct dispatch_plan);
  str_copy(plan->plan_id, sizeof(plan->plan_id), plan_id);
  str_copy(plan->module_id, sizeof(plan->module_id), caller->module_id);
  str_copy(plan->family, sizeof(plan->family), caller->family);
  str_copy(plan->record_id, sizeof(plan->record_id), admission->record->id);
  str_copy(plan->trace_id, sizeof(plan->trace_id), admission->trace_id);
  plan->began_us = clock_monotonic_us();
  plan->expires_us = plan->began_us + ((int64_t)admission->deadline_ms + dispatch->options.plan_ttl_ms) * 1000;
  lifecycle_witness_begin(dispatch->options.lifecycle, plan->module_id, &plan->witness);
  HASH_ADD(hash, dispatch->plans, plan_id, ID_UUID_BYTES - 1, plan);
  TAILQ_INSERT_TAIL(&dispatch->plan_order, plan, entry);
  if (!dispatch->plan_timer)
    dispatch->plan_timer = core_rpc_timer_start(dispatch->options.loop, ABANDONED_SWEEP_MS, abandoned_sweep, dispatch);
}

void dispatch_plans_free(struct dispatch *dispatch) {
  core_rpc_timer_cancel(&dispatch->plan_timer);
  while (!TAILQ_EMPTY(&dispatch->plan_order))
    plan_close(dispatch, TAILQ_FIRST(&dispatch->plan_order), LIFECYCLE_OUTCOME_NONE);
}

/* ---- the two calls ---- */

bool dispatch_prepare(struct dispatch *dispatch, const struct dispatch_caller *caller,
                      const Core__Common__V1__InvocationEnvelope *envelope, int64_t remaining_ms,
                      dispatch_prepared *prepared, void *arg, struct error *err) {
  struct dispatch_admission admission;
  struct dispatch_plan_parts parts;
  char plan_id[ID_UUID_BYTES];
  Core__Spi__Catalog__V1__PrepareInvokeResponse response = CORE__SPI__CATALOG__V1__PREPARE_INVOKE_RESPONSE__INIT;
  Core__Spi__Catalog__V1__NotEligible not_eligible = CORE__SPI__CATALOG__V1__NOT_ELIGIBLE__INIT;
  BASE_CHECK_MAGIC(dispatch, DISPATCH_MAGIC);
  if (!dispatch_admit(dispatch, caller, envelope, remaining_ms, "plan", &admission, err))
    return false;
  bool other_family = !str_equal(admission.record->owner_family, caller->family);
  /* A result is checked against its schema where it passes, and that is here: one engine, trusted, for every protocol.
   */
  if (other_family || admission.record->output_schema) {
    not_eligible.reason_code = text(other_family ? "other_family" : "output_schema");
    response.outcome_case = CORE__SPI__CATALOG__V1__PREPARE_INVOKE_RESPONSE__OUTCOME_NOT_ELIGIBLE;
    response.not_eligible = &not_eligible;
    prepared(arg, &response);
    return true;
  }
  dispatch_execution_begin(dispatch, caller, envelope, &admission, plan_id);
  if (!dispatch_plan_fill(dispatch, admission.record, plan_id, admission.arguments_json, admission.arguments_length,
                          admission.deadline_ms, envelope->trace, &parts, err)) {
    dispatch_execution_end(dispatch, plan_id, admission.record->owner_family, "plan", PSG_EXECUTION_FAILED,
                           clock_monotonic_us(), err ? err->code : NULL, 0);
    return false;
  }
  plan_keep(dispatch, caller, &admission, plan_id);
  response.outcome_case = CORE__SPI__CATALOG__V1__PREPARE_INVOKE_RESPONSE__OUTCOME_PLAN;
  response.plan = &parts.plan;
  prepared(arg, &response);
  dispatch_plan_release(&parts);
  return true;
}

bool dispatch_report(struct dispatch *dispatch, const struct dispatch_caller *caller,
                     const Core__Spi__Catalog__V1__PlanReport *report) {
  struct dispatch_plan *plan = NULL;
  BASE_CHECK_MAGIC(dispatch, DISPATCH_MAGIC);
  if (strlen(report->plan_id) != ID_UUID_BYTES - 1)
    return false;
  HASH_FIND(hash, dispatch->plans, report->plan_id, ID_UUID_BYTES - 1, plan);
  if (!plan || !str_equal(plan->module_id, caller->module_id))
    return false;
  enum psg_execution_status status = PSG_EXECUTION_CANCELLED;
  enum lifecycle_outcome outcome = LIFECYCLE_OUTCOME_NONE;
  const char *code = "call.cancelled";
  uint64_t bytes = 0;
  if (report->outcome_case == CORE__SPI__CATALOG__V1__PLAN_REPORT__OUTCOME_COMPLETED) {
    outcome = LIFECYCLE_OUTCOME_SERVED;
    status = report->completed->is_error ? PSG_EXECUTION_FAILED : PSG_EXECUTION_COMPLETED;
    code = report->completed->is_error ? "tool.failed" : NULL;
    bytes = report->completed->result_bytes;
  } else if (report->outcome_case == CORE__SPI__CATALOG__V1__PLAN_REPORT__OUTCOME_ERROR) {
    outcome = lifecycle_error_is_fault((enum error_category)report->error->category) ? LIFECYCLE_OUTCOME_FAILED
                                                                                     : LIFECYCLE_OUTCOME_SERVED;
    status = PSG_EXECUTION_FAILED;
    code = report->error->code;
  }
  dispatch_execution_end(dispatch, plan->plan_id, caller->family, "plan", status, plan->began_us, code, bytes);
  plan_close(dispatch, plan, outcome);
  return true;
}

/* admission.c: the checks that every invocation passes, in this order (SPI-9): delegation depth, visibility,
 * permission, arguments, rate limit, deadline. And the trace that every admitted one leaves; denied.c has that of the
 * others. */
#include <stdio.h>
#include <string.h>

#include "core/dispatch/dispatch_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"

/* The permission that invoking a record of a kind takes (SPI-20), and what carries it out (EVT-4). */
static const struct {
  enum catalog_kind kind;
  const char *permission, *executor_kind;
} kinds[] = {
    {CATALOG_KIND_TOOL, "tools.execute", "tool"},      {CATALOG_KIND_AGENT, "agents.invoke", "agent"},
    {CATALOG_KIND_MODEL, "models.invoke", "llm"},      {CATALOG_KIND_RESOURCE, "resources.read", "external"},
    {CATALOG_KIND_PROMPT, "prompts.read", "external"},
};

static size_t kind_row(enum catalog_kind kind) {
  size_t row = 0;
  while (row < sizeof(kinds) / sizeof(kinds[0]) && kinds[row].kind != kind)
    row++;
  return row;
}

/* The 32 digits of "00-<trace id>-<span id>-<flags>"; "" when it is not one. */
static void trace_id_read(const Core__Common__V1__TraceContext *trace, char trace_id[static 33]) {
  trace_id[0] = '\0';
  if (!trace || strlen(trace->traceparent) < 55 || trace->traceparent[2] != '-' || trace->traceparent[35] != '-')
    return;
  if (strspn(trace->traceparent + 3, "0123456789abcdef") == 32) {
    memcpy(trace_id, trace->traceparent + 3, 32);
    trace_id[32] = '\0';
  }
}

static bool rate_check(struct dispatch *dispatch, const struct dispatch_caller *caller,
                       const struct catalog_record *record, struct error *err) {
  char key[512];
  if (!record->rate_limit_per_minute)
    return true;
  snprintf(key, sizeof(key), "record:%s:caller:%s:%s", record->id, caller->context->user_email,
           caller->context->token_id);
  uint32_t burst = record->rate_limit_per_minute / 6; /* ten seconds' worth at once */
  return policy_rate_take(dispatch->options.policy, key, record->rate_limit_per_minute, burst, NULL, err);
}

static uint32_t deadline_choose(const struct dispatch *dispatch, const struct catalog_record *record,
                                const Core__Common__V1__InvocationEnvelope *envelope, int64_t remaining_ms) {
  uint32_t deadline_ms = envelope->deadline_ms ? envelope->deadline_ms : dispatch->options.deadline_default_ms;
  if (record->timeout_ms < deadline_ms)
    deadline_ms = record->timeout_ms;
  if (remaining_ms < (int64_t)deadline_ms)
    deadline_ms = remaining_ms > 0 ? (uint32_t)remaining_ms : 0;
  return deadline_ms;
}

/* A caller that may not use a record may still see it. */
static const struct catalog_record *record_find(struct dispatch *dispatch, const struct dispatch_caller *caller,
                                                const Core__Common__V1__InvocationEnvelope *envelope,
                                                const char *permission, struct error *err) {
  const Core__Common__V1__RecordReference *target = envelope->target;
  return catalog_find(dispatch->options.catalog, caller->context, (enum catalog_kind)target->kind,
                      str_is_empty(target->id) ? NULL : target->id, str_is_empty(target->name) ? NULL : target->name,
                      envelope->server_id, permission, err);
}

static bool checks_pass(struct dispatch *dispatch, const struct dispatch_caller *caller,
                        const Core__Common__V1__InvocationEnvelope *envelope, int64_t remaining_ms,
                        struct dispatch_admission *admission, struct error *err) {
  const Core__Common__V1__RecordReference *target = envelope->target;
  if (!target)
    return error_set(err, ERR_ARGUMENT_MISSING, "the target is missing");
  size_t row = kind_row((enum catalog_kind)target->kind);
  if (row == sizeof(kinds) / sizeof(kinds[0]))
    return error_set(err, ERR_ARGUMENT_INVALID, "records of this kind cannot be invoked");
  if (envelope->delegation && envelope->delegation->depth > dispatch->options.depth_max)
    return error_set(err, ERR_INVOKE_DEPTH, NULL);
  admission->record = record_find(dispatch, caller, envelope, kinds[row].permission, err);
  if (!admission->record) {
    if (error_is(err, ERR_AUTH_PERMISSION_DENIED))
      admission->record = record_find(dispatch, caller, envelope, NULL, NULL);
    return false;
  }
  if (envelope->may_have_begun && !admission->record->repeatable)
    return error_set(err, ERR_RPC_PEER_GONE, NULL); /* as its caller would have been told without asking again */
  admission->arguments_json = envelope->arguments_json.len ? (const void *)envelope->arguments_json.data : "{}";
  admission->arguments_length = envelope->arguments_json.len ? envelope->arguments_json.len : 2;
  if (!catalog_arguments_check(admission->record, admission->arguments_json, admission->arguments_length, err) ||
      !rate_check(dispatch, caller, admission->record, err))
    return false;
  admission->deadline_ms = deadline_choose(dispatch, admission->record, envelope, remaining_ms);
  if (admission->deadline_ms == 0)
    return error_set(err, ERR_DEADLINE_EXCEEDED, NULL);
  return psg_wait(dispatch->options.psg, err); /* what cannot be recorded is not carried out */
}

bool dispatch_admit(struct dispatch *dispatch, const struct dispatch_caller *caller,
                    const Core__Common__V1__InvocationEnvelope *envelope, int64_t remaining_ms, const char *path,
                    struct dispatch_admission *admission, struct error *err) {
  struct error reason = {0};
  admission->record = NULL;
  trace_id_read(envelope->trace, admission->trace_id);
  if (checks_pass(dispatch, caller, envelope, remaining_ms, admission, &reason))
    return true;
  if (!error_is(&reason, ERR_RPC_PEER_GONE)) /* nobody denied that one, and it may have been carried out */
    dispatch_denied(dispatch, caller, envelope, admission, path, &reason);
  if (err)
    *err = reason;
  return false;
}

struct psg_execution_start dispatch_execution_describe(const struct dispatch_caller *caller,
                                                       const Core__Common__V1__InvocationEnvelope *envelope,
                                                       const struct dispatch_admission *admission) {
  return (struct psg_execution_start){
      .executor_kind = kinds[kind_row(admission->record->kind)].executor_kind,
      .record_id = admission->record->id,
      .record_name = admission->record->name,
      .module_id = caller->module_id,
      .owner_family = admission->record->owner_family,
      .subject = caller->context->user_email,
      .trace_id = admission->trace_id,
      .request_id = envelope->trace ? envelope->trace->request_id : "",
  };
}

void dispatch_execution_begin(struct dispatch *dispatch, const struct dispatch_caller *caller,
                              const Core__Common__V1__InvocationEnvelope *envelope,
                              const struct dispatch_admission *admission, char execution_id[static ID_UUID_BYTES]) {
  const struct psg_execution_start start = dispatch_execution_describe(caller, envelope, admission);
  psg_execution_begin(dispatch->options.psg, &start, execution_id);
}

void dispatch_execution_end(struct dispatch *dispatch, const char *execution_id, const char *family, const char *path,
                            enum psg_execution_status status, int64_t began_us, const char *error_code,
                            uint64_t result_bytes) {
  static const char *const outcomes[] = {"completed", "failed", "cancelled"};
  uint64_t duration_us = (uint64_t)(clock_monotonic_us() - began_us);
  psg_execution_end(dispatch->options.psg, execution_id, status, duration_us, error_code, result_bytes);
  const char *const labels[] = {family, path, outcomes[status], NULL};
  observe_count(dispatch->options.observe, OBSERVE_INVOCATIONS, labels, 1);
  observe_duration(dispatch->options.observe, OBSERVE_INVOCATION_SECONDS, labels, duration_us);
}

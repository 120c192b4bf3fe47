/* dispatch.c: Invoke: an admitted call is handed to the module that owns the record's protocol; its items go back to
 * the caller as the bytes they came in, one at a time with back-pressure end to end. The first result ends it; a stream
 * that ends without one is an error. */
#include "core/dispatch/dispatch.h"

#include <string.h>

#include "core/dispatch/dispatch_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/module/v1/module.pb-c.h"

#define INVOKE_METHOD "/core.module.v1.ModuleRuntime/Invoke"
#define ANSWER_METHOD "/core.module.v1.ModuleRuntime/AnswerRequest"
#define ANSWER_TIMEOUT_MS 5000
#define DEADLINE_DEFAULT_MS 60000
#define DEPTH_DEFAULT 8
#define PLAN_TTL_DEFAULT_MS 5000
#define HOLD_DEFAULT_MAX 1024
#define STREAM_END_MS 1000 /* so long may a module's stream stay open behind its result */

struct dispatch *dispatch_create(const struct dispatch_options *options) {
  struct dispatch *dispatch = BASE_NEW(struct dispatch);
  dispatch->magic = DISPATCH_MAGIC;
  dispatch->options = *options;
  if (!dispatch->options.deadline_default_ms)
    dispatch->options.deadline_default_ms = DEADLINE_DEFAULT_MS;
  if (!dispatch->options.depth_max)
    dispatch->options.depth_max = DEPTH_DEFAULT;
  if (!dispatch->options.plan_ttl_ms)
    dispatch->options.plan_ttl_ms = PLAN_TTL_DEFAULT_MS;
  if (!dispatch->options.hold_max)
    dispatch->options.hold_max = HOLD_DEFAULT_MAX;
  LIST_INIT(&dispatch->invocations);
  TAILQ_INIT(&dispatch->held);
  TAILQ_INIT(&dispatch->plan_order);
  TAILQ_INIT(&dispatch->answered);
  dispatch->refresh = dispatch_refresh_create(dispatch);
  return dispatch;
}

static void request_drop(struct dispatch_invocation *invocation) {
  if (invocation->request && invocation->has_credential)
    secret_wipe(invocation->request, invocation->request_length);
  base_free(BASE_TAKE(invocation->request));
}

static void invocation_free(struct dispatch_invocation *invocation) {
  struct dispatch *dispatch = invocation->dispatch;
  request_drop(invocation);
  if (invocation->answerable)
    HASH_DELETE(hash, dispatch->by_execution, invocation);
  if (invocation->has_result)
    TAILQ_REMOVE(&dispatch->answered, invocation, by_result);
  LIST_REMOVE(invocation, entry);
  lifecycle_witness_end(&invocation->witness, LIFECYCLE_OUTCOME_NONE);
  policy_context_release(&invocation->context);
  catalog_schema_release(&invocation->output_schema);
  invocation->magic = 0;
  base_free(invocation);
}

void dispatch_free(struct dispatch **holder) {
  struct dispatch *dispatch = BASE_TAKE(*holder);
  if (!dispatch)
    return;
  dispatch_refresh_free(&dispatch->refresh);
  dispatch_plans_free(dispatch);
  dispatch_denials_free(dispatch);
  core_rpc_timer_cancel(&dispatch->answered_timer);
  /* The loop has ended every client call before this, and each took its invocation along. */
  BASE_CHECK(LIST_EMPTY(&dispatch->invocations));
  dispatch->magic = 0;
  base_free(dispatch);
}

/* ---- what comes from the module ---- */

static void settle(struct dispatch_invocation *invocation, enum psg_execution_status status, const char *code) {
  dispatch_execution_end(invocation->dispatch, invocation->execution_id, invocation->family, "invoke", status,
                         invocation->began_us, code, invocation->result_bytes);
}

/* Nothing may follow a result: a stream that stays open behind it is cut, so that none can be kept for long. */
static void answered_watch(struct dispatch *dispatch);

static void answered_cut(void *argument) {
  struct dispatch *dispatch = argument;
  struct dispatch_invocation *invocation;
  int64_t due_us = clock_monotonic_us() - INT64_C(1000) * STREAM_END_MS;
  dispatch->answered_timer = NULL;
  TAILQ_FOREACH(invocation, &dispatch->answered, by_result) {
    if (invocation->result_us > due_us)
      break;
    core_rpc_client_cancel(invocation->call);
  }
  answered_watch(dispatch);
}

static void answered_watch(struct dispatch *dispatch) {
  if (!dispatch->answered_timer && !TAILQ_EMPTY(&dispatch->answered))
    dispatch->answered_timer = core_rpc_timer_start(dispatch->options.loop, STREAM_END_MS, answered_cut, dispatch);
}

/* The caller has its answer with this; only the end of the module's stream is still waited for. */
static void result_take(struct dispatch_invocation *invocation, const struct dispatch_item *item, const uint8_t *data,
                        size_t length) {
  invocation->has_result = true;
  lifecycle_witness_end(&invocation->witness, LIFECYCLE_OUTCOME_SERVED);
  invocation->result_us = clock_monotonic_us();
  TAILQ_INSERT_TAIL(&invocation->dispatch->answered, invocation, by_result);
  answered_watch(invocation->dispatch);
  invocation->result_bytes = length;
  if (invocation->cancelled)
    return;
  struct error err = {0};
  if (invocation->output_schema && !item->is_error &&
      !catalog_result_check(invocation->output_schema, item->structured, item->structured_length, &err)) {
    settle(invocation, PSG_EXECUTION_FAILED, err.code);
    invocation->sink.on_failed(invocation->arg, &err);
    return;
  }
  invocation->sink.on_result(invocation->arg, data, length); /* first: the caller waits, the record does not */
  settle(invocation, item->is_error ? PSG_EXECUTION_FAILED : PSG_EXECUTION_COMPLETED,
         item->is_error ? "tool.failed" : NULL);
}

static void on_message(struct core_rpc_client_call *call, const uint8_t *data, size_t length, void *user) {
  struct dispatch_invocation *invocation = user;
  struct dispatch_item item = dispatch_item_read(data, length);
  bool more = true;
  request_drop(invocation); /* it has been started: it is never sent again */
  if (item.kind == DISPATCH_ITEM_MALFORMED) {
    invocation->broken = true;
    core_rpc_client_cancel(call); /* on_done tells */
    return;
  }
  if (item.kind == DISPATCH_ITEM_RESULT) {
    result_take(invocation, &item, data, length);
    return; /* nothing may follow it, so nothing is read */
  }
  if (!invocation->cancelled && item.kind != DISPATCH_ITEM_NONE)
    more = invocation->sink.on_item(invocation->arg, data, length);
  invocation->paused = !more;
  if (more)
    core_rpc_client_read(call);
}

/* The owner has not begun: it says so, since it is on its way out, or it has died before it got any of it. So the next
 * one may. What may have begun is repeated only where its record says that this does no harm. */
static bool sent_again(struct dispatch_invocation *invocation, const struct core_rpc_result *result) {
  bool unbegun = error_is(&result->err, ERR_MODULE_DRAINING) || result->unsent;
  if (!invocation->request || invocation->again || (!unbegun && !(result->lost && invocation->repeatable)))
    return false;
  lifecycle_witness_end(&invocation->witness, unbegun ? LIFECYCLE_OUTCOME_NONE : LIFECYCLE_OUTCOME_FAILED);
  invocation->again = true;
  invocation->call = NULL;
  return dispatch_invocation_send(invocation, NULL) || dispatch_hold(invocation);
}

/* What the call came to that brought no result. When the module did not keep to the protocol it says so of it. */
static struct error failure_of(const struct dispatch_invocation *invocation, const struct core_rpc_result *result) {
  struct error err = result->err;
  /* By the core's own limit: it is no fault of the caller's. A module that refuses what it was sent says so itself. */
  bool too_large = error_is(&err, ERR_RPC_MESSAGE_TOO_LARGE) && err.origin != ERROR_ORIGIN_MODULE;
  if (too_large)
    error_set(&err, ERR_INVOKE_RESULT_TOO_LARGE, NULL);
  if (!invocation->broken && result->grpc_status != 0) {
    err.origin = too_large ? ERROR_ORIGIN_MODULE : err.origin;
    return err;
  }
  error_set(&err, invocation->broken ? ERR_MODULE_ANSWER : ERR_INVOKE_NO_RESULT, NULL);
  err.origin = ERROR_ORIGIN_MODULE;
  return err;
}

static void on_done(struct core_rpc_client_call *call, const struct core_rpc_result *result, void *user) {
  struct dispatch_invocation *invocation = user;
  struct error err = {0};
  (void)call;
  if (invocation->cancelled) {
    error_set(&err, ERR_CANCELLED, NULL);
    settle(invocation, PSG_EXECUTION_CANCELLED, err.code);
  } else if (!invocation->has_result && !invocation->broken && result->grpc_status != 0 &&
             sent_again(invocation, result)) {
    return;
  } else if (!invocation->has_result) {
    err = failure_of(invocation, result);
    bool fault = lifecycle_error_is_fault(err.category) || invocation->broken || result->grpc_status == 0;
    lifecycle_witness_end(&invocation->witness, fault ? LIFECYCLE_OUTCOME_FAILED : LIFECYCLE_OUTCOME_SERVED);
    settle(invocation, PSG_EXECUTION_FAILED, err.code);
    invocation->sink.on_failed(invocation->arg, &err);
  }
  invocation_free(invocation);
}

static const struct core_rpc_client_events invoke_events = {.on_message = on_message, .on_done = on_done};

/* ---- Invoke ---- */

/* The request as the owner gets it, plan and credential included. */
static bool request_pack(struct dispatch_invocation *invocation, const struct dispatch_admission *admission,
                         const Core__Common__V1__InvocationEnvelope *envelope, struct error *err) {
  struct dispatch_plan_parts parts;
  if (!dispatch_plan_fill(invocation->dispatch, admission->record, invocation->execution_id, admission->arguments_json,
                          admission->arguments_length, admission->deadline_ms, envelope->trace, &parts, err))
    return false;
  Core__Module__V1__InvokeRequest request = CORE__MODULE__V1__INVOKE_REQUEST__INIT;
  request.plan = &parts.plan;
  request.wants_progress = envelope->wants_progress;
  request.n_answers = envelope->n_answers;
  request.answers = envelope->answers;
  request.log_level = envelope->log_level;
  request.meta_json = envelope->meta_json;
  invocation->request_length = core__module__v1__invoke_request__get_packed_size(&request);
  invocation->request = base_alloc(invocation->request_length);
  invocation->has_credential = parts.plan.n_headers > 0;
  core__module__v1__invoke_request__pack(&request, invocation->request);
  dispatch_plan_release(&parts);
  return true;
}

bool dispatch_invocation_send(struct dispatch_invocation *invocation, struct error *err) {
  struct lifecycle *lifecycle = invocation->dispatch->options.lifecycle;
  struct core_rpc_channel *channel =
      lifecycle_family_channel(lifecycle, invocation->family, invocation->module_id, invocation->owner_id, err);
  if (!channel)
    return false;
  const struct core_rpc_request call = {
      .method = INVOKE_METHOD,
      .kind = CORE_RPC_SERVER_STREAM,
      .data = invocation->request,
      .length = invocation->request_length,
      .timeout_ms = (invocation->deadline_us - clock_monotonic_us() + 999) / 1000,
      .manual_read = true,
      .events = &invoke_events,
      .user = invocation,
  };
  lifecycle_witness_begin(lifecycle, invocation->owner_id, &invocation->witness);
  invocation->call = core_rpc_client_start(channel, &call);
  return true;
}

void dispatch_invocation_fail(struct dispatch_invocation *invocation, const struct error *err) {
  settle(invocation, PSG_EXECUTION_FAILED, err->code);
  invocation->sink.on_failed(invocation->arg, err);
  invocation_free(invocation);
}

/* The first item, when the caller needs the id to answer requests. */
static void started_tell(struct dispatch_invocation *invocation) {
  Core__Common__V1__InvokeItem item = CORE__COMMON__V1__INVOKE_ITEM__INIT;
  Core__Common__V1__InvokeStarted started = CORE__COMMON__V1__INVOKE_STARTED__INIT;
  uint8_t bytes[128];
  started.execution_id = invocation->execution_id;
  item.item_case = CORE__COMMON__V1__INVOKE_ITEM__ITEM_STARTED;
  item.started = &started;
  invocation->sink.on_item(invocation->arg, bytes, core__common__v1__invoke_item__pack(&item, bytes));
}

struct dispatch_invocation *dispatch_invoke(struct dispatch *dispatch, const struct dispatch_caller *caller,
                                            const Core__Common__V1__InvocationEnvelope *envelope, int64_t remaining_ms,
                                            const struct dispatch_sink *sink, void *arg, struct error *err) {
  struct dispatch_admission admission;
  BASE_CHECK_MAGIC(dispatch, DISPATCH_MAGIC);
  if (!dispatch_admit(dispatch, caller, envelope, remaining_ms, "invoke", &admission, err))
    return NULL;
  struct dispatch_invocation *invocation = BASE_NEW(struct dispatch_invocation);
  invocation->magic = DISPATCH_INVOCATION_MAGIC;
  invocation->dispatch = dispatch;
  invocation->sink = *sink;
  invocation->arg = arg;
  invocation->began_us = clock_monotonic_us();
  invocation->deadline_us = invocation->began_us + (int64_t)admission.deadline_ms * 1000;
  invocation->context = policy_context_hold(caller->context);
  invocation->output_schema = catalog_schema_hold(admission.record->output_schema);
  invocation->repeatable = admission.record->repeatable;
  str_copy(invocation->module_id, sizeof(invocation->module_id), caller->module_id);
  str_copy(invocation->family, sizeof(invocation->family), admission.record->owner_family);
  LIST_INSERT_HEAD(&dispatch->invocations, invocation, entry);
  dispatch_execution_begin(dispatch, caller, envelope, &admission, invocation->execution_id);
  if (!request_pack(invocation, &admission, envelope, err) ||
      (!dispatch_invocation_send(invocation, err) && !dispatch_hold(invocation))) {
    settle(invocation, PSG_EXECUTION_FAILED, err ? err->code : NULL);
    invocation_free(invocation);
    return NULL;
  }
  if (envelope->n_answers > 0) {
    invocation->answerable = true;
    HASH_ADD(hash, dispatch->by_execution, execution_id, ID_UUID_BYTES - 1, invocation);
    started_tell(invocation);
  }
  return invocation;
}

void dispatch_invocation_resume(struct dispatch_invocation *invocation) {
  BASE_CHECK_MAGIC(invocation, DISPATCH_INVOCATION_MAGIC);
  if (!invocation->paused)
    return;
  invocation->paused = false;
  core_rpc_client_read(invocation->call);
}

void dispatch_invocation_cancel(struct dispatch_invocation *invocation) {
  BASE_CHECK_MAGIC(invocation, DISPATCH_INVOCATION_MAGIC);
  invocation->cancelled = true;
  if (invocation->call) {
    core_rpc_client_cancel(invocation->call);
    return;
  }
  dispatch_hold_end(invocation, "cancelled");
  settle(invocation, PSG_EXECUTION_CANCELLED, error_code_text(ERR_CANCELLED));
  invocation_free(invocation);
}

void dispatch_serving_tell(struct dispatch *dispatch) {
  dispatch_held_go(dispatch);
  dispatch_refresh_soon(dispatch->refresh);
}

/* ---- answers ---- */

struct answer {
  dispatch_answered *done;
  void *arg;
};

static void answer_done(struct core_rpc_client_call *call, const struct core_rpc_result *result, void *user) {
  struct answer *waiting = user;
  (void)call;
  waiting->done(waiting->arg, result->grpc_status == 0 ? NULL : &result->err);
  base_free(waiting);
}

bool dispatch_answer(struct dispatch *dispatch, const struct dispatch_caller *caller,
                     const Core__Common__V1__AnswerRequestRequest *answer, dispatch_answered *done, void *arg,
                     struct error *err) {
  static const struct core_rpc_client_events events = {.on_done = answer_done};
  struct dispatch_invocation *invocation = NULL;
  BASE_CHECK_MAGIC(dispatch, DISPATCH_MAGIC);
  if (strlen(answer->execution_id) == ID_UUID_BYTES - 1)
    HASH_FIND(hash, dispatch->by_execution, answer->execution_id, ID_UUID_BYTES - 1, invocation);
  if (!invocation || !str_equal(invocation->module_id, caller->module_id) ||
      !str_equal(invocation->context->user_email, caller->context->user_email) ||
      !str_equal(invocation->context->token_id, caller->context->token_id))
    return error_set(err, ERR_INVOKE_REQUEST_UNKNOWN, NULL);
  struct core_rpc_channel *channel = lifecycle_module_channel(dispatch->options.lifecycle, invocation->owner_id, err);
  if (!channel)
    return false;
  Core__Common__V1__AnswerRequestRequest forwarded = *answer;
  forwarded.caller = NULL; /* the owner learns nothing of the caller */
  size_t length = core__common__v1__answer_request_request__get_packed_size(&forwarded);
  uint8_t *bytes = base_alloc(length + 1);
  core__common__v1__answer_request_request__pack(&forwarded, bytes);
  struct answer *waiting = BASE_NEW(struct answer);
  *waiting = (struct answer){.done = done, .arg = arg};
  struct core_rpc_request request = {.method = ANSWER_METHOD,
                                     .kind = CORE_RPC_UNARY,
                                     .data = bytes,
                                     .length = length,
                                     .timeout_ms = ANSWER_TIMEOUT_MS,
                                     .events = &events,
                                     .user = waiting};
  core_rpc_client_start(channel, &request);
  base_free(bytes);
  return true;
}

/* invoke.c: the life of one invocation: plan → request → http_client → [filter] → result or error.
 *
 * It ends in exactly one of three ways: with a result, with an error (the call could not be made), or given up by the
 * core. What it waits for is either `call` or `job`, and giving up cancels that. */
#include <string.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"
#include "sdk/module/module.h"

/* What the core takes in one message (spi.message_bytes), less room for the envelope. */
#define RESULT_BYTES_MAX ((4u << 20) - 65536)
/* The answer has to reach the core before its own deadline passes. */
#define DEADLINE_MARGIN_MS 5

struct invocation {
  struct rest *rest;
  struct module_invocation *handle;
  const core_common_v1_InvocationPlan *plan;
  struct http_call *call;
  struct rest_filter_job *job;
  int64_t began_us;
  int64_t upstream_us;
  int status; /* of the upstream */
};

static void invocation_end(struct invocation *invocation, const struct error *err) {
  struct rest *rest = invocation->rest;
  module_invocation_finish(invocation->handle, err);
  base_free(invocation);
  rest->in_flight--;
  if (rest->in_flight == 0 && module_is_draining(rest->module))
    module_drained(rest->module);
}

/* Sends the result, which is emptied, and ends. */
static void invocation_answer(struct invocation *invocation, struct rest_result *result) {
  struct error err = {0};
  struct module_result message = {
      .content_json = result->content.data,
      .content_bytes = result->content.length,
      .structured_json = result->structured.data,
      .structured_bytes = result->structured.length,
      .is_error = result->is_error,
      .upstream_status = (uint32_t)invocation->status,
      .upstream_duration_us = (uint64_t)invocation->upstream_us,
  };
  if (result->content.length + result->structured.length > RESULT_BYTES_MAX)
    error_set(&err, ERR_HTTP_UPSTREAM_TOO_LARGE, NULL);
  else if (!module_invocation_send_result(invocation->handle, &message))
    error_set(&err, ERR_UNAVAILABLE, NULL);
  if (error_is(&err, ERR_HTTP_UPSTREAM_TOO_LARGE))
    err.origin = ERROR_ORIGIN_UPSTREAM;
  rest_result_clear(result);
  invocation_end(invocation, &err);
}

static void on_filtered(void *arg, enum rest_filter_outcome outcome, const char *json, size_t length) {
  struct invocation *invocation = arg;
  struct rest_result result = {0};
  struct rest_reply reply = {.status = 200,
                             .content_type = "application/json",
                             .body = json,
                             .length = length,
                             .wants_object = !str_is_empty(invocation->plan->output_schema_json)};
  invocation->job = NULL;
  if (outcome != REST_FILTER_DONE)
    rest_result_refuse(&result, rest_filter_outcome_text(outcome));
  else if (!rest_reply_is_json(&reply.body, &reply.length))
    rest_result_refuse(&result, rest_filter_outcome_text(REST_FILTER_FAILED));
  else
    rest_result_make(&reply, &result);
  invocation_answer(invocation, &result);
}

/* Hands the answer to the filter; when the filter does not take it, the invocation ends here. */
static void filter_begin(struct invocation *invocation, const char *body, size_t length) {
  struct rest_result result = {0};
  enum rest_filter_outcome outcome = REST_FILTER_FAILED;
  /* What cannot be filtered is not handed on: the filter may be there to keep something back. */
  if (rest_reply_is_json(&body, &length))
    invocation->job = rest_filter_start(invocation->rest->filters, invocation->plan->call.rest->response_filter, body,
                                        length, on_filtered, invocation, &outcome);
  if (invocation->job) {
    invocation->rest->filtered_total++;
    return;
  }
  rest_result_refuse(&result, rest_filter_outcome_text(outcome));
  invocation_answer(invocation, &result);
}

static void on_answer(void *context, struct http_call *call, const struct http_client_response *response,
                      const struct error *err) {
  struct invocation *invocation = context;
  (void)call;
  invocation->call = NULL;
  invocation->upstream_us = clock_monotonic_us() - invocation->began_us;
  if (err) {
    invocation_end(invocation, err);
    return;
  }
  invocation->status = response->status;
  bool has_body = response->status != 204 && response->body->length > 0;
  if (has_body && rest_status_is_success(response->status) &&
      !str_is_empty(invocation->plan->call.rest->response_filter)) {
    filter_begin(invocation, response->body->data, response->body->length);
    return;
  }
  struct rest_reply reply = {.status = response->status,
                             .content_type = http_client_response_header(response, "content-type"),
                             .body = response->body->data,
                             .length = response->body->length,
                             .wants_object = !str_is_empty(invocation->plan->output_schema_json)};
  struct rest_result result;
  rest_result_make(&reply, &result);
  invocation_answer(invocation, &result);
}

static void on_cancel(struct module_invocation *handle, void *arg) {
  struct invocation *invocation = arg;
  struct error err = {0};
  (void)handle;
  if (invocation->call)
    http_call_cancel(BASE_TAKE(invocation->call));
  if (invocation->job)
    rest_filter_cancel(BASE_TAKE(invocation->job));
  error_set(&err, ERR_CANCELLED, NULL);
  invocation_end(invocation, &err);
}

/* ---- beginning ---- */

static size_t response_limit(const core_common_v1_EgressPolicy *egress) {
  if (!egress || egress->response_bytes_max == 0)
    return REST_RESPONSE_BYTES_DEFAULT;
  return egress->response_bytes_max < REST_RESPONSE_BYTES_MAX ? (size_t)egress->response_bytes_max
                                                              : REST_RESPONSE_BYTES_MAX;
}

/* The plan's deadline or the call's, whichever is sooner. */
static bool time_left(const struct invocation *invocation, int64_t *timeout_ms, struct error *err) {
  int64_t remaining_ms = module_invocation_remaining_ms(invocation->handle);
  *timeout_ms = invocation->plan->deadline_ms ? invocation->plan->deadline_ms : REST_TIMEOUT_DEFAULT_MS;
  if (remaining_ms != INT64_MAX && remaining_ms - DEADLINE_MARGIN_MS < *timeout_ms)
    *timeout_ms = remaining_ms - DEADLINE_MARGIN_MS;
  return *timeout_ms > 0 || error_set(err, ERR_DEADLINE_EXCEEDED, NULL);
}

static bool call_begin(struct invocation *invocation, struct error *err) {
  const core_common_v1_InvocationPlan *plan = invocation->plan;
  struct rest_request *request = &invocation->rest->request;
  int64_t timeout_ms = 0;
  if (plan->which_call != core_common_v1_InvocationPlan_rest_tag || !plan->call.rest)
    return error_set(err, ERR_UNSUPPORTED, "this module carries out REST calls");
  struct http_client *client = NULL;
  if (time_left(invocation, &timeout_ms, err) && rest_request_build(plan, request, err))
    client = rest_clients_get(invocation->rest->clients, plan->egress, err);
  if (client) {
    struct http_client_request call = {
        .method = request->method,
        .url = request->url.data,
        .headers = request->headers,
        .header_count = request->header_count,
        .private_header_count = request->private_header_count,
        .body = request->body,
        .body_bytes = request->body_bytes,
        .timeout_ms = timeout_ms,
        .response_bytes_max = response_limit(plan->egress),
        .redirects_max = plan->egress ? plan->egress->redirects_max : 0,
        .decompress = true,
        .on_done = on_answer,
        .context = invocation,
    };
    invocation->call = http_client_start(client, &call, err);
  }
  rest_request_reset(request);
  return invocation->call != NULL;
}

void rest_invoke(struct module *module, struct module_invocation *handle) {
  struct rest *rest = module_state(module);
  struct error err = {0};
  struct invocation *invocation = BASE_NEW(struct invocation);
  invocation->rest = rest;
  invocation->handle = handle;
  invocation->plan = module_invocation_request(handle)->plan;
  invocation->began_us = clock_monotonic_us();
  rest->in_flight++;
  module_invocation_handle(handle, on_cancel, invocation);
  if (!call_begin(invocation, &err))
    invocation_end(invocation, &err);
}

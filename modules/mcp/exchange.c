/* exchange.c: one HTTP request from the moment it is understood until it is answered: caller, session, calls, reply.
 *
 * An exchange lives in the arena of its HTTP request: whoever answers takes what is needed out of it first, closes it,
 * and answers last. A single call is answered as JSON, or as an event stream as soon as there is something to tell
 * before the result; a batch always as one JSON array. */
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/arena.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

static const char json_type[] = "application/json";

struct arena *mcp_exchange_arena(struct mcp_exchange *exchange) {
  return http_request_arena(exchange->request);
}

/* ---- ending ---- */

static void wait_leave(struct mcp_exchange *exchange) {
  if (exchange->awaits_core) {
    TAILQ_REMOVE(&exchange->mcp->waiting, exchange, waiting_entry);
    exchange->mcp->waiting_count--;
  }
  exchange->awaits_core = false;
}

static void call_detach(struct mcp_call *call) {
  if (call->in_session)
    TAILQ_REMOVE(&call->exchange->session->calls, call, session_entry);
  call->in_session = false;
}

/* Gives everything back; the request is the caller's to finish. */
static struct http_request *exchange_close(struct mcp_exchange *exchange) {
  struct mcp *mcp = exchange->mcp;
  struct http_request *request = exchange->request;
  http_request_on_close(request, NULL, NULL);
  wait_leave(exchange);
  mcp_caller_wait_cancel(&exchange->wait);
  if (exchange->spi)
    rpc_call_cancel(BASE_TAKE(exchange->spi));
  for (size_t i = 0; i < exchange->call_count; i++) {
    BASE_CHECK(!exchange->calls[i].spi && !exchange->calls[i].stream && !exchange->calls[i].upstream &&
               !exchange->calls[i].plan);
    call_detach(&exchange->calls[i]);
    buf_free(&exchange->calls[i].reply);
  }
  if (exchange->is_stream) {
    TAILQ_REMOVE(&mcp->streams, exchange, entry);
    TAILQ_REMOVE(&exchange->session->streams, exchange, session_entry);
  } else {
    TAILQ_REMOVE(&mcp->exchanges, exchange, entry);
    mcp->in_flight--;
    module_latency_note(mcp->module, clock_monotonic_us() - exchange->began_us);
  }
  mcp_session_release(mcp, &exchange->session);
  mcp_caller_release(&exchange->caller);
  return request;
}

static void stream_start(struct mcp_exchange *exchange) {
  if (!exchange->streaming)
    http_sse_start(exchange->request, MCP_SSE_KEEPALIVE_MS);
  exchange->streaming = true;
}

static void exchange_send(struct mcp_exchange *exchange, int http_status, struct buf *message) {
  bool as_stream = exchange->streaming || (http_status == 200 && !exchange->takes_json && exchange->takes_sse);
  if (exchange->gone && exchange->era == MCP_ERA_MODERN) {
    http_request_abort(exchange_close(exchange));
  } else if (as_stream) {
    stream_start(exchange);
    struct http_request *request = exchange_close(exchange);
    http_sse_event(request, NULL, NULL, message->data, message->length);
    http_response_end(request);
  } else {
    http_response_send_buf(exchange_close(exchange), http_status, json_type, message);
  }
  buf_free(message);
}

void mcp_exchange_finish_empty(struct mcp_exchange *exchange, int http_status) {
  http_response_send(exchange_close(exchange), http_status, NULL, NULL, 0);
}

/* retry_ms: the client is told to come back after so long; 0: it is told nothing. */
static void end_stream(struct mcp_exchange *exchange, uint32_t retry_ms) {
  bool started = exchange->streaming, gone = exchange->gone;
  struct http_request *request = exchange_close(exchange);
  if (!started || gone) {
    http_request_abort(request);
    return;
  }
  if (retry_ms > 0)
    http_sse_retry(request, retry_ms);
  http_response_end(request);
}

void mcp_exchange_end_stream(struct mcp_exchange *exchange) {
  end_stream(exchange, 0);
}

void mcp_streams_send_away(struct mcp *mcp) {
  struct mcp_exchange *stream;
  uint32_t count = 0;
  TAILQ_FOREACH(stream, &mcp->streams, entry) count++;
  uint32_t spread_ms = count < MCP_RECONNECT_SPREAD_MS ? count : MCP_RECONNECT_SPREAD_MS;
  while ((stream = TAILQ_FIRST(&mcp->streams))) {
    bool knows = stream->session->version >= MCP_VERSION_2025_11_25;
    uint32_t later_ms = (uint32_t)(id_random_u64() % (spread_ms + 1));
    end_stream(stream, knows ? MCP_RECONNECT_MS + later_ms : 0);
  }
}

/* ---- errors ---- */

/* Fields that go with a status. */
static void problem_headers(struct mcp_exchange *exchange, const struct mcp_problem *problem) {
  char seconds[16];
  uint32_t retry_ms = problem->error.retry_after_ms;
  if (exchange->streaming || exchange->batch)
    return;
  if (problem->http_status == 401)
    http_response_header_add(exchange->request, "WWW-Authenticate",
                             http_request_header(exchange->request, "authorization")
                                 ? "Bearer realm=\"gatehouse\", error=\"invalid_token\""
                                 : "Bearer realm=\"gatehouse\"");
  if (problem->http_status == 503 && retry_ms == 0)
    retry_ms = MCP_RETRY_AFTER_MS;
  if (retry_ms) {
    snprintf(seconds, sizeof(seconds), "%u", (retry_ms + 999) / 1000);
    http_response_header_add(exchange->request, "Retry-After", seconds);
  }
}

static void problem_complete(const struct mcp_exchange *exchange, struct mcp_problem *problem) {
  exchange->mcp->errors_total++;
  str_copy(problem->error.trace_id, sizeof(problem->error.trace_id), exchange->trace.trace_id);
}

void mcp_exchange_fail(struct mcp_exchange *exchange, struct mcp_problem *problem) {
  struct buf out = {0};
  problem_complete(exchange, problem);
  problem_headers(exchange, problem);
  mcp_write_error(&out, exchange->call_count == 1 ? exchange->calls[0].message.id : (struct mcp_slice){0}, problem);
  exchange_send(exchange, problem->http_status, &out);
}

/* Whoever may have had a call carried out is never told to come again by HTTP's own words, which clients obey unasked.
 */
static bool fault_invites(enum mcp_fault fault) {
  return fault == MCP_FAULT_UNAVAILABLE || fault == MCP_FAULT_DRAINING;
}

void mcp_exchange_fail_fault(struct mcp_exchange *exchange, enum mcp_fault fault) {
  struct mcp_problem problem;
  if (exchange->may_have_begun && fault_invites(fault)) {
    struct error err = {0};
    error_set(&err, ERR_RPC_PEER_GONE, NULL);
    mcp_exchange_fail_error(exchange, &err);
    return;
  }
  mcp_problem_from_fault(&problem, fault, exchange->era, NULL);
  mcp_exchange_fail(exchange, &problem);
}

void mcp_exchange_fail_error(struct mcp_exchange *exchange, const struct error *err) {
  struct mcp_problem problem;
  mcp_problem_from_error(&problem, err);
  mcp_exchange_fail(exchange, &problem);
}

/* ---- calls ---- */

static void batch_send(struct mcp_exchange *exchange) {
  struct buf out = {0};
  buf_append_char(&out, '[');
  for (size_t i = 0; i < exchange->call_count; i++) {
    if (!exchange->calls[i].reply.length)
      continue; /* a notification */
    if (out.length > 1)
      buf_append_char(&out, ',');
    buf_append(&out, exchange->calls[i].reply.data, exchange->calls[i].reply.length);
  }
  buf_append_char(&out, ']');
  exchange_send(exchange, 200, &out);
}

void mcp_call_reply(struct mcp_call *call, int http_status, struct buf *message) {
  struct mcp_exchange *exchange = call->exchange;
  BASE_CHECK(!call->done);
  call->done = true;
  call_detach(call);
  exchange->pending--;
  if (!exchange->batch) {
    exchange_send(exchange, http_status, message);
    return;
  }
  call->reply = *message;
  *message = (struct buf){0};
  if (exchange->pending == 0)
    batch_send(exchange);
}

void mcp_call_fail(struct mcp_call *call, struct mcp_problem *problem) {
  struct buf out = {0};
  problem_complete(call->exchange, problem);
  problem_headers(call->exchange, problem);
  mcp_write_error(&out, call->message.id, problem);
  mcp_call_reply(call, problem->http_status, &out);
}

void mcp_call_fail_fault(struct mcp_call *call, enum mcp_fault fault) {
  struct mcp_problem problem;
  mcp_problem_from_fault(&problem, fault, call->exchange->era, NULL);
  mcp_call_fail(call, &problem);
}

bool mcp_exchange_renew_caller(struct mcp_exchange *exchange, const struct error *err) {
  if (!error_is(err, ERR_AUTH_CONTEXT_EXPIRED) || exchange->retried)
    return false;
  for (size_t i = 0; i < exchange->call_count; i++)
    call_detach(&exchange->calls[i]);
  mcp_caller_drop(exchange->mcp, exchange->caller);
  exchange->retried = true;
  mcp_exchange_begin(exchange);
  return true;
}

/* Whether a call that failed begins anew: with a context that lives, or with the core that comes, who is told if the
 * one before may have begun it. */
static bool call_begins_anew(struct mcp_call *call, const struct error *err) {
  struct mcp_exchange *exchange = call->exchange;
  if (exchange->batch || exchange->streaming)
    return false;
  if (mcp_exchange_renew_caller(exchange, err))
    return true;
  bool unbegun = error_is(err, ERR_RPC_REFUSED) || error_is(err, ERR_RPC_CONNECT_FAILED);
  bool gone = error_is(err, ERR_RPC_PEER_GONE) && call->message.method != MCP_METHOD_INITIALIZE; /* a session is kept */
  if (err->foreign || (!unbegun && !gone) || !mcp_exchange_await_core(exchange))
    return false;
  call_detach(call);
  return true;
}

void mcp_call_fail_error(struct mcp_call *call, const struct error *err) {
  struct mcp_problem problem;
  if (call_begins_anew(call, err))
    return;
  mcp_problem_from_error(&problem, err);
  mcp_call_fail(call, &problem);
}

void mcp_call_notify(struct mcp_call *call, struct buf *message) {
  struct mcp_exchange *exchange = call->exchange;
  if (exchange->takes_sse && !exchange->batch && !exchange->gone) {
    stream_start(exchange);
    /* A client that does not keep up loses notifications, never the result. */
    if (!http_response_is_congested(exchange->request))
      http_sse_event(exchange->request, NULL, NULL, message->data, message->length);
  }
  buf_free(message);
}

bool mcp_call_wants_progress(const struct mcp_call *call) {
  return call->message.meta.progress_token.length && call->exchange->takes_sse && !call->exchange->batch;
}

enum mcp_version mcp_call_version(const struct mcp_call *call) {
  return call->exchange->session ? call->exchange->session->version : call->exchange->version;
}

/* Nobody works for it any more. */
static void call_stop(struct mcp_call *call) {
  if (call->spi)
    rpc_call_cancel(BASE_TAKE(call->spi));
  mcp_call_stream_cancel(call);
  if (call->upstream)
    mcp_upstream_call_cancel(BASE_TAKE(call->upstream));
  mcp_plan_abandon(call);
}

void mcp_call_cancel(struct mcp_call *call) {
  struct mcp_exchange *exchange = call->exchange;
  if (call->done)
    return;
  call_stop(call);
  if (exchange->gone || exchange->batch || !exchange->takes_sse) {
    mcp_call_fail_fault(call, MCP_FAULT_CANCELLED);
    return;
  }
  /* A cancelled request gets no answer: its stream just ends. */
  call->done = true;
  stream_start(exchange);
  mcp_exchange_end_stream(exchange);
}

/* ---- waiting for the core ---- */

static void wait_timer_set(struct mcp *mcp) {
  const struct mcp_exchange *first = TAILQ_FIRST(&mcp->waiting);
  if (!first)
    return;
  int64_t left_ms = first->wait_until_ms - clock_monotonic_ms();
  struct timeval delay = {0};
  if (left_ms > 0)
    delay = (struct timeval){.tv_sec = left_ms / 1000, .tv_usec = (suseconds_t)(left_ms % 1000) * 1000};
  evtimer_add(mcp->wait_timer, &delay);
}

bool mcp_exchange_await_core(struct mcp_exchange *exchange) {
  struct mcp *mcp = exchange->mcp;
  if (module_is_attached(mcp->module) || exchange->waited || mcp->config.core_wait_ms == 0 ||
      mcp->waiting_count >= MCP_CORE_WAITS_MAX ||
      (module_is_draining(mcp->module) && !module_is_handing_over(mcp->module)))
    return false;
  exchange->waited = exchange->awaits_core = true;
  exchange->wait_until_ms = clock_monotonic_ms() + mcp->config.core_wait_ms;
  TAILQ_INSERT_TAIL(&mcp->waiting, exchange, waiting_entry);
  if (mcp->waiting_count++ == 0)
    wait_timer_set(mcp);
  return true;
}

void mcp_exchanges_wait_over(evutil_socket_t fd, short what, void *arg) {
  struct mcp *mcp = arg;
  struct mcp_exchange *exchange;
  int64_t now_ms = clock_monotonic_ms();
  (void)fd, (void)what;
  while ((exchange = TAILQ_FIRST(&mcp->waiting)) && exchange->wait_until_ms <= now_ms)
    mcp_exchange_fail_fault(exchange, MCP_FAULT_UNAVAILABLE);
  wait_timer_set(mcp);
}

void mcp_exchanges_go_on(struct mcp *mcp) {
  struct mcp_exchange *exchange;
  evtimer_del(mcp->wait_timer);
  while ((exchange = TAILQ_FIRST(&mcp->waiting))) {
    wait_leave(exchange);
    mcp_exchange_begin(exchange);
  }
}

/* ---- the steps ---- */

static void caller_known(void *arg, struct mcp_caller *caller, const struct error *err) {
  struct mcp_exchange *exchange = arg;
  struct mcp_problem problem;
  /* A question that the core took along leaves nothing behind: it may be asked again. */
  if (!caller && mcp_exchange_await_core(exchange))
    return;
  if (!caller) {
    mcp_problem_from_error(&problem, err);
    /* Before anything was asked: HTTP's own words for it. */
    problem.http_status = error_category_http_status(problem.error.category);
    if (problem.http_status >= 500)
      mcp_exchange_fail_fault(exchange, MCP_FAULT_UNAVAILABLE);
    else
      mcp_exchange_fail(exchange, &problem);
    return;
  }
  if (exchange->caller != caller) {
    mcp_caller_release(&exchange->caller);
    exchange->caller = mcp_caller_hold(caller);
  }
  bool opens = exchange->call_count == 1 && exchange->calls[0].message.method == MCP_METHOD_INITIALIZE;
  if (exchange->era == MCP_ERA_LEGACY && !opens && !exchange->session)
    mcp_session_find(exchange);
  else
    mcp_exchange_dispatch(exchange);
}

void mcp_exchange_begin(struct mcp_exchange *exchange) {
  if (!module_is_attached(exchange->mcp->module)) {
    if (!mcp_exchange_await_core(exchange))
      mcp_exchange_fail_fault(exchange, MCP_FAULT_UNAVAILABLE);
    return;
  }
  if (exchange->may_have_begun && !module_core_knows_may_have_begun(exchange->mcp->module)) {
    mcp_exchange_fail_fault(exchange, MCP_FAULT_UNAVAILABLE);
    return;
  }
  struct mcp_caller *caller = mcp_caller_resolve(exchange->mcp, exchange->request, exchange->server_id,
                                                 &exchange->trace, &exchange->wait, caller_known, exchange);
  if (!caller)
    return;
  struct mcp_caller *held = caller;
  caller_known(exchange, caller, NULL);
  mcp_caller_release(&held);
}

static void ping(struct mcp_call *call) {
  struct buf out = {0};
  bool comma;
  mcp_write_result_open(&out, call->message.id, call->exchange->era, (struct mcp_slice){0}, &comma);
  mcp_write_result_close(&out);
  mcp_call_reply(call, 200, &out);
}

static void request_dispatch(struct mcp_call *call) {
  static void (*const handlers[MCP_METHOD_COUNT])(struct mcp_call *) = {
      [MCP_METHOD_INITIALIZE] = mcp_session_initialize,
      [MCP_METHOD_PING] = ping,
      [MCP_METHOD_DISCOVER] = mcp_discover,
      [MCP_METHOD_TOOLS_LIST] = mcp_tools_list,
      [MCP_METHOD_TOOLS_CALL] = mcp_tools_call,
  };
  struct mcp_exchange *exchange = call->exchange;
  if (!mcp_method_is_served(call->message.method, exchange->era)) {
    mcp_call_fail_fault(call, MCP_FAULT_METHOD_NOT_FOUND);
    return;
  }
  if (exchange->session) {
    TAILQ_INSERT_TAIL(&exchange->session->calls, call, session_entry);
    call->in_session = true;
  }
  handlers[call->message.method](call);
}

void mcp_exchange_dispatch(struct mcp_exchange *exchange) {
  size_t count = exchange->call_count;
  struct mcp_call *calls = exchange->calls;
  if (exchange->action != MCP_ACTION_POST) {
    (exchange->action == MCP_ACTION_STREAM ? mcp_session_stream : mcp_session_delete)(exchange);
    return;
  }
  if (exchange->batch && exchange->session->version != MCP_VERSION_2025_03_26) {
    mcp_exchange_fail_fault(exchange, MCP_FAULT_BATCH);
    return;
  }
  for (size_t i = 0; i < count; i++)
    if (calls[i].message.kind == MCP_MESSAGE_NOTIFICATION && calls[i].message.method == MCP_METHOD_CANCELLED &&
        exchange->session)
      mcp_session_cancel(exchange->session, calls[i].message.request_id);
  if (exchange->pending == 0) {
    mcp_exchange_finish_empty(exchange, 202);
    return;
  }
  /* The last call that is answered ends the exchange and frees the array: the loop stops before it looks there again.
   */
  size_t requests = exchange->pending;
  for (size_t i = 0; requests > 0; i++) {
    if (calls[i].message.kind != MCP_MESSAGE_REQUEST)
      continue;
    requests--;
    request_dispatch(&calls[i]);
  }
}

void mcp_exchanges_sweep(struct mcp *mcp) {
  int64_t now_ms = clock_monotonic_ms();
  struct mcp_exchange *exchange;
  TAILQ_FOREACH(exchange, &mcp->exchanges, entry) {
    if (exchange->call_count == 1 && !exchange->batch && !exchange->streaming && exchange->takes_sse &&
        !exchange->gone && now_ms - exchange->began_ms > MCP_SSE_PATIENCE_MS &&
        (exchange->calls[0].stream || exchange->calls[0].upstream))
      stream_start(exchange);
  }
}

void mcp_exchanges_abandon(struct mcp *mcp) {
  struct mcp_exchange *exchange;
  while ((exchange = TAILQ_FIRST(&mcp->exchanges))) {
    struct mcp_call *calls = exchange->calls;
    size_t requests = exchange->pending;
    if (requests == 0)
      mcp_exchange_fail_fault(exchange, MCP_FAULT_DRAINING);
    for (size_t i = 0; requests > 0; i++) {
      if (calls[i].message.kind != MCP_MESSAGE_REQUEST || calls[i].done)
        continue;
      requests--;
      call_stop(&calls[i]);
      mcp_call_fail_fault(&calls[i], MCP_FAULT_DRAINING);
    }
  }
}

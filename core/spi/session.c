/* session.c: SessionEventService: translation only; sessions decides. */
#include "core/spi/spi_internal.h"
#include "sdk/base/alloc.h"
#include "wire/pbc/core/spi/session/v1/session.pb-c.h"

/* A durable answer is given later, when the call may be gone: the pair of both. */
struct pending {
  struct core_rpc_call *call;
  void (*reply)(struct core_rpc_call *call, const struct session_record *record);
};

static void session_fill(const struct session_record *record, Core__Spi__Session__V1__Session *out) {
  core__spi__session__v1__session__init(out);
  out->session_id = spi_text(record->session_id);
  out->protocol_family = spi_text(record->protocol_family);
  out->protocol_version = spi_text(record->protocol_version);
  out->server_id = spi_text(record->server_id);
  out->state_json.data = (uint8_t *)(uintptr_t)record->state_json;
  out->state_json.len = record->state_length;
  out->created_at_ms = record->created_at_ms;
  out->expires_at_ms = record->expires_at_ms;
}

static void pending_done(void *arg, const struct session_record *record, const struct error *err) {
  struct pending *pending = arg;
  if (err)
    core_rpc_call_fail(pending->call, err);
  else
    pending->reply(pending->call, record);
  base_free(pending);
}

static struct pending *pending_create(struct core_rpc_call *call,
                                      void (*reply)(struct core_rpc_call *, const struct session_record *)) {
  struct pending *pending = BASE_NEW(struct pending);
  *pending = (struct pending){.call = call, .reply = reply};
  return pending;
}

static void created(struct core_rpc_call *call, const struct session_record *record) {
  Core__Spi__Session__V1__CreateSessionResponse response = CORE__SPI__SESSION__V1__CREATE_SESSION_RESPONSE__INIT;
  Core__Spi__Session__V1__Session session;
  session_fill(record, &session);
  response.session = &session;
  core_rpc_call_reply_message(call, &response.base);
}

static void touched(struct core_rpc_call *call, const struct session_record *record) {
  Core__Spi__Session__V1__TouchSessionResponse response = CORE__SPI__SESSION__V1__TOUCH_SESSION_RESPONSE__INIT;
  response.expires_at_ms = record->expires_at_ms;
  core_rpc_call_reply_message(call, &response.base);
}

static void deleted(struct core_rpc_call *call, const struct session_record *record) {
  Core__Spi__Session__V1__DeleteSessionResponse response = CORE__SPI__SESSION__V1__DELETE_SESSION_RESPONSE__INIT;
  (void)record;
  core_rpc_call_reply_message(call, &response.base);
}

void spi_session_create(const struct spi_call *call) {
  const Core__Spi__Session__V1__CreateSessionRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  if (context)
    session_create(call->spi->options.sessions, context, request->protocol_family, request->protocol_version,
                   request->server_id, request->state_json.data, request->state_json.len, request->idle_timeout_ms,
                   pending_done, pending_create(call->call, created));
}

void spi_session_touch(const struct spi_call *call) {
  const Core__Spi__Session__V1__TouchSessionRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  if (context)
    session_touch(call->spi->options.sessions, context, request->session_id, request->state_json.data,
                  request->state_json.len, pending_done, pending_create(call->call, touched));
}

void spi_session_delete(const struct spi_call *call) {
  const Core__Spi__Session__V1__DeleteSessionRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  if (context)
    session_delete(call->spi->options.sessions, context, request->session_id, pending_done,
                   pending_create(call->call, deleted));
}

void spi_session_get(const struct spi_call *call) {
  const Core__Spi__Session__V1__GetSessionRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  struct error err = {0};
  if (!context)
    return;
  const struct session_record *record =
      session_find(call->spi->options.sessions, context, request->session_id, request->server_id, &err);
  if (!record) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  Core__Spi__Session__V1__GetSessionResponse response = CORE__SPI__SESSION__V1__GET_SESSION_RESPONSE__INIT;
  Core__Spi__Session__V1__Session session;
  Core__Common__V1__Lease lease;
  session_fill(record, &session);
  spi_lease_fill(call->spi, context, &lease);
  response.session = &session;
  response.lease = &lease;
  core_rpc_call_reply_message(call->call, &response.base);
}

void spi_session_validate_owner(const struct spi_call *call) {
  const Core__Spi__Session__V1__ValidateSessionOwnerRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  struct error err = {0};
  if (!context)
    return;
  if (!session_find(call->spi->options.sessions, context, request->session_id, NULL, &err)) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  Core__Spi__Session__V1__ValidateSessionOwnerResponse response =
      CORE__SPI__SESSION__V1__VALIDATE_SESSION_OWNER_RESPONSE__INIT;
  Core__Common__V1__Lease lease;
  spi_lease_fill(call->spi, context, &lease);
  response.lease = &lease;
  core_rpc_call_reply_message(call->call, &response.base);
}

void spi_session_append_event(const struct spi_call *call) {
  const Core__Spi__Session__V1__AppendEventRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  Core__Spi__Session__V1__AppendEventResponse response = CORE__SPI__SESSION__V1__APPEND_EVENT_RESPONSE__INIT;
  struct error err = {0};
  if (!context)
    return;
  if (session_event_append(call->spi->options.sessions, context, request->session_id, request->stream_id,
                           request->data.data, request->data.len, &response.event_id, &err))
    core_rpc_call_reply_message(call->call, &response.base);
  else
    core_rpc_call_fail(call->call, &err);
}

/* A replay is bounded by what a session keeps, which fits the send queue's way of taking one message more than it has
 * room for. */
struct replay {
  struct core_rpc_call *call;
  bool refused;
};

static bool replay_visit(void *arg, uint64_t event_id, const char *stream_id, const void *data, size_t length) {
  struct replay *replay = arg;
  Core__Spi__Session__V1__SessionEvent event = CORE__SPI__SESSION__V1__SESSION_EVENT__INIT;
  event.event_id = event_id;
  event.stream_id = spi_text(stream_id);
  event.data.data = (uint8_t *)(uintptr_t)data;
  event.data.len = length;
  replay->refused = !core_rpc_call_send_message(replay->call, &event.base);
  return !replay->refused;
}

void spi_session_replay_events(const struct spi_call *call) {
  const Core__Spi__Session__V1__ReplayEventsRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  struct replay replay = {.call = call->call};
  struct error err = {0};
  if (!context)
    return;
  if (!session_events_replay(call->spi->options.sessions, context, request->session_id, request->after_event_id,
                             replay_visit, &replay, &err))
    core_rpc_call_fail(call->call, &err);
  else if (replay.refused) /* the rest is asked for with the id of the last one that arrived */
    core_rpc_call_fail_code(call->call, ERR_UNAVAILABLE);
  else
    core_rpc_call_finish(call->call);
}

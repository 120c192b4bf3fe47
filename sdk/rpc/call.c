/* call.c: client calls, unary and streaming: the request headers, what the answer's headers and end mean, and the one
 * place where a call ends (rpc_call_finish). Call objects are pooled by their channel with their small buffers, so that
 * a call costs no allocation of ours once the channel is warm. */
#include "sdk/base/secret.h"
#include "sdk/base/str.h"
#include "sdk/rpc/rpc_client_internal.h"

#define CALL_MAGIC 0x5250434cu
#define UNARY_DEADLINE_MS 30000
#define REPLY_BLOCK_BYTES 512 /* what a small reply takes decoded, above twice its length */

static struct rpc_call *call_of(struct rpc_stream *stream) {
  return RPC_OWNER(stream, struct rpc_call, stream);
}

/* ---- the end ---- */

void rpc_call_destroy(struct rpc_call *call) {
  rpc_stream_free(&call->stream);
  rpc_headers_free(&call->sent);
  rpc_headers_free(&call->received);
  base_free(call);
}

/* Takes the call out of everything, so that only its memory is left. */
static void call_unlink(struct rpc_call *call) {
  struct rpc_channel *channel = call->channel;
  if (call->stream.session != NULL)
    rpc_stream_detach(&call->stream, !call->stream.remote_done || !call->stream.out_done, NGHTTP2_CANCEL);
  rpc_deadlines_remove(&channel->deadlines, &call->deadline);
  rpc_work_cancel(&channel->work, &call->work);
  if (call->waiting)
    TAILQ_REMOVE(&channel->waiting, call, waiting_link);
  call->waiting = false;
  TAILQ_REMOVE(&channel->calls, call, link);
  channel->in_flight--;
  call->magic = 0;
}

static void call_release(struct rpc_stream *stream) {
  struct rpc_call *call = call_of(stream);
  struct rpc_channel *channel = call->channel;
  if (channel->closed || channel->pool_count >= RPC_POOL_MAX) {
    rpc_call_destroy(call);
  } else {
    rpc_stream_recycle(&call->stream);
    rpc_headers_clear(&call->sent);
    rpc_headers_clear(&call->received);
    TAILQ_INSERT_HEAD(&channel->pool, call, link);
    channel->pool_count++;
  }
  rpc_channel_drop(channel);
}

static void deliver_unary_message(struct rpc_call *call, const struct rpc_status *status, const uint8_t *reply,
                                  size_t reply_length) {
  if (reply == NULL) {
    call->callback.message(call->arg, status, NULL);
    return;
  }
  struct arena *arena = arena_create(REPLY_BLOCK_BYTES + 2 * reply_length);
  void *message = arena_alloc(arena, call->reply_bytes);
  struct rpc_status malformed = {.code = RPC_INTERNAL};
  if (rpc_message_decode(reply, reply_length, call->reply_fields, message, arena, &malformed.error))
    call->callback.message(call->arg, status, message);
  else
    call->callback.message(call->arg, &malformed, NULL);
  arena_free(&arena);
}

void rpc_call_finish(struct rpc_call *call, const struct rpc_status *status) {
  BASE_CHECK_MAGIC(call, CALL_MAGIC);
  rpc_stream_enter(&call->stream);
  call_unlink(call);
  const uint8_t *reply = NULL;
  size_t reply_length = 0;
  struct rpc_status missing;
  if (call->kind != CALL_STREAM && status->code == RPC_OK && !rpc_stream_single(&call->stream, &reply, &reply_length)) {
    rpc_status_set(&missing, RPC_INTERNAL, ERR_RPC_PROTOCOL, "The answer holds no complete message.");
    status = &missing;
    reply = NULL;
  }
  switch (call->kind) {
  case CALL_UNARY:
    call->callback.unary(call->arg, status, reply, reply_length);
    break;
  case CALL_UNARY_MESSAGE:
    deliver_unary_message(call, status, reply, reply_length);
    break;
  case CALL_STREAM:
    if (call->callback.stream.on_status != NULL)
      call->callback.stream.on_status(call->arg, status);
    break;
  }
  rpc_stream_bury(&call->stream);
  rpc_stream_leave(&call->stream);
}

void rpc_call_cancel(struct rpc_call *call) {
  BASE_CHECK_MAGIC(call, CALL_MAGIC);
  call_unlink(call);
  rpc_stream_bury(&call->stream);
}

void rpc_call_fail_later(struct rpc_call *call, enum rpc_code code, enum error_code error) {
  if (call->waiting) {
    TAILQ_REMOVE(&call->channel->waiting, call, waiting_link);
    call->waiting = false;
  }
  call->failed = true;
  rpc_status_set(&call->failure, code, error, NULL);
  rpc_work_queue(&call->channel->work, &call->work);
}

void rpc_call_work(struct rpc_work *work, void *arg) {
  (void)arg;
  struct rpc_call *call = RPC_OWNER(work, struct rpc_call, work);
  rpc_stream_enter(&call->stream);
  if (call->failed) {
    rpc_call_finish(call, &call->failure);
  } else {
    if (call->writable_due) {
      call->writable_due = false;
      if (call->callback.stream.on_writable != NULL)
        call->callback.stream.on_writable(call->arg);
    }
    if (!call->stream.dead)
      rpc_stream_pump(&call->stream);
  }
  rpc_stream_leave(&call->stream);
}

void rpc_call_expired(struct rpc_deadline *deadline, void *arg) {
  (void)arg;
  struct rpc_status status;
  rpc_status_set(&status, RPC_DEADLINE_EXCEEDED, ERR_DEADLINE_EXCEEDED, NULL);
  rpc_call_finish(RPC_OWNER(deadline, struct rpc_call, deadline), &status);
}

/* ---- what the stream says ---- */

static bool name_is(const char *name, size_t length, const char *expected) {
  return length == strlen(expected) && memcmp(name, expected, length) == 0;
}

static int64_t number_parse(const char *value, size_t length) {
  int64_t number = 0;
  for (size_t i = 0; i < length; i++) {
    if (value[i] < '0' || value[i] > '9' || length > 9)
      return INT32_MAX;
    number = number * 10 + (value[i] - '0');
  }
  return length > 0 ? number : INT32_MAX;
}

static void stream_header(struct rpc_stream *stream, const char *name, size_t name_length, const char *value,
                          size_t value_length) {
  struct rpc_call *call = call_of(stream);
  if (stream->dead)
    return;
  call->received_bytes += name_length + value_length + RPC_HEADER_OVERHEAD_BYTES;
  if (call->received_bytes > call->channel->options.metadata_bytes_max * 2) { /* headers and trailers */
    struct rpc_status status;
    rpc_status_set(&status, RPC_RESOURCE_EXHAUSTED, ERR_RPC_MESSAGE_TOO_LARGE, "The answer's metadata is too large.");
    rpc_call_finish(call, &status);
  } else if (name_is(name, name_length, ":status")) {
    call->http_status = (int)number_parse(value, value_length);
  } else if (name_is(name, name_length, "grpc-status")) {
    call->grpc_status = number_parse(value, value_length);
  } else if (!name_is(name, name_length, "content-type")) {
    rpc_headers_add_received(&call->received, name, name_length, value, value_length);
  }
}

static void stream_headers_end(struct rpc_stream *stream, bool end_stream) {
  struct rpc_call *call = call_of(stream);
  if (stream->dead)
    return;
  call->channel->answered = true;
  call->begun = call->begun || !end_stream;
  if (!end_stream && call->http_status != 200) {
    struct rpc_status status;
    rpc_status_from_http(&status, call->http_status);
    rpc_call_finish(call, &status);
  }
}

static void stream_message(struct rpc_stream *stream, const uint8_t *message, size_t length) {
  struct rpc_call *call = call_of(stream);
  if (call->callback.stream.on_message != NULL)
    call->callback.stream.on_message(call->arg, message, length);
}

static void stream_remote_end(struct rpc_stream *stream) {
  struct rpc_call *call = call_of(stream);
  struct rpc_status status;
  if (call->grpc_status >= 0)
    rpc_status_from_trailers(&status, (uint32_t)call->grpc_status, &call->received);
  else
    rpc_status_from_http(&status, call->http_status);
  if (call->channel->options.cancelled_is_refused && !call->begun && !status.error.foreign &&
      error_is(&status.error, ERR_RPC_STATUS_CANCELLED)) {
    rpc_status_set(&status, RPC_UNAVAILABLE, ERR_RPC_REFUSED, NULL);
    if (stream->session != NULL)
      rpc_channel_retire(call->channel, stream->session);
    if (stream->dead)
      return;
  }
  if (call->channel->options.denied_is_unavailable && error_is(&status.error, ERR_AUTH_CHANNEL)) {
    struct error unavailable;
    error_set(&unavailable, ERR_UNAVAILABLE, NULL);
    rpc_status_from_error(&status, &unavailable);
  }
  rpc_call_finish(call, &status);
}

static void stream_writable(struct rpc_stream *stream) {
  struct rpc_call *call = call_of(stream);
  call->writable_due = true;
  rpc_work_queue(&call->channel->work, &call->work);
}

static uint32_t stream_out_end(struct rpc_stream *stream) {
  (void)stream;
  return 0;
}

static void stream_violation(struct rpc_stream *stream, const struct rpc_status *status) {
  rpc_call_finish(call_of(stream), status);
}

/* Once more: the peer said that it has not looked at this request. */
static void call_again(struct rpc_call *call) {
  call->retried = true;
  call->stream.out_offset = 0;
  call->stream.out_done = false;
  call->stream.deferred = false;
  rpc_channel_dispatch(call->channel, call);
}

static void stream_closed(struct rpc_stream *stream, const struct rpc_session *lost, uint32_t h2_error) {
  struct rpc_call *call = call_of(stream);
  if (stream->remote_done)
    return; /* paused before the end: resume delivers it */
  if (lost == NULL && h2_error == NGHTTP2_REFUSED_STREAM && call->kind != CALL_STREAM && !call->retried &&
      call->http_status == 0 && !call->channel->closed) {
    call_again(call);
    return;
  }
  struct rpc_status status;
  if (lost == NULL && h2_error == NGHTTP2_REFUSED_STREAM && !call->begun)
    rpc_status_set(&status, RPC_UNAVAILABLE, ERR_RPC_REFUSED, NULL);
  else if (lost == NULL)
    rpc_status_from_reset(&status, h2_error);
  else if (lost->loss == RPC_LOSS_PROTOCOL)
    rpc_status_set(&status, RPC_UNAVAILABLE, ERR_RPC_PROTOCOL, NULL);
  else if (lost->loss == RPC_LOSS_CLOSED)
    rpc_status_set(&status, RPC_UNAVAILABLE, ERR_UNAVAILABLE, "The channel was closed.");
  else
    rpc_status_set(&status, RPC_UNAVAILABLE, ERR_RPC_PEER_GONE, NULL);
  rpc_call_finish(call, &status);
}

static const struct rpc_stream_ops stream_ops = {.header = stream_header,
                                                 .headers_end = stream_headers_end,
                                                 .message = stream_message,
                                                 .remote_end = stream_remote_end,
                                                 .writable = stream_writable,
                                                 .out_end = stream_out_end,
                                                 .violation = stream_violation,
                                                 .closed = stream_closed,
                                                 .release = call_release};

/* ---- the request ---- */

#define NV(name_, name_length_, value_, value_length_, flags_)                                                         \
  ((nghttp2_nv){(uint8_t *)(uintptr_t)(name_), (uint8_t *)(uintptr_t)(value_), (name_length_), (value_length_),        \
                (uint8_t)(flags_)})
#define NV_FIXED(name_, value_)                                                                                        \
  NV(name_, sizeof(name_) - 1, value_, sizeof(value_) - 1, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)

bool rpc_call_submit(struct rpc_call *call, struct rpc_session *session) {
  nghttp2_nv headers[8 + RPC_CALL_METADATA_MAX + RPC_CHANNEL_METADATA_MAX];
  size_t count = 0;
  struct rpc_headers_cursor cursor = {0};
  BASE_CHECK(rpc_headers_next(&call->sent, &cursor)); /* the first one is the path */
  headers[count++] = NV_FIXED(":method", "POST");
  headers[count++] = NV_FIXED(":scheme", "http");
  headers[count++] = NV(":path", 5, cursor.value, cursor.value_length, NGHTTP2_NV_FLAG_NO_COPY_NAME);
  headers[count++] = NV_FIXED(":authority", "localhost");
  headers[count++] = NV_FIXED("te", "trailers");
  headers[count++] = NV_FIXED("content-type", "application/grpc");
  headers[count++] =
      NV("user-agent", 10, call->channel->user_agent, strlen(call->channel->user_agent), NGHTTP2_NV_FLAG_NO_COPY_NAME);
  char timeout[RPC_TIMEOUT_TEXT_BYTES];
  if (call->deadline_us != INT64_MAX) {
    /* Up to whole milliseconds: calls with the same deadline then send the same text, which HPACK makes one byte. */
    int64_t left_ms = (call->deadline_us - clock_monotonic_us() + 999) / 1000;
    size_t length = rpc_timeout_format(timeout, left_ms * 1000);
    headers[count++] = NV("grpc-timeout", 12, timeout, length, NGHTTP2_NV_FLAG_NO_COPY_NAME);
  }
  while (rpc_headers_next(&call->sent, &cursor))
    headers[count++] = NV(cursor.name, cursor.name_length, cursor.value, cursor.value_length, NGHTTP2_NV_FLAG_NO_INDEX);
  struct rpc_channel_header *header;
  TAILQ_FOREACH(header, &call->channel->metadata, link) {
    const char *value = header->secret != NULL ? secret_reveal(header->secret) : header->value;
    headers[count++] = NV(header->name, strlen(header->name), value, strlen(value), NGHTTP2_NV_FLAG_NONE);
  }
  nghttp2_data_provider provider = rpc_stream_provider();
  int32_t id = nghttp2_submit_request(session->h2, NULL, headers, count, &provider, &call->stream);
  if (id < 0)
    return false;
  rpc_stream_attach(&call->stream, session, id);
  rpc_session_flush_later(session);
  return true;
}

static struct rpc_call *call_take(struct rpc_channel *channel) {
  struct rpc_call *call = TAILQ_FIRST(&channel->pool);
  if (call != NULL) {
    TAILQ_REMOVE(&channel->pool, call, link);
    channel->pool_count--;
  } else {
    call = BASE_NEW(struct rpc_call);
  }
  rpc_channel_hold(channel);
  call->magic = CALL_MAGIC;
  call->channel = channel;
  call->received_bytes = 0;
  call->http_status = 0;
  call->grpc_status = -1;
  call->waiting = call->wait_for_ready = call->retried = call->failed = call->writable_due = call->begun = false;
  call->work.queued = false;
  call->deadline.heap_slot = 0;
  TAILQ_INSERT_TAIL(&channel->calls, call, link);
  channel->in_flight++;
  return call;
}

/* Everything about a call but its message; the caller fills `out` and then calls call_start. */
static struct rpc_call *call_new(struct rpc_channel *channel, const char *method,
                                 const struct rpc_call_options *options, enum rpc_call_kind kind, void *arg) {
  static const struct rpc_call_options defaults = {0};
  if (options == NULL)
    options = &defaults;
  struct rpc_call *call = call_take(channel);
  call->kind = kind;
  call->arg = arg;
  rpc_stream_init(&call->stream, &stream_ops, channel->options.message_bytes_max, channel->options.send_buffer_bytes);
  call->stream.single = kind != CALL_STREAM;
  call->stream.keep_out = kind != CALL_STREAM;
  call->wait_for_ready = options->wait_for_ready;
  uint32_t deadline_ms = options->deadline_ms > 0 ? options->deadline_ms : kind != CALL_STREAM ? UNARY_DEADLINE_MS : 0;
  call->deadline_us = INT64_MAX;
  if (deadline_ms > 0) {
    call->deadline_us = clock_monotonic_us() + (int64_t)deadline_ms * 1000;
    rpc_deadlines_add(&channel->deadlines, &call->deadline, call->deadline_us);
  }
  bool valid = method[0] == '/' && rpc_metadata_value_is_valid(method, strlen(method)) &&
               options->metadata_count <= RPC_CALL_METADATA_MAX;
  rpc_headers_add(&call->sent, ":path", 5, method, strlen(method));
  for (size_t i = 0; valid && i < options->metadata_count; i++)
    valid = rpc_headers_add_metadata(&call->sent, &options->metadata[i]);
  if (!valid)
    rpc_call_fail_later(call, RPC_INVALID_ARGUMENT, ERR_ARGUMENT_INVALID);
  else if (channel->in_flight > channel->options.in_flight_max)
    rpc_call_fail_later(call, RPC_RESOURCE_EXHAUSTED, ERR_RPC_IN_FLIGHT_LIMIT);
  return call;
}

static struct rpc_call *call_start(struct rpc_call *call) {
  if (!call->failed)
    rpc_channel_dispatch(call->channel, call);
  return call;
}

struct rpc_call *rpc_call_unary(struct rpc_channel *channel, const char *method, const uint8_t *request,
                                size_t request_length, const struct rpc_call_options *options,
                                rpc_unary_callback *callback, void *arg) {
  struct rpc_call *call = call_new(channel, method, options, CALL_UNARY, arg);
  call->callback.unary = callback;
  rpc_frame_append(&call->stream.out, request, request_length);
  call->stream.out_end = true;
  return call_start(call);
}

struct rpc_call *rpc_call_unary_message(struct rpc_channel *channel, const char *method,
                                        const pb_msgdesc_t *request_fields, const void *request,
                                        const pb_msgdesc_t *reply_fields, size_t reply_bytes,
                                        const struct rpc_call_options *options, rpc_unary_message_callback *callback,
                                        void *arg) {
  struct rpc_call *call = call_new(channel, method, options, CALL_UNARY_MESSAGE, arg);
  call->callback.message = callback;
  call->reply_fields = reply_fields;
  call->reply_bytes = reply_bytes;
  if (!call->failed && !rpc_frame_append_message(&call->stream.out, request_fields, request))
    rpc_call_fail_later(call, RPC_INVALID_ARGUMENT, ERR_ARGUMENT_INVALID);
  call->stream.out_end = true;
  return call_start(call);
}

struct rpc_call *rpc_call_open(struct rpc_channel *channel, const char *method, const struct rpc_call_options *options,
                               const struct rpc_stream_handler *handler, void *arg) {
  struct rpc_call *call = call_new(channel, method, options, CALL_STREAM, arg);
  call->callback.stream = *handler;
  return call_start(call);
}

/* ---- streaming ---- */

enum rpc_send_result rpc_call_send(struct rpc_call *call, const uint8_t *message, size_t length) {
  BASE_CHECK_MAGIC(call, CALL_MAGIC);
  if (call->failed || !rpc_stream_may_send(&call->stream, RPC_PREFIX_BYTES + length))
    return RPC_SEND_REFUSED;
  rpc_frame_append(&call->stream.out, message, length);
  return rpc_stream_send_result(&call->stream);
}

enum rpc_send_result rpc_call_send_message(struct rpc_call *call, const pb_msgdesc_t *fields, const void *message) {
  BASE_CHECK_MAGIC(call, CALL_MAGIC);
  if (call->failed || !rpc_stream_may_send(&call->stream, 0) ||
      !rpc_frame_append_message(&call->stream.out, fields, message))
    return RPC_SEND_REFUSED;
  return rpc_stream_send_result(&call->stream);
}

void rpc_call_half_close(struct rpc_call *call) {
  BASE_CHECK_MAGIC(call, CALL_MAGIC);
  call->stream.out_end = true;
  rpc_stream_kick(&call->stream);
}

void rpc_call_pause(struct rpc_call *call) {
  BASE_CHECK_MAGIC(call, CALL_MAGIC);
  call->stream.paused = true;
}

void rpc_call_resume(struct rpc_call *call) {
  BASE_CHECK_MAGIC(call, CALL_MAGIC);
  call->stream.paused = false;
  rpc_work_queue(&call->channel->work, &call->work);
}

const char *rpc_call_metadata(const struct rpc_call *call, const char *name, size_t *length) {
  return rpc_headers_get(&call->received, name, length);
}

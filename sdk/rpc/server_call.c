/* server_call.c: one call at the server, from its first header to its trailers.
 *
 * A call has two lives: on the wire (`decided` once its status is chosen, detached once the stream is closed) and with
 * its handler (`held` until the handler ends it). The memory goes when both are over, so a handler may answer a call
 * whose peer, deadline or server is long gone, and nothing happens.
 *
 * Requests are checked here, since nghttp2's own checks are off (session.c says why). */
#include <stdio.h>

#include "sdk/base/str.h"
#include "sdk/rpc/rpc_server_internal.h"

#define SERVER_CALL_MAGIC 0x52505363u
#define ANSWER_METADATA_MAX 24
#define EACH_BYTE UINT64_C(0x0101010101010101)

static struct rpc_server_call *call_of(struct rpc_stream *stream) {
  return RPC_OWNER(stream, struct rpc_server_call, stream);
}

/* ---- life ---- */

void rpc_server_call_destroy(struct rpc_server_call *call) {
  rpc_stream_free(&call->stream);
  rpc_headers_free(&call->received);
  rpc_headers_free(&call->sent);
  base_free(call);
}

static void call_release(struct rpc_stream *stream) {
  struct rpc_server_call *call = call_of(stream);
  struct rpc_server *server = call->server;
  base_free(call->final);
  call->final = NULL;
  call->magic = 0;
  if (server->closed || server->pool_count >= RPC_POOL_MAX) {
    rpc_server_call_destroy(call);
  } else {
    rpc_stream_recycle(&call->stream);
    rpc_headers_clear(&call->received);
    rpc_headers_clear(&call->sent);
    TAILQ_INSERT_HEAD(&server->pool, call, link);
    server->pool_count++;
  }
  rpc_server_drop(server);
}

/* Both lives over? */
static void call_settle(struct rpc_server_call *call) {
  struct rpc_server *server = call->server;
  if (call->held || call->stream.session != NULL || call->stream.dead)
    return;
  rpc_deadlines_remove(&server->deadlines, &call->deadline);
  rpc_work_cancel(&server->work, &call->work);
  TAILQ_REMOVE(&server->calls, call, link);
  server->call_count--;
  rpc_server_drain_check(server);
  rpc_stream_bury(&call->stream);
}

static void cancel_tell(struct rpc_server_call *call) {
  if (call->cancelled)
    return;
  call->cancelled = true;
  if (call->held && call->handler.on_cancelled != NULL)
    call->handler.on_cancelled(call->arg, call);
}

/* ---- the answer ---- */

#define NV(name_, name_length_, value_, value_length_, flags_)                                                         \
  ((nghttp2_nv){(uint8_t *)(uintptr_t)(name_), (uint8_t *)(uintptr_t)(value_), (name_length_), (value_length_),        \
                (uint8_t)(flags_)})
#define NV_FIXED(name_, value_)                                                                                        \
  NV(name_, sizeof(name_) - 1, value_, sizeof(value_) - 1, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)

/* The trailers that say the final status; the texts stay in `scratch`. */
static size_t status_headers(const struct rpc_server_call *call, nghttp2_nv target[static 3], struct buf *scratch) {
  if (call->final == NULL) {
    target[0] = NV_FIXED("grpc-status", "0");
    return 1;
  }
  uint8_t details[RPC_STATUS_BYTES_MAX];
  char code[8];
  size_t code_length = (size_t)snprintf(code, sizeof(code), "%d", (int)call->final->code);
  size_t details_length = rpc_status_encode(call->final, details);
  buf_append(scratch, code, code_length);
  rpc_percent_encode(scratch, call->final->error.message);
  size_t message_end = scratch->length;
  rpc_base64_encode(scratch, details, details_length);
  const char *text = scratch->data;
  target[0] = NV("grpc-status", 11, text, code_length, NGHTTP2_NV_FLAG_NO_COPY_NAME);
  target[1] = NV("grpc-message", 12, text + code_length, message_end - code_length,
                 NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX);
  target[2] = NV("grpc-status-details-bin", 23, text + message_end, scratch->length - message_end,
                 NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX);
  return 3;
}

static uint32_t stream_out_end(struct rpc_stream *stream) {
  struct rpc_server_call *call = call_of(stream);
  nghttp2_nv headers[3];
  struct buf scratch = {0};
  size_t count = status_headers(call, headers, &scratch);
  nghttp2_submit_trailer(stream->session->h2, stream->id, headers, count);
  buf_free(&scratch);
  return NGHTTP2_DATA_FLAG_NO_END_STREAM;
}

/* Response headers: with a body that follows, or as trailers-only with the status in them. */
static void answer_begin(struct rpc_server_call *call, bool trailers_only) {
  nghttp2_nv headers[2 + ANSWER_METADATA_MAX + 3];
  struct buf scratch = {0};
  size_t count = 0;
  headers[count++] = NV_FIXED(":status", "200");
  headers[count++] = NV_FIXED("content-type", "application/grpc");
  struct rpc_headers_cursor cursor = {0};
  while (rpc_headers_next(&call->sent, &cursor))
    headers[count++] = NV(cursor.name, cursor.name_length, cursor.value, cursor.value_length, NGHTTP2_NV_FLAG_NO_INDEX);
  nghttp2_data_provider provider = rpc_stream_provider();
  if (trailers_only)
    count += status_headers(call, headers + count, &scratch);
  nghttp2_submit_response(call->stream.session->h2, call->stream.id, headers, count, trailers_only ? NULL : &provider);
  buf_free(&scratch);
  call->answered = true;
  if (trailers_only)
    call->stream.out_done = true;
  rpc_session_flush_later(call->stream.session);
}

/* Chooses the status and lets it follow what is queued. NULL: OK. */
static void decide(struct rpc_server_call *call, const struct rpc_status *status) {
  if (call->decided)
    return;
  call->decided = true;
  call->stream.broken = true; /* what still comes in is of no interest */
  call->stream.out_end = true;
  if (status != NULL && status->code != RPC_OK)
    call->final = base_memdup(status, sizeof(*status));
  if (call->stream.session == NULL)
    return;
  if (!call->answered)
    answer_begin(call, call->stream.out.length == 0);
  rpc_stream_kick(&call->stream);
}

static void decide_error(struct rpc_server_call *call, enum rpc_code code, enum error_code error, const char *message) {
  struct rpc_status status;
  rpc_status_set(&status, code, error, message);
  decide(call, &status);
}

/* A request that is not gRPC gets an HTTP answer. */
static void answer_http(struct rpc_server_call *call, const char *http_status) {
  nghttp2_nv header = NV(":status", 7, http_status, 3, NGHTTP2_NV_FLAG_NO_COPY_NAME);
  call->decided = call->answered = true;
  call->stream.broken = call->stream.out_end = call->stream.out_done = true;
  nghttp2_submit_response(call->stream.session->h2, call->stream.id, &header, 1, NULL);
  rpc_session_flush_later(call->stream.session);
}

/* ---- the request ---- */

static bool name_is(const char *name, size_t length, const char *expected) {
  return length == strlen(expected) && memcmp(name, expected, length) == 0;
}

static bool name_is_clean(const char *name, size_t length) {
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)name[i];
    if (c <= 0x20 || c == 0x7f || (c >= 'A' && c <= 'Z'))
      return false;
  }
  return length > 0;
}

static bool value_bytes_are_clean(const char *value, size_t length) {
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)value[i];
    if ((c < 0x20 && c != '\t') || c == 0x7f)
      return false;
  }
  return true;
}

/* Eight bytes at once: whether one of them is below 0x20 or is 0x7f. It never misses one; a tab, or what stands behind
 * one that was found, may be named without need. */
static bool word_needs_look(uint64_t word) {
  uint64_t deleted = word ^ (EACH_BYTE * 0x7f);
  return ((((word - EACH_BYTE * 0x20) & ~word) | ((deleted - EACH_BYTE) & ~deleted)) & (EACH_BYTE * 0x80)) != 0;
}

static bool value_is_clean(const char *value, size_t length) {
  uint64_t word;
  for (; length >= sizeof(word); value += sizeof(word), length -= sizeof(word)) {
    memcpy(&word, value, sizeof(word));
    if (word_needs_look(word) && !value_bytes_are_clean(value, sizeof(word)))
      return false;
  }
  return value_bytes_are_clean(value, length);
}

static void pseudo_header(struct rpc_server_call *call, const char *name, size_t name_length, const char *value,
                          size_t value_length) {
  if (name_is(name, name_length, ":path")) {
    if (rpc_headers_get(&call->received, ":path", NULL) != NULL)
      call->malformed = true;
    rpc_headers_add(&call->received, name, name_length, value, value_length);
  } else if (name_is(name, name_length, ":method")) {
    call->is_post = name_is(value, value_length, "POST");
  } else if (!name_is(name, name_length, ":scheme") && !name_is(name, name_length, ":authority")) {
    call->malformed = true;
  }
}

static void stream_header(struct rpc_stream *stream, const char *name, size_t name_length, const char *value,
                          size_t value_length) {
  struct rpc_server_call *call = call_of(stream);
  if (call->headers_done || call->malformed || stream->dead)
    return; /* trailers of a client mean nothing in gRPC */
  call->received_bytes += name_length + value_length + RPC_HEADER_OVERHEAD_BYTES;
  if (call->received_bytes > call->server->options.metadata_bytes_max) {
    call->too_large = true;
    return;
  }
  if (!name_is_clean(name, name_length) || !value_is_clean(value, value_length)) {
    call->malformed = true;
  } else if (name[0] == ':') {
    pseudo_header(call, name, name_length, value, value_length);
  } else if (name_is(name, name_length, "content-type")) {
    call->is_grpc = value_length >= 16 && memcmp(value, "application/grpc", 16) == 0 &&
                    (value_length == 16 || value[16] == '+' || value[16] == ';');
  } else if (name_is(name, name_length, "grpc-timeout")) {
    int64_t timeout_us;
    if (rpc_timeout_parse(value, value_length, &timeout_us))
      call->deadline_us = clock_monotonic_us() + timeout_us;
    else
      call->malformed = true;
  } else if (name_length < 5 || memcmp(name, "grpc-", 5) != 0) {
    /* A "-bin" value that is no base64 is dropped: whoever needs it finds it absent. */
    rpc_headers_add_received(&call->received, name, name_length, value, value_length);
  }
}

static void handler_run(struct rpc_server_call *call, const uint8_t *message, size_t length) {
  call->held = true;
  call->method->method->handler(call, message, length, call->method->arg);
}

static bool authorized(struct rpc_server_call *call) {
  const struct rpc_server_options *options = &call->server->options;
  if (options->authorize_call == NULL)
    return true;
  struct error refusal = {0};
  struct rpc_status status;
  if (options->authorize_call(call, &refusal, options->arg))
    return true;
  if (!error_is_set(&refusal))
    error_set(&refusal, ERR_AUTH_CHANNEL, NULL);
  rpc_status_from_error(&status, &refusal);
  decide(call, &status);
  return false;
}

static void stream_headers_end(struct rpc_stream *stream, bool end_stream) {
  (void)end_stream;
  struct rpc_server_call *call = call_of(stream);
  if (call->headers_done || stream->dead)
    return;
  call->headers_done = true;
  size_t path_length = 0;
  const char *path = rpc_headers_get(&call->received, ":path", &path_length);
  if (call->malformed || (path == NULL && !call->too_large)) {
    rpc_stream_detach(stream, true, NGHTTP2_PROTOCOL_ERROR);
    call_settle(call);
  } else if (call->too_large) {
    decide_error(call, RPC_RESOURCE_EXHAUSTED, ERR_RPC_MESSAGE_TOO_LARGE, "The request's metadata is too large.");
  } else if (!call->is_post) {
    answer_http(call, "405");
  } else if (!call->is_grpc) {
    answer_http(call, "415");
  } else if ((call->method = rpc_server_method(call->server, path, path_length)) == NULL) {
    decide_error(call, RPC_UNIMPLEMENTED, ERR_RPC_METHOD_UNKNOWN, NULL);
  } else {
    if (call->deadline_us != INT64_MAX)
      rpc_deadlines_add(&call->server->deadlines, &call->deadline, call->deadline_us);
    stream->single = call->method->method->kind != RPC_METHOD_BIDI;
    if (authorized(call) && !stream->single && stream->session != NULL)
      handler_run(call, NULL, 0);
  }
}

static void stream_message(struct rpc_stream *stream, const uint8_t *message, size_t length) {
  struct rpc_server_call *call = call_of(stream);
  if (call->held && call->handler.on_message != NULL)
    call->handler.on_message(call->arg, call, message, length);
}

static void stream_remote_end(struct rpc_stream *stream) {
  struct rpc_server_call *call = call_of(stream);
  const uint8_t *message;
  size_t length;
  if (!stream->single) {
    if (call->held && call->handler.on_half_close != NULL)
      call->handler.on_half_close(call->arg, call);
  } else if (rpc_stream_single(stream, &message, &length)) {
    handler_run(call, message, length);
  } else {
    decide_error(call, RPC_INVALID_ARGUMENT, ERR_RPC_MESSAGE_MALFORMED, "The request holds no complete message.");
  }
}

static void stream_writable(struct rpc_stream *stream) {
  struct rpc_server_call *call = call_of(stream);
  call->writable_due = true;
  rpc_work_queue(&call->server->work, &call->work);
}

static void stream_violation(struct rpc_stream *stream, const struct rpc_status *status) {
  struct rpc_server_call *call = call_of(stream);
  decide(call, status);
  cancel_tell(call);
}

static void stream_closed(struct rpc_stream *stream, const struct rpc_session *lost, uint32_t h2_error) {
  (void)lost;
  (void)h2_error;
  struct rpc_server_call *call = call_of(stream);
  rpc_deadlines_remove(&call->server->deadlines, &call->deadline);
  stream->broken = true;
  if (!call->decided) {
    call->decided = true;
    cancel_tell(call);
  }
  call_settle(call);
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

struct rpc_stream *rpc_server_call_begin(struct rpc_connection *connection) {
  struct rpc_server *server = connection->server;
  struct rpc_server_call *call = TAILQ_FIRST(&server->pool);
  if (call != NULL) {
    TAILQ_REMOVE(&server->pool, call, link);
    server->pool_count--;
  } else {
    call = BASE_NEW(struct rpc_server_call);
  }
  rpc_server_hold(server);
  call->magic = SERVER_CALL_MAGIC;
  call->server = server;
  call->method = NULL;
  call->peer = connection->peer;
  call->work.queued = false;
  call->deadline.heap_slot = 0;
  call->deadline_us = INT64_MAX;
  call->received_bytes = 0;
  call->is_post = call->is_grpc = call->malformed = call->too_large = call->headers_done = false;
  call->held = call->answered = call->decided = call->cancelled = call->writable_due = false;
  call->handler = (struct rpc_server_call_handler){0};
  call->arg = NULL;
  rpc_stream_init(&call->stream, &stream_ops, server->options.message_bytes_max, server->options.send_buffer_bytes);
  TAILQ_INSERT_TAIL(&server->calls, call, link);
  server->call_count++;
  return &call->stream;
}

/* ---- from the loop ---- */

void rpc_server_call_work(struct rpc_work *work, void *arg) {
  (void)arg;
  struct rpc_server_call *call = RPC_OWNER(work, struct rpc_server_call, work);
  rpc_stream_enter(&call->stream);
  if (call->writable_due) {
    call->writable_due = false;
    if (call->held && !call->decided && call->handler.on_writable != NULL)
      call->handler.on_writable(call->arg, call);
  }
  if (!call->stream.dead && call->stream.session != NULL)
    rpc_stream_pump(&call->stream);
  rpc_stream_leave(&call->stream);
}

void rpc_server_call_expired(struct rpc_deadline *deadline, void *arg) {
  (void)arg;
  struct rpc_server_call *call = RPC_OWNER(deadline, struct rpc_server_call, deadline);
  rpc_stream_enter(&call->stream);
  if (call->answered && !call->stream.out_done) {
    /* Part of an answer is on its way and its reader may be stuck: trailers would wait behind it. */
    rpc_stream_detach(&call->stream, true, NGHTTP2_CANCEL);
    call->stream.broken = call->decided = true;
  } else {
    decide_error(call, RPC_DEADLINE_EXCEEDED, ERR_DEADLINE_EXCEEDED, NULL);
  }
  cancel_tell(call);
  call_settle(call);
  rpc_stream_leave(&call->stream);
}

void rpc_server_call_abandon(struct rpc_server_call *call) {
  rpc_stream_enter(&call->stream);
  rpc_stream_detach(&call->stream, false, 0);
  rpc_deadlines_remove(&call->server->deadlines, &call->deadline);
  rpc_work_cancel(&call->server->work, &call->work);
  call->stream.broken = call->decided = true;
  cancel_tell(call);
  call_settle(call);
  rpc_stream_leave(&call->stream);
}

/* ---- public ---- */

void rpc_server_call_handle(struct rpc_server_call *call, const struct rpc_server_call_handler *handler, void *arg) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  call->handler = *handler;
  call->arg = arg;
}

const char *rpc_server_call_method(const struct rpc_server_call *call) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  return call->method->method->path;
}

const struct rpc_peer *rpc_server_call_peer(const struct rpc_server_call *call) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  return &call->peer;
}

const char *rpc_server_call_metadata(const struct rpc_server_call *call, const char *name, size_t *length) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  return rpc_headers_get(&call->received, name, length);
}

int64_t rpc_server_call_remaining_ms(const struct rpc_server_call *call) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  if (call->deadline_us == INT64_MAX)
    return INT64_MAX;
  int64_t left_us = call->deadline_us - clock_monotonic_us();
  return left_us > 0 ? (left_us + 999) / 1000 : 0;
}

bool rpc_server_call_is_cancelled(const struct rpc_server_call *call) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  return call->cancelled;
}

bool rpc_server_call_metadata_add(struct rpc_server_call *call, const struct rpc_metadata *metadata) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  return !call->answered && !call->decided && call->sent.count < ANSWER_METADATA_MAX &&
         rpc_headers_add_metadata(&call->sent, metadata);
}

/* The handler lets go. */
static void call_end(struct rpc_server_call *call, const struct rpc_status *status) {
  BASE_CHECK(call->held);
  rpc_stream_enter(&call->stream);
  decide(call, status);
  call->held = false;
  call_settle(call);
  rpc_stream_leave(&call->stream);
}

void rpc_server_call_reply(struct rpc_server_call *call, const uint8_t *message, size_t length) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  if (!call->decided)
    rpc_frame_append(&call->stream.out, message, length);
  call_end(call, NULL);
}

void rpc_server_call_reply_message(struct rpc_server_call *call, const pb_msgdesc_t *fields, const void *message) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  struct rpc_status status = {.code = RPC_OK};
  if (!call->decided && !rpc_frame_append_message(&call->stream.out, fields, message))
    rpc_status_set(&status, RPC_INTERNAL, ERR_INTERNAL, NULL);
  call_end(call, &status);
}

void rpc_server_call_finish(struct rpc_server_call *call, const struct rpc_status *status) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  call_end(call, status);
}

void rpc_server_call_fail(struct rpc_server_call *call, const struct error *error) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  struct rpc_status status;
  rpc_status_from_error(&status, error);
  call_end(call, &status);
}

static enum rpc_send_result sent(struct rpc_server_call *call) {
  if (!call->answered)
    answer_begin(call, false);
  return rpc_stream_send_result(&call->stream);
}

enum rpc_send_result rpc_server_call_send(struct rpc_server_call *call, const uint8_t *message, size_t length) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  if (call->decided || !rpc_stream_may_send(&call->stream, RPC_PREFIX_BYTES + length))
    return RPC_SEND_REFUSED;
  rpc_frame_append(&call->stream.out, message, length);
  return sent(call);
}

enum rpc_send_result rpc_server_call_send_message(struct rpc_server_call *call, const pb_msgdesc_t *fields,
                                                  const void *message) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  if (call->decided || !rpc_stream_may_send(&call->stream, 0) ||
      !rpc_frame_append_message(&call->stream.out, fields, message))
    return RPC_SEND_REFUSED;
  return sent(call);
}

void rpc_server_call_pause(struct rpc_server_call *call) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  call->stream.paused = true;
}

void rpc_server_call_resume(struct rpc_server_call *call) {
  BASE_CHECK_MAGIC(call, SERVER_CALL_MAGIC);
  call->stream.paused = false;
  if (call->stream.session != NULL)
    rpc_work_queue(&call->server->work, &call->work);
}

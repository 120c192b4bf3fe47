/* twin_call.c: one HTTP request as one gRPC call to ourselves.
 *
 * The call object goes back and forth: begun on the I/O thread, run on the core thread, answered and finished on the
 * I/O thread, freed on the core thread, where the last word that could still name it (a cancel) has passed by then.
 * Streams: the core side reads ahead at most STREAM_AHEAD messages that the HTTP side has not delivered; a congested
 * HTTP client returns no credit until it has read. */
#include <string.h>

#include "core/rpc/core_rpc_pbc.h"
#include "core/rpc/http/twin_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/wire/wire_json.h"

enum { STREAM_AHEAD = 16 };

struct twin_call {
  struct twin_connection *connection;
  struct core_rpc_loop *loop;
  struct twin_question question;
  /* I/O thread */
  struct http_request *request;
  unsigned held_credits; /* to be returned when the client has read */
  struct error failure;  /* a message of ours that cannot be shown as JSON */
  /* core thread */
  struct core_rpc_client_call *client; /* NULL before and after */
  unsigned credits;
  bool reading;
};

/* ---- I/O thread: answering ---- */

static void call_free_on_core(void *argument) {
  base_free(argument);
}

/* The request is finished (by the caller); lets go of everything. */
static void call_finished(struct twin_call *call) {
  struct twin_connection *connection = call->connection;
  if (!core_rpc_post(call->loop, call_free_on_core, call))
    base_free(call); /* no core thread any more */
  twin_call_finished(connection);
}

static bool message_to_json(const struct wire_method *method, const uint8_t *data, size_t length, struct buf *json,
                            struct error *err) {
  struct arena *arena = arena_create(0);
  const ProtobufCMessage *message = core_rpc_unpack(method->output, arena, data, length);
  bool done = message != NULL ? wire_json_encode(message, json, err) : error_set(err, ERR_RPC_MESSAGE_MALFORMED, NULL);
  arena_free(&arena);
  return done;
}

static void stream_start(struct twin_call *call) {
  if (!http_response_is_started(call->request))
    http_response_start(call->request, 200, "application/x-ndjson");
}

/* What the core thread hands over: a message of a stream, or the end. */
struct twin_answer {
  struct twin_call *call;
  struct error err;
  size_t length;
  uint8_t data[];
};

static struct twin_answer *answer_new(struct twin_call *call, const void *data, size_t length) {
  struct twin_answer *answer = base_alloc(sizeof(*answer) + length);
  *answer = (struct twin_answer){.call = call, .length = length};
  if (length > 0)
    memcpy(answer->data, data, length);
  return answer;
}

static void credit_on_core(void *argument);

static void credit_return(struct twin_call *call) {
  (void)core_rpc_post(call->loop, credit_on_core, call); /* false: the loop has ended, and so has the call */
}

static void stream_on_drained(void *context, struct http_request *request) {
  struct twin_call *call = context;
  (void)request;
  for (; call->held_credits > 0; call->held_credits--)
    credit_return(call);
}

static void cancel_on_core(void *argument);

static void stream_on_io(void *argument) {
  struct twin_answer *answer = argument;
  struct twin_call *call = answer->call;
  struct buf line = {0};
  if (http_request_is_gone(call->request) || error_is_set(&call->failure)) {
    /* cancelled already: the end follows */
  } else if (message_to_json(call->question.method, answer->data, answer->length, &line, &call->failure)) {
    stream_start(call);
    buf_append_char(&line, '\n');
    (void)http_response_write(call->request, line.data, line.length);
    if (http_response_is_congested(call->request))
      call->held_credits++;
    else
      credit_return(call);
  } else {
    (void)core_rpc_post(call->loop, cancel_on_core, call);
  }
  buf_free(&line);
  base_free(answer);
}

static void answer_error(struct twin_call *call, const struct error *err) {
  if (!http_response_is_started(call->request)) {
    http_response_send_error(call->request, err);
    return;
  }
  struct buf line = {0};
  twin_error_json(err, &line);
  buf_append_char(&line, '\n');
  (void)http_response_write(call->request, line.data, line.length);
  buf_free(&line);
  http_response_end(call->request);
}

static void done_on_io(void *argument) {
  struct twin_answer *answer = argument;
  struct twin_call *call = answer->call;
  struct buf json = {0};
  struct error err = error_is_set(&call->failure) ? call->failure : answer->err;
  http_request_on_close(call->request, NULL, NULL);
  if (error_is_set(&err)) {
    answer_error(call, &err);
  } else if (call->question.method->server_streaming) {
    stream_start(call);
    http_response_end(call->request);
  } else if (message_to_json(call->question.method, answer->data, answer->length, &json, &err)) {
    http_response_send_buf(call->request, 200, "application/json", &json);
  } else {
    answer_error(call, &err);
  }
  buf_free(&json);
  base_free(answer);
  call_finished(call);
}

/* ---- core thread: calling ---- */

static void read_next(struct twin_call *call) {
  if (call->client == NULL || call->reading || call->credits == 0)
    return;
  call->reading = true;
  call->credits--;
  core_rpc_client_read(call->client);
}

static void credit_on_core(void *argument) {
  struct twin_call *call = argument;
  call->credits++;
  read_next(call);
}

static void client_on_message(struct core_rpc_client_call *client, const uint8_t *data, size_t length, void *user) {
  struct twin_call *call = user;
  (void)client;
  call->reading = false;
  bool posted = core_rpc_io_post(call->loop, stream_on_io, answer_new(call, data, length));
  BASE_CHECK(posted); /* the I/O thread outlives the loop */
  read_next(call);
}

static void done_tell(struct twin_call *call, const struct error *err, const void *data, size_t length) {
  struct twin_answer *answer = answer_new(call, data, length);
  answer->err = *err;
  bool posted = core_rpc_io_post(call->loop, done_on_io, answer);
  BASE_CHECK(posted);
}

static void client_on_done(struct core_rpc_client_call *client, const struct core_rpc_result *result, void *user) {
  struct twin_call *call = user;
  (void)client;
  call->client = NULL;
  done_tell(call, &result->err, result->data, result->length);
}

static const struct core_rpc_client_events client_events = {.on_message = client_on_message, .on_done = client_on_done};

static void call_on_core(void *argument) {
  struct twin_call *call = argument;
  struct twin_connection *connection = call->connection;
  const struct twin_question *question = &call->question;
  if (connection->channel == NULL)
    connection->channel = channel_create_local(call->loop, connection->listener, &connection->identity);
  if (connection->channel == NULL) {
    struct error err;
    (void)error_set(&err, call->loop->phase == LOOP_SERVING ? ERR_AUTH_CHANNEL : ERR_UNAVAILABLE, NULL);
    grpc_byte_buffer_destroy(question->message);
    done_tell(call, &err, NULL, 0);
    return;
  }
  const struct core_rpc_request request = {.method = question->method->path,
                                           .kind = question->method->server_streaming ? CORE_RPC_SERVER_STREAM
                                                                                      : CORE_RPC_UNARY,
                                           .timeout_ms = question->timeout_ms,
                                           .manual_read = true,
                                           .metadata = question->metadata,
                                           .metadata_count = question->metadata_count,
                                           .events = &client_events,
                                           .user = call};
  call->client = client_call_start(connection->channel, &request, question->message);
  if (question->method->server_streaming) {
    call->credits = STREAM_AHEAD - 1; /* the start asks for the first */
    call->reading = true;
  }
}

static void cancel_on_core(void *argument) {
  struct twin_call *call = argument;
  if (call->client != NULL)
    core_rpc_client_cancel(call->client);
}

/* ---- I/O thread: beginning ---- */

static void request_on_close(void *context, struct http_request *request, enum http_close_reason reason) {
  struct twin_call *call = context;
  (void)request;
  (void)reason; /* a half-close cannot be told from a client that is gone: it cancels as well (TRN-3) */
  (void)core_rpc_post(call->loop, cancel_on_core, call);
}

void twin_call_begin(struct twin_connection *connection, struct http_request *request) {
  struct twin_call *call = BASE_NEW(struct twin_call);
  *call = (struct twin_call){.connection = connection, .loop = connection->listener->loop, .request = request};
  struct error err;
  int status;
  bool understood = twin_question_read(request, &call->question, &status, &err);
  if (understood) {
    http_request_on_close(request, request_on_close, call);
    http_response_on_drained(request, stream_on_drained, call);
    if (core_rpc_post(call->loop, call_on_core, call))
      return;
    grpc_byte_buffer_destroy(call->question.message);
    http_request_on_close(request, NULL, NULL);
    (void)error_set(&err, ERR_UNAVAILABLE, NULL);
  }
  if (understood || status == 0) {
    http_response_send_error(request, &err);
  } else {
    struct buf json = {0};
    twin_error_json(&err, &json);
    if (status == 405)
      (void)http_response_header_add(request, "Allow", "POST");
    http_response_send_buf(request, status, "application/json", &json);
  }
  base_free(call);
  twin_call_finished(connection);
}

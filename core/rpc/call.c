/* call.c: one call that is being served, from its arrival to its end.
 *
 * Two parties hold a call: its handler, until it replies, fails or finishes; and gRPC, while a batch is outstanding. It
 * is freed when both let go. A call that is answered soon and with one message costs one batch (reply, status and close
 * together); one that lasts, or streams, first posts a batch that tells when the caller went away. Messages go out one
 * at a time (T17). */
#include <string.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

#define CALL_MAGIC 0xC04eCa11u
#define WATCH_AFTER_MS 10 /* so much later, at most, does a handler hear that its caller went away */

struct core_rpc_call {
  uint32_t magic;
  struct core_rpc_loop *loop;
  struct core_rpc_call *previous, *next;
  TAILQ_ENTRY(core_rpc_call) unwatched;
  const struct core_rpc_method *method;
  struct peer_entry *peer;
  struct call_arrival arrival;
  grpc_slice request; /* only when the payload came in pieces */
  const struct core_rpc_call_events *events;
  void *user;
  struct rpc_tag close_tag, send_tag, read_tag, final_tag;
  unsigned batches; /* outstanding at gRPC */
  unsigned busy;    /* inside a callback */
  int close_cancelled;
  bool owned;         /* by the handler */
  bool is_unwatched;  /* in the loop's list of calls whose end nobody asked to be told about yet */
  bool close_posted;  /* asked to be told about the end */
  bool gone;          /* the caller is, or a send failed: nothing can be sent any more */
  bool cancel_told;   /* the handler was told so */
  bool metadata_sent; /* initial metadata */
  bool sending, reading;
  struct message_queue queue;
  grpc_byte_buffer *reply, *incoming;
  grpc_status_code status;
  grpc_slice status_text;
  grpc_metadata trailer; /* grpc-status-details-bin */
};

static const struct core_rpc_call_events no_events;

static struct core_rpc_call *call_check(const struct core_rpc_call *call) {
  BASE_CHECK_MAGIC(call, CALL_MAGIC);
  return (struct core_rpc_call *)(uintptr_t)call;
}

static void call_start_batch(struct core_rpc_call *call, const grpc_op *ops, size_t count, struct rpc_tag *tag) {
  grpc_call_error error = grpc_call_start_batch(call->arrival.handle, ops, count, tag, NULL);
  BASE_CHECK(error == GRPC_CALL_OK);
  call->batches++;
}

static void call_link(struct core_rpc_call *call) {
  call->next = call->loop->calls;
  if (call->next != NULL)
    call->next->previous = call;
  call->loop->calls = call;
  call->loop->server_calls++;
}

static void call_unlink(struct core_rpc_call *call) {
  if (call->previous != NULL)
    call->previous->next = call->next;
  else
    call->loop->calls = call->next;
  if (call->next != NULL)
    call->next->previous = call->previous;
  call->loop->server_calls--;
}

static void call_release(struct core_rpc_call *call) {
  if (call->owned || call->busy > 0 || call->batches > 0)
    return;
  struct core_rpc_loop *loop = call->loop;
  call_unlink(call);
  if (call->events->on_free != NULL)
    call->events->on_free(call->user);
  message_queue_clear(&call->queue, false);
  grpc_byte_buffer_destroy(call->reply);
  grpc_byte_buffer_destroy(call->arrival.payload);
  grpc_slice_unref(call->request);
  grpc_slice_unref(call->status_text);
  grpc_slice_unref(call->trailer.value);
  grpc_metadata_array_destroy(&call->arrival.metadata);
  grpc_call_unref(call->arrival.handle);
  if (call->peer != NULL) {
    call->peer->in_flight--;
    peer_release(call->peer);
  }
  call->magic = 0;
  base_free(call);
  loop_check_end(loop);
}

/* ---- the end ---- */

static void call_unwatched_leave(struct core_rpc_call *call) {
  if (!call->is_unwatched)
    return;
  TAILQ_REMOVE(&call->loop->unwatched, call, unwatched);
  call->is_unwatched = false;
}

static void call_watch_close(struct core_rpc_call *call) {
  if (call->close_posted)
    return;
  call_unwatched_leave(call);
  call->close_posted = true;
  grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &call->close_cancelled};
  call_start_batch(call, &op, 1, &call->close_tag);
}

static void call_on_close(struct rpc_tag *tag, bool ok) {
  struct core_rpc_call *call = RPC_OWNER(tag, struct core_rpc_call, close_tag);
  (void)ok;
  call->batches--;
  call->gone = true;
  message_queue_clear(&call->queue, call->sending);
  if (call->owned && !call->cancel_told) {
    call->cancel_told = true;
    call->busy++;
    if (call->events->on_cancel != NULL)
      call->events->on_cancel(call, call->user);
    call->busy--;
  }
  call_release(call);
}

static void calls_watch(void *argument) {
  struct core_rpc_loop *loop = argument;
  loop->watch_timer = NULL;
  struct core_rpc_call *call;
  while ((call = TAILQ_FIRST(&loop->unwatched)) != NULL)
    call_watch_close(call);
}

/* Most calls are over before that, and need no batch for it. */
static void call_watch_later(struct core_rpc_call *call) {
  struct core_rpc_loop *loop = call->loop;
  if (call->close_posted || call->is_unwatched)
    return;
  TAILQ_INSERT_TAIL(&loop->unwatched, call, unwatched);
  call->is_unwatched = true;
  if (loop->watch_timer == NULL)
    loop->watch_timer = core_rpc_timer_start(loop, WATCH_AFTER_MS, calls_watch, loop);
}

static void call_on_final(struct rpc_tag *tag, bool ok) {
  struct core_rpc_call *call = RPC_OWNER(tag, struct core_rpc_call, final_tag);
  (void)ok; /* the caller may be gone: then there is nobody to tell */
  call->batches--;
  call_release(call);
}

/* Sends reply and status once the handler has decided and nothing is queued before them. */
static void call_send_final(struct core_rpc_call *call) {
  grpc_op ops[4];
  memset(ops, 0, sizeof(ops));
  size_t count = 0;
  if (!call->metadata_sent)
    ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
  if (call->reply != NULL) {
    ops[count].op = GRPC_OP_SEND_MESSAGE;
    ops[count++].data.send_message.send_message = call->reply;
  }
  ops[count].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
  ops[count].data.send_status_from_server.status = call->status;
  ops[count].data.send_status_from_server.status_details = &call->status_text;
  ops[count].data.send_status_from_server.trailing_metadata = &call->trailer;
  ops[count++].data.send_status_from_server.trailing_metadata_count = call->status == GRPC_STATUS_OK ? 0 : 1;
  if (!call->close_posted) {
    call->close_posted = true;
    ops[count].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    ops[count++].data.recv_close_on_server.cancelled = &call->close_cancelled;
  }
  call->metadata_sent = true;
  call_start_batch(call, ops, count, &call->final_tag);
}

/* The handler lets go, with what it decided in reply and status. */
static void call_end(struct core_rpc_call *call) {
  BASE_CHECK(call->owned);
  call->owned = false;
  call_unwatched_leave(call);
  if (!call->gone && message_queue_first(&call->queue) == NULL)
    call_send_final(call);
  call_release(call);
}

void call_reply_buffer(struct core_rpc_call *call, grpc_byte_buffer *buffer) {
  call_check(call);
  BASE_CHECK(call->method->kind == CORE_RPC_UNARY);
  call->reply = buffer;
  call_end(call);
}

void core_rpc_call_reply(struct core_rpc_call *call, const void *data, size_t length) {
  call_reply_buffer(call, message_from_bytes(data, length));
}

void core_rpc_call_finish(struct core_rpc_call *call) {
  call_check(call);
  BASE_CHECK(call->method->kind != CORE_RPC_UNARY);
  call_end(call);
}

void core_rpc_call_finish_with(struct core_rpc_call *call, const void *data, size_t length) {
  call_check(call);
  BASE_CHECK(call->owned && call->method->kind != CORE_RPC_UNARY);
  call->reply = message_from_bytes(data, length);
  call_end(call); /* behind what is queued; with the status, in one batch */
}

static void call_fail_status(struct core_rpc_call *call, int grpc_status, const struct error *err) {
  call_check(call);
  BASE_CHECK(error_is_set(err));
  size_t length;
  uint8_t *details = status_encode(grpc_status, err, &length);
  call->status = (grpc_status_code)grpc_status;
  call->status_text = grpc_slice_from_copied_string(err->message);
  call->trailer.key = grpc_slice_from_static_string("grpc-status-details-bin");
  call->trailer.value = grpc_slice_from_copied_buffer((const char *)details, length);
  base_free(details);
  call_end(call);
}

void core_rpc_call_fail(struct core_rpc_call *call, const struct error *err) {
  call_fail_status(call, error_category_grpc_status(err->category), err);
}

void core_rpc_call_fail_create(struct core_rpc_call *call, const struct error *err) {
  call_fail_status(call,
                   err->category == ERROR_CATEGORY_CONFLICT ? (int)GRPC_STATUS_ALREADY_EXISTS
                                                            : error_category_grpc_status(err->category),
                   err);
}

void core_rpc_call_fail_code(struct core_rpc_call *call, enum error_code code) {
  struct error err;
  (void)error_set(&err, code, NULL);
  core_rpc_call_fail(call, &err);
}

/* ---- streams ---- */

static void call_send_next(struct core_rpc_call *call) {
  grpc_op ops[2];
  memset(ops, 0, sizeof(ops));
  size_t count = 0;
  if (!call->metadata_sent)
    ops[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
  ops[count].op = GRPC_OP_SEND_MESSAGE;
  ops[count++].data.send_message.send_message = message_queue_first(&call->queue);
  call->metadata_sent = true;
  call->sending = true;
  call_start_batch(call, ops, count, &call->send_tag);
}

static void call_on_sent(struct rpc_tag *tag, bool ok) {
  struct core_rpc_call *call = RPC_OWNER(tag, struct core_rpc_call, send_tag);
  call->batches--;
  call->sending = false;
  message_queue_pop(&call->queue);
  if (!ok || call->gone) {
    call->gone = true; /* the close follows and tells the handler */
    message_queue_clear(&call->queue, false);
  } else if (message_queue_first(&call->queue) != NULL) {
    call_send_next(call);
  } else if (!call->owned) {
    call_send_final(call);
  }
  if (call->owned && !call->gone && message_queue_take_writable(&call->queue)) {
    call->busy++;
    if (call->events->on_writable != NULL)
      call->events->on_writable(call, call->user);
    call->busy--;
  }
  call_release(call);
}

bool call_send_buffer(struct core_rpc_call *call, grpc_byte_buffer *buffer) {
  call_check(call);
  BASE_CHECK(call->owned && call->method->kind != CORE_RPC_UNARY);
  if (call->gone) {
    grpc_byte_buffer_destroy(buffer);
    return false;
  }
  call_watch_close(call);
  if (!message_queue_push(&call->queue, buffer))
    return false;
  if (!call->sending)
    call_send_next(call);
  return true;
}

bool core_rpc_call_send(struct core_rpc_call *call, const void *data, size_t length) {
  return call_send_buffer(call, message_from_bytes(data, length));
}

bool core_rpc_call_is_writable(const struct core_rpc_call *call) {
  call_check(call);
  return !call->gone && message_queue_is_writable(&call->queue);
}

void core_rpc_call_read(struct core_rpc_call *call) {
  call_check(call);
  BASE_CHECK(call->owned && call->method->kind == CORE_RPC_BIDI && !call->reading);
  if (call->gone)
    return; /* on_cancel follows or was told */
  call_watch_close(call);
  call->reading = true;
  call->incoming = NULL;
  grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->incoming};
  call_start_batch(call, &op, 1, &call->read_tag);
}

static void call_on_read(struct rpc_tag *tag, bool ok) {
  struct core_rpc_call *call = RPC_OWNER(tag, struct core_rpc_call, read_tag);
  call->batches--;
  call->reading = false;
  grpc_byte_buffer *incoming = BASE_TAKE(call->incoming);
  bool failed = !ok || grpc_call_failed_before_recv_message(call->arrival.handle) != 0;
  call->busy++;
  if (call->owned && !call->gone) {
    if (incoming != NULL) {
      grpc_slice joined;
      size_t length;
      const uint8_t *data = message_view(incoming, &joined, &length);
      if (call->events->on_message != NULL)
        call->events->on_message(call, data, length, call->user);
      grpc_slice_unref(joined);
    } else if (!failed && call->events->on_half_close != NULL) {
      call->events->on_half_close(call, call->user);
    }
  }
  call->busy--;
  grpc_byte_buffer_destroy(incoming);
  call_release(call);
}

void calls_drain(struct core_rpc_loop *loop) {
  for (struct core_rpc_call *call = loop->calls, *next; call != NULL; call = next) {
    call->busy++;
    if (call->owned && call->events->on_drain != NULL)
      call->events->on_drain(call, call->user);
    call->busy--;
    next = call->next;
    call_release(call);
  }
}

/* ---- the beginning ---- */

/* Why a call does not reach its handler, or ERR_NONE. */
static enum error_code call_refusal(const struct core_rpc_call *call) {
  if (call->peer == NULL)
    return ERR_RPC_PEER_UNKNOWN;
  if (call->peer->in_flight > call->loop->options.in_flight_max)
    return ERR_RPC_IN_FLIGHT_LIMIT;
  if (call->method == NULL)
    return ERR_RPC_METHOD_UNKNOWN;
  if (call->method->kind != CORE_RPC_BIDI && call->arrival.payload == NULL)
    return ERR_RPC_MESSAGE_MALFORMED; /* half-closed without a message (T16) */
  return ERR_NONE;
}

void call_accept(struct core_rpc_loop *loop, const struct core_rpc_method *method, struct call_arrival *arrival) {
  struct core_rpc_call *call = BASE_NEW(struct core_rpc_call);
  call->magic = CALL_MAGIC;
  call->loop = loop;
  call->method = method;
  call->arrival = *arrival;
  *arrival = (struct call_arrival){0};
  call->request = call->status_text = call->trailer.value = grpc_empty_slice();
  call->events = &no_events;
  call->close_tag.complete = call_on_close;
  call->send_tag.complete = call_on_sent;
  call->read_tag.complete = call_on_read;
  call->final_tag.complete = call_on_final;
  call->queue.max_bytes = loop->options.send_queue_max_bytes;
  call->owned = true;
  call->peer = peer_of_call(loop, call->arrival.handle);
  if (call->peer != NULL)
    call->peer->in_flight++;
  call_link(call);
  call->busy++;
  enum error_code refusal = call_refusal(call);
  if (refusal != ERR_NONE)
    core_rpc_call_fail_code(call, refusal);
  else
    method->handler(call, method->user);
  if (call->owned)
    call_watch_later(call);
  call->busy--;
  call_release(call);
}

/* ---- what a handler may ask ---- */

const char *core_rpc_call_method(const struct core_rpc_call *call) {
  return call_check(call)->method->path;
}

struct core_rpc_loop *core_rpc_call_loop(const struct core_rpc_call *call) {
  return call_check(call)->loop;
}

const struct core_rpc_peer *core_rpc_call_peer(const struct core_rpc_call *call) {
  return &call_check(call)->peer->peer;
}

const uint8_t *core_rpc_call_request(struct core_rpc_call *call, size_t *length) {
  call_check(call);
  BASE_CHECK(call->arrival.payload != NULL);
  grpc_slice_unref(call->request);
  return message_view(call->arrival.payload, &call->request, length);
}

const char *core_rpc_call_metadata(const struct core_rpc_call *call, const char *key, size_t *length) {
  const grpc_metadata_array *metadata = &call_check(call)->arrival.metadata;
  size_t key_length = strlen(key);
  for (size_t i = 0; i < metadata->count; i++) {
    const grpc_metadata *entry = &metadata->metadata[i];
    if (GRPC_SLICE_LENGTH(entry->key) != key_length || memcmp(GRPC_SLICE_START_PTR(entry->key), key, key_length) != 0)
      continue;
    *length = GRPC_SLICE_LENGTH(entry->value);
    return (const char *)GRPC_SLICE_START_PTR(entry->value);
  }
  *length = 0;
  return NULL;
}

int64_t core_rpc_call_remaining_ms(const struct core_rpc_call *call) {
  gpr_timespec deadline = call_check(call)->arrival.deadline;
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0)
    return INT64_MAX;
  gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  int64_t left_ms = left.tv_sec * 1000 + left.tv_nsec / 1000000;
  return left_ms > 0 ? left_ms : 0;
}

bool core_rpc_call_is_cancelled(const struct core_rpc_call *call) {
  return call_check(call)->gone;
}

void core_rpc_call_events_set(struct core_rpc_call *call, const struct core_rpc_call_events *events, void *user) {
  call_check(call);
  call->events = events != NULL ? events : &no_events;
  call->user = user;
}

void *core_rpc_call_user(const struct core_rpc_call *call) {
  return call_check(call)->user;
}

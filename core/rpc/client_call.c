/* client_call.c: one call that this process makes. It ends by its status batch; on_done runs when that and every other
 * batch of the call is back, so nothing of it is left at gRPC when the handle dies.
 *
 * Unary: one batch of everything. Server streams: one batch until the first message, one read at a time after it, and
 * the status apart. Bidi: the head, each read and each message out in batches of their own. */
#include <string.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

#define CLIENT_CALL_MAGIC 0xC04eC11eu

struct core_rpc_client_call {
  uint32_t magic;
  struct core_rpc_loop *loop;
  struct core_rpc_channel *channel; /* NULL once closed */
  struct socket_tally *tally;       /* of its connection */
  uint64_t behind;                  /* so much had been written there when it began */
  struct core_rpc_client_call *previous, *next;
  enum core_rpc_kind kind;
  bool manual_read;
  const struct core_rpc_client_events *events;
  void *user;
  grpc_call *handle;
  struct rpc_tag head_tag, send_tag, read_tag, half_close_tag, status_tag;
  unsigned batches, busy;
  bool reading, sending;
  bool half_closing, read_ended, ended;
  grpc_metadata *metadata;
  size_t metadata_count;
  grpc_metadata_array initial, trailing;
  grpc_byte_buffer *incoming;
  struct message_queue queue;
  grpc_status_code status;
  grpc_slice status_text;
  bool cancelled;                /* by who made it */
  bool abandoned;                /* its channel was closed */
  enum error_code local_failure; /* ERR_NONE: the status is gRPC's */
};

static struct core_rpc_client_call *client_check(struct core_rpc_client_call *call) {
  BASE_CHECK_MAGIC(call, CLIENT_CALL_MAGIC);
  return call;
}

static void client_start_batch(struct core_rpc_client_call *call, const grpc_op *ops, size_t count,
                               struct rpc_tag *tag) {
  grpc_call_error error = grpc_call_start_batch(call->handle, ops, count, tag, NULL);
  BASE_CHECK(error == GRPC_CALL_OK);
  call->batches++;
}

/* ---- the end ---- */

static const void *trailer_find(const grpc_metadata_array *trailing, const char *key, size_t *length) {
  *length = 0;
  for (size_t i = 0; i < trailing->count; i++) {
    const grpc_metadata *entry = &trailing->metadata[i];
    if (grpc_slice_str_cmp(entry->key, key) == 0) {
      *length = GRPC_SLICE_LENGTH(entry->value);
      return GRPC_SLICE_START_PTR(entry->value);
    }
  }
  return NULL;
}

/* The connection ended, and not the call on it: closed here, or by gRPC's word, which a peer can have said too, and the
 * socket's. */
static bool client_is_lost(const struct core_rpc_client_call *call, const struct error *err) {
  return error_is(err, ERR_RPC_PEER_GONE) && (call->abandoned || socket_tally_is_over(call->tally));
}

static void client_tell_done(struct core_rpc_client_call *call) {
  struct core_rpc_result result = {.grpc_status = (int)call->status};
  grpc_slice joined = grpc_empty_slice();
  if (call->local_failure != ERR_NONE) {
    (void)error_set(&result.err, call->local_failure, NULL);
    result.grpc_status = error_category_grpc_status(result.err.category);
  } else if (call->status != GRPC_STATUS_OK) {
    size_t length;
    const void *details = trailer_find(&call->trailing, "grpc-status-details-bin", &length);
    status_decode((int)call->status, details, length, &result.err);
    if (call->abandoned && !call->cancelled && error_is(&result.err, ERR_CANCELLED))
      (void)error_set(&result.err, ERR_RPC_PEER_GONE, NULL); /* nobody wanted that */
  } else if (call->kind == CORE_RPC_UNARY && call->incoming == NULL) {
    (void)error_set(&result.err, ERR_RPC_PROTOCOL, NULL); /* OK without a reply */
    result.grpc_status = (int)GRPC_STATUS_INTERNAL;
  } else if (call->kind == CORE_RPC_UNARY) {
    result.data = message_view(call->incoming, &joined, &result.length);
  }
  result.lost = client_is_lost(call, &result.err);
  result.unsent = result.lost && socket_tally_is_unsent(call->tally, call->behind);
  if (call->events->on_done != NULL)
    call->events->on_done(call, &result, call->user);
  grpc_slice_unref(joined);
}

static void client_unlink(struct core_rpc_client_call *call) {
  if (call->previous != NULL)
    call->previous->next = call->next;
  else
    call->channel->calls = call->next;
  if (call->next != NULL)
    call->next->previous = call->previous;
  call->channel = NULL;
}

static void client_release(struct core_rpc_client_call *call) {
  if (!call->ended || call->batches > 0 || call->busy > 0)
    return;
  struct core_rpc_loop *loop = call->loop;
  call->busy++;
  struct core_rpc_channel *channel = call->channel;
  client_tell_done(call);
  if (call->channel != NULL) { /* else it was closed meanwhile */
    client_unlink(call);
    channel_call_ended(channel);
  }
  message_queue_clear(&call->queue, false);
  grpc_byte_buffer_destroy(call->incoming);
  for (size_t i = 0; i < call->metadata_count; i++) {
    grpc_slice_unref(call->metadata[i].key);
    grpc_slice_unref(call->metadata[i].value);
  }
  base_free(call->metadata);
  grpc_metadata_array_destroy(&call->initial);
  grpc_metadata_array_destroy(&call->trailing);
  grpc_slice_unref(call->status_text);
  grpc_call_unref(call->handle);
  socket_tally_release(&call->tally);
  call->magic = 0;
  base_free(call);
  loop->client_calls--;
  loop_check_end(loop);
}

static void client_on_status(struct rpc_tag *tag, bool ok) {
  struct core_rpc_client_call *call = RPC_OWNER(tag, struct core_rpc_client_call, status_tag);
  (void)ok; /* always true for a batch with a status, by contract */
  call->batches--;
  call->ended = true;
  message_queue_clear(&call->queue, call->sending);
  client_release(call);
}

void core_rpc_client_cancel(struct core_rpc_client_call *call) {
  client_check(call)->cancelled = true;
  (void)grpc_call_cancel(call->handle, NULL);
}

void client_calls_cancel(struct core_rpc_channel *channel) {
  for (struct core_rpc_client_call *call = channel->calls; call != NULL; call = call->next)
    core_rpc_client_cancel(call);
}

void client_calls_abandon(struct core_rpc_channel *channel) {
  while (channel->calls != NULL) {
    struct core_rpc_client_call *call = channel->calls;
    call->abandoned = true;
    (void)grpc_call_cancel(call->handle, NULL);
    client_unlink(call);
  }
}

/* ---- receiving ---- */

static void client_read_next(struct core_rpc_client_call *call) {
  call->reading = true;
  call->incoming = NULL;
  grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->incoming};
  client_start_batch(call, &op, 1, &call->read_tag);
}

void core_rpc_client_read(struct core_rpc_client_call *call) {
  client_check(call);
  BASE_CHECK(call->kind != CORE_RPC_UNARY && call->manual_read && !call->reading);
  if (!call->read_ended && !call->ended && call->local_failure == ERR_NONE)
    client_read_next(call);
}

static void client_on_read(struct rpc_tag *tag, bool ok) {
  struct core_rpc_client_call *call = RPC_OWNER(tag, struct core_rpc_client_call, read_tag);
  call->batches--;
  call->reading = false;
  if (call->kind == CORE_RPC_SERVER_STREAM && call->sending) { /* the first read came with the request */
    call->sending = false;
    message_queue_pop(&call->queue);
  }
  grpc_byte_buffer *incoming = BASE_TAKE(call->incoming);
  if (!ok || incoming == NULL)
    call->read_ended = true;
  call->busy++;
  if (incoming != NULL && ok) {
    grpc_slice joined;
    size_t length;
    const uint8_t *data = message_view(incoming, &joined, &length);
    if (call->events->on_message != NULL)
      call->events->on_message(call, data, length, call->user);
    grpc_slice_unref(joined);
  }
  call->busy--;
  grpc_byte_buffer_destroy(incoming);
  if (!call->manual_read && !call->read_ended)
    client_read_next(call);
  client_release(call);
}

/* ---- sending (bidi) ---- */

static void client_send_next(struct core_rpc_client_call *call) {
  grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = message_queue_first(&call->queue)};
  call->sending = true;
  client_start_batch(call, &op, 1, &call->send_tag);
}

static void client_send_half_close(struct core_rpc_client_call *call) {
  grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
  client_start_batch(call, &op, 1, &call->half_close_tag);
}

static void client_on_batch(struct core_rpc_client_call *call) {
  call->batches--;
  client_release(call);
}

static void client_on_head(struct rpc_tag *tag, bool ok) {
  (void)ok; /* a failure shows in the status */
  client_on_batch(RPC_OWNER(tag, struct core_rpc_client_call, head_tag));
}

static void client_on_half_close(struct rpc_tag *tag, bool ok) {
  (void)ok;
  client_on_batch(RPC_OWNER(tag, struct core_rpc_client_call, half_close_tag));
}

static void client_on_sent(struct rpc_tag *tag, bool ok) {
  struct core_rpc_client_call *call = RPC_OWNER(tag, struct core_rpc_client_call, send_tag);
  call->batches--;
  call->sending = false;
  message_queue_pop(&call->queue);
  if (!ok || call->ended)
    message_queue_clear(&call->queue, false);
  else if (message_queue_first(&call->queue) != NULL)
    client_send_next(call);
  else if (call->half_closing)
    client_send_half_close(call);
  call->busy++;
  if (ok && !call->ended && !call->half_closing && message_queue_take_writable(&call->queue) &&
      call->events->on_writable != NULL)
    call->events->on_writable(call, call->user);
  call->busy--;
  client_release(call);
}

bool client_call_send_buffer(struct core_rpc_client_call *call, grpc_byte_buffer *buffer) {
  client_check(call);
  BASE_CHECK(call->kind == CORE_RPC_BIDI && !call->half_closing);
  if (call->ended || call->local_failure != ERR_NONE) {
    grpc_byte_buffer_destroy(buffer);
    return false;
  }
  if (!message_queue_push(&call->queue, buffer))
    return false;
  if (!call->sending)
    client_send_next(call);
  return true;
}

bool core_rpc_client_send(struct core_rpc_client_call *call, const void *data, size_t length) {
  return client_call_send_buffer(call, message_from_bytes(data, length));
}

void core_rpc_client_half_close(struct core_rpc_client_call *call) {
  client_check(call);
  BASE_CHECK(call->kind == CORE_RPC_BIDI && !call->half_closing);
  call->half_closing = true;
  if (!call->ended && call->local_failure == ERR_NONE && !call->sending)
    client_send_half_close(call);
}

/* ---- the beginning ---- */

/* Copies the request's metadata; false when a key or value may not travel. */
static bool client_take_metadata(struct core_rpc_client_call *call, const struct core_rpc_request *request) {
  call->metadata = base_calloc(request->metadata_count + 1, sizeof(*call->metadata));
  for (size_t i = 0; i < request->metadata_count; i++) {
    const struct core_rpc_metadata *entry = &request->metadata[i];
    grpc_metadata *copy = &call->metadata[call->metadata_count++];
    copy->key = grpc_slice_from_copied_string(entry->key);
    copy->value = grpc_slice_from_copied_buffer(entry->value, entry->length);
    if (!grpc_header_key_is_legal(copy->key) ||
        (!grpc_is_binary_header(copy->key) && !grpc_header_nonbin_value_is_legal(copy->value)))
      return false;
  }
  return true;
}

static grpc_op client_op_status(struct core_rpc_client_call *call) {
  return (grpc_op){.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                   .data.recv_status_on_client = {.trailing_metadata = &call->trailing,
                                                  .status = &call->status,
                                                  .status_details = &call->status_text}};
}

static grpc_op client_op_head(struct core_rpc_client_call *call) {
  return (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA,
                   .data.send_initial_metadata = {.count = call->metadata_count, .metadata = call->metadata}};
}

static grpc_op client_op_initial(struct core_rpc_client_call *call) {
  return (grpc_op){.op = GRPC_OP_RECV_INITIAL_METADATA,
                   .data.recv_initial_metadata.recv_initial_metadata = &call->initial};
}

static void client_begin_unary(struct core_rpc_client_call *call) {
  const grpc_op ops[] = {
      client_op_head(call),
      {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = message_queue_first(&call->queue)},
      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
      client_op_initial(call),
      {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->incoming},
      client_op_status(call),
  };
  client_start_batch(call, ops, sizeof(ops) / sizeof(ops[0]), &call->status_tag);
}

static void client_begin_server_stream(struct core_rpc_client_call *call) {
  const grpc_op status = client_op_status(call);
  client_start_batch(call, &status, 1, &call->status_tag);
  const grpc_op ops[] = {
      client_op_head(call),
      {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = message_queue_first(&call->queue)},
      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
      client_op_initial(call),
      {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->incoming},
  };
  call->sending = call->reading = true;
  client_start_batch(call, ops, sizeof(ops) / sizeof(ops[0]), &call->read_tag);
}

static void client_begin_bidi(struct core_rpc_client_call *call) {
  const grpc_op status = client_op_status(call);
  client_start_batch(call, &status, 1, &call->status_tag);
  const grpc_op head[] = {client_op_head(call), client_op_initial(call)};
  client_start_batch(call, head, sizeof(head) / sizeof(head[0]), &call->head_tag);
  if (!call->manual_read)
    client_read_next(call);
}

struct core_rpc_client_call *client_call_start(struct core_rpc_channel *channel, const struct core_rpc_request *request,
                                               grpc_byte_buffer *message) {
  struct core_rpc_loop *loop = loop_check(channel->loop);
  BASE_CHECK(loop->phase != LOOP_ENDED);
  BASE_CHECK(request->kind != CORE_RPC_UNARY || request->timeout_ms != INT64_MAX);
  struct core_rpc_client_call *call = BASE_NEW(struct core_rpc_client_call);
  *call = (struct core_rpc_client_call){.magic = CLIENT_CALL_MAGIC,
                                        .loop = loop,
                                        .channel = channel,
                                        .tally = socket_tally_hold(channel->tally),
                                        .behind = socket_tally_taken(channel->tally),
                                        .next = channel->calls,
                                        .kind = request->kind,
                                        .manual_read = request->manual_read,
                                        .events = request->events,
                                        .user = request->user,
                                        .head_tag.complete = client_on_head,
                                        .send_tag.complete = client_on_sent,
                                        .read_tag.complete = client_on_read,
                                        .half_close_tag.complete = client_on_half_close,
                                        .status_tag.complete = client_on_status,
                                        .queue.max_bytes = loop->options.send_queue_max_bytes,
                                        .status_text = grpc_empty_slice()};
  if (call->next != NULL)
    call->next->previous = call;
  channel->calls = call;
  loop->client_calls++;
  grpc_slice method = grpc_slice_from_copied_string(request->method);
  call->handle = grpc_channel_create_call(channel->handle, NULL, GRPC_PROPAGATE_DEFAULTS, loop->queue, method, NULL,
                                          rpc_deadline_after_ms(request->timeout_ms), NULL);
  grpc_slice_unref(method);
  if (message != NULL)
    (void)message_queue_push(&call->queue, message); /* an empty queue takes any message */
  if (!client_take_metadata(call, request)) {
    call->local_failure = ERR_ARGUMENT_INVALID;
    client_start_batch(call, NULL, 0, &call->status_tag); /* comes back at once, by the queue */
    return call;
  }
  static void (*const begin[])(struct core_rpc_client_call *) = {[CORE_RPC_UNARY] = client_begin_unary,
                                                                 [CORE_RPC_SERVER_STREAM] = client_begin_server_stream,
                                                                 [CORE_RPC_BIDI] = client_begin_bidi};
  begin[request->kind](call);
  if (loop->phase == LOOP_CANCELLING)
    core_rpc_client_cancel(call);
  return call;
}

struct core_rpc_client_call *core_rpc_client_start(struct core_rpc_channel *channel,
                                                   const struct core_rpc_request *request) {
  grpc_byte_buffer *message =
      request->kind == CORE_RPC_BIDI ? NULL : message_from_bytes(request->data, request->length);
  return client_call_start(channel, request, message);
}

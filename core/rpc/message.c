/* message.c: gRPC byte buffers as plain byte ranges, and the bounded queue in front of a stream. */
#include <string.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

struct message_node {
  struct message_node *next;
  grpc_byte_buffer *message;
  size_t length;
};

grpc_byte_buffer *message_from_bytes(const void *data, size_t length) {
  uint8_t *target;
  grpc_byte_buffer *message = message_reserve(length, &target);
  if (length > 0)
    memcpy(target, data, length);
  return message;
}

grpc_byte_buffer *message_reserve(size_t length, uint8_t **data) {
  grpc_slice slice =
      grpc_slice_malloc_large(length); /* never inlined: the address stays the same when the slice moves */
  grpc_byte_buffer *message = grpc_raw_byte_buffer_create(&slice, 1);
  *data = slice.data.refcounted.bytes;
  grpc_slice_unref(slice);
  return message;
}

const uint8_t *message_view(grpc_byte_buffer *message, grpc_slice *joined, size_t *length) {
  *joined = grpc_empty_slice();
  grpc_byte_buffer_reader reader;
  int readable = grpc_byte_buffer_reader_init(&reader, message);
  BASE_CHECK(readable);
  const grpc_slice_buffer *slices = &message->data.raw.slice_buffer;
  grpc_slice *only = NULL;
  if (slices->count == 1 && grpc_byte_buffer_reader_peek(&reader, &only)) {
    grpc_byte_buffer_reader_destroy(&reader);
    *length = GRPC_SLICE_LENGTH(*only);
    return GRPC_SLICE_START_PTR(*only);
  }
  if (slices->count > 1)
    *joined = grpc_byte_buffer_reader_readall(&reader);
  grpc_byte_buffer_reader_destroy(&reader);
  *length = GRPC_SLICE_LENGTH(*joined);
  return GRPC_SLICE_START_PTR(*joined);
}

bool message_queue_push(struct message_queue *queue, grpc_byte_buffer *message) {
  size_t length = grpc_byte_buffer_length(message);
  if (queue->blocked) {
    grpc_byte_buffer_destroy(message);
    return false;
  }
  struct message_node *node = base_alloc(sizeof(*node));
  *node = (struct message_node){.message = message, .length = length};
  if (queue->last != NULL)
    queue->last->next = node;
  else
    queue->first = node;
  queue->last = node;
  queue->bytes += length;
  if (queue->bytes >= queue->max_bytes)
    queue->blocked = true;
  return true;
}

grpc_byte_buffer *message_queue_first(const struct message_queue *queue) {
  return queue->first == NULL ? NULL : queue->first->message;
}

void message_queue_pop(struct message_queue *queue) {
  struct message_node *node = queue->first;
  queue->first = node->next;
  if (queue->first == NULL)
    queue->last = NULL;
  queue->bytes -= node->length;
  grpc_byte_buffer_destroy(node->message);
  base_free(node);
}

void message_queue_clear(struct message_queue *queue, bool keep_first) {
  struct message_node *kept = NULL;
  if (keep_first && queue->first != NULL) {
    kept = queue->first;
    queue->first = kept->next;
    queue->bytes -= kept->length;
  }
  while (queue->first != NULL)
    message_queue_pop(queue);
  if (kept != NULL) {
    kept->next = NULL;
    queue->first = queue->last = kept;
    queue->bytes = kept->length;
  }
}

bool message_queue_is_writable(const struct message_queue *queue) {
  return !queue->blocked;
}

bool message_queue_take_writable(struct message_queue *queue) {
  if (!queue->blocked || queue->bytes > queue->max_bytes / 2)
    return false;
  queue->blocked = false;
  return true;
}

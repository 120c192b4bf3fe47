/* store_batch.c: building a batch on the core thread. Everything is copied into the batch's arena. The first bad
 * argument is kept in batch->error; the batch then commits to exactly that error. */
#include <ctype.h>
#include <endian.h>
#include <string.h>

#include "core/store/store_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/str.h"

#define OP_OVERHEAD_BYTES 128 /* what an operation counts beside its bytes */

struct store_batch *store_batch_create(void) {
  struct store_batch *batch = BASE_NEW(struct store_batch);
  batch->magic = STORE_BATCH_MAGIC;
  batch->arena = arena_create(1024);
  return batch;
}

void store_batch_free(struct store_batch **batch_pointer) {
  struct store_batch *batch = BASE_TAKE(*batch_pointer);
  if (!batch)
    return;
  BASE_CHECK_MAGIC(batch, STORE_BATCH_MAGIC);
  arena_free(&batch->arena);
  base_free(batch->ops);
  batch->magic = 0;
  base_free(batch);
}

size_t store_batch_size_bytes(const struct store_batch *batch) {
  BASE_CHECK_MAGIC(batch, STORE_BATCH_MAGIC);
  return batch->size_bytes;
}

struct store_op *store_batch_add(struct store_batch *batch, enum store_op_kind kind) {
  if (batch->op_count == batch->op_capacity) {
    batch->op_capacity = batch->op_capacity ? batch->op_capacity * 2 : 4;
    batch->ops = base_realloc_array(batch->ops, batch->op_capacity, sizeof(*batch->ops));
  }
  struct store_op *op = &batch->ops[batch->op_count++];
  memset(op, 0, sizeof(*op));
  op->kind = kind;
  batch->size_bytes += OP_OVERHEAD_BYTES;
  return op;
}

/* True when text fits; else the batch has its error. */
static bool text_fits(struct store_batch *batch, const char *what, const char *text, size_t max_bytes, bool required) {
  if (error_is_set(&batch->error))
    return false;
  size_t length = text ? strnlen(text, max_bytes + 1) : 0;
  if (length > max_bytes)
    return error_set(&batch->error, ERR_ARGUMENT_TOO_LARGE, "The %s is longer than %zu bytes.", what, max_bytes);
  if (required && length == 0)
    return error_set(&batch->error, ERR_ARGUMENT_MISSING, "The %s is missing.", what);
  if (length && !str_is_utf8(text, length))
    return error_set(&batch->error, ERR_ARGUMENT_INVALID, "The %s is not UTF-8.", what);
  return true;
}

static bool bytes_fit(struct store_batch *batch, const char *what, size_t length, size_t max_bytes) {
  if (error_is_set(&batch->error))
    return false;
  if (length > max_bytes)
    return error_set(&batch->error, ERR_ARGUMENT_TOO_LARGE, "The %s is larger than %zu bytes.", what, max_bytes);
  return true;
}

static const char *text_copy(struct store_batch *batch, const char *text) {
  if (str_is_empty(text))
    return "";
  size_t length = strlen(text);
  batch->size_bytes += length;
  return arena_memdup(batch->arena, text, length);
}

static const void *bytes_copy(struct store_batch *batch, const void *data, size_t length) {
  batch->size_bytes += length;
  return length ? arena_memdup(batch->arena, data, length) : "";
}

static struct store_op *row_op_add(struct store_batch *batch, enum store_op_kind kind, const char *name_space,
                                   const char *key, uint64_t expected_revision) {
  if (!text_fits(batch, "namespace", name_space, STORE_NAMESPACE_MAX_BYTES, true) ||
      !text_fits(batch, "key", key, STORE_KEY_MAX_BYTES, true))
    return NULL;
  if (batch->has_rows && expected_revision != STORE_REVISION_ANY)
    batch->can_fail_midway = true;
  batch->has_rows = true;
  struct store_op *op = store_batch_add(batch, kind);
  op->row.name_space = text_copy(batch, name_space);
  op->row.key = text_copy(batch, key);
  op->expected_revision = expected_revision;
  return op;
}

void store_batch_put(struct store_batch *batch, const char *name_space, const char *key, const void *value,
                     size_t length, uint64_t expected_revision) {
  BASE_CHECK_MAGIC(batch, STORE_BATCH_MAGIC);
  if (!bytes_fit(batch, "value", length, STORE_VALUE_MAX_BYTES))
    return;
  struct store_op *op = row_op_add(batch, STORE_OP_PUT, name_space, key, expected_revision);
  if (!op)
    return;
  op->row.value = bytes_copy(batch, value, length);
  op->row.length = length;
}

void store_batch_delete(struct store_batch *batch, const char *name_space, const char *key,
                        uint64_t expected_revision) {
  BASE_CHECK_MAGIC(batch, STORE_BATCH_MAGIC);
  if (expected_revision == STORE_REVISION_NONE && !error_is_set(&batch->error))
    error_set(&batch->error, ERR_ARGUMENT_INVALID, "A deletion cannot expect that there is no row.");
  row_op_add(batch, STORE_OP_DELETE, name_space, key, expected_revision);
}

/* 8-4-4-4-12 hexadecimal digits, any case, any version. */
bool store_uuid_parse(const char *text, uint8_t target[static STORE_UUID_BYTES]) {
  char hex[2 * STORE_UUID_BYTES + 1];
  size_t digits = 0;
  if (!text || strnlen(text, ID_UUID_BYTES) != ID_UUID_BYTES - 1)
    return false;
  for (size_t i = 0; i < ID_UUID_BYTES - 1; i++) {
    bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash != (text[i] == '-'))
      return false;
    if (!dash)
      hex[digits++] = (char)tolower((unsigned char)text[i]);
  }
  hex[digits] = 0;
  return str_hex_decode(target, STORE_UUID_BYTES, hex);
}

void store_uuid_format(const uint8_t id[static STORE_UUID_BYTES], char target[static ID_UUID_BYTES]) {
  char hex[2 * STORE_UUID_BYTES + 1];
  str_hex_encode(hex, id, STORE_UUID_BYTES);
  for (size_t from = 0, to = 0; to < ID_UUID_BYTES - 1;)
    target[to] = to == 8 || to == 13 || to == 18 || to == 23 ? '-' : hex[from++], to++;
  target[ID_UUID_BYTES - 1] = 0;
}

void store_batch_append_event(struct store_batch *batch, const struct store_event *event) {
  BASE_CHECK_MAGIC(batch, STORE_BATCH_MAGIC);
  uint8_t id[STORE_UUID_BYTES];
  if (!text_fits(batch, "trace_id", event->trace_id, STORE_EVENT_FIELD_MAX_BYTES, false) ||
      !text_fits(batch, "context_id", event->context_id, STORE_EVENT_FIELD_MAX_BYTES, false) ||
      !text_fits(batch, "project_id", event->project_id, STORE_EVENT_FIELD_MAX_BYTES, false) ||
      !text_fits(batch, "event family", event->family, STORE_EVENT_FIELD_MAX_BYTES, true) ||
      !text_fits(batch, "event type", event->type, STORE_EVENT_FIELD_MAX_BYTES, true) ||
      !bytes_fit(batch, "event", event->length, STORE_EVENT_MAX_BYTES))
    return;
  if (!store_uuid_parse(event->event_id, id)) {
    error_set(&batch->error, ERR_ARGUMENT_INVALID, "The event_id is not a UUID.");
    return;
  }
  if (batch->has_rows)
    batch->can_fail_midway = true; /* it may be a duplicate */
  struct store_op *op = store_batch_add(batch, STORE_OP_EVENT);
  memcpy(op->event_id, id, sizeof(id));
  store_uuid_format(id, op->event_id_text);
  op->event = (struct store_event){
      .trace_id = text_copy(batch, event->trace_id),
      .context_id = text_copy(batch, event->context_id),
      .project_id = text_copy(batch, event->project_id),
      .family = text_copy(batch, event->family),
      .type = text_copy(batch, event->type),
      .wall_us = event->wall_us,
      .bytes = bytes_copy(batch, event->bytes, event->length),
      .length = event->length,
  };
}

void store_checkpoint_put(struct store_batch *batch, const char *name, uint64_t seq, const void *data, size_t length) {
  BASE_CHECK_MAGIC(batch, STORE_BATCH_MAGIC);
  uint64_t seq_bytes = htobe64(seq);
  if (!bytes_fit(batch, "checkpoint", length, STORE_VALUE_MAX_BYTES - sizeof(seq_bytes)))
    return;
  struct store_op *op = row_op_add(batch, STORE_OP_PUT, STORE_CHECKPOINT_NAMESPACE, name, STORE_REVISION_ANY);
  if (!op)
    return;
  op->row.length = sizeof(seq_bytes) + length;
  uint8_t *value = arena_alloc(batch->arena, op->row.length);
  memcpy(value, &seq_bytes, sizeof(seq_bytes));
  if (length)
    memcpy(value + sizeof(seq_bytes), data, length);
  op->row.value = value;
  batch->size_bytes += op->row.length;
}

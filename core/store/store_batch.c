/* store_batch.c: building a batch on the core thread. Everything is copied into the batch's arena. The first bad
 * argument is kept in batch->error; the batch then commits to exactly that error. */
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

void store_batch_ids_fresh(struct store_batch *batch) {
  BASE_CHECK_MAGIC(batch, STORE_BATCH_MAGIC);
  batch->ids_fresh = true;
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

/* The text of an event, in the batch's memory; that of the event before when it is the same, as it mostly is. NULL: the
 * batch has its error. */
static const char *event_text(struct store_batch *batch, const char *what, const char *text, const char *before,
                              bool required) {
  if (text && before && *text && strcmp(text, before) == 0) {
    batch->size_bytes += strlen(before);
    return before;
  }
  return text_fits(batch, what, text, STORE_EVENT_FIELD_MAX_BYTES, required) ? text_copy(batch, text) : NULL;
}

void store_batch_append_event(struct store_batch *batch, const struct store_event *event) {
  BASE_CHECK_MAGIC(batch, STORE_BATCH_MAGIC);
  uint8_t id[ID_UUID_RAW_BYTES];
  const struct store_op *last = batch->op_count ? &batch->ops[batch->op_count - 1] : NULL;
  const struct store_event none = {0}, *before = last && last->kind == STORE_OP_EVENT ? &last->event : &none;
  if (error_is_set(&batch->error))
    return;
  const char *trace_id = event_text(batch, "trace_id", event->trace_id, before->trace_id, false);
  const char *context_id = event_text(batch, "context_id", event->context_id, before->context_id, false);
  const char *project_id = event_text(batch, "project_id", event->project_id, before->project_id, false);
  const char *family = event_text(batch, "event family", event->family, before->family, true);
  const char *type = event_text(batch, "event type", event->type, before->type, true);
  if (!trace_id || !context_id || !project_id || !family || !type ||
      !bytes_fit(batch, "event", event->length, STORE_EVENT_MAX_BYTES))
    return;
  if (str_is_empty(event->event_id) || !id_uuid_parse(event->event_id, strnlen(event->event_id, ID_UUID_BYTES), id)) {
    error_set(&batch->error, ERR_ARGUMENT_INVALID, "The event_id is not a UUID.");
    return;
  }
  if (batch->has_rows)
    batch->can_fail_midway = true; /* it may be a duplicate */
  struct store_op *op = store_batch_add(batch, STORE_OP_EVENT);
  memcpy(op->event_id, id, sizeof(id));
  id_uuid_format(id, op->event_id_text);
  op->event = (struct store_event){
      .trace_id = trace_id,
      .context_id = context_id,
      .project_id = project_id,
      .family = family,
      .type = type,
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

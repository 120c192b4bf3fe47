/* status.c: errors on the wire (ERR-2): google.rpc.Status{code=1, message=2, details=3} in grpc-status-details-bin,
 * with one Any{type_url=1, value=2} that holds core.common.v1.ErrorEnvelope. A status without it (a library's own, or a
 * foreign server's) becomes an error by its number alone: its text may name paths or addresses and never goes further
 * (ERR-3). */
#include <string.h>

#include "core/rpc/core_rpc_internal.h"
#include "core/rpc/protobuf.h"
#include "sdk/base/alloc.h"

#define ENVELOPE_TYPE_URL "type.googleapis.com/core.common.v1.ErrorEnvelope"

enum { STATUS_CODE = 1, STATUS_MESSAGE = 2, STATUS_DETAILS = 3 };
enum { ANY_TYPE_URL = 1, ANY_VALUE = 2 };
enum {
  ENVELOPE_CATEGORY = 1,
  ENVELOPE_CODE = 2,
  ENVELOPE_MESSAGE = 3,
  ENVELOPE_ORIGIN = 4,
  ENVELOPE_RETRYABLE = 5,
  ENVELOPE_RETRY_AFTER_MS = 6,
  ENVELOPE_TRACE_ID = 7,
};

uint8_t *status_encode(int grpc_status, const struct error *err, size_t *length) {
  struct buf envelope = {0}, any = {0}, status = {0};
  protobuf_put_number(&envelope, ENVELOPE_CATEGORY, (uint64_t)err->category);
  protobuf_put_text(&envelope, ENVELOPE_CODE, err->code);
  protobuf_put_text(&envelope, ENVELOPE_MESSAGE, err->message);
  protobuf_put_number(&envelope, ENVELOPE_ORIGIN, (uint64_t)err->origin);
  protobuf_put_number(&envelope, ENVELOPE_RETRYABLE, err->retryable);
  protobuf_put_number(&envelope, ENVELOPE_RETRY_AFTER_MS, err->retry_after_ms);
  protobuf_put_text(&envelope, ENVELOPE_TRACE_ID, err->trace_id);
  protobuf_put_text(&any, ANY_TYPE_URL, ENVELOPE_TYPE_URL);
  protobuf_put_bytes(&any, ANY_VALUE, envelope.data, envelope.length);
  protobuf_put_number(&status, STATUS_CODE, (uint64_t)grpc_status);
  protobuf_put_text(&status, STATUS_MESSAGE, err->message);
  protobuf_put_bytes(&status, STATUS_DETAILS, any.data, any.length);
  buf_free(&envelope);
  buf_free(&any);
  *length = status.length;
  return (uint8_t *)buf_take(&status);
}

/* Copies a field as text into a bounded array; what does not fit is cut. */
static void field_to_text(char *target, size_t size, const struct protobuf_field *field) {
  size_t length = field->length < size - 1 ? field->length : size - 1;
  if (length > 0)
    memcpy(target, field->data, length);
  target[length] = '\0';
}

static bool envelope_decode(const struct protobuf_field *value, struct error *err) {
  struct protobuf_reader reader = {.data = value->data, .length = value->length};
  struct protobuf_field field;
  struct error raw = {0};
  while (protobuf_next(&reader, &field)) {
    if (field.is_bytes) {
      if (field.number == ENVELOPE_CODE)
        field_to_text(raw.code, sizeof(raw.code), &field);
      else if (field.number == ENVELOPE_MESSAGE)
        field_to_text(raw.message, sizeof(raw.message), &field);
      else if (field.number == ENVELOPE_TRACE_ID)
        field_to_text(raw.trace_id, sizeof(raw.trace_id), &field);
    } else if (field.number == ENVELOPE_CATEGORY && field.value <= ERROR_CATEGORY_INTERNAL) {
      raw.category = (enum error_category)field.value;
    } else if (field.number == ENVELOPE_ORIGIN && field.value <= ERROR_ORIGIN_UPSTREAM) {
      raw.origin = (enum error_origin)field.value;
    } else if (field.number == ENVELOPE_RETRYABLE) {
      raw.retryable = field.value != 0;
    } else if (field.number == ENVELOPE_RETRY_AFTER_MS) {
      raw.retry_after_ms = field.value > UINT32_MAX ? UINT32_MAX : (uint32_t)field.value;
    }
  }
  if (reader.malformed || raw.category == ERROR_CATEGORY_NONE || raw.code[0] == '\0')
    return false;
  (void)error_set_foreign(err, raw.category, raw.origin, raw.code, raw.message);
  err->retryable = raw.retryable;
  err->retry_after_ms = raw.retry_after_ms;
  for (const char *c = raw.trace_id; *c != '\0'; c++)
    if (strchr("0123456789abcdef", *c) == NULL)
      raw.trace_id[0] = '\0';
  memcpy(err->trace_id, raw.trace_id, sizeof(err->trace_id));
  return true;
}

static bool details_decode(const void *details, size_t length, struct error *err) {
  struct protobuf_reader reader = {.data = details, .length = length};
  struct protobuf_field field, type, value;
  while (protobuf_next(&reader, &field))
    if (field.number == STATUS_DETAILS && field.is_bytes &&
        protobuf_find_bytes(field.data, field.length, ANY_TYPE_URL, &type) &&
        type.length == strlen(ENVELOPE_TYPE_URL) && memcmp(type.data, ENVELOPE_TYPE_URL, type.length) == 0 &&
        protobuf_find_bytes(field.data, field.length, ANY_VALUE, &value) && envelope_decode(&value, err))
      return true;
  return false;
}

/* What a bare status number means here. Numbers without a row go by their category. */
static const struct {
  int grpc_status;
  enum error_code code;
} bare_statuses[] = {
    {GRPC_STATUS_CANCELLED, ERR_CANCELLED},
    {GRPC_STATUS_DEADLINE_EXCEEDED, ERR_DEADLINE_EXCEEDED},
    {GRPC_STATUS_UNAVAILABLE, ERR_RPC_PEER_GONE},
    {GRPC_STATUS_UNIMPLEMENTED, ERR_RPC_METHOD_UNKNOWN},
    {GRPC_STATUS_RESOURCE_EXHAUSTED, ERR_RPC_MESSAGE_TOO_LARGE},
};

void status_decode(int grpc_status, const void *details, size_t length, struct error *err) {
  if (details != NULL && details_decode(details, length, err))
    return;
  for (size_t i = 0; i < sizeof(bare_statuses) / sizeof(bare_statuses[0]); i++)
    if (bare_statuses[i].grpc_status == grpc_status) {
      (void)error_set(err, bare_statuses[i].code, NULL);
      return;
    }
  enum error_category category = error_category_from_grpc_status(grpc_status);
  (void)error_set_foreign(err, category, ERROR_ORIGIN_UNSPECIFIED, "rpc.status", error_category_name(category));
}

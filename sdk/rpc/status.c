/* status.c: how a call ended, in three shapes: struct rpc_status; google.rpc.Status with an ErrorEnvelope inside
 * (ERR-2), written and read field by field with nanopb's low level so that this room needs no generated code; and what
 * can be concluded when a peer sends less than that. Decoding is bounded by the header limit and skips what it does not
 * know. */
#include <pb_decode.h>
#include <pb_encode.h>

#include "sdk/rpc/rpc_internal.h"

#define ENVELOPE_TYPE_URL "type.googleapis.com/core.common.v1.ErrorEnvelope"

/* Field numbers of google.rpc.Status, google.protobuf.Any and core.common.v1.ErrorEnvelope. */
enum { STATUS_CODE = 1, STATUS_MESSAGE = 2, STATUS_DETAILS = 3 };
enum { ANY_TYPE_URL = 1, ANY_VALUE = 2 };
enum {
  ENVELOPE_CATEGORY = 1,
  ENVELOPE_CODE = 2,
  ENVELOPE_MESSAGE = 3,
  ENVELOPE_ORIGIN = 4,
  ENVELOPE_RETRYABLE = 5,
  ENVELOPE_RETRY_AFTER_MS = 6,
  ENVELOPE_TRACE_ID = 7
};

const char *rpc_code_name(int code) {
  static const char *const names[] = {
#define RPC_CODE_NAME(name, number) [number] = #name,
      RPC_CODES(RPC_CODE_NAME)
#undef RPC_CODE_NAME
  };
  return code >= 0 && (size_t)code < sizeof(names) / sizeof(names[0]) ? names[code] : "UNKNOWN";
}

/* The error of ours that stands for a bare gRPC code. */
static enum error_code error_of_code(enum rpc_code code) {
  static const enum error_code errors[] = {
      [RPC_OK] = ERR_RPC_STATUS_UNKNOWN,
      [RPC_CANCELLED] = ERR_RPC_STATUS_CANCELLED,
      [RPC_UNKNOWN] = ERR_RPC_STATUS_UNKNOWN,
      [RPC_INVALID_ARGUMENT] = ERR_RPC_STATUS_INVALID_ARGUMENT,
      [RPC_DEADLINE_EXCEEDED] = ERR_RPC_STATUS_DEADLINE_EXCEEDED,
      [RPC_NOT_FOUND] = ERR_RPC_STATUS_NOT_FOUND,
      [RPC_ALREADY_EXISTS] = ERR_RPC_STATUS_ALREADY_EXISTS,
      [RPC_PERMISSION_DENIED] = ERR_RPC_STATUS_PERMISSION_DENIED,
      [RPC_RESOURCE_EXHAUSTED] = ERR_RPC_STATUS_RESOURCE_EXHAUSTED,
      [RPC_FAILED_PRECONDITION] = ERR_RPC_STATUS_FAILED_PRECONDITION,
      [RPC_ABORTED] = ERR_RPC_STATUS_ABORTED,
      [RPC_OUT_OF_RANGE] = ERR_RPC_STATUS_OUT_OF_RANGE,
      [RPC_UNIMPLEMENTED] = ERR_RPC_STATUS_UNIMPLEMENTED,
      [RPC_INTERNAL] = ERR_RPC_STATUS_INTERNAL,
      [RPC_UNAVAILABLE] = ERR_RPC_STATUS_UNAVAILABLE,
      [RPC_DATA_LOSS] = ERR_RPC_STATUS_DATA_LOSS,
      [RPC_UNAUTHENTICATED] = ERR_RPC_STATUS_UNAUTHENTICATED,
  };
  return errors[code];
}

void rpc_status_set(struct rpc_status *status, enum rpc_code code, enum error_code error, const char *message) {
  status->code = code;
  if (message != NULL)
    error_set(&status->error, error, "%s", message);
  else
    error_set(&status->error, error, NULL);
}

void rpc_status_from_error(struct rpc_status *status, const struct error *error) {
  if (error == NULL || !error_is_set(error)) {
    status->code = RPC_OK;
    error_clear(&status->error);
    return;
  }
  static const struct {
    enum error_code error;
    enum rpc_code code;
  } finer[] = {
      {ERR_DEADLINE_EXCEEDED, RPC_DEADLINE_EXCEEDED},      {ERR_CANCELLED, RPC_CANCELLED},
      {ERR_RPC_MESSAGE_TOO_LARGE, RPC_RESOURCE_EXHAUSTED}, {ERR_RPC_STATUS_DEADLINE_EXCEEDED, RPC_DEADLINE_EXCEEDED},
      {ERR_RPC_STATUS_CANCELLED, RPC_CANCELLED},           {ERR_RPC_STATUS_ALREADY_EXISTS, RPC_ALREADY_EXISTS},
      {ERR_RPC_STATUS_OUT_OF_RANGE, RPC_OUT_OF_RANGE},     {ERR_RPC_STATUS_DATA_LOSS, RPC_DATA_LOSS}};
  status->error = *error;
  status->code = (enum rpc_code)error_category_grpc_status(error->category);
  for (size_t i = 0; i < sizeof(finer) / sizeof(finer[0]); i++)
    if (error_is(error, finer[i].error))
      status->code = finer[i].code;
}

/* ---- encoding ---- */

static bool put_varint(pb_ostream_t *stream, uint32_t field, uint64_t value) {
  return value == 0 || (pb_encode_tag(stream, PB_WT_VARINT, field) && pb_encode_varint(stream, value));
}

static bool put_bytes(pb_ostream_t *stream, uint32_t field, const void *data, size_t length) {
  return length == 0 || (pb_encode_tag(stream, PB_WT_STRING, field) && pb_encode_string(stream, data, length));
}

static bool put_text(pb_ostream_t *stream, uint32_t field, const char *text) {
  return put_bytes(stream, field, text, strlen(text));
}

size_t rpc_status_encode(const struct rpc_status *status, uint8_t target[static RPC_STATUS_BYTES_MAX]) {
  const struct error *error = &status->error;
  pb_byte_t envelope[512], any[640];
  pb_ostream_t inner = pb_ostream_from_buffer(envelope, sizeof(envelope));
  bool ok = put_varint(&inner, ENVELOPE_CATEGORY, (uint64_t)error->category) &&
            put_text(&inner, ENVELOPE_CODE, error->code) && put_text(&inner, ENVELOPE_MESSAGE, error->message) &&
            put_varint(&inner, ENVELOPE_ORIGIN, (uint64_t)error->origin) &&
            put_varint(&inner, ENVELOPE_RETRYABLE, error->retryable) &&
            put_varint(&inner, ENVELOPE_RETRY_AFTER_MS, error->retry_after_ms) &&
            put_text(&inner, ENVELOPE_TRACE_ID, error->trace_id);
  pb_ostream_t middle = pb_ostream_from_buffer(any, sizeof(any));
  ok = ok && put_text(&middle, ANY_TYPE_URL, ENVELOPE_TYPE_URL) &&
       put_bytes(&middle, ANY_VALUE, envelope, inner.bytes_written);
  pb_ostream_t outer = pb_ostream_from_buffer(target, RPC_STATUS_BYTES_MAX);
  ok = ok && put_varint(&outer, STATUS_CODE, (uint64_t)status->code) &&
       put_text(&outer, STATUS_MESSAGE, error->message) && put_bytes(&outer, STATUS_DETAILS, any, middle.bytes_written);
  BASE_CHECK(ok); /* the arrays of struct error bound every part */
  return outer.bytes_written;
}

/* ---- decoding ---- */

struct bytes {
  const uint8_t *data;
  size_t length;
};

/* One length-delimited field of a buffer stream, without copying. */
static bool take_bytes(pb_istream_t *stream, struct bytes *bytes) {
  uint32_t length;
  if (!pb_decode_varint32(stream, &length) || length > stream->bytes_left)
    return false;
  bytes->data = stream->state; /* a buffer stream keeps its position here */
  bytes->length = length;
  return pb_read(stream, NULL, length);
}

static void copy_text(char *target, size_t target_bytes, struct bytes bytes) {
  size_t length = bytes.length < target_bytes - 1 ? bytes.length : target_bytes - 1;
  if (length > 0)
    memcpy(target, bytes.data, length);
  target[length] = '\0';
}

struct field_value {
  struct bytes bytes;
  uint64_t number;
};

/* Walks the fields of one message; each known shape goes to `on_field`. False: malformed. */
static bool walk(struct bytes message, void (*on_field)(void *arg, uint32_t field, const struct field_value *value),
                 void *arg) {
  pb_istream_t stream = pb_istream_from_buffer(message.data, message.length);
  pb_wire_type_t type;
  uint32_t field;
  bool end;
  while (pb_decode_tag(&stream, &type, &field, &end)) {
    struct field_value value = {0};
    bool ok = type == PB_WT_STRING   ? take_bytes(&stream, &value.bytes)
              : type == PB_WT_VARINT ? pb_decode_varint(&stream, &value.number)
                                     : pb_skip_field(&stream, type);
    if (!ok)
      return false;
    if (type == PB_WT_STRING || type == PB_WT_VARINT)
      on_field(arg, field, &value);
  }
  return end;
}

struct envelope {
  bool found;
  uint64_t category, origin, retryable, retry_after_ms;
  struct bytes code, message, trace_id;
};

static void envelope_field(void *arg, uint32_t field, const struct field_value *value) {
  struct envelope *envelope = arg;
  switch (field) {
  case ENVELOPE_CATEGORY:
    envelope->category = value->number;
    break;
  case ENVELOPE_CODE:
    envelope->code = value->bytes;
    break;
  case ENVELOPE_MESSAGE:
    envelope->message = value->bytes;
    break;
  case ENVELOPE_ORIGIN:
    envelope->origin = value->number;
    break;
  case ENVELOPE_RETRYABLE:
    envelope->retryable = value->number;
    break;
  case ENVELOPE_RETRY_AFTER_MS:
    envelope->retry_after_ms = value->number;
    break;
  case ENVELOPE_TRACE_ID:
    envelope->trace_id = value->bytes;
    break;
  default:
    break;
  }
}

struct any {
  struct bytes type_url, value;
};

static void any_field(void *arg, uint32_t field, const struct field_value *value) {
  struct any *any = arg;
  if (field == ANY_TYPE_URL)
    any->type_url = value->bytes;
  if (field == ANY_VALUE)
    any->value = value->bytes;
}

struct outer {
  uint64_t code;
  struct bytes message;
  struct envelope envelope;
  bool malformed;
};

static void outer_field(void *arg, uint32_t field, const struct field_value *value) {
  struct outer *outer = arg;
  if (field == STATUS_CODE)
    outer->code = value->number;
  if (field == STATUS_MESSAGE)
    outer->message = value->bytes;
  if (field != STATUS_DETAILS || outer->envelope.found)
    return;
  struct any any = {0};
  if (!walk(value->bytes, any_field, &any)) {
    outer->malformed = true;
  } else if (any.type_url.length == strlen(ENVELOPE_TYPE_URL) &&
             memcmp(any.type_url.data, ENVELOPE_TYPE_URL, any.type_url.length) == 0) {
    outer->envelope.found = true;
    outer->malformed |= !walk(any.value, envelope_field, &outer->envelope);
  }
}

static enum rpc_code code_checked(uint64_t code) {
  return code <= RPC_UNAUTHENTICATED ? (enum rpc_code)code : RPC_UNKNOWN;
}

/* From a code and perhaps a text, when there is no envelope. */
static void status_from_bare(struct rpc_status *status, enum rpc_code code, const char *message) {
  enum error_code error = error_of_code(code);
  status->code = code;
  if (message[0] == '\0')
    error_set(&status->error, error, NULL);
  else
    error_set_foreign(&status->error, error_code_category(error), ERROR_ORIGIN_UNSPECIFIED, error_code_text(error),
                      message);
  status->error.foreign = false; /* the code is ours, for what the transport said */
}

bool rpc_status_decode(const uint8_t *data, size_t length, struct rpc_status *status) {
  struct outer outer = {0};
  if (!walk((struct bytes){data, length}, outer_field, &outer) || outer.malformed)
    return false;
  enum rpc_code code = code_checked(outer.code);
  if (code == RPC_OK) {
    status->code = RPC_OK;
    error_clear(&status->error);
    return true;
  }
  char message[ERROR_MESSAGE_MAX];
  const struct envelope *envelope = &outer.envelope;
  if (!envelope->found || envelope->code.length == 0) {
    copy_text(message, sizeof(message), outer.message);
    status_from_bare(status, code, message);
    status->error.foreign = true;
    return true;
  }
  char code_text[ERROR_CODE_MAX], trace_id[ERROR_TRACE_ID_MAX];
  copy_text(message, sizeof(message), envelope->message);
  copy_text(code_text, sizeof(code_text), envelope->code);
  copy_text(trace_id, sizeof(trace_id), envelope->trace_id);
  enum error_category category =
      envelope->category >= ERROR_CATEGORY_INVALID_ARGUMENT && envelope->category <= ERROR_CATEGORY_INTERNAL
          ? (enum error_category)envelope->category
          : error_category_from_grpc_status((int)code);
  enum error_origin origin =
      envelope->origin <= ERROR_ORIGIN_UPSTREAM ? (enum error_origin)envelope->origin : ERROR_ORIGIN_UNSPECIFIED;
  status->code = code;
  error_set_foreign(&status->error, category, origin, code_text, message);
  status->error.retryable = envelope->retryable != 0;
  status->error.retry_after_ms =
      envelope->retry_after_ms <= UINT32_MAX ? (uint32_t)envelope->retry_after_ms : UINT32_MAX;
  for (size_t i = 0; trace_id[i] != '\0'; i++)
    if (trace_id[i] < 0x21 || trace_id[i] > 0x7e)
      trace_id[i] = '?';
  memcpy(status->error.trace_id, trace_id, sizeof(trace_id));
  return true;
}

void rpc_status_from_trailers(struct rpc_status *status, uint32_t code_number, const struct rpc_headers *received) {
  enum rpc_code code = code_checked(code_number);
  if (code == RPC_OK) {
    status->code = RPC_OK;
    error_clear(&status->error);
    return;
  }
  size_t length = 0;
  const char *details = rpc_headers_get(received, "grpc-status-details-bin", &length);
  if (details != NULL && rpc_status_decode((const uint8_t *)details, length, status) && status->code == code)
    return;
  char message[ERROR_MESSAGE_MAX] = "";
  const char *text = rpc_headers_get(received, "grpc-message", &length);
  if (text != NULL)
    rpc_percent_decode(message, sizeof(message), text, length);
  status_from_bare(status, code, message);
}

void rpc_status_from_http(struct rpc_status *status, int http_status) {
  static const struct {
    int http;
    enum rpc_code code;
  } table[] = {{400, RPC_INTERNAL},      {401, RPC_UNAUTHENTICATED}, {403, RPC_PERMISSION_DENIED},
               {404, RPC_UNIMPLEMENTED}, {429, RPC_UNAVAILABLE},     {502, RPC_UNAVAILABLE},
               {503, RPC_UNAVAILABLE},   {504, RPC_UNAVAILABLE}};
  enum rpc_code code = RPC_UNKNOWN;
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
    if (table[i].http == http_status)
      code = table[i].code;
  status_from_bare(status, code, "");
}

void rpc_status_from_reset(struct rpc_status *status, uint32_t h2_error) {
  static const struct {
    uint32_t h2_error;
    enum rpc_code code;
  } table[] = {{NGHTTP2_REFUSED_STREAM, RPC_UNAVAILABLE},
               {NGHTTP2_CANCEL, RPC_CANCELLED},
               {NGHTTP2_ENHANCE_YOUR_CALM, RPC_RESOURCE_EXHAUSTED},
               {NGHTTP2_INADEQUATE_SECURITY, RPC_PERMISSION_DENIED}};
  enum rpc_code code = RPC_INTERNAL;
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
    if (table[i].h2_error == h2_error)
      code = table[i].code;
  status_from_bare(status, code, "The other side ended the call without a status.");
}

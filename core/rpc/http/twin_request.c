/* twin_request.c: an HTTP request as a call: method, message, deadline, metadata; and an error as JSON. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "core/rpc/http/twin_internal.h"
#include "sdk/base/check.h"
#include "sdk/base/str.h"
#include "sdk/wire/wire_json.h"

enum { TIMEOUT_DEFAULT_MS = 30000 };

void twin_error_json(const struct error *err, struct buf *out) {
  const struct {
    const char *key, *value;
  } texts[] = {{"category", error_category_name(err->category)},
               {"code", err->code},
               {"message", err->message},
               {"origin", error_origin_name(err->origin)}};
  buf_append_text(out, "{\"error\":{");
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    buf_printf(out, "\"%s\":", texts[i].key);
    buf_append_json_string(out, texts[i].value, strlen(texts[i].value));
    buf_append_char(out, ',');
  }
  buf_printf(out, "\"retryable\":%s", err->retryable ? "true" : "false");
  if (err->retry_after_ms != 0)
    buf_printf(out, ",\"retryAfterMs\":%u", err->retry_after_ms);
  buf_append_text(out, ",\"traceId\":");
  buf_append_json_string(out, err->trace_id, strlen(err->trace_id));
  buf_append_text(out, "}}");
}

/* ---- deadline ---- */

/* gRPC's "<1 to 8 digits><unit>". */
static bool grpc_timeout_parse(const char *text, int64_t *timeout_ms) {
  static const struct {
    char unit;
    int64_t multiply, divide;
  } units[] = {{'H', 3600000, 1}, {'M', 60000, 1}, {'S', 1000, 1}, {'m', 1, 1}, {'u', 1, 1000}, {'n', 1, 1000000}};
  size_t digits = strspn(text, "0123456789");
  if (digits < 1 || digits > 8 || strlen(text) != digits + 1)
    return false;
  int64_t number = 0;
  for (size_t i = 0; i < digits; i++)
    number = number * 10 + (text[i] - '0');
  for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
    if (text[digits] == units[i].unit) {
      *timeout_ms = number * units[i].multiply / units[i].divide;
      return true;
    }
  return false;
}

static bool timeout_read(const struct http_request *request, struct twin_question *question, struct error *err) {
  const char *grpc = http_request_header(request, "grpc-timeout");
  const char *own = http_request_header(request, "x-timeout-ms");
  uint64_t own_ms;
  question->timeout_ms = question->method->server_streaming ? INT64_MAX : TIMEOUT_DEFAULT_MS;
  if (grpc != NULL)
    return grpc_timeout_parse(grpc, &question->timeout_ms) ||
           error_set(err, ERR_ARGUMENT_INVALID, "The header grpc-timeout is not valid.");
  if (own == NULL)
    return true;
  if (!str_parse_u64(own, &own_ms) || own_ms > INT32_MAX)
    return error_set(err, ERR_ARGUMENT_INVALID, "The header x-timeout-ms is not valid.");
  question->timeout_ms = (int64_t)own_ms;
  return true;
}

/* ---- metadata ---- */

static bool header_travels(const char *key) {
  static const char *const names[] = {"authorization", "traceparent", "tracestate"};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
    if (strcmp(key, names[i]) == 0)
      return true;
  return (str_starts_with(key, "gatehouse-") || str_starts_with(key, "x-")) && !str_ends_with(key, "-bin") &&
         strcmp(key, "x-timeout-ms") != 0;
}

static bool metadata_read(struct http_request *request, struct twin_question *question, struct error *err) {
  size_t count = http_request_header_count(request);
  for (size_t i = 0; i < count; i++) {
    struct http_header header = http_request_header_at(request, i);
    char *key = arena_strdup(http_request_arena(request), header.name);
    for (char *c = key; *c != '\0'; c++)
      *c = (char)tolower((unsigned char)*c);
    if (!header_travels(key))
      continue;
    if (question->metadata_count == TWIN_METADATA_MAX)
      return error_set(err, ERR_HTTP_HEADER_TOO_LARGE, NULL);
    question->metadata[question->metadata_count++] =
        (struct core_rpc_metadata){.key = key, .value = header.value, .length = strlen(header.value)};
  }
  return true;
}

/* ---- message ---- */

static bool content_type_is_json(const char *type) {
  static const char json[] = "application/json";
  size_t length = sizeof(json) - 1;
  return type == NULL || (strncasecmp(type, json, length) == 0 && strchr("; \t", type[length]) != NULL);
}

static bool message_read(struct http_request *request, struct twin_question *question, struct error *err) {
  const struct buf *body = http_request_body(request);
  const char *json = body->length == 0 ? "{}" : body->data;
  ProtobufCMessage *message = NULL;
  if (!wire_json_decode(question->method->input, json, body->length == 0 ? 2 : body->length, &message, err))
    return false;
  size_t length = protobuf_c_message_get_packed_size(message);
  uint8_t *data;
  question->message = message_reserve(length, &data);
  size_t packed = protobuf_c_message_pack(message, data);
  BASE_CHECK(packed == length);
  protobuf_c_message_free_unpacked(message, NULL);
  return true;
}

bool twin_question_read(struct http_request *request, struct twin_question *question, int *status, struct error *err) {
  *question = (struct twin_question){0};
  *status = 0;
  if (strcmp(http_request_method(request), "POST") != 0) {
    *status = 405;
    return error_set(err, ERR_HTTP_MALFORMED, "Only POST is served here.");
  }
  question->method = wire_method_find(http_request_path(request));
  if (question->method == NULL) {
    *status = 404;
    return error_set(err, ERR_RPC_METHOD_UNKNOWN, NULL);
  }
  if (question->method->client_streaming)
    return error_set(err, ERR_UNSUPPORTED, "Methods that stream from the client are served over gRPC only.");
  if (!content_type_is_json(http_request_header(request, "content-type"))) {
    *status = 415;
    return error_set(err, ERR_HTTP_MALFORMED, "The content type must be application/json.");
  }
  return timeout_read(request, question, err) && metadata_read(request, question, err) &&
         message_read(request, question, err);
}

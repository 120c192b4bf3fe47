/* sse.c: the event-stream parser: bytes → lines (CR, LF, CRLF) → fields → events. State between pieces: the unfinished
 * line, the data so far, the event's name and id. */
#include "sdk/http/http_sse.h"

#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/check.h"
#include "sdk/base/str.h"

#define SSE_MAGIC 0x48535345u
#define LINE_BYTES_DEFAULT (1024u * 1024u)
#define EVENT_BYTES_DEFAULT (8u * 1024u * 1024u)

struct http_sse_parser {
  uint32_t magic;
  struct http_sse_handler handler;
  struct http_sse_limits limits;
  struct buf line;
  struct buf data;
  struct buf event;
  struct buf id;      /* of the event that is being read, and of later ones */
  struct buf last_id; /* of the last event that was complete */
  bool has_id;
  bool has_data;
  bool skip_lf; /* the last byte was CR */
  bool first_line;
  bool failed;
};

struct http_sse_parser *http_sse_parser_create(const struct http_sse_limits *limits,
                                               const struct http_sse_handler *handler) {
  BASE_CHECK(handler->on_event != NULL);
  struct http_sse_parser *parser = BASE_NEW(struct http_sse_parser);
  parser->magic = SSE_MAGIC;
  parser->handler = *handler;
  if (limits != NULL)
    parser->limits = *limits;
  if (parser->limits.line_bytes_max == 0)
    parser->limits.line_bytes_max = LINE_BYTES_DEFAULT;
  if (parser->limits.event_bytes_max == 0)
    parser->limits.event_bytes_max = EVENT_BYTES_DEFAULT;
  parser->first_line = true;
  return parser;
}

void http_sse_parser_free(struct http_sse_parser **pointer) {
  struct http_sse_parser *parser = *pointer;
  if (parser == NULL)
    return;
  BASE_CHECK_MAGIC(parser, SSE_MAGIC);
  *pointer = NULL;
  buf_free(&parser->line);
  buf_free(&parser->data);
  buf_free(&parser->event);
  buf_free(&parser->id);
  buf_free(&parser->last_id);
  parser->magic = 0;
  base_free(parser);
}

static const char *text_or(const struct buf *buf, const char *otherwise) {
  return buf->length > 0 ? buf->data : otherwise;
}

static void dispatch(struct http_sse_parser *parser) {
  buf_clear(&parser->last_id);
  buf_append(&parser->last_id, parser->id.data, parser->id.length);
  if (parser->has_data || (parser->limits.deliver_empty && parser->has_id)) {
    size_t length = parser->data.length;
    if (length > 0) /* the line feed behind the last data line */
      parser->data.data[--length] = '\0';
    struct http_sse_message message = {
        .event = text_or(&parser->event, "message"),
        .id = text_or(&parser->last_id, ""),
        .has_id = parser->has_id,
        .data = length > 0 ? parser->data.data : "",
        .data_bytes = length,
    };
    parser->handler.on_event(parser->handler.context, &message);
  }
  buf_clear(&parser->data);
  buf_clear(&parser->event);
  parser->has_data = parser->has_id = false;
}

static void set_text(struct buf *target, const char *value, size_t length) {
  buf_clear(target);
  buf_append(target, value, length);
}

static bool take_field(struct http_sse_parser *parser, const char *name, size_t name_bytes, const char *value,
                       size_t length) {
  if (name_bytes == 4 && memcmp(name, "data", 4) == 0) {
    if (length + 1 > parser->limits.event_bytes_max - parser->data.length)
      return false;
    buf_append(&parser->data, value, length);
    buf_append_char(&parser->data, '\n');
    parser->has_data = true;
  } else if (name_bytes == 5 && memcmp(name, "event", 5) == 0) {
    set_text(&parser->event, value, length);
  } else if (name_bytes == 2 && memcmp(name, "id", 2) == 0) {
    if (memchr(value, '\0', length) == NULL) {
      set_text(&parser->id, value, length);
      parser->has_id = true;
    }
  } else if (name_bytes == 5 && memcmp(name, "retry", 5) == 0 && parser->handler.on_retry != NULL) {
    uint64_t retry_ms;
    if (length > 0 && value[0] >= '0' && value[0] <= '9' && strlen(value) == length && str_parse_u64(value, &retry_ms))
      parser->handler.on_retry(parser->handler.context, retry_ms);
  }
  return true;
}

/* The line is complete in parser->line. */
static bool take_line(struct http_sse_parser *parser) {
  const char *line = parser->line.length > 0 ? parser->line.data : "";
  size_t length = parser->line.length;
  if (parser->first_line && length >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
    line += 3;
    length -= 3;
  }
  parser->first_line = false;
  bool ok = true;
  const char *colon = memchr(line, ':', length);
  if (length == 0) {
    dispatch(parser);
  } else if (colon == line) {
    if (parser->handler.on_comment != NULL)
      parser->handler.on_comment(parser->handler.context, line + 1, length - 1);
  } else {
    size_t name_bytes = colon != NULL ? (size_t)(colon - line) : length;
    const char *value = colon != NULL ? colon + 1 : line + length;
    value += colon != NULL && *value == ' ';
    ok = take_field(parser, line, name_bytes, value, (size_t)(line + length - value));
  }
  buf_clear(&parser->line);
  return ok;
}

bool http_sse_parser_feed(struct http_sse_parser *parser, const void *data, size_t length, struct error *err) {
  BASE_CHECK_MAGIC(parser, SSE_MAGIC);
  const char *at = data;
  const char *end = at + length;
  while (at < end && !parser->failed) {
    if (parser->skip_lf && *at == '\n') {
      parser->skip_lf = false;
      at++;
      continue;
    }
    parser->skip_lf = false;
    const char *stop = at;
    while (stop < end && *stop != '\n' && *stop != '\r')
      stop++;
    if ((size_t)(stop - at) > parser->limits.line_bytes_max - parser->line.length) {
      parser->failed = true;
      break;
    }
    buf_append(&parser->line, at, (size_t)(stop - at));
    at = stop;
    if (stop == end)
      break;
    parser->skip_lf = *stop == '\r';
    at++;
    parser->failed = !take_line(parser);
  }
  return !parser->failed || error_set(err, ERR_HTTP_UPSTREAM_TOO_LARGE, NULL);
}

void http_sse_parser_reset(struct http_sse_parser *parser) {
  BASE_CHECK_MAGIC(parser, SSE_MAGIC);
  buf_clear(&parser->line);
  buf_clear(&parser->data);
  buf_clear(&parser->event);
  set_text(&parser->id, parser->last_id.data, parser->last_id.length);
  parser->has_id = parser->has_data = parser->skip_lf = parser->failed = false;
  parser->first_line = true;
}

const char *http_sse_parser_last_id(const struct http_sse_parser *parser) {
  BASE_CHECK_MAGIC(parser, SSE_MAGIC);
  return text_or(&parser->last_id, "");
}

/* http_sse_fuzz.c: libFuzzer target: the event-stream parser fed whole and byte by byte must see the same events. */
#include <stdint.h>
#include <string.h>

#include "sdk/base/buf.h"
#include "sdk/base/check.h"
#include "sdk/http/http_sse.h"

static void note(void *context, const struct http_sse_message *message) {
  buf_append_text(context, message->event);
  buf_append_text(context, message->id);
  buf_append(context, message->data, message->data_bytes);
  buf_append_char(context, message->has_id ? '+' : '-');
}

static void parse(const uint8_t *data, size_t size, size_t piece, struct buf *seen) {
  struct http_sse_handler handler = {.on_event = note, .context = seen};
  struct http_sse_limits limits = {.line_bytes_max = 512, .event_bytes_max = 1024, .deliver_empty = true};
  struct http_sse_parser *parser = http_sse_parser_create(&limits, &handler);
  bool good = true;
  for (size_t at = 0; good && at < size; at += piece)
    good = http_sse_parser_feed(parser, data + at, size - at < piece ? size - at : piece, NULL);
  http_sse_parser_free(&parser);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct buf whole = {0};
  struct buf pieces = {0};
  if (size == 0)
    return 0;
  parse(data, size, size, &whole);
  parse(data, size, 1, &pieces);
  BASE_CHECK(whole.length == pieces.length &&
             memcmp(whole.data ? whole.data : "", pieces.data ? pieces.data : "", whole.length) == 0);
  buf_free(&whole);
  buf_free(&pieces);
  return 0;
}

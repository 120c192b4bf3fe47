/* sse_test.c: the event-stream parser: every way of cutting the input gives the same events; limits hold. */
#include "sdk/base/test.h"

#include <string.h>

#include "sdk/base/buf.h"
#include "sdk/http/http_sse.h"

static void note_event(void *context, const struct http_sse_message *message) {
  buf_printf(context, "[%s|%s%s|%.*s]", message->event, message->has_id ? "+" : "", message->id,
             (int)message->data_bytes, message->data);
}

static void note_retry(void *context, uint64_t retry_ms) {
  buf_printf(context, "{%llu}", (unsigned long long)retry_ms);
}

static void note_comment(void *context, const char *text, size_t length) {
  buf_printf(context, "<%.*s>", (int)length, text);
}

static const struct {
  const char *stream;
  const char *events;
  bool deliver_empty;
} cases[] = {
    {"data: a\n\n", "[message||a]", false},
    {"data:a\n\n", "[message||a]", false},
    {"data:  a\n\n", "[message|| a]", false},
    {"\xef\xbb\xbf"
     "data: a\n\n",
     "[message||a]", false},
    {"data: a\r\n\r\ndata: b\r\rdata: c\n\n", "[message||a][message||b][message||c]", false},
    {"data: a\ndata: b\n\n", "[message||a\nb]", false},
    {"data\n\n", "[message||]", false},
    {"data\ndata\n\n", "[message||\n]", false},
    {"event: x\nid: 1\ndata: a\n\ndata: b\n\n", "[x|+1|a][message|1|b]", false},
    {"id: 1\ndata: a\n\nid\ndata: b\n\n", "[message|+1|a][message|+|b]", false},
    {"id: 9\n\n", "", false},
    {"id: 9\n\n", "[message|+9|]", true},
    {"id: 9\ndata:\n\n", "[message|+9|]", true},
    {"retry: 250\nretry: x\nretry: -1\n\n", "{250}", false},
    {": hi\n:\n\n", "< hi><>", false},
    {"unknown: x\nDATA: y\n\n", "", false},
    {"data: cut off", "", false},
    {"data: cut off\n", "", false},
    {"event: only\n\n", "", false},
};

START_TEST(every_cut_gives_the_same_events) {
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
    for (size_t piece = 1; piece <= strlen(cases[i].stream); piece++) {
      struct buf seen = {0};
      buf_append(&seen, "", 0);
      struct http_sse_handler handler = {note_event, note_retry, note_comment, &seen};
      struct http_sse_limits limits = {.deliver_empty = cases[i].deliver_empty};
      struct http_sse_parser *parser = http_sse_parser_create(&limits, &handler);
      for (size_t at = 0; at < strlen(cases[i].stream); at += piece) {
        size_t left = strlen(cases[i].stream) - at;
        ck_assert(http_sse_parser_feed(parser, cases[i].stream + at, left < piece ? left : piece, NULL));
      }
      ck_assert_msg(strcmp(seen.data, cases[i].events) == 0, "case %zu piece %zu: %s", i, piece, seen.data);
      http_sse_parser_free(&parser);
      buf_free(&seen);
    }
}
END_TEST

START_TEST(long_lines_and_events_fail_for_good) {
  struct buf seen = {0};
  struct http_sse_handler handler = {.on_event = note_event, .context = &seen};
  struct http_sse_limits limits = {.line_bytes_max = 10, .event_bytes_max = 12};
  struct http_sse_parser *parser = http_sse_parser_create(&limits, &handler);
  struct error err;
  ck_assert(!http_sse_parser_feed(parser, "data: 12345", 11, &err));
  ck_assert(error_is(&err, ERR_HTTP_UPSTREAM_TOO_LARGE));
  ck_assert(!http_sse_parser_feed(parser, "\n", 1, &err));
  http_sse_parser_reset(parser);
  ck_assert(!http_sse_parser_feed(parser, "data:12345\ndata:12345\ndata:12345\n", 33, &err));
  http_sse_parser_free(&parser);
  buf_free(&seen);
}
END_TEST

START_TEST(reset_keeps_the_last_complete_id) {
  struct buf seen = {0};
  struct http_sse_handler handler = {.on_event = note_event, .context = &seen};
  struct http_sse_parser *parser = http_sse_parser_create(NULL, &handler);
  const char *stream = "id: 5\ndata: a\n\nid: 6\ndata: b\n";
  ck_assert(http_sse_parser_feed(parser, stream, strlen(stream), NULL));
  http_sse_parser_reset(parser);
  ck_assert_str_eq(http_sse_parser_last_id(parser), "5");
  http_sse_parser_free(&parser);
  buf_free(&seen);
}
END_TEST

TEST_MAIN("http.sse", every_cut_gives_the_same_events, long_lines_and_events_fail_for_good,
          reset_keeps_the_last_complete_id)

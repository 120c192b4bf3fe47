/* log.c: one JSON object a line, built in a fixed buffer on the stack (the supervisor logs where it may not allocate)
 * and written with one write(2). A line that does not fit loses the ends of its texts, or whole fields, and says so
 * with "truncated":true; it stays valid JSON. A stderr that cannot take the line loses it: logging never blocks on
 * purpose. */
#include "sdk/base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/base_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"

#define LINE_BYTES 8192u
#define LINE_TAIL ",\"truncated\":true}\n"

static const char *const LEVELS[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info",   [LOG_WARN] = "warn",
    [LOG_ERROR] = "error", [LOG_FATAL] = "fatal", [LOG_PANIC] = "panic",
};

static const char *log_process = "gatehouse";
static _Atomic int log_level_now = LOG_INFO;

struct line {
  char data[LINE_BYTES];
  size_t length;
  bool truncated;
};

static size_t line_room(const struct line *line) {
  return LINE_BYTES - sizeof(LINE_TAIL) - line->length;
}

static void line_raw(struct line *line, const char *text, size_t length) {
  memcpy(line->data + line->length, text, length);
  line->length += length;
}

static void line_string(struct line *line, const char *text) {
  const char *end = text + strlen(text);
  line->data[line->length++] = '"';
  while (text < end) {
    const char *before = text;
    char escaped[6];
    unsigned count = base_json_escape(&text, end, escaped);
    if (line_room(line) < count + 1u) {
      line->truncated = before < end;
      break;
    }
    line_raw(line, escaped, count);
  }
  line->data[line->length++] = '"';
}

/* A key needs room for itself, its punctuation and the shortest value; without it the field is left out. */
static bool line_key(struct line *line, const char *key) {
  size_t length = strlen(key);
  if (line_room(line) < length + 32) {
    line->truncated = true;
    return false;
  }
  line_raw(line, line->length ? ",\"" : "{\"", 2);
  line_raw(line, key, length);
  line_raw(line, "\":", 2);
  return true;
}

static void line_text(struct line *line, const char *key, const char *text) {
  if (!line_key(line, key))
    return;
  if (text)
    line_string(line, text);
  else
    line_raw(line, "null", 4);
}

static void line_field(struct line *line, const struct log_field *field) {
  char number[24];
  switch (field->kind) {
  case LOG_FIELD_TEXT:
    line_text(line, field->key, field->text);
    return;
  case LOG_FIELD_INT:
    if (line_key(line, field->key))
      line_raw(line, number, (size_t)snprintf(number, sizeof number, "%lld", (long long)field->number));
    return;
  case LOG_FIELD_BOOL:
    if (line_key(line, field->key))
      line_raw(line, field->number ? "true" : "false", field->number ? 4 : 5);
    return;
  }
}

void log_init(const char *process, enum log_level level) {
  log_process = process;
  log_level_set(level);
}

void log_level_set(enum log_level level) {
  atomic_store_explicit(&log_level_now, (int)level, memory_order_relaxed);
}

bool log_level_parse(const char *name, enum log_level *level) {
  for (int i = LOG_DEBUG; i <= LOG_FATAL; i++) {
    if (str_equal(LEVELS[i], name)) {
      *level = (enum log_level)i;
      return true;
    }
  }
  return false;
}

bool log_enabled(enum log_level level) {
  return (int)level >= atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

void log_write(enum log_level level, const char *room, const char *message, const struct log_field *fields,
               unsigned field_count) {
  struct line line;
  int saved_errno = errno;
  char time_text[CLOCK_RFC3339_BYTES];
  line.length = 0;
  line.truncated = false;
  clock_format_rfc3339(clock_wall_us(), time_text);
  line_text(&line, "time", time_text);
  line_text(&line, "level", LEVELS[level]);
  line_text(&line, "process", log_process);
  line_text(&line, "room", room);
  line_text(&line, "message", message);
  for (unsigned i = 0; i < field_count; i++)
    line_field(&line, &fields[i]);
  if (line.truncated)
    line_raw(&line, LINE_TAIL, sizeof(LINE_TAIL) - 1);
  else
    line_raw(&line, "}\n", 2);
  ssize_t written;
  do
    written = write(STDERR_FILENO, line.data, line.length);
  while (written < 0 && errno == EINTR);
  errno = saved_errno;
  if (level == LOG_PANIC)
    abort();
}

void log_error_value(enum log_level level, const char *room, const char *message, const struct error *err) {
  log_event(level, room, message, LOG_TEXT("code", err->code), LOG_TEXT("category", error_category_name(err->category)),
            LOG_TEXT("origin", error_origin_name(err->origin)), LOG_TEXT("error", err->message),
            LOG_TEXT("trace_id", err->trace_id[0] ? err->trace_id : NULL));
}

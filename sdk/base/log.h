/* log.h: structured logs, one JSON object a line on stderr (SPI-16): time, level, process, room, message, trace_id,
 * fields.
 *
 * Severities have a consequence: LOG_PANIC our bug, abort() follows; LOG_FATAL the environment cannot carry us, the
 * caller exits; LOG_ERROR something failed and was handled; LOG_WARN the other party misbehaved; LOG_INFO state
 * changes; LOG_DEBUG off by default. A secret never goes into a field (struct secret cannot be printed). One write(2)
 * per line, so lines of several threads do not mix. The level comes from log_init; changing it later is log_level_set.
 * Any thread. */
#ifndef GATEHOUSE_BASE_LOG_H
#define GATEHOUSE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "sdk/base/error.h"

/* syslog.h has names like LOG_DEBUG too; these are ours and that header is never included. */
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_FATAL, LOG_PANIC };

/* process: "core", "supervisor", "mcp", …; kept by pointer. */
void log_init(const char *process, enum log_level level);
void log_level_set(enum log_level level);
bool log_level_parse(const char *name, enum log_level *level); /* "debug" … "fatal" */
bool log_enabled(enum log_level level);

/* A field of a log line. Made with the macros below; keys are literals. */
struct log_field {
  const char *key;
  enum { LOG_FIELD_TEXT, LOG_FIELD_INT, LOG_FIELD_BOOL } kind;
  const char *text;
  int64_t number;
};
#define LOG_TEXT(key_, value_) ((struct log_field){.key = (key_), .kind = LOG_FIELD_TEXT, .text = (value_)})
#define LOG_INT(key_, value_) ((struct log_field){.key = (key_), .kind = LOG_FIELD_INT, .number = (int64_t)(value_)})
#define LOG_BOOL(key_, value_) ((struct log_field){.key = (key_), .kind = LOG_FIELD_BOOL, .number = (value_)})

void log_write(enum log_level level, const char *room, const char *message, const struct log_field *fields,
               unsigned field_count);

/* log_event(LOG_WARN, "http", "request refused", LOG_TEXT("code", err.code), LOG_INT("status", 400)); */
#define log_event(level_, room_, message_, ...)                                                                        \
  do {                                                                                                                 \
    if (log_enabled(level_)) {                                                                                         \
      const struct log_field log_fields_[] = {LOG_TEXT(0, 0), ##__VA_ARGS__};                                          \
      log_write((level_), (room_), (message_), log_fields_ + 1, sizeof(log_fields_) / sizeof(log_fields_[0]) - 1);     \
    }                                                                                                                  \
  } while (0)

/* An error value, once, where it is handled. */
void log_error_value(enum log_level level, const char *room, const char *message, const struct error *err);

#endif

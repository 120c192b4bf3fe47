/* logs.c: log lines of modules in the core's log. Keys come from outside and are written as they are, so only plain
 * names that say nothing of our own are taken; the rest of the line stays. */
#include <ctype.h>
#include <string.h>

#include "core/observe/observe_internal.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define RECORDS_MAX 1024 /* of one request; more are dropped and said so */
#define ATTRIBUTES_MAX 24
#define KEY_MAX_BYTES 64

static bool key_is_good(const char *key) {
  static const char *const reserved[] = {"time",    "level",  "process",  "room",
                                         "message", "module", "trace_id", "truncated"};
  if (str_is_empty(key) || strnlen(key, KEY_MAX_BYTES + 1) > KEY_MAX_BYTES)
    return false;
  for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
    if (str_equal(key, reserved[i]))
      return false;
  for (; *key; key++)
    if (!isalnum((unsigned char)*key) && !strchr("_.-", *key))
      return false;
  return true;
}

static enum log_level level_read(Core__Spi__Observability__V1__LogLevel level) {
  static const struct {
    Core__Spi__Observability__V1__LogLevel wire;
    enum log_level level;
  } levels[] = {
      {CORE__SPI__OBSERVABILITY__V1__LOG_LEVEL__LOG_LEVEL_DEBUG, LOG_DEBUG},
      {CORE__SPI__OBSERVABILITY__V1__LOG_LEVEL__LOG_LEVEL_WARN, LOG_WARN},
      {CORE__SPI__OBSERVABILITY__V1__LOG_LEVEL__LOG_LEVEL_ERROR, LOG_ERROR},
  };
  for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
    if (levels[i].wire == level)
      return levels[i].level;
  return LOG_INFO;
}

static void record_log(const char *module_id, const Core__Spi__Observability__V1__LogRecord *record) {
  struct log_field fields[ATTRIBUTES_MAX + 2];
  unsigned count = 0;
  enum log_level level = level_read(record->level);
  if (!log_enabled(level))
    return;
  fields[count++] = LOG_TEXT("module", module_id);
  if (!str_is_empty(record->trace_id))
    fields[count++] = LOG_TEXT("trace_id", record->trace_id);
  for (size_t i = 0; i < record->n_attributes && count < ATTRIBUTES_MAX + 2; i++)
    if (key_is_good(record->attributes[i]->key))
      fields[count++] = LOG_TEXT(record->attributes[i]->key, record->attributes[i]->value);
  log_write(level, "module", record->message ? record->message : "", fields, count);
}

void observe_logs_emit(struct observe *observe, const char *module_id,
                       const Core__Spi__Observability__V1__EmitLogsRequest *request) {
  BASE_CHECK_MAGIC(observe, OBSERVE_MAGIC);
  size_t count = request->n_records < RECORDS_MAX ? request->n_records : RECORDS_MAX;
  for (size_t i = 0; i < count; i++)
    record_log(module_id, request->records[i]);
  if (count < request->n_records)
    log_event(LOG_WARN, "observe", "log lines of a module were dropped", LOG_TEXT("module", module_id),
              LOG_INT("dropped", request->n_records - count));
}

/* store_portable.c: export and import as JSON lines (VSL-11). One object a line:
 *   {"gatehouse_store":1,"revision":R,"events":N}
 *   {"row":{"namespace":…,"key":…,"revision":…,"text"|"base64":…}}
 *   {"event":{"seq":…,"event_id":…,"wall_us":…,"trace_id":…,"context_id":…,"project_id":…,"family":…,"type":…,"text"|"base64":…}}
 * Bytes that are UTF-8 without NUL are "text", all others "base64" (base64url, unpadded): both come back exactly. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/store_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/check.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

#define IMPORT_BATCH_BYTES (1u << 20)

struct export {
  FILE *target;
  struct buf line;
  bool failed;
};

static void append_member(struct buf *line, const char *name, const char *text) {
  buf_printf(line, ",\"%s\":", name);
  buf_append_json_string(line, text, strlen(text));
}

static void append_bytes(struct buf *line, const void *data, size_t length) {
  if (str_is_utf8(data, length) && !memchr(data, 0, length)) {
    buf_append_text(line, ",\"text\":");
    buf_append_json_string(line, data, length);
    return;
  }
  char *encoded = str_base64url_encode(data, length);
  append_member(line, "base64", encoded);
  base_free(encoded);
}

static bool line_write(struct export *out) {
  buf_append_char(&out->line, '\n');
  out->failed = out->failed || fwrite(out->line.data, 1, out->line.length, out->target) != out->line.length;
  buf_clear(&out->line);
  return !out->failed;
}

static bool export_row(void *arg, const struct store_row *row) {
  struct export *out = arg;
  if (row->name_space[0] == '_')
    return true;
  buf_append_text(&out->line, "{\"row\":{\"namespace\":");
  buf_append_json_string(&out->line, row->name_space, strlen(row->name_space));
  append_member(&out->line, "key", row->key);
  buf_printf(&out->line, ",\"revision\":%llu", (unsigned long long)row->revision);
  append_bytes(&out->line, row->value, row->length);
  buf_append_text(&out->line, "}}");
  return line_write(out);
}

static bool export_event(void *arg, const struct store_event *event) {
  struct export *out = arg;
  buf_printf(&out->line, "{\"event\":{\"seq\":%llu,\"wall_us\":%lld", (unsigned long long)event->seq,
             (long long)event->wall_us);
  append_member(&out->line, "event_id", event->event_id);
  append_member(&out->line, "trace_id", event->trace_id);
  append_member(&out->line, "context_id", event->context_id);
  append_member(&out->line, "project_id", event->project_id);
  append_member(&out->line, "family", event->family);
  append_member(&out->line, "type", event->type);
  append_bytes(&out->line, event->bytes, event->length);
  buf_append_text(&out->line, "}}");
  return line_write(out);
}

bool store_export(struct store *store, FILE *target, struct error *err) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  BASE_CHECK(store->callback_depth == 0);
  struct store_batch *barrier = store_batch_create(); /* everything committed so far is dispatched */
  if (!store_commit_sync(store, &barrier, NULL, err))
    return false;
  struct export out = {.target = target};
  buf_printf(&out.line, "{\"gatehouse_store\":1,\"revision\":%llu,\"events\":%llu}",
             (unsigned long long)store->revision, (unsigned long long)store->seq);
  bool good = !line_write(&out) || (store_scan(store, NULL, NULL, export_row, &out, err) &&
                                    store_events_read(store, &(struct store_event_query){0}, export_event, &out, err));
  buf_free(&out.line);
  if (good && (out.failed || fflush(target) != 0))
    return error_set(err, ERR_IO, "The export cannot be written.");
  return good;
}

/* ---- import ---- */

struct import {
  struct store *store;
  struct store_batch *batch;
  uint64_t line_number, revision, events, next_seq;
};

static bool malformed(const struct import *in, struct error *err) {
  return error_set(err, ERR_STORE_IMPORT, "Line %llu of the import is malformed.", (unsigned long long)in->line_number);
}

static bool member_number(const char *object, size_t length, const char *name, int64_t *value) {
  const char *token;
  size_t token_length;
  char digits[24];
  if (!json_member(object, length, name, &token, &token_length) || token_length >= sizeof(digits))
    return false;
  memcpy(digits, token, token_length);
  digits[token_length] = 0;
  return str_parse_i64(digits, value);
}

/* An owned C string, or NULL. */
static char *member_text(const char *object, size_t length, const char *name) {
  const char *token;
  size_t token_length;
  return json_member(object, length, name, &token, &token_length) ? json_string_decode(token, token_length) : NULL;
}

/* Owned bytes of "text" or "base64", or NULL. */
static void *member_bytes(const char *object, size_t length, size_t *bytes_length) {
  char *text = member_text(object, length, "text");
  if (text) {
    *bytes_length = strlen(text);
    return text;
  }
  char *encoded = member_text(object, length, "base64");
  void *bytes = encoded ? str_base64url_decode(encoded, strlen(encoded), bytes_length) : NULL;
  base_free(encoded);
  return bytes;
}

static bool import_row(struct import *in, const char *object, size_t length) {
  int64_t revision = 0;
  size_t value_length = 0;
  char *name_space = member_text(object, length, "namespace"), *key = member_text(object, length, "key");
  void *value = member_bytes(object, length, &value_length);
  bool good = name_space && key && value && name_space[0] != '_' &&
              member_number(object, length, "revision", &revision) && revision > 0 &&
              (uint64_t)revision <= in->revision;
  if (good) {
    store_batch_put(in->batch, name_space, key, value, value_length, STORE_REVISION_NONE);
    good = !error_is_set(&in->batch->error);
  }
  if (good)
    in->batch->ops[in->batch->op_count - 1].import_revision = (uint64_t)revision;
  base_free(name_space);
  base_free(key);
  base_free(value);
  return good;
}

static bool import_event(struct import *in, const char *object, size_t length) {
  static const char *const names[] = {"event_id", "trace_id", "context_id", "project_id", "family", "type"};
  char *texts[sizeof(names) / sizeof(names[0])];
  int64_t seq = 0, wall_us = 0;
  size_t bytes_length = 0;
  void *bytes = member_bytes(object, length, &bytes_length);
  bool good = bytes && member_number(object, length, "seq", &seq) &&
              member_number(object, length, "wall_us", &wall_us) && seq > 0 && (uint64_t)seq == in->next_seq;
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
    texts[i] = member_text(object, length, names[i]);
    good = good && texts[i];
  }
  if (good) {
    store_batch_append_event(in->batch, &(struct store_event){.event_id = texts[0],
                                                              .trace_id = texts[1],
                                                              .context_id = texts[2],
                                                              .project_id = texts[3],
                                                              .family = texts[4],
                                                              .type = texts[5],
                                                              .wall_us = wall_us,
                                                              .bytes = bytes,
                                                              .length = bytes_length});
    good = !error_is_set(&in->batch->error);
    in->next_seq++;
  }
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
    base_free(texts[i]);
  base_free(bytes);
  return good;
}

static bool import_header(struct import *in, const char *line, size_t length) {
  int64_t format = 0, revision = -1, events = -1;
  bool good = member_number(line, length, "gatehouse_store", &format) && format == 1 &&
              member_number(line, length, "revision", &revision) && revision >= 0 &&
              member_number(line, length, "events", &events) && events >= 0;
  in->revision = (uint64_t)revision;
  in->events = (uint64_t)events;
  return good;
}

static bool import_line(struct import *in, const char *line, size_t length) {
  const char *object;
  size_t object_length;
  if (!json_check(line, length, JSON_DEPTH_MAX, NULL))
    return false;
  if (in->line_number == 1)
    return import_header(in, line, length);
  if (json_member(line, length, "row", &object, &object_length))
    return import_row(in, object, object_length);
  return json_member(line, length, "event", &object, &object_length) && import_event(in, object, object_length);
}

static void import_batch_begin(struct import *in) {
  in->batch = store_batch_create();
  in->batch->import = true;
  in->batch->import_revision = in->revision;
}

static bool import_flush(struct import *in, bool last, struct error *err) {
  in->batch->import_revision = in->revision;
  if (last) /* rows came without history: a feed cannot go back behind the import */
    store_batch_add(in->batch, STORE_OP_TRIM)->trim_revision = in->revision;
  bool good = store_commit_sync(in->store, &in->batch, NULL, err);
  import_batch_begin(in);
  return good;
}

bool store_import(struct store *store, FILE *source, struct error *err) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  struct store_batch *barrier = store_batch_create();
  if (!store_commit_sync(store, &barrier, NULL, err))
    return false;
  if (store->revision != 0 || store->seq != 0)
    return error_set(err, ERR_STORE_NOT_EMPTY, NULL);
  struct import in = {.store = store, .next_seq = 1};
  char *line = NULL;
  size_t capacity = 0;
  ssize_t length;
  bool good = true;
  import_batch_begin(&in);
  while (good && (length = getline(&line, &capacity, source)) > 0) {
    in.line_number++;
    if (!import_line(&in, line, (size_t)length))
      good = malformed(&in, err);
    else if (store_batch_size_bytes(in.batch) > IMPORT_BATCH_BYTES)
      good = import_flush(&in, false, err);
  }
  if (good && ferror(source))
    good = error_set(err, ERR_IO, "The import cannot be read.");
  if (good && (in.line_number == 0 || in.next_seq != in.events + 1))
    good = malformed(&in, err); /* cut short */
  good = good && import_flush(&in, true, err);
  store_batch_free(&in.batch);
  free(line); /* getline's own memory */
  return good;
}

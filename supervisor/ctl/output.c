/* output.c: answers for programs, as JSON or YAML, and the one way to standard output. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/io.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "sdk/wire/wire_json.h"
#include "supervisor/ctl/ctl_internal.h"

bool ctl_write(const void *data, size_t length) {
  return length == 0 || io_write_all(STDOUT_FILENO, data, length);
}

int ctl_print(const struct buf *text) {
  if (ctl_write(text->data, text->length))
    return CTL_EXIT_OK;
  if (errno != EPIPE)
    ctl_fail_code(ERR_IO, "standard output cannot be written: %s", strerror(errno));
  return CTL_EXIT_ENVIRONMENT;
}

/* ---- members named *Json hold their value, not its base64 ---- */

static bool ends_with_json(const char *key, size_t length) {
  return length > 6 && memcmp(key + length - 5, "Json\"", 5) == 0;
}

/* "base64" with its quotes to the bytes; NULL: it is none. */
static uint8_t *base64_decode(const char *token, size_t token_length, size_t *length) {
  char *text = json_string_decode(token, token_length);
  if (!text)
    return NULL;
  size_t used = strlen(text);
  used -= str_base64_padding(text, used);
  uint8_t *bytes = base_alloc(used / 4 * 3 + 3);
  bool good = str_base64_decode(bytes, length, text, used, STR_BASE64);
  base_free(text);
  if (good)
    return bytes;
  base_free(bytes);
  return NULL;
}

static void write_inlined(const char *json, size_t length, struct buf *target);

static void write_member(const char *key, size_t key_length, const char *value, size_t value_length,
                         struct buf *target) {
  size_t length = 0;
  uint8_t *bytes = NULL;
  if (key) {
    buf_append(target, key, key_length);
    buf_append_char(target, ':');
    if (value[0] == '"' && ends_with_json(key, key_length))
      bytes = base64_decode(value, value_length, &length);
  }
  if (bytes && json_check((const char *)bytes, length, JSON_DEPTH_MAX, NULL))
    buf_append(target, bytes, length);
  else
    write_inlined(value, value_length, target);
  base_free(bytes);
}

static void write_inlined(const char *json, size_t length, struct buf *target) {
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  char open = json[0];
  if ((open != '{' && open != '[') || !json_walk(json, length, open, &cursor)) {
    buf_append(target, json, length);
    return;
  }
  buf_append_char(target, open);
  for (bool first = true; json_next(&cursor, &key, &key_length, &value, &value_length); first = false) {
    if (!first)
      buf_append_char(target, ',');
    write_member(key, key_length, value, value_length, target);
  }
  buf_append_char(target, open == '{' ? '}' : ']');
}

void ctl_message_json(const ProtobufCMessage *message, struct buf *target) {
  struct buf plain = {0};
  struct error err = {0};
  if (wire_json_encode(message, &plain, &err))
    write_inlined(plain.data, plain.length, target);
  else
    buf_append_text(target, "{}");
  buf_free(&plain);
}

/* ---- pretty ---- */

static void pretty(const char *json, size_t length, unsigned depth, struct buf *target) {
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  char open = json[0];
  if ((open != '{' && open != '[') || !json_walk(json, length, open, &cursor)) {
    buf_append(target, json, length);
    return;
  }
  bool any = false;
  buf_append_char(target, open);
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    buf_printf(target, "%s\n%*s", any ? "," : "", (int)(2 * depth + 2), "");
    if (key) {
      buf_append(target, key, key_length);
      buf_append_text(target, ": ");
    }
    pretty(value, value_length, depth + 1, target);
    any = true;
  }
  if (any)
    buf_printf(target, "\n%*s", (int)(2 * depth), "");
  buf_append_char(target, open == '{' ? '}' : ']');
}

void ctl_json_pretty(const char *json, size_t length, struct buf *target) {
  pretty(json, length, 0, target);
  buf_append_char(target, '\n');
}

int ctl_print_json(const struct ctl *ctl, const char *json, size_t length) {
  struct buf text = {0};
  if (ctl->output == CTL_OUTPUT_YAML)
    ctl_yaml_write(json, length, &text);
  else
    ctl_json_pretty(json, length, &text);
  int status = ctl_print(&text);
  buf_free(&text);
  return status;
}

int ctl_print_message(const struct ctl *ctl, const ProtobufCMessage *message) {
  struct buf json = {0};
  ctl_message_json(message, &json);
  int status = ctl_print_json(ctl, json.data, json.length);
  buf_free(&json);
  return status;
}

int ctl_answer(const struct ctl *ctl, void *reply, struct buf *table) {
  int status = ctl->output == CTL_OUTPUT_TABLE ? ctl_print(table) : ctl_print_message(ctl, reply);
  buf_free(table);
  ctl_message_free(reply);
  return status;
}

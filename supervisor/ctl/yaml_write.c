/* yaml_write.c: JSON to YAML through libyaml's emitter. A text that a reader of YAML 1.2 or 1.1 would take for
 * something else is quoted, so that what is exported can be applied again, by any reader. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

static int collect(void *target, unsigned char *data, size_t length) {
  buf_append(target, data, length);
  return 1;
}

/* The emitter fails only without memory or for events in a wrong order. */
static void emit(yaml_emitter_t *emitter, int initialized, yaml_event_t *event) {
  if (!initialized || !yaml_emitter_emit(emitter, event))
    abort();
}

static void emit_scalar(yaml_emitter_t *emitter, const char *text, size_t length, yaml_scalar_style_t style) {
  yaml_event_t event;
  int made = yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)length, 1, 1, style);
  emit(emitter, made, &event);
}

/* Words that YAML 1.1 takes for booleans, and its dates, sexagesimals, numbers with underlines. */
static bool is_ambiguous(const char *text, size_t length) {
  static const char *const words[] = {"y", "n", "yes", "no", "on", "off", "<<", "="};
  struct buf ignored = {0};
  bool is_text = false, resolves = ctl_yaml_scalar_resolve(text, length, &ignored, &is_text);
  buf_free(&ignored);
  if (!resolves || !is_text)
    return true;
  for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
    if (strlen(words[i]) == length && strncasecmp(words[i], text, length) == 0)
      return true;
  return strspn(text, "0123456789+-._:eExob") == length;
}

/* What no YAML can hold (U+0000, half a surrogate pair) is shown as JSON writes it. */
static void emit_text(yaml_emitter_t *emitter, const char *token, size_t token_length) {
  char *text = json_string_decode(token, token_length);
  if (!text || !str_is_utf8(text, strlen(text))) {
    base_free(text);
    text = base_strndup(token + 1, token_length - 2);
  }
  const char *shown = text;
  size_t length = strlen(shown);
  yaml_scalar_style_t style = YAML_ANY_SCALAR_STYLE;
  if (is_ambiguous(shown, length))
    style = YAML_SINGLE_QUOTED_SCALAR_STYLE;
  else if (strchr(shown, '\n'))
    style = YAML_LITERAL_SCALAR_STYLE;
  emit_scalar(emitter, shown, length, style);
  base_free(text);
}

static void emit_json(yaml_emitter_t *emitter, const char *json, size_t length) {
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  yaml_event_t event;
  if (json[0] == '"') {
    emit_text(emitter, json, length);
  } else if (json[0] == '{' && json_walk(json, length, '{', &cursor)) {
    emit(emitter, yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE), &event);
    while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
      emit_text(emitter, key, key_length);
      emit_json(emitter, value, value_length);
    }
    emit(emitter, yaml_mapping_end_event_initialize(&event), &event);
  } else if (json[0] == '[' && json_walk(json, length, '[', &cursor)) {
    emit(emitter, yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE), &event);
    while (json_next(&cursor, &key, &key_length, &value, &value_length))
      emit_json(emitter, value, value_length);
    emit(emitter, yaml_sequence_end_event_initialize(&event), &event);
  } else {
    emit_scalar(emitter, json, length, YAML_PLAIN_SCALAR_STYLE);
  }
}

void ctl_yaml_write(const char *json, size_t length, struct buf *target) {
  yaml_emitter_t emitter;
  yaml_event_t event;
  if (!yaml_emitter_initialize(&emitter))
    abort();
  yaml_emitter_set_output(&emitter, collect, target);
  yaml_emitter_set_unicode(&emitter, 1);
  yaml_emitter_set_width(&emitter, 100);
  emit(&emitter, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING), &event);
  emit(&emitter, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 0), &event);
  emit_json(&emitter, json, length);
  emit(&emitter, yaml_document_end_event_initialize(&event, 1), &event);
  emit(&emitter, yaml_stream_end_event_initialize(&event), &event);
  yaml_emitter_delete(&emitter);
}

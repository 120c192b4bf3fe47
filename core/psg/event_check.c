/* event_check.c: events against their schemas (EVT-1 to EVT-4, EVT-11, EVT-12). The schemas are the table
 * event_fields.def; a field that stands twice is refused, because readers disagree about which one counts. An event
 * without a family is one of the two profiles' own (closed) events, told apart by the field that only they have. */
#include <stdio.h>
#include <string.h>

#include "core/psg/event_schema.h"
#include "core/psg/psg_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

enum kind { KIND_TEXT, KIND_NAME, KIND_UUID, KIND_TIME, KIND_INTEGER, KIND_COUNT, KIND_OBJECT, KIND_TEXTS, KIND_ENUM };

struct field {
  enum psg_event_schema schema;
  const char *name;
  bool required;
  enum kind kind;
  const char *values;
};

static const struct field fields[] = {
#define EVENT_FIELD(schema_, name_, required_, kind_, values_)                                                         \
  {PSG_SCHEMA_##schema_, name_, required_, KIND_##kind_, values_},
#include "core/psg/event_fields.def"
#undef EVENT_FIELD
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

#define EVENT_DEPTH_MAX PSG_OBJECT_DEPTH_MAX

static bool word_in(const char *words, const char *word) {
  size_t length = strlen(word);
  for (const char *at = words; length && *at;) {
    size_t part = strcspn(at, " ");
    if (part == length && memcmp(at, word, length) == 0)
      return true;
    at += part + (at[part] == ' ');
  }
  return false;
}

static bool is_integer(const char *token, size_t length, bool from_zero) {
  size_t at = *token == '-';
  if (at && from_zero)
    return false;
  if (at == length || length > 19)
    return false;
  for (; at < length; at++)
    if (token[at] < '0' || token[at] > '9')
      return false;
  return true;
}

static bool is_texts(const char *token, size_t length) {
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  if (!json_walk(token, length, '[', &cursor))
    return false;
  while (json_next(&cursor, &key, &key_length, &value, &value_length))
    if (*value != '"')
      return false;
  return true;
}

static bool text_fits(const struct field *field, const char *token, size_t length) {
  char *text = json_string_decode(token, length);
  int64_t wall_us;
  bool good = false;
  if (!text)
    return false;
  if (field->kind == KIND_TEXT)
    good = true;
  else if (field->kind == KIND_NAME)
    good = *text != 0;
  else if (field->kind == KIND_UUID)
    good = id_is_uuid_v4(text);
  else if (field->kind == KIND_TIME)
    good = clock_parse_rfc3339(text, &wall_us);
  else
    good = word_in(field->values, text);
  base_free(text);
  return good;
}

static bool value_fits(const struct field *field, const char *token, size_t length) {
  switch (field->kind) {
  case KIND_INTEGER:
    return is_integer(token, length, false);
  case KIND_COUNT:
    return is_integer(token, length, true);
  case KIND_OBJECT:
    return *token == '{';
  case KIND_TEXTS:
    return is_texts(token, length);
  default:
    return text_fits(field, token, length);
  }
}

static const struct field *field_find(const char *name, enum psg_event_schema schema) {
  for (size_t i = 0; i < FIELD_COUNT; i++)
    if (str_equal(fields[i].name, name) &&
        (fields[i].schema == schema || (fields[i].schema == PSG_SCHEMA_CORE && schema < PSG_SCHEMA_SA)))
      return &fields[i];
  return NULL;
}

static enum psg_event_schema schema_choose(const char *json, size_t length) {
  static const struct {
    const char *family;
    enum psg_event_schema schema;
  } families[] = {{"graph_update", PSG_SCHEMA_GRAPH_UPDATE},
                  {"pipeline_stage", PSG_SCHEMA_PIPELINE_STAGE},
                  {"runtime_execution", PSG_SCHEMA_RUNTIME_EXECUTION}};
  const char *token;
  size_t token_length;
  if (!json_member(json, length, "event_family", &token, &token_length)) {
    if (json_member(json, length, "sa_id", &token, &token_length))
      return PSG_SCHEMA_SA;
    if (json_member(json, length, "session_id", &token, &token_length))
      return PSG_SCHEMA_MAP;
    return PSG_SCHEMA_CORE;
  }
  char *family = json_string_decode(token, token_length);
  enum psg_event_schema schema = PSG_SCHEMA_CORE;
  for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
    if (str_equal(families[i].family, family))
      schema = families[i].schema;
  base_free(family);
  return schema;
}

static bool member_check(const char *key, size_t key_length, const char *value, size_t value_length,
                         enum psg_event_schema schema, uint64_t *seen, struct error *err) {
  char *name = json_string_decode(key, key_length);
  const struct field *field = name ? field_find(name, schema) : NULL;
  bool good = true;
  if (field) {
    uint64_t bit = UINT64_C(1) << (field - fields);
    if (*seen & bit)
      good = error_set(err, ERR_PSG_EVENT_INVALID, "%s: stands twice.", field->name);
    else if (!value_fits(field, value, value_length))
      good = error_set(err, ERR_PSG_EVENT_INVALID, "%s: not what the schema allows.", field->name);
    *seen |= bit;
  } else if (schema >= PSG_SCHEMA_SA) {
    good = error_set(err, ERR_PSG_EVENT_INVALID, "%.64s: the schema has no such field.", name ? name : "?");
  }
  base_free(name);
  return good;
}

bool psg_event_examine(const char *json, size_t length, enum psg_event_schema *schema, struct error *err) {
  _Static_assert(FIELD_COUNT <= 64, "one bit for each field");
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  uint64_t seen = 0;
  if (!json_check(json, length, EVENT_DEPTH_MAX, err))
    return false;
  if (!json_walk(json, length, '{', &cursor))
    return error_set(err, ERR_PSG_EVENT_INVALID, "An event is an object.");
  *schema = schema_choose(json, length);
  while (json_next(&cursor, &key, &key_length, &value, &value_length))
    if (!member_check(key, key_length, value, value_length, *schema, &seen, err))
      return false;
  for (size_t i = 0; i < FIELD_COUNT; i++)
    if (fields[i].required && field_find(fields[i].name, *schema) == &fields[i] && !(seen >> i & 1))
      return error_set(err, ERR_PSG_EVENT_INVALID, "%s: missing.", fields[i].name);
  return true;
}

bool psg_event_check(const void *event_json, size_t length, struct error *err) {
  enum psg_event_schema schema;
  return psg_event_examine(event_json, length, &schema, err);
}

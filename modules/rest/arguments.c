/* arguments.c: see rest_internal.h. The arguments are never made a tree: an object that travels whole is only checked,
 * else its members are tokens inside the original bytes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/json.h"

#define NUMBER_BYTES_MAX 64
#define WHOLE_NUMBER_MAX 9007199254740992.0 /* 2^53: beyond, a double does not tell neighbours apart */

bool rest_arguments_read(struct rest_arguments *arguments, struct arena *arena, const char *json, struct error *err) {
  if (!json || !json[0])
    json = "{}";
  *arguments = (struct rest_arguments){.arena = arena, .json = json, .length = strlen(json)};
  struct json_cursor cursor;
  if (!json_check(json, arguments->length, JSON_DEPTH_MAX, err))
    return false;
  return json_walk(json, arguments->length, '{', &cursor) ||
         error_set(err, ERR_ARGUMENT_INVALID, "The arguments have to be an object.");
}

/* A checked string token as text in the arena; NULL: it holds U+0000, which only an escape can write. */
static const char *string_text(struct arena *arena, const char *raw, size_t raw_length) {
  if (!memchr(raw, '\\', raw_length))
    return arena_memdup(arena, raw + 1, raw_length - 2);
  char *text = json_string_decode(raw, raw_length);
  const char *kept = text ? arena_strdup(arena, text) : NULL;
  base_free(text);
  return kept;
}

bool rest_arguments_split(struct rest_arguments *arguments, struct error *err) {
  if (arguments->items)
    return true;
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length, capacity = 16;
  struct rest_argument *items = arena_alloc(arguments->arena, capacity * sizeof(*items));
  arguments->items = items;
  if (!json_walk(arguments->json, arguments->length, '{', &cursor))
    return error_set(err, ERR_ARGUMENT_INVALID, "The arguments have to be an object.");
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    const char *kept = string_text(arguments->arena, key, key_length);
    if (!kept)
      return error_set(err, ERR_ARGUMENT_INVALID, "The name of an argument holds U+0000.");
    if (rest_arguments_find(arguments, kept))
      return error_set(err, ERR_ARGUMENT_INVALID, "The argument '%s' is there twice.", kept);
    if (arguments->count == REST_ARGUMENTS_MAX)
      return error_set(err, ERR_ARGUMENT_TOO_LARGE, "There are more than %d arguments.", REST_ARGUMENTS_MAX);
    if (arguments->count == capacity) {
      struct rest_argument *more = arena_alloc(arguments->arena, 2 * capacity * sizeof(*more));
      memcpy(more, arguments->items, capacity * sizeof(*more));
      arguments->items = more;
      capacity *= 2;
    }
    arguments->items[arguments->count++] = (struct rest_argument){kept, value, value_length, false};
  }
  return true;
}

struct rest_argument *rest_arguments_find(const struct rest_arguments *arguments, const char *name) {
  for (size_t i = 0; i < arguments->count; i++)
    if (strcmp(arguments->items[i].name, name) == 0)
      return &arguments->items[i];
  return NULL;
}

enum rest_value_kind rest_value_kind(const char *raw) {
  switch (raw[0]) {
  case '"':
    return REST_VALUE_STRING;
  case 't':
  case 'f':
    return REST_VALUE_BOOL;
  case 'n':
    return REST_VALUE_NULL;
  case '{':
  case '[':
    return REST_VALUE_OTHER;
  default:
    return REST_VALUE_NUMBER;
  }
}

/* A number that is whole, written with fraction or exponent, in plain digits; anything else as it was written. */
static const char *number_text(struct arena *arena, const char *raw, size_t raw_length) {
  char *text = arena_memdup(arena, raw, raw_length);
  if (raw_length >= NUMBER_BYTES_MAX || strpbrk(text, ".eE") == NULL)
    return text;
  double value = strtod(text, NULL);
  if (!isfinite(value) || fabs(value) > WHOLE_NUMBER_MAX || value != trunc(value))
    return text;
  return arena_printf(arena, "%lld", (long long)value);
}

const char *rest_value_text(struct arena *arena, const char *name, const char *raw, size_t raw_length,
                            struct error *err) {
  enum rest_value_kind kind = rest_value_kind(raw);
  if (kind == REST_VALUE_NULL || kind == REST_VALUE_OTHER) {
    error_set(err, ERR_ARGUMENT_INVALID, "The argument '%s' has to be a string, a number or a boolean.", name);
    return NULL;
  }
  if (kind == REST_VALUE_BOOL)
    return arena_memdup(arena, raw, raw_length);
  if (kind == REST_VALUE_NUMBER)
    return number_text(arena, raw, raw_length);
  const char *text = string_text(arena, raw, raw_length);
  if (!text)
    error_set(err, ERR_ARGUMENT_INVALID, "The argument '%s' holds U+0000.", name);
  return text;
}

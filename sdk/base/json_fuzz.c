/* json_fuzz.c: fuzz target of json.h: what json_check() accepts can be walked to its end, every part of it is JSON
 * again, and strings decode or are refused. */
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/json.h"

static void walk(const char *data, size_t length, unsigned depth) {
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  struct error err;
  BASE_CHECK(json_check(data, length, JSON_DEPTH_MAX, &err));
  base_free(json_string_decode(data, length));
  bool object = json_walk(data, length, '{', &cursor);
  if (!object && !json_walk(data, length, '[', &cursor))
    return;
  BASE_CHECK(depth <= JSON_DEPTH_MAX); /* of arrays and objects; what is in the innermost has none */
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    BASE_CHECK(value >= data && value + value_length <= data + length && (key != NULL) == object);
    walk(value, value_length, depth + 1);
    if (!object)
      continue;
    char *name = json_string_decode(key, key_length);
    const char *found;
    size_t found_length;
    if (name != NULL && json_member(data, length, name, &found, &found_length))
      BASE_CHECK(found <= value); /* the first occurrence */
    base_free(name);
  }
  BASE_CHECK(cursor.at <= cursor.end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data;
  struct error err;
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  if (size > 4096) /* every level is checked anew: quadratic */
    return 0;
  if (json_check(text, size, JSON_DEPTH_MAX, &err))
    walk(text, size, 1);
  else if (json_walk(text, size, '{', &cursor)) /* not checked: must end all the same */
    while (json_next(&cursor, &key, &key_length, &value, &value_length))
      BASE_CHECK(value + value_length <= text + size);
  base_free(json_string_decode(text, size));
  (void)json_member(text, size, "a", &value, &value_length);
  return 0;
}

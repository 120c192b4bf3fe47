/* json.h: limits that every reader of outside JSON applies before anything else looks at it, shared by all rooms.
 * json_check() walks the bytes once without building a tree: strict RFC 8259, UTF-8, depth and size bounded, duplicate
 * keys left to the caller. Any thread, no allocation. */
#ifndef GATEHOUSE_BASE_JSON_H
#define GATEHOUSE_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "sdk/base/error.h"

#define JSON_DEPTH_MAX 64

/* True when data[0..length) is one JSON value. Errors: ERR_JSON_MALFORMED, ERR_JSON_TOO_DEEP (depth_max levels). */
bool json_check(const char *data, size_t length, unsigned depth_max, struct error *err);

/* The raw bytes of one member of the top-level object (or of the object at data), without decoding: *value points into
 * data. False when absent or data is no object. The first occurrence wins. key is compared after unescaping simple
 * keys. */
bool json_member(const char *data, size_t length, const char *key, const char **value, size_t *value_length);

/* Walks the members of an object or the items of an array that json_check() accepted; tokens are raw bytes inside data.
 *   struct json_cursor cursor;
 *   if (json_walk(data, length, '{', &cursor))
 *     while (json_next(&cursor, &key, &key_length, &value, &value_length)) … */
struct json_cursor {
  const char *at;
  const char *end;
  bool object;
};

/* False when data is not an object (open '{') or array (open '['). */
bool json_walk(const char *data, size_t length, char open, struct json_cursor *cursor);

/* The next member or item; false at the end (or at a flaw, in data that was not checked). Key tokens come with their
 * quotes; in an array *key is NULL. */
bool json_next(struct json_cursor *cursor, const char **key, size_t *key_length, const char **value,
               size_t *value_length);

/* Decodes a JSON string token (with its quotes) into an owned C string; NULL when it is no string or holds U+0000. */
char *json_string_decode(const char *token, size_t token_length);

#endif

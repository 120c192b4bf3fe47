/* scan.c: tokens: comparing and decoding single JSON tokens without a tree. A token without a backslash is compared as
 * it stands; only one with escapes is decoded. */
#include <string.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/alloc.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

bool mcp_token_equals(const char *token, size_t token_length, const char *text) {
  size_t length = strlen(text);
  if (token_length < length + 2 || token[0] != '"')
    return false;
  if (token_length == length + 2)
    return memcmp(token + 1, text, length) == 0 && !memchr(text, '\\', length); /* an escape would make it longer */
  if (!memchr(token, '\\', token_length))
    return false;
  char *decoded = json_string_decode(token, token_length);
  bool equal = decoded && strcmp(decoded, text) == 0;
  base_free(decoded);
  return equal;
}

bool mcp_token_is_integer(struct mcp_slice token) {
  size_t i = mcp_slice_is(token, '-') ? 1 : 0;
  if (i == token.length)
    return false;
  for (; i < token.length; i++)
    if (token.data[i] < '0' || token.data[i] > '9')
      return false;
  return true;
}

bool mcp_token_same(struct mcp_slice a, struct mcp_slice b) {
  if (a.length == b.length && a.length && memcmp(a.data, b.data, a.length) == 0)
    return true;
  if (!mcp_slice_is(a, '"') || !mcp_slice_is(b, '"'))
    return false;
  char *text = mcp_token_text(a);
  bool same = text && mcp_token_equals(b.data, b.length, text);
  base_free(text);
  return same;
}

char *mcp_token_text(struct mcp_slice token) {
  return json_string_decode(token.data, token.length);
}

struct mcp_slice mcp_object_member(struct mcp_slice object, const char *key) {
  struct json_cursor cursor;
  const char *token, *value;
  size_t token_length, value_length;
  if (json_walk(object.data, object.length, '{', &cursor))
    while (json_next(&cursor, &token, &token_length, &value, &value_length))
      if (mcp_token_equals(token, token_length, key))
        return (struct mcp_slice){value, value_length};
  return (struct mcp_slice){0};
}

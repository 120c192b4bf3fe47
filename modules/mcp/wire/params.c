/* params.c: arguments that a tool's schema mirrors in headers (1.4, x-mcp-header): what the body says, Mcp-Param-{Name}
 * must say as well. Properties are reached through `properties` only. */
#include <stdio.h>
#include <string.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/alloc.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

#define NESTING_MAX 8
#define HEADER_NAME_MAX 128

static bool value_matches(const char *header, struct mcp_slice value) {
  int64_t a, b;
  if (mcp_slice_is(value, '"'))
    return mcp_header_matches(header, value);
  char text[32];
  if (value.length >= sizeof(text))
    return false;
  memcpy(text, value.data, value.length);
  text[value.length] = 0;
  return str_equal(header, text) || (str_parse_i64(header, &a) && str_parse_i64(text, &b) && a == b);
}

/* One property with its argument; length 0: the caller gave none. */
static bool property_matches(struct mcp_slice annotation, struct mcp_slice value, mcp_header_get *get, void *arg) {
  char name[HEADER_NAME_MAX + sizeof("mcp-param-")];
  char *text = mcp_token_text(annotation);
  bool usable = text && *text && strlen(text) <= HEADER_NAME_MAX;
  if (usable)
    snprintf(name, sizeof(name), "mcp-param-%s", text);
  base_free(text);
  if (!usable)
    return true; /* an annotation that no client may use */
  const char *header = get(arg, name);
  bool given = value.length > 0 && !mcp_slice_is(value, 'n');
  return given ? header && value_matches(header, value) : !header;
}

static bool schema_matches(struct mcp_slice schema, struct mcp_slice arguments, mcp_header_get *get, void *arg,
                           unsigned depth) {
  struct mcp_slice properties = mcp_object_member(schema, "properties");
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  if (depth > NESTING_MAX || !json_walk(properties.data, properties.length, '{', &cursor))
    return true;
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    struct mcp_slice property = {value, value_length};
    struct mcp_slice annotation = mcp_object_member(property, "x-mcp-header");
    char *name = json_string_decode(key, key_length);
    struct mcp_slice argument = name ? mcp_object_member(arguments, name) : (struct mcp_slice){0};
    base_free(name);
    if (annotation.length && !property_matches(annotation, argument, get, arg))
      return false;
    if (!schema_matches(property, argument, get, arg, depth + 1))
      return false;
  }
  return true;
}

bool mcp_params_match(struct mcp_slice definition, struct mcp_slice arguments, mcp_header_get *get, void *arg) {
  return schema_matches(mcp_object_member(definition, "inputSchema"), arguments, get, arg, 0);
}

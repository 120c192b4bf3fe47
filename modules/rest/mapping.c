/* mapping.c: see rest_internal.h. A mapping renames and allows: with one present, what it does not name is dropped. */
#include <string.h>
#include <strings.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "sdk/http/http_url.h"

/* Headers that arguments may never set; '*' matches anything. Credentials, framing, identity of the connection or of
 * who asks. */
static const char *const refused_headers[] = {
    "authorization", "proxy-*",     "x-api-key",     "api-key",   "*-token",           "*-secret",
    "*-key",         "cookie",      "set-cookie",    "host",      "transfer-encoding", "te",
    "trailer",       "content-*",   "connection",    "upgrade",   "keep-alive",        "expect",
    "via",           "x-forwarded", "x-forwarded-*", "forwarded", "x-real-ip",         "traceparent",
    "tracestate",    "http2-*",     "sec-*",
};

bool rest_header_target_is_allowed(const char *name) {
  char lower[128];
  size_t length = strlen(name);
  if (length >= sizeof(lower) || !http_token_is_valid(name, length))
    return false;
  for (size_t i = 0; i <= length; i++)
    lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 0x20 : name[i]);
  for (size_t i = 0; i < sizeof(refused_headers) / sizeof(refused_headers[0]); i++)
    if (str_matches_glob(lower, refused_headers[i]))
      return false;
  return true;
}

static const struct rest_argument *mapped_argument(const core_common_v1_NameMapping *mapping,
                                                   const struct rest_arguments *arguments) {
  const struct rest_argument *argument = mapping->argument ? rest_arguments_find(arguments, mapping->argument) : NULL;
  return argument && rest_value_kind(argument->raw) != REST_VALUE_NULL ? argument : NULL;
}

bool rest_headers_map(const core_common_v1_RestPlan *plan, const struct rest_arguments *arguments,
                      struct http_header *headers, size_t *count, size_t room, struct error *err) {
  for (pb_size_t i = 0; i < plan->header_mapping_count; i++) {
    const core_common_v1_NameMapping *mapping = &plan->header_mapping[i];
    const char *target = mapping->target ? mapping->target : "";
    if (!rest_header_target_is_allowed(target))
      return error_set(err, ERR_ARGUMENT_INVALID, "An argument may not set the header '%s'.", target);
    for (size_t h = 0; h < *count; h++)
      if (strcasecmp(headers[h].name, target) == 0)
        return error_set(err, ERR_ARGUMENT_INVALID, "The header '%s' is set already.", target);
    const struct rest_argument *argument = mapped_argument(mapping, arguments);
    if (!argument)
      continue;
    const char *value = rest_value_text(arguments->arena, argument->name, argument->raw, argument->raw_length, err);
    if (!value)
      return false;
    if (!http_value_is_valid(value, strlen(value)))
      return error_set(err, ERR_ARGUMENT_INVALID, "The argument '%s' cannot be a header: it holds control characters.",
                       argument->name);
    if (*count == room)
      return error_set(err, ERR_ARGUMENT_TOO_LARGE, "There are too many headers.");
    headers[(*count)++] = (struct http_header){target, value};
  }
  return true;
}

bool rest_fields_map(const core_common_v1_RestPlan *plan, const struct rest_arguments *arguments,
                     struct rest_fields *fields, struct error *err) {
  bool mapped = plan->query_mapping_count > 0 || plan->header_mapping_count > 0;
  size_t room = mapped ? plan->query_mapping_count : arguments->count;
  fields->items = arena_alloc(arguments->arena, (room + 1) * sizeof(*fields->items));
  fields->count = 0;
  if (!mapped) {
    for (size_t i = 0; i < arguments->count; i++) {
      const struct rest_argument *argument = &arguments->items[i];
      if (!argument->consumed)
        fields->items[fields->count++] = (struct rest_field){argument->name, argument->raw, argument->raw_length};
    }
    return true;
  }
  for (pb_size_t i = 0; i < plan->query_mapping_count; i++) {
    const core_common_v1_NameMapping *mapping = &plan->query_mapping[i];
    const struct rest_argument *argument = mapped_argument(mapping, arguments);
    if (!argument || argument->consumed)
      continue;
    if (rest_value_kind(argument->raw) == REST_VALUE_OTHER)
      return error_set(err, ERR_ARGUMENT_INVALID, "The argument '%s' has to be a string, a number or a boolean.",
                       argument->name);
    const char *target = str_is_empty(mapping->target) ? argument->name : mapping->target;
    fields->items[fields->count++] = (struct rest_field){target, argument->raw, argument->raw_length};
  }
  return true;
}

/* ---- query ---- */

/* Whether the encoded text (of a query parameter's name) means `name`. */
static bool encoded_equals(const char *text, size_t length, const char *name) {
  size_t i = 0;
  for (; i < length && *name; name++) {
    char c = text[i];
    if (c == '%' && length - i >= 3 && str_hex_value(text[i + 1]) >= 0 && str_hex_value(text[i + 2]) >= 0) {
      c = (char)(str_hex_value(text[i + 1]) << 4 | str_hex_value(text[i + 2]));
      i += 3;
    } else {
      c = c == '+' ? ' ' : c;
      i++;
    }
    if (c != *name)
      return false;
  }
  return i == length && !*name;
}

/* Whether the first `length` bytes of the URL name this query parameter. */
static bool query_has(const char *url, size_t length, const char *name) {
  const char *end = url + length, *at = memchr(url, '?', length);
  while (at && ++at < end) {
    const char *next = memchr(at, '&', (size_t)(end - at));
    const char *stop = next ? next : end;
    const char *equals = memchr(at, '=', (size_t)(stop - at));
    if (encoded_equals(at, (size_t)((equals ? equals : stop) - at), name))
      return true;
    at = next;
  }
  return false;
}

static bool pair_append(const struct rest_field *field, const char *raw, size_t raw_length, struct arena *arena,
                        struct buf *url, struct error *err) {
  const char *value = rest_value_text(arena, field->name, raw, raw_length, err);
  if (!value)
    return false;
  http_url_query_append(url, field->name, value);
  return url->length <= REST_URL_BYTES_MAX ||
         error_set(err, ERR_ARGUMENT_TOO_LARGE, "The URL would be longer than %d bytes.", REST_URL_BYTES_MAX);
}

bool rest_query_append(const struct rest_fields *fields, struct arena *arena, struct buf *url, struct error *err) {
  size_t own_length = url->length; /* what the template itself said */
  for (size_t i = 0; i < fields->count; i++) {
    const struct rest_field *field = &fields->items[i];
    struct json_cursor cursor;
    const char *key, *value;
    size_t key_length, value_length;
    if (rest_value_kind(field->raw) == REST_VALUE_NULL || query_has(url->data, own_length, field->name))
      continue;
    if (!json_walk(field->raw, field->raw_length, '[', &cursor)) {
      if (!pair_append(field, field->raw, field->raw_length, arena, url, err))
        return false;
      continue;
    }
    while (json_next(&cursor, &key, &key_length, &value, &value_length))
      if (!pair_append(field, value, value_length, arena, url, err))
        return false;
  }
  return true;
}

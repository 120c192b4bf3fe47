/* body.c: request bodies: JSON (rebuilt from the original tokens), form fields, multipart. */
#include <string.h>
#include <strings.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/id.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "sdk/http/http_url.h"

#define BOUNDARY_RANDOM_BYTES 16

static const struct {
  const char *type;
  enum rest_body_kind kind;
} kinds[] = {{"application/x-www-form-urlencoded", REST_BODY_FORM}, {"multipart/form-data", REST_BODY_MULTIPART}};

enum rest_body_kind rest_body_kind(const char *content_type) {
  if (!content_type)
    return REST_BODY_JSON;
  size_t length = strcspn(content_type, "; \t");
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
    if (strlen(kinds[i].type) == length && strncasecmp(kinds[i].type, content_type, length) == 0)
      return kinds[i].kind;
  return REST_BODY_JSON;
}

void rest_body_json(const struct rest_fields *fields, struct buf *body) {
  buf_append_char(body, '{');
  for (size_t i = 0; i < fields->count; i++) {
    const struct rest_field *field = &fields->items[i];
    if (i > 0)
      buf_append_char(body, ',');
    buf_append_json_string(body, field->name, strlen(field->name));
    buf_append_char(body, ':');
    buf_append(body, field->raw, field->raw_length);
  }
  buf_append_char(body, '}');
}

/* ---- form ---- */

static bool form_pair(const struct rest_field *field, const char *raw, size_t raw_length, struct arena *arena,
                      struct buf *body, struct error *err) {
  const char *value = rest_value_text(arena, field->name, raw, raw_length, err);
  if (!value)
    return false;
  if (body->length > 0)
    buf_append_char(body, '&');
  http_url_encode(body, field->name, strlen(field->name));
  buf_append_char(body, '=');
  http_url_encode(body, value, strlen(value));
  return true;
}

bool rest_body_form(const struct rest_fields *fields, struct arena *arena, struct buf *body, struct error *err) {
  buf_append(body, "", 0);
  for (size_t i = 0; i < fields->count; i++) {
    const struct rest_field *field = &fields->items[i];
    struct json_cursor cursor;
    const char *key, *value;
    size_t key_length, value_length;
    if (rest_value_kind(field->raw) == REST_VALUE_NULL)
      continue;
    if (!json_walk(field->raw, field->raw_length, '[', &cursor)) {
      if (!form_pair(field, field->raw, field->raw_length, arena, body, err))
        return false;
      continue;
    }
    while (json_next(&cursor, &key, &key_length, &value, &value_length))
      if (!form_pair(field, value, value_length, arena, body, err))
        return false;
  }
  return true;
}

/* ---- multipart ---- */

/* A field's name inside a quoted parameter, escaped as browsers do it (WHATWG, multipart/form-data). */
static void quoted_name(struct buf *body, const char *name) {
  for (; *name; name++) {
    if (*name == '"')
      buf_append_text(body, "%22");
    else if (*name == '\r')
      buf_append_text(body, "%0D");
    else if (*name == '\n')
      buf_append_text(body, "%0A");
    else
      buf_append_char(body, *name);
  }
}

bool rest_body_multipart(const struct rest_fields *fields, struct arena *arena, struct buf *body,
                         const char **content_type, struct error *err) {
  char boundary[2 * BOUNDARY_RANDOM_BYTES + 1];
  id_random_hex(boundary, BOUNDARY_RANDOM_BYTES);
  for (size_t i = 0; i < fields->count; i++) {
    const struct rest_field *field = &fields->items[i];
    enum rest_value_kind kind = rest_value_kind(field->raw);
    if (kind == REST_VALUE_NULL)
      continue;
    buf_printf(body, "--%s\r\nContent-Disposition: form-data; name=\"", boundary);
    quoted_name(body, field->name);
    buf_append_text(body, "\"\r\n");
    if (kind == REST_VALUE_OTHER) {
      buf_append_text(body, "Content-Type: application/json\r\n\r\n");
      buf_append(body, field->raw, field->raw_length);
    } else {
      const char *value = rest_value_text(arena, field->name, field->raw, field->raw_length, err);
      if (!value)
        return false;
      buf_append_text(body, "\r\n");
      buf_append_text(body, value);
    }
    buf_append_text(body, "\r\n");
  }
  buf_printf(body, "--%s--\r\n", boundary);
  *content_type = arena_printf(arena, "multipart/form-data; boundary=%s", boundary);
  return true;
}

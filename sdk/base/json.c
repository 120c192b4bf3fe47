/* json.c: a strict RFC 8259 walker without a tree.
 *
 * scan_value() is a state machine over the bytes; what is open (array or object) is one bit per level in a fixed stack,
 * so neither hostile depth nor hostile size costs memory or C stack. Strings must be strict UTF-8 and their \u escapes
 * whole characters: half a surrogate pair has no UTF-8 form and could not be passed on, so it is refused here. */
#include "sdk/base/json.h"

#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/base_internal.h"
#include "sdk/base/str.h"

#define SCAN_DEPTH_LIMIT 1024u

static const char *skip_space(const char *p, const char *end) {
  while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
    p++;
  return p;
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* The four hex digits behind "\u"; -1 when they are not there. */
static int32_t take_hex4(const char **p, const char *end) {
  if (end - *p < 4)
    return -1;
  int32_t value = 0;
  for (int i = 0; i < 4; i++) {
    int digit = str_hex_value((*p)[i]);
    if (digit < 0)
      return -1;
    value = value << 4 | digit;
  }
  *p += 4;
  return value;
}

static unsigned utf8_encode(uint32_t point, char out[static 4]) {
  if (point < 0x80) {
    out[0] = (char)point;
    return 1;
  }
  if (point < 0x800) {
    out[0] = (char)(0xc0 | point >> 6);
    out[1] = (char)(0x80 | (point & 0x3f));
    return 2;
  }
  if (point < 0x10000) {
    out[0] = (char)(0xe0 | point >> 12);
    out[1] = (char)(0x80 | (point >> 6 & 0x3f));
    out[2] = (char)(0x80 | (point & 0x3f));
    return 3;
  }
  out[0] = (char)(0xf0 | point >> 18);
  out[1] = (char)(0x80 | (point >> 12 & 0x3f));
  out[2] = (char)(0x80 | (point >> 6 & 0x3f));
  out[3] = (char)(0x80 | (point & 0x3f));
  return 4;
}

unsigned base_json_unescape(const char **p, const char *end, char out[static 4]) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  const char *s = *p;
  if (*s != '\\') {
    unsigned length = (unsigned char)*s < 0x20 ? 0 : base_utf8_length(s, end);
    memcpy(out, s, length);
    *p = s + length;
    return length;
  }
  if (++s == end)
    return 0;
  if (*s != 'u') {
    const char *name = *s ? strchr(names, *s) : NULL;
    if (!name)
      return 0;
    out[0] = values[name - names];
    *p = s + 1;
    return 1;
  }
  s++;
  int32_t unit = take_hex4(&s, end);
  if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
    return 0;
  uint32_t point = (uint32_t)unit;
  if (unit >= 0xd800 && unit <= 0xdbff) {
    if (end - s < 6 || s[0] != '\\' || s[1] != 'u')
      return 0;
    s += 2;
    int32_t low = take_hex4(&s, end);
    if (low < 0xdc00 || low > 0xdfff)
      return 0;
    point = 0x10000u + (((uint32_t)unit - 0xd800u) << 10) + ((uint32_t)low - 0xdc00u);
  }
  *p = s;
  return utf8_encode(point, out);
}

unsigned base_json_escape(const char **p, const char *end, char out[static 6]) {
  static const char hex[] = "0123456789abcdef";
  const char *s = *p;
  unsigned length = base_utf8_length(s, end);
  if (!length) {
    memcpy(out, "\xef\xbf\xbd", 3);
    *p = s + 1;
    return 3;
  }
  *p = s + length;
  unsigned char c = (unsigned char)*s;
  if (c >= 0x20 && c != '"' && c != '\\') {
    memcpy(out, s, length);
    return length;
  }
  const char *short_form = NULL;
  switch (c) {
  case '"':
    short_form = "\\\"";
    break;
  case '\\':
    short_form = "\\\\";
    break;
  case '\n':
    short_form = "\\n";
    break;
  case '\r':
    short_form = "\\r";
    break;
  case '\t':
    short_form = "\\t";
    break;
  default:
    break;
  }
  if (short_form) {
    memcpy(out, short_form, 2);
    return 2;
  }
  memcpy(out, "\\u00", 4);
  out[4] = hex[c >> 4];
  out[5] = hex[c & 15];
  return 6;
}

/* p is behind the opening quote; answers the place behind the closing one, NULL when malformed. */
static const char *scan_string(const char *p, const char *end) {
  char ignored[4];
  for (;;) {
    p = base_json_plain_end(p, end);
    if (p == end)
      return NULL;
    if (*p == '"')
      return p + 1;
    if (!base_json_unescape(&p, end, ignored))
      return NULL;
  }
}

static const char *scan_number(const char *p, const char *end) {
  if (*p == '-' && ++p == end)
    return NULL;
  if (!is_digit(*p))
    return NULL;
  if (*p++ != '0')
    while (p < end && is_digit(*p))
      p++;
  if (p < end && *p == '.') {
    const char *first = ++p;
    while (p < end && is_digit(*p))
      p++;
    if (p == first)
      return NULL;
  }
  if (p < end && (*p | 0x20) == 'e') {
    p++;
    if (p < end && (*p == '+' || *p == '-'))
      p++;
    const char *first = p;
    while (p < end && is_digit(*p))
      p++;
    if (p == first)
      return NULL;
  }
  return p;
}

static const char *scan_word(const char *p, const char *end, const char *word, size_t length) {
  return (size_t)(end - p) >= length && memcmp(p, word, length) == 0 ? p + length : NULL;
}

/* A value that is no container. */
static const char *scan_scalar(const char *p, const char *end) {
  switch (*p) {
  case '"':
    return scan_string(p + 1, end);
  case 't':
    return scan_word(p, end, "true", 4);
  case 'f':
    return scan_word(p, end, "false", 5);
  case 'n':
    return scan_word(p, end, "null", 4);
  default:
    return scan_number(p, end);
  }
}

/* The key and the colon; p is where the key must start. */
static const char *scan_key(const char *p, const char *end) {
  p = skip_space(p, end);
  if (p == end || *p != '"')
    return NULL;
  p = scan_string(p + 1, end);
  if (!p)
    return NULL;
  p = skip_space(p, end);
  return p < end && *p == ':' ? p + 1 : NULL;
}

/* One value starting at p (leading space allowed): the place behind it, or NULL with *too_deep telling which error. */
static const char *scan_value(const char *p, const char *end, unsigned depth_max, bool *too_deep) {
  uint64_t objects[SCAN_DEPTH_LIMIT / 64]; /* bit set: that level is an object; only levels below `depth` are read */
  unsigned depth = 0;
  *too_deep = false;
  if (depth_max > SCAN_DEPTH_LIMIT)
    depth_max = SCAN_DEPTH_LIMIT;
  for (;;) {
    p = skip_space(p, end);
    if (p == end)
      return NULL;
    bool object = *p == '{';
    if (object || *p == '[') {
      if (depth == depth_max) {
        *too_deep = true;
        return NULL;
      }
      uint64_t bit = UINT64_C(1) << (depth % 64);
      if (depth % 64 == 0)
        objects[depth / 64] = 0;
      objects[depth / 64] = object ? objects[depth / 64] | bit : objects[depth / 64] & ~bit;
      depth++;
      p = skip_space(p + 1, end);
      if (p == end)
        return NULL;
      if (*p != (object ? '}' : ']')) {
        if (object && !(p = scan_key(p, end)))
          return NULL;
        continue;
      }
    } else {
      p = scan_scalar(p, end);
      if (!p)
        return NULL;
      if (!depth)
        return p;
      p = skip_space(p, end);
    }
    /* Behind a value, or at the bracket of an empty container: close what closes, until a comma asks for more. */
    for (;;) {
      if (p == end)
        return NULL;
      object = objects[(depth - 1) / 64] >> ((depth - 1) % 64) & 1;
      if (*p == ',') {
        p++;
        if (object && !(p = scan_key(p, end)))
          return NULL;
        break;
      }
      if (*p != (object ? '}' : ']'))
        return NULL;
      p++;
      if (--depth == 0)
        return p;
      p = skip_space(p, end);
    }
  }
}

bool json_check(const char *data, size_t length, unsigned depth_max, struct error *err) {
  bool too_deep = false;
  if (length == 0) /* data may be NULL then */
    return error_set(err, ERR_JSON_MALFORMED, NULL);
  const char *end = data + length;
  const char *p = scan_value(data, end, depth_max, &too_deep);
  if (too_deep)
    return error_set(err, ERR_JSON_TOO_DEEP, NULL);
  if (!p || skip_space(p, end) != end)
    return error_set(err, ERR_JSON_MALFORMED, NULL);
  return true;
}

/* Whether the string token (with quotes, well formed) reads as key. */
static bool token_equals(const char *token, const char *token_end, const char *key, size_t key_length) {
  const char *p = token + 1, *end = token_end - 1;
  size_t at = 0;
  while (p < end) {
    char piece[4];
    unsigned count = base_json_unescape(&p, end, piece);
    if (!count || key_length - at < count || memcmp(key + at, piece, count) != 0)
      return false;
    at += count;
  }
  return at == key_length;
}

bool json_walk(const char *data, size_t length, char open, struct json_cursor *cursor) {
  if (length == 0) /* data may be NULL then */
    return false;
  const char *end = data + length;
  const char *p = skip_space(data, end);
  if (p == end || *p != open)
    return false;
  *cursor = (struct json_cursor){.at = p + 1, .end = end, .object = open == '{'};
  return true;
}

bool json_next(struct json_cursor *cursor, const char **key, size_t *key_length, const char **value,
               size_t *value_length) {
  bool too_deep;
  const char *p = skip_space(cursor->at, cursor->end);
  *key = NULL;
  *key_length = 0;
  if (cursor->object) {
    const char *token = p;
    if (p == cursor->end || *p != '"' || !(p = scan_string(p + 1, cursor->end)))
      return false;
    *key = token;
    *key_length = (size_t)(p - token);
    p = skip_space(p, cursor->end);
    if (p == cursor->end || *p++ != ':')
      return false;
    p = skip_space(p, cursor->end);
  }
  *value = p;
  p = scan_value(p, cursor->end, SCAN_DEPTH_LIMIT, &too_deep);
  if (!p)
    return false;
  *value_length = (size_t)(p - *value);
  /* Step over the comma; at the closing bracket jump to the end, where the next call finds no value. */
  p = skip_space(p, cursor->end);
  cursor->at = p < cursor->end && *p == ',' ? p + 1 : cursor->end;
  return true;
}

bool json_member(const char *data, size_t length, const char *key, const char **value, size_t *value_length) {
  struct json_cursor cursor;
  size_t key_length = strlen(key), token_length;
  const char *token;
  if (!json_walk(data, length, '{', &cursor))
    return false;
  while (json_next(&cursor, &token, &token_length, value, value_length))
    if (token_equals(token, token + token_length, key, key_length))
      return true;
  return false;
}

char *json_string_decode(const char *token, size_t token_length) {
  if (token_length < 2 || token[0] != '"' || token[token_length - 1] != '"')
    return NULL;
  const char *p = token + 1, *end = token + token_length - 1;
  char *text = base_alloc(token_length); /* an escape is never shorter than what it stands for */
  size_t used = 0;
  while (p < end) {
    char piece[4];
    const char *plain_end = base_json_plain_end(p, end);
    memcpy(text + used, p, (size_t)(plain_end - p));
    used += (size_t)(plain_end - p);
    if ((p = plain_end) == end)
      break;
    unsigned count = *p == '"' ? 0 : base_json_unescape(&p, end, piece);
    if (!count || piece[0] == 0) {
      base_free(text);
      return NULL;
    }
    memcpy(text + used, piece, count);
    used += count;
  }
  text[used] = 0;
  return text;
}

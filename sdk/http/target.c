/* target.c: request targets. Both protocols come here, so that a path means the same over either: origin-form, absolute
 * form, and "*" for OPTIONS; the path is percent-decoded once, must be UTF-8 without NUL and without a ".." segment,
 * and may not carry a fragment or credentials. Anything else is 400. */
#include "sdk/http/http_internal.h"

#include <http_parser.h>
#include <string.h>

static bool malformed(struct http_refusal *refusal, const char *message) {
  *refusal = (struct http_refusal){400, ERR_HTTP_MALFORMED, message};
  return false;
}

/* Decodes in place; the length afterwards, or -1 for a broken escape or NUL. */
static ssize_t percent_decode(char *text, bool plus_is_space) {
  char *to = text;
  for (const char *from = text; *from != '\0'; from++) {
    if (*from == '%') {
      int high = str_hex_value(from[1]);
      int low = high < 0 ? -1 : str_hex_value(from[2]);
      if (low < 0 || (high == 0 && low == 0))
        return -1;
      *to++ = (char)(high * 16 + low);
      from += 2;
    } else {
      *to++ = plus_is_space && *from == '+' ? ' ' : *from;
    }
  }
  *to = '\0';
  return to - text;
}

static bool has_dot_dot_segment(const char *path) {
  for (const char *at = path; (at = strstr(at, "..")) != NULL; at += 2) {
    bool starts = at == path || at[-1] == '/';
    bool ends = at[2] == '\0' || at[2] == '/';
    if (starts && ends)
      return true;
  }
  return false;
}

bool target_host_is_valid(const char *host) {
  static const bool refused[256] = {
      [0 ... 0x20] = true, ['/'] = true, ['?'] = true, ['#'] = true, ['@'] = true,           ['\\'] = true,
      ['<'] = true,        ['>'] = true, ['"'] = true, ['{'] = true, ['}'] = true,           ['|'] = true,
      ['^'] = true,        ['`'] = true, [','] = true, [';'] = true, [0x7f ... 0xff] = true,
  };
  for (const char *at = host; *at != '\0'; at++)
    if (refused[(unsigned char)*at])
      return false;
  return true;
}

/* RFC 3986: what may stand in a path or query besides unreserved characters and escapes is decided by http-parser for
 * HTTP/1.1; over HTTP/2 only this check stands. */
static bool has_forbidden_byte(const char *text, size_t length) {
  for (size_t i = 0; i < length; i++)
    if ((unsigned char)text[i] <= 0x20 || (unsigned char)text[i] >= 0x7f || text[i] == '#')
      return true;
  return false;
}

bool target_parse(struct http_request *request, const char *target, size_t length, struct http_refusal *refusal) {
  if (has_forbidden_byte(target, length))
    return malformed(refusal, "The request target holds a byte that must be percent-encoded.");
  if (length == 1 && target[0] == '*') {
    if (strcmp(request->method, "OPTIONS") != 0)
      return malformed(refusal, "The target '*' belongs to OPTIONS only.");
    request->path = request->path_raw = "*";
    request->query = "";
    return true;
  }
  const char *end = target + length;
  if (length == 0 || target[0] != '/') {
    struct http_parser_url url;
    http_parser_url_init(&url);
    if (http_parser_parse_url(target, length, 0, &url) != 0 || (url.field_set & (1u << UF_HOST)) == 0 ||
        (url.field_set & (1u << UF_USERINFO)) != 0 ||
        (strncasecmp(target, "http://", 7) != 0 && strncasecmp(target, "https://", 8) != 0))
      return malformed(refusal, "The request target is not valid.");
    const char *authority = (const char *)memmem(target, length, "://", 3) + 3;
    const char *stop = authority + strcspn(authority, "/? ");
    if (stop > end)
      stop = end;
    request->host = arena_memdup(request->arena, authority, (size_t)(stop - authority));
    target = stop;
    length = (size_t)(end - stop);
  }
  const char *mark = memchr(target, '?', length);
  size_t path_bytes = mark != NULL ? (size_t)(mark - target) : length;
  request->path_raw = path_bytes == 0 ? "/" : arena_memdup(request->arena, target, path_bytes);
  request->query = mark == NULL ? "" : arena_memdup(request->arena, mark + 1, (size_t)(end - mark - 1));
  request->path = request->path_raw;
  if (memchr(request->path_raw, '%', path_bytes) != NULL && path_bytes > 0) {
    char *decoded = arena_memdup(request->arena, target, path_bytes);
    ssize_t decoded_bytes = percent_decode(decoded, false);
    if (decoded_bytes < 0)
      return malformed(refusal, "The path holds a broken percent-encoding.");
    if (!str_is_utf8(decoded, (size_t)decoded_bytes))
      return malformed(refusal, "The path is not UTF-8.");
    request->path = decoded;
  }
  if (has_dot_dot_segment(request->path))
    return malformed(refusal, "The path holds a '..' segment.");
  return true;
}

const char *http_request_query_value(struct http_request *request, const char *name) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  size_t name_bytes = strlen(name);
  for (const char *at = request->query; *at != '\0';) {
    size_t pair_bytes = strcspn(at, "&");
    const char *equals = memchr(at, '=', pair_bytes);
    size_t key_bytes = equals != NULL ? (size_t)(equals - at) : pair_bytes;
    char *key = arena_memdup(request->arena, at, key_bytes);
    ssize_t decoded = percent_decode(key, true);
    if (decoded == (ssize_t)name_bytes && memcmp(key, name, name_bytes) == 0) {
      char *value = equals == NULL ? arena_strdup(request->arena, "")
                                   : arena_memdup(request->arena, equals + 1, pair_bytes - key_bytes - 1);
      return percent_decode(value, true) < 0 ? NULL : value;
    }
    at += pair_bytes;
    at += *at == '&';
  }
  return NULL;
}

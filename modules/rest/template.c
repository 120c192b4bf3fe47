/* template.c: see rest_internal.h. An argument can never change where a request goes: scheme and authority are copied
 * from the template, which has no placeholder there, and an encoded value holds no '/', '?', '#' or '&'. Servers that
 * decode %2F before they resolve dots are not given any either. */
#include <ctype.h>
#include <string.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/str.h"
#include "sdk/http/http_url.h"

#define PLACEHOLDER_BYTES_MAX 128

static bool template_wrong(struct error *err, const char *why) {
  return error_set(err, ERR_HTTP_URL_INVALID, "The tool's URL template %s.", why);
}

static bool is_name_character(char c) {
  return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.';
}

/* "." or "..", a dot also written "%2e". */
static bool is_dots(const char *text, size_t length) {
  size_t dots = 0;
  for (size_t i = 0; i < length; dots++) {
    if (text[i] == '.')
      i++;
    else if (length - i >= 3 && strncasecmp(text + i, "%2e", 3) == 0)
      i += 3;
    else
      return false;
  }
  return dots == 1 || dots == 2;
}

/* A value that goes into the path: no piece between slashes (of either kind) may be dots. */
static bool path_value_check(const char *name, const char *value, struct error *err) {
  for (const char *piece = value;; piece++) {
    size_t length = strcspn(piece, "/\\");
    if (is_dots(piece, length))
      return error_set(err, ERR_ARGUMENT_INVALID, "The argument '%s' may not hold '.' or '..' as part of a path.",
                       name);
    piece += length;
    if (!*piece)
      return true;
  }
}

/* The placeholder at **at ("{name}"), appended as its argument's value. */
static bool placeholder_expand(const char **at, bool in_path, struct rest_arguments *arguments, struct buf *url,
                               struct error *err) {
  char name[PLACEHOLDER_BYTES_MAX];
  const char *start = *at + 1, *end = start;
  while (is_name_character(*end))
    end++;
  size_t length = (size_t)(end - start);
  if (length == 0 || length >= sizeof(name) || *end != '}')
    return template_wrong(err, "has a brace that names no argument");
  memcpy(name, start, length);
  name[length] = '\0';
  *at = end + 1;
  if (!rest_arguments_split(arguments, err))
    return false;
  struct rest_argument *argument = rest_arguments_find(arguments, name);
  if (!argument || rest_value_kind(argument->raw) == REST_VALUE_NULL)
    return error_set(err, ERR_ARGUMENT_MISSING, "The argument '%s' is missing; the tool's URL needs it.", name);
  const char *value = rest_value_text(arguments->arena, name, argument->raw, argument->raw_length, err);
  if (!value || (in_path && !path_value_check(name, value, err)))
    return false;
  argument->consumed = true;
  http_url_encode(url, value, strlen(value));
  return true;
}

/* One path segment, up to the next '/' or the end of the path. */
static bool segment_expand(const char **at, struct rest_arguments *arguments, struct buf *url, struct error *err) {
  size_t start = url->length;
  bool variable = false;
  while (**at && **at != '/' && **at != '?' && **at != '#') {
    if (**at == '{') {
      variable = true;
      if (!placeholder_expand(at, true, arguments, url, err))
        return false;
    } else if (**at == '}') {
      return template_wrong(err, "has a brace that names no argument");
    } else {
      size_t plain = strcspn(*at, "/?#{}");
      buf_append(url, *at, plain);
      *at += plain;
    }
  }
  size_t length = url->length - start;
  if (variable && (length == 0 || is_dots(url->data + start, length)))
    return error_set(err, ERR_ARGUMENT_INVALID, "An argument leaves a part of the URL's path empty, '.' or '..'.");
  return true;
}

bool rest_template_expand(const char *url_template, struct rest_arguments *arguments, struct buf *url,
                          struct error *err) {
  const char *authority = url_template ? strstr(url_template, "://") : NULL;
  if (!authority)
    return template_wrong(err, "is not an absolute URL");
  const char *at = authority + 3;
  at += strcspn(at, "/?#");
  if (memchr(url_template, '{', (size_t)(at - url_template)) || memchr(url_template, '\\', (size_t)(at - url_template)))
    return template_wrong(err, "has a placeholder before its path");
  buf_append(url, url_template, (size_t)(at - url_template));
  while (*at == '/') {
    buf_append_char(url, *at++);
    if (!segment_expand(&at, arguments, url, err))
      return false;
  }
  if (*at == '?') {
    while (*at && *at != '#') {
      if (*at == '}')
        return template_wrong(err, "has a brace that names no argument");
      if (*at != '{')
        buf_append_char(url, *at++);
      else if (!placeholder_expand(&at, false, arguments, url, err))
        return false;
    }
  }
  return url->length <= REST_URL_BYTES_MAX ||
         error_set(err, ERR_ARGUMENT_TOO_LARGE, "The URL would be longer than %d bytes.", REST_URL_BYTES_MAX);
}

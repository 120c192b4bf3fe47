/* url.c: URLs by libcurl's URL API. */
#include "sdk/http/http_url.h"

#include <ctype.h>
#include <curl/curl.h>
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/str.h"

static char *part(CURLU *handle, CURLUPart what, unsigned flags) {
  char *text = NULL;
  if (curl_url_get(handle, what, &text, flags) != CURLUE_OK)
    return NULL;
  char *owned = base_strdup(text);
  curl_free(text);
  return owned;
}

static void lower(char *text) {
  for (; *text != '\0'; text++)
    *text = (char)tolower((unsigned char)*text);
}

/* "[::1]" becomes "::1"; a zone (fe80::1%eth0) is refused: it names an interface of ours. */
static bool unbracket(char *host) {
  size_t length = strlen(host);
  if (host[0] != '[')
    return true;
  if (length < 3 || host[length - 1] != ']' || strchr(host, '%') != NULL)
    return false;
  memmove(host, host + 1, length - 2);
  host[length - 2] = '\0';
  return true;
}

static bool read_parts(CURLU *handle, struct http_url *url) {
  char *port = part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT);
  char *user = part(handle, CURLUPART_USER, 0);
  char *password = part(handle, CURLUPART_PASSWORD, 0);
  char *zone = part(handle, CURLUPART_ZONEID, 0);
  uint64_t number = 0;
  url->scheme = part(handle, CURLUPART_SCHEME, 0);
  url->host = part(handle, CURLUPART_HOST, CURLU_PUNYCODE);
  url->path = part(handle, CURLUPART_PATH, 0);
  url->query = part(handle, CURLUPART_QUERY, 0);
  url->has_credentials = user != NULL || password != NULL;
  bool ok = url->scheme != NULL && url->host != NULL && url->path != NULL && zone == NULL && port != NULL &&
            str_parse_u64(port, &number) && number > 0 && number <= UINT16_MAX;
  url->port = (uint16_t)number;
  if (ok) {
    lower(url->scheme);
    lower(url->host);
    ok = (str_equal(url->scheme, "http") || str_equal(url->scheme, "https")) && unbracket(url->host) &&
         url->host[0] != '\0';
  }
  base_free(port);
  base_free(user);
  base_free(password);
  base_free(zone);
  return ok;
}

/* "scheme://" and then an authority. libcurl also takes one slash or three, and finds the host behind them: what others
 * read as a path. */
static bool has_authority(const char *text) {
  size_t scheme = strcspn(text, ":/?#");
  return strncmp(text + scheme, "://", 3) == 0 && strcspn(text + scheme + 3, "/?#") > 0;
}

bool http_url_parse(const char *text, struct http_url *url, struct error *err) {
  *url = (struct http_url){0};
  if (!has_authority(text))
    return error_set(err, ERR_HTTP_URL_INVALID, NULL);
  for (const char *at = text; *at != '\0'; at++)
    if ((unsigned char)*at <= 0x20 || *at == 0x7f || *at == '\\')
      return error_set(err, ERR_HTTP_URL_INVALID, NULL);
  CURLU *handle = curl_url();
  bool ok = handle != NULL && curl_url_set(handle, CURLUPART_URL, text, CURLU_PATH_AS_IS) == CURLUE_OK &&
            read_parts(handle, url);
  curl_url_cleanup(handle);
  if (ok)
    return true;
  http_url_clear(url);
  return error_set(err, ERR_HTTP_URL_INVALID, NULL);
}

void http_url_clear(struct http_url *url) {
  base_free(url->scheme);
  base_free(url->host);
  base_free(url->path);
  base_free(url->query);
  *url = (struct http_url){0};
}

char *http_url_origin(const struct http_url *url) {
  bool bracketed = strchr(url->host, ':') != NULL;
  struct buf text = {0};
  buf_printf(&text, "%s://%s%s%s:%u", url->scheme, bracketed ? "[" : "", url->host, bracketed ? "]" : "", url->port);
  return buf_take(&text);
}

bool http_url_same_origin(const struct http_url *a, const struct http_url *b) {
  return a->port == b->port && strcmp(a->scheme, b->scheme) == 0 && strcmp(a->host, b->host) == 0;
}

char *http_url_resolve(const char *base, const char *reference, struct error *err) {
  CURLU *handle = curl_url();
  char *owned = NULL;
  if (handle != NULL && curl_url_set(handle, CURLUPART_URL, base, 0) == CURLUE_OK &&
      curl_url_set(handle, CURLUPART_URL, reference, CURLU_URLENCODE) == CURLUE_OK &&
      curl_url_set(handle, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK)
    owned = part(handle, CURLUPART_URL, 0);
  curl_url_cleanup(handle);
  if (owned == NULL)
    error_set(err, ERR_HTTP_URL_INVALID, NULL);
  return owned;
}

void http_url_encode(struct buf *target, const char *text, size_t length) {
  static const char digits[] = "0123456789ABCDEF";
  bool dots = (length == 1 && text[0] == '.') || (length == 2 && text[0] == '.' && text[1] == '.');
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                 c == '~' || (c == '.' && !dots);
    if (plain) {
      buf_append_char(target, (char)c);
    } else {
      char escape[3] = {'%', digits[c >> 4], digits[c & 15]};
      buf_append(target, escape, sizeof(escape));
    }
  }
}

bool http_url_segment_is_safe(const char *text, size_t length) {
  bool dots = (length == 1 && text[0] == '.') || (length == 2 && text[0] == '.' && text[1] == '.');
  return length > 0 && !dots && memchr(text, '\0', length) == NULL;
}

void http_url_query_append(struct buf *target, const char *name, const char *value) {
  bool has_query = target->length > 0 && memchr(target->data, '?', target->length) != NULL;
  char last = target->length > 0 ? target->data[target->length - 1] : '\0';
  if (last != '?' && last != '&')
    buf_append_char(target, has_query ? '&' : '?');
  http_url_encode(target, name, strlen(name));
  buf_append_char(target, '=');
  http_url_encode(target, value, strlen(value));
}

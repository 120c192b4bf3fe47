/* client_setup.c: a request is checked and copied once; each hop (the request itself, then every followed redirect)
 * turns it into libcurl's options. What never changes is set when an easy handle is made (client.c). */
#include <string.h>
#include <strings.h>

#include "sdk/http/client_internal.h"

#define TIMEOUT_DEFAULT_MS 60000
#define CONNECT_TIMEOUT_DEFAULT_MS 10000
#define RESPONSE_BYTES_DEFAULT (16u * 1024u * 1024u)
#define RESPONSE_HEADER_BYTES_DEFAULT (64u * 1024u)

/* Fields the client itself decides about: framing, connection, target. */
static const char *const owned_fields[] = {
    "content-length", "transfer-encoding", "connection",    "keep-alive", "upgrade", "expect", "host", "te",
    "trailer",        "proxy-connection",  "http2-settings"};
/* Not sent to another origin. */
static const char *const credential_fields[] = {"authorization", "cookie", "proxy-authorization", "x-api-key",
                                                "api-key"};

static bool is_in(const char *name, const char *const *list, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (strcasecmp(name, list[i]) == 0)
      return true;
  return false;
}
#define IS_IN(name, list) is_in((name), (list), sizeof(list) / sizeof((list)[0]))

static bool check_headers(const struct http_client_request *request, struct error *err) {
  for (size_t i = 0; i < request->header_count; i++) {
    const char *name = request->headers[i].name;
    const char *value = request->headers[i].value;
    if (!http_token_is_valid(name, strlen(name)) || !http_value_is_valid(value, strlen(value)) ||
        IS_IN(name, owned_fields))
      return error_set(err, ERR_ARGUMENT_INVALID, "A header field of the request is not allowed.");
  }
  return true;
}

static void default_i64(int64_t *value, int64_t otherwise) {
  if (*value <= 0)
    *value = otherwise;
}

static void default_size(size_t *value, size_t otherwise) {
  if (*value == 0)
    *value = otherwise;
}

bool setup_copy_request(struct http_call *call, const struct http_client_request *request, struct error *err) {
  const char *method = request->method != NULL ? request->method : request->body_bytes > 0 ? "POST" : "GET";
  if (!http_token_is_valid(method, strlen(method)) || strcmp(method, "CONNECT") == 0)
    return error_set(err, ERR_ARGUMENT_INVALID, "The request method is not valid.");
  if (!check_headers(request, err))
    return false;
  struct http_client_request *copy = &call->request;
  *copy = *request;
  copy->method = arena_strdup(call->kept.arena, method);
  struct http_header *headers = arena_alloc(call->kept.arena, (request->header_count + 1) * sizeof(*headers));
  for (size_t i = 0; i < request->header_count; i++)
    headers[i] = (struct http_header){arena_strdup(call->kept.arena, request->headers[i].name),
                                      arena_strdup(call->kept.arena, request->headers[i].value)};
  copy->headers = headers;
  buf_append(&call->kept.request_body, request->body, request->body_bytes);
  default_i64(&copy->timeout_ms, TIMEOUT_DEFAULT_MS);
  default_i64(&copy->connect_timeout_ms, CONNECT_TIMEOUT_DEFAULT_MS);
  default_size(&copy->response_bytes_max, RESPONSE_BYTES_DEFAULT);
  default_size(&copy->response_header_bytes_max, RESPONSE_HEADER_BYTES_DEFAULT);
  bool ok = setup_set_url(call, base_strdup(request->url), err);
  call->cross_origin = false; /* the kept origin was that of another request */
  return ok;
}

/* The length of "scheme://authority", when what follows is a path or nothing. */
static size_t origin_length(const char *url) {
  const char *authority = strstr(url, "://");
  return authority == NULL ? 0 : (size_t)(authority - url) + 3 + strcspn(authority + 3, "/?#");
}

/* Whether the URL begins as the one before it did, which was read, judged and allowed: scheme, host and port follow
 * from these bytes alone. What comes behind them has to be fit for a URL. */
static bool same_as_before(const struct http_call_kept *kept, const char *url) {
  if (kept->origin_text == NULL || strncmp(url, kept->origin_text, kept->origin_length) != 0)
    return false;
  const char *rest = url + kept->origin_length;
  if (*rest != '/')
    return false;
  for (; *rest != '\0'; rest++)
    if ((unsigned char)*rest <= 0x20 || *rest == 0x7f || *rest == '\\')
      return false;
  return true;
}

bool setup_set_url(struct http_call *call, char *url, struct error *err) {
  struct http_call_kept *kept = &call->kept;
  if (same_as_before(kept, url)) {
    base_free(call->url);
    call->url = url;
    return true;
  }
  struct http_url parsed;
  if (!http_url_parse(url, &parsed, err)) {
    base_free(url);
    return false;
  }
  bool ok = parsed.has_credentials ? error_set(err, ERR_HTTP_URL_INVALID, "A URL must not carry credentials.")
                                   : http_egress_check_url(kept->client->egress, &parsed, err);
  if (!ok) {
    http_url_clear(&parsed);
    base_free(url);
    return false;
  }
  if (kept->origin.host != NULL && !http_url_same_origin(&kept->origin, &parsed))
    call->cross_origin = true; /* for good: coming back does not bring the credentials back */
  base_free(BASE_TAKE(parsed.path));
  base_free(BASE_TAKE(parsed.query));
  http_url_clear(&kept->origin);
  kept->origin = parsed;
  base_free(kept->origin_text);
  kept->origin_length = origin_length(url);
  kept->origin_text = base_strndup(url, kept->origin_length);
  base_free(call->url);
  call->url = url;
  return true;
}

static void append(struct curl_slist **list, const char *line) {
  struct curl_slist *longer = curl_slist_append(*list, line);
  BASE_CHECK(longer != NULL); /* out of memory */
  *list = longer;
}

static struct curl_slist *build_fields(struct http_call *call, bool has_body) {
  struct curl_slist *list = NULL;
  struct buf line = {0};
  bool has_type = false;
  for (size_t i = 0; i < call->request.header_count; i++) {
    const struct http_header *header = &call->request.headers[i];
    bool is_type = strncasecmp(header->name, "content-", 8) == 0;
    bool is_private = i < call->request.private_header_count || IS_IN(header->name, credential_fields);
    if ((call->cross_origin && is_private) || (call->body_dropped && is_type))
      continue;
    has_type = has_type || strcasecmp(header->name, "content-type") == 0;
    buf_clear(&line);
    if (header->value[0] == '\0')
      buf_printf(&line, "%s;", header->name); /* libcurl's form of an empty field */
    else
      buf_printf(&line, "%s: %s", header->name, header->value);
    append(&list, line.data);
  }
  buf_free(&line);
  if (has_body) {
    append(&list, "Expect:");
    if (!has_type)
      append(&list, "Content-Type:");
  }
  return list;
}

bool setup_easy(struct http_call *call) {
  CURL *easy = call->kept.easy;
  const char *method = call->body_dropped && strcmp(call->request.method, "HEAD") != 0 ? "GET" : call->request.method;
  bool is_post = strcmp(method, "POST") == 0;
  bool has_body = !call->body_dropped && (call->kept.request_body.length > 0 || is_post);
  bool head = strcmp(method, "HEAD") == 0;
  curl_slist_free_all(call->fields);
  call->fields = build_fields(call, has_body);
  CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, call->url);
  if (head) {
    curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, NULL);
  } else {
    curl_easy_setopt(easy, CURLOPT_NOBODY, 0L);
    curl_easy_setopt(easy, has_body ? CURLOPT_POST : CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, strcmp(method, has_body ? "POST" : "GET") == 0 ? NULL : method);
  }
  if (has_body && !head) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->kept.request_body.length);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
                     call->kept.request_body.data != NULL ? call->kept.request_body.data : "");
  }
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->fields);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)call->request.connect_timeout_ms);
  curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, call->request.decompress ? "gzip, deflate" : NULL);
  call->sent = false;
  return code == CURLE_OK;
}

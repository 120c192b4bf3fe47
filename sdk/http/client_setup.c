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
  char first = (char)(name[0] | 0x20); /* a letter of the lists in either case: most names end here */
  for (size_t i = 0; i < count; i++)
    if (list[i][0] == first && strcasecmp(name, list[i]) == 0)
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

/* The fields as lines for libcurl, in the arena. */
static void copy_fields(struct http_call *call, const struct http_client_request *request) {
  call->fields = arena_alloc(call->kept.arena, (request->header_count + 1) * sizeof(*call->fields));
  call->field_count = request->header_count;
  for (size_t i = 0; i < request->header_count; i++) {
    const struct http_header *header = &request->headers[i];
    size_t name_length = strlen(header->name), value_length = strlen(header->value);
    char *line = arena_alloc(call->kept.arena, name_length + 2 + value_length + 1), *end = line + name_length;
    memcpy(line, header->name, name_length);
    if (value_length == 0) {
      *end++ = ';'; /* libcurl's form of an empty field */
    } else {
      *end++ = ':';
      *end++ = ' ';
      memcpy(end, header->value, value_length);
      end += value_length;
    }
    *end = '\0';
    call->fields[i] = (struct http_call_field){
        .line = {.data = line},
        .length = (size_t)(end - line),
        .is_private = i < request->private_header_count || IS_IN(header->name, credential_fields),
        .is_content = strncasecmp(header->name, "content-", 8) == 0,
    };
    call->has_agent = call->has_agent || strcasecmp(header->name, "user-agent") == 0;
    call->has_encoding = call->has_encoding || strcasecmp(header->name, "accept-encoding") == 0;
    call->has_type = call->has_type || strcasecmp(header->name, "content-type") == 0;
  }
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
  copy_fields(call, request);
  copy->headers = NULL; /* the caller's */
  buf_append(&call->kept.request_body, request->body, request->body_bytes);
  default_i64(&copy->timeout_ms, TIMEOUT_DEFAULT_MS);
  default_i64(&copy->connect_timeout_ms, CONNECT_TIMEOUT_DEFAULT_MS);
  default_size(&copy->response_bytes_max, RESPONSE_BYTES_DEFAULT);
  default_size(&copy->response_header_bytes_max, RESPONSE_HEADER_BYTES_DEFAULT);
  bool ok = setup_set_url(call, request->url, err);
  call->cross_origin = false; /* the kept origin was that of another request */
  return ok;
}

/* The length of "scheme://authority", when what follows is a path or nothing. */
static size_t origin_length(const char *url) {
  const char *authority = strstr(url, "://");
  return authority == NULL ? 0 : (size_t)(authority - url) + 3 + strcspn(authority + 3, "/?#");
}

/* Whether what comes behind the origin can be sent as it is written: a path, perhaps a query, nothing to encode and
 * nothing to leave away. */
static bool is_plain_target(const char *target) {
  if (*target != '/')
    return false;
  for (; *target != '\0'; target++)
    if ((unsigned char)*target <= 0x20 || (unsigned char)*target >= 0x7f || *target == '\\' || *target == '#')
      return false;
  return true;
}

/* Whether the URL begins as the one before it did, which was read, judged and allowed: scheme, host and port follow
 * from these bytes alone. */
static bool same_as_before(const struct http_call_kept *kept, const char *url) {
  return kept->origin_text != NULL && strncmp(url, kept->origin_text, kept->origin_length) == 0 &&
         is_plain_target(url + kept->origin_length);
}

/* Tells libcurl where to connect to. */
static bool set_address(struct http_call_kept *kept, const char *url, bool is_origin, struct error *err) {
  kept->address_is_origin = is_origin;
  if (curl_url_set(kept->address, CURLUPART_URL, url, CURLU_PATH_AS_IS) == CURLUE_OK)
    return true;
  base_free(BASE_TAKE(kept->origin_text)); /* so that the next URL is read and judged, whatever the address is now */
  return error_set(err, ERR_HTTP_URL_INVALID, NULL);
}

static bool keep_origin(struct http_call *call, struct http_url *parsed, const char *url) {
  struct http_call_kept *kept = &call->kept;
  if (kept->origin.host != NULL && !http_url_same_origin(&kept->origin, parsed))
    call->cross_origin = true; /* for good: coming back does not bring the credentials back */
  base_free(BASE_TAKE(parsed->path));
  base_free(BASE_TAKE(parsed->query));
  http_url_clear(&kept->origin);
  kept->origin = *parsed;
  base_free(kept->origin_text);
  kept->origin_length = origin_length(url);
  kept->origin_text = base_strndup(url, kept->origin_length);
  return is_plain_target(url + kept->origin_length);
}

bool setup_set_url(struct http_call *call, const char *url, struct error *err) {
  struct http_call_kept *kept = &call->kept;
  call->url = arena_strdup(call->kept.arena, url);
  if (same_as_before(kept, call->url))
    return kept->address_is_origin || set_address(kept, kept->origin_text, true, err);
  struct http_url parsed;
  if (!http_url_parse(url, &parsed, err))
    return false;
  bool ok = parsed.has_credentials ? error_set(err, ERR_HTTP_URL_INVALID, "A URL must not carry credentials.")
                                   : http_egress_check_url(kept->client->egress, &parsed, err);
  if (!ok) {
    http_url_clear(&parsed);
    return false;
  }
  bool is_plain = keep_origin(call, &parsed, url);
  return set_address(kept, is_plain ? kept->origin_text : url, is_plain, err);
}

/* The fields of this hop, linked. */
static struct curl_slist *link_fields(struct http_call *call, bool has_body) {
  static char encodings[] = "Accept-Encoding: gzip, deflate";
  static char expect[] = "Expect:", type[] = "Content-Type:"; /* libcurl adds none of its own */
  struct curl_slist *first = NULL, **end = &first;
  const struct {
    char *line;
    bool is_wanted;
  } own[HTTP_CALL_OWN_FIELDS] = {{call->kept.client->agent_field, !call->has_agent},
                                 {encodings, call->request.decompress && !call->has_encoding},
                                 {expect, has_body},
                                 {type, has_body && !call->has_type}};
  for (size_t i = 0; i < HTTP_CALL_OWN_FIELDS; i++) {
    if (!own[i].is_wanted)
      continue;
    call->own_fields[i].data = own[i].line;
    *end = &call->own_fields[i];
    end = &call->own_fields[i].next;
  }
  for (size_t i = 0; i < call->field_count; i++) {
    struct http_call_field *field = &call->fields[i];
    if ((call->cross_origin && field->is_private) || (call->body_dropped && field->is_content))
      continue;
    *end = &field->line;
    end = &field->line.next;
  }
  *end = NULL;
  return first;
}

bool setup_easy(struct http_call *call) {
  CURL *easy = call->kept.easy;
  const char *method = call->body_dropped && strcmp(call->request.method, "HEAD") != 0 ? "GET" : call->request.method;
  bool is_post = strcmp(method, "POST") == 0;
  bool has_body = !call->body_dropped && (call->kept.request_body.length > 0 || is_post);
  bool head = strcmp(method, "HEAD") == 0;
  CURLcode code = curl_easy_setopt(easy, CURLOPT_REQUEST_TARGET,
                                   call->kept.address_is_origin ? call->url + call->kept.origin_length : NULL);
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
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, link_fields(call, has_body));
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)call->request.connect_timeout_ms);
  if (call->request.decompress != call->kept.decompress) {
    call->kept.decompress = call->request.decompress;
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, call->kept.decompress ? "gzip, deflate" : NULL);
  }
  call->sent = false;
  return code == CURLE_OK;
}

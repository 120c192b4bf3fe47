/* client_call.c: one call from start to end: the answer as libcurl hands it over, its limits, its deadlines, the
 * redirects, and the one place where it ends with on_done. */
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sdk/http/client_internal.h"

/* libcurl's result → our code; everything else is a broken protocol. */
static const struct {
  CURLcode curl;
  enum error_code code;
} results[] = {
    {CURLE_URL_MALFORMAT, ERR_HTTP_URL_INVALID},
    {CURLE_UNSUPPORTED_PROTOCOL, ERR_HTTP_URL_INVALID},
    {CURLE_COULDNT_RESOLVE_HOST, ERR_HTTP_UPSTREAM_CONNECT},
    {CURLE_COULDNT_CONNECT, ERR_HTTP_UPSTREAM_CONNECT},
    {CURLE_INTERFACE_FAILED, ERR_HTTP_UPSTREAM_CONNECT},
    {CURLE_OPERATION_TIMEDOUT, ERR_HTTP_UPSTREAM_TIMEOUT},
    {CURLE_SSL_CONNECT_ERROR, ERR_HTTP_UPSTREAM_TLS},
    {CURLE_PEER_FAILED_VERIFICATION, ERR_HTTP_UPSTREAM_TLS},
    {CURLE_SSL_CERTPROBLEM, ERR_HTTP_UPSTREAM_TLS},
    {CURLE_SSL_CIPHER, ERR_HTTP_UPSTREAM_TLS},
    {CURLE_SSL_CACERT_BADFILE, ERR_HTTP_UPSTREAM_TLS},
    {CURLE_SSL_ISSUER_ERROR, ERR_HTTP_UPSTREAM_TLS},
    {CURLE_OUT_OF_MEMORY, ERR_INTERNAL},
};

/* ---- timers ---- */

static void upstream_error(struct error *error, enum error_code code) {
  error_set(error, code, NULL);
  if (error->category == ERROR_CATEGORY_UPSTREAM_ERROR)
    error->origin = ERROR_ORIGIN_UPSTREAM;
}

static void on_silence(evutil_socket_t fd, short what, void *context) {
  struct http_call *call = context;
  (void)fd, (void)what;
  if (call->cancelled) { /* the kick has not come yet */
    call_free(call);
    return;
  }
  struct error error;
  upstream_error(&error, ERR_HTTP_UPSTREAM_TIMEOUT);
  call_fail(call, &error);
}

static int64_t us_of_ms(int64_t ms) {
  int64_t us;
  return __builtin_mul_overflow(ms, 1000, &us) ? INT64_MAX : us;
}

static void arm(struct event *timer, int64_t wait_us) {
  struct timeval timeout = {.tv_sec = wait_us / 1000000, .tv_usec = wait_us % 1000000};
  event_add(timer, &timeout);
}

static void arm_deadline(struct http_call *call, int64_t now_us) {
  call->kept.deadline_pending_us = call->deadline_us;
  arm(call->kept.deadline, call->deadline_us - now_us);
}

/* It may be an earlier call's: then this one's is still to come, or nothing is under way. */
static void on_deadline(evutil_socket_t fd, short what, void *context) {
  struct http_call *call = context;
  int64_t now_us = clock_monotonic_us();
  call->kept.deadline_pending_us = INT64_MAX;
  if (call->magic != HTTP_CALL_MAGIC)
    return;
  if (call->deadline_us > now_us)
    arm_deadline(call, now_us);
  else
    on_silence(fd, what, context);
}

void call_timers_start(struct http_call *call) {
  int64_t now_us = clock_monotonic_us();
  if (__builtin_add_overflow(us_of_ms(call->request.timeout_ms), now_us, &call->deadline_us))
    call->deadline_us = INT64_MAX - 1;
  if (call->deadline_us < call->kept.deadline_pending_us)
    arm_deadline(call, now_us);
  call_arm_idle(call);
}

void call_arm_idle(struct http_call *call) {
  if (call->request.idle_timeout_ms <= 0)
    return;
  if (call->paused)
    event_del(call->kept.idle);
  else
    arm(call->kept.idle, us_of_ms(call->request.idle_timeout_ms));
}

/* ---- what libcurl asks and tells; nothing here may call libcurl's multi interface ---- */

curl_socket_t call_on_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address) {
  struct http_call *call = context;
  (void)purpose;
  if (!http_egress_check_address(call->kept.client->egress, &call->kept.origin, &address->addr, NULL)) {
    call->blocked = true;
    return CURL_SOCKET_BAD;
  }
  int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
  if (fd >= 0)
    client_socket_opened(call->kept.client, fd);
  return fd;
}

/* libcurl sends a request again when a kept connection was closed before a byte of the answer came. The upstream may
 * have carried it out all the same, so that is for methods only where twice is once (RFC 9110, 9.2.2). */
int call_on_send(void *context, char *address, char *local_address, int port, int local_port) {
  static const char *const once_only[] = {"POST", "PATCH"};
  struct http_call *call = context;
  (void)address, (void)local_address, (void)port, (void)local_port;
  bool again = call->sent;
  call->sent = true;
  for (size_t i = 0; again && !call->body_dropped && i < sizeof(once_only) / sizeof(once_only[0]); i++)
    if (strcmp(call->request.method, once_only[i]) == 0)
      return CURL_PREREQFUNC_ABORT;
  return CURL_PREREQFUNC_OK;
}

static void push_header(struct http_call *call, const char *line, size_t length) {
  struct http_client_response *response = &call->response;
  const char *colon = memchr(line, ':', length);
  if (colon == NULL)
    return;
  const char *value = colon + 1;
  const char *end = line + length;
  while (value < end && (*value == ' ' || *value == '\t'))
    value++;
  while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
    end--;
  if (response->header_count == call->reply_header_capacity) {
    size_t bigger = call->reply_header_capacity == 0 ? 16 : call->reply_header_capacity * 2;
    struct http_header *grown = arena_alloc(call->kept.reply_arena, bigger * sizeof(*grown));
    if (response->header_count > 0)
      memcpy(grown, call->reply_headers, response->header_count * sizeof(*grown));
    call->reply_headers = grown;
    call->reply_header_capacity = bigger;
  }
  call->reply_headers[response->header_count++] =
      (struct http_header){arena_memdup(call->kept.reply_arena, line, (size_t)(colon - line)),
                           arena_memdup(call->kept.reply_arena, value, (size_t)(end - value))};
  response->headers = call->reply_headers;
}

static void forget_headers(struct http_call *call) {
  arena_reset(call->kept.reply_arena);
  call->reply_headers = NULL;
  call->reply_header_capacity = 0;
  call->response.headers = NULL;
  call->response.header_count = 0;
}

static bool is_redirect(const struct http_client_response *response) {
  int status = response->status;
  bool kind = status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
  return kind && http_client_response_header(response, "location") != NULL;
}

static void headers_complete(struct http_call *call) {
  long status = 0;
  curl_easy_getinfo(call->kept.easy, CURLINFO_RESPONSE_CODE, &status);
  if (status < 200)
    return; /* interim */
  call->headers_done = true;
  call->response.status = (int)status;
  call->redirecting = call->request.redirects_max > 0 && is_redirect(&call->response);
  if (!call->redirecting && call->request.on_headers != NULL)
    call->request.on_headers(call->request.context, call, &call->response);
}

size_t call_on_header(char *data, size_t size, size_t count, void *context) {
  struct http_call *call = context;
  size_t length = size * count;
  if (call->cancelled)
    return 0;
  call_arm_idle(call);
  call->header_bytes += length;
  if (call->header_bytes > call->request.response_header_bytes_max) {
    call->too_large = true;
    return 0;
  }
  if (call->headers_done)
    return length; /* trailers */
  size_t text = length;
  while (text > 0 && (data[text - 1] == '\r' || data[text - 1] == '\n'))
    text--;
  if (text == 0)
    headers_complete(call);
  else if (text >= 5 && memcmp(data, "HTTP/", 5) == 0)
    forget_headers(call);
  else
    push_header(call, data, text);
  return call->cancelled ? 0 : length;
}

size_t call_on_data(char *data, size_t size, size_t count, void *context) {
  struct http_call *call = context;
  size_t length = size * count;
  if (call->cancelled)
    return 0;
  if (call->paused) {
    call->curl_paused = true;
    return CURL_WRITEFUNC_PAUSE;
  }
  call_arm_idle(call);
  if (call->request.response_bytes_max != SIZE_MAX && length > call->request.response_bytes_max - call->body_bytes) {
    call->too_large = true;
    return 0;
  }
  call->body_bytes += call->request.response_bytes_max != SIZE_MAX ? length : 0;
  if (call->redirecting)
    return length;
  if (call->request.on_data == NULL)
    buf_append(&call->kept.body, data, length);
  else if (length > 0)
    call->request.on_data(call->request.context, call, data, length);
  return call->cancelled ? 0 : length;
}

/* ---- the end ---- */

static void leave_multi(struct http_call *call) {
  if (call->added)
    curl_multi_remove_handle(call->kept.client->multi, call->kept.easy);
  call->added = false;
}

static struct http_call *call_create(struct http_client *client) {
  struct http_call *call = BASE_NEW(struct http_call);
  CURL *easy = client_easy_create(client);
  call->kept = (struct http_call_kept){.client = client,
                                       .easy = easy,
                                       .arena = arena_create(1024),
                                       .reply_arena = arena_create(2048),
                                       .deadline = evtimer_new(client->base, on_deadline, call),
                                       .deadline_pending_us = INT64_MAX,
                                       .idle = evtimer_new(client->base, on_silence, call),
                                       .address = curl_url()};
  BASE_CHECK(call->kept.deadline != NULL && call->kept.idle != NULL && call->kept.address != NULL);
  curl_easy_setopt(easy, CURLOPT_CURLU, call->kept.address);
  curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, call);
  curl_easy_setopt(easy, CURLOPT_PREREQDATA, call);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, call);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->error_text);
  return call;
}

void call_destroy(struct http_call *call) {
  struct http_call_kept *kept = &call->kept;
  curl_easy_cleanup(kept->easy);
  curl_url_cleanup(kept->address);
  event_free(kept->deadline);
  event_free(kept->idle);
  http_url_clear(&kept->origin);
  base_free(kept->origin_text);
  buf_free(&kept->request_body);
  buf_free(&kept->body);
  arena_free(&kept->reply_arena);
  arena_free(&kept->arena);
  base_free(call);
}

struct http_call *call_take(struct http_client *client) {
  struct http_call *call = client->kept_count > 0 ? client->kept[--client->kept_count] : call_create(client);
  call->magic = HTTP_CALL_MAGIC;
  TAILQ_INSERT_TAIL(&client->calls, call, link);
  client->call_count++;
  return call;
}

static void buffer_empty(struct buf *buffer) {
  if (buffer->capacity > HTTP_BUFFER_KEPT_BYTES)
    buf_free(buffer);
  else
    buf_clear(buffer);
}

/* Fields and body may hold a credential, and their memory may wait long for its next use. */
static void request_wipe(struct http_call *call) {
  for (size_t i = 0; i < call->field_count; i++)
    explicit_bzero(call->fields[i].line.data, call->fields[i].length);
  if (call->kept.request_body.data != NULL)
    explicit_bzero(call->kept.request_body.data, call->kept.request_body.length);
}

void call_free(struct http_call *call) {
  BASE_CHECK_MAGIC(call, HTTP_CALL_MAGIC);
  struct http_call_kept *kept = &call->kept;
  struct http_client *client = kept->client;
  leave_multi(call);
  TAILQ_REMOVE(&client->calls, call, link);
  client->call_count--;
  if (call->request.idle_timeout_ms > 0)
    event_del(kept->idle);
  curl_easy_setopt(kept->easy, CURLOPT_HTTPHEADER, NULL); /* nothing of the finished call stays referenced */
  curl_easy_setopt(kept->easy, CURLOPT_POSTFIELDS, NULL);
  request_wipe(call);
  buffer_empty(&kept->request_body);
  buffer_empty(&kept->body);
  arena_reset(kept->arena);
  arena_reset(kept->reply_arena);
  *call = (struct http_call){.kept = *kept}; /* without its magic: it is nobody's now */
  if (client->kept_count < HTTP_CALLS_KEPT_MAX)
    client->kept[client->kept_count++] = call;
  else
    call_destroy(call);
}

static void finish(struct http_call *call, const struct error *error) {
  leave_multi(call);
  call->response.url = call->url;
  call->response.body = &call->kept.body;
  if (call->kept.body.data == NULL)
    buf_append(&call->kept.body, "", 0);
  call->request.on_done(call->request.context, call, &call->response, error);
  call_free(call);
}

void call_fail(struct http_call *call, const struct error *error) {
  finish(call, error);
}

static void translate(struct http_call *call, CURLcode code, struct error *error) {
  enum error_code ours = ERR_HTTP_UPSTREAM_PROTOCOL;
  for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++)
    if (results[i].curl == code)
      ours = results[i].code;
  if (call->too_large)
    ours = ERR_HTTP_UPSTREAM_TOO_LARGE;
  else if (call->blocked && ours == ERR_HTTP_UPSTREAM_CONNECT)
    ours = ERR_HTTP_URL_BLOCKED;
  upstream_error(error, ours);
  log_event(LOG_WARN, "http", "upstream call failed", LOG_TEXT("host", call->kept.origin.host),
            LOG_TEXT("code", error->code), LOG_TEXT("detail", call->error_text));
}

/* The next hop; false: the call is over with *error. */
static bool follow(struct http_call *call, struct error *error) {
  if (call->response.redirects >= call->request.redirects_max) {
    upstream_error(error, ERR_HTTP_UPSTREAM_REDIRECTS);
    return false;
  }
  int status = call->response.status;
  bool was_post = strcmp(call->request.method, "POST") == 0;
  if (status == 303 || ((status == 301 || status == 302) && was_post))
    call->body_dropped = true;
  char *target = http_url_resolve(call->url, http_client_response_header(&call->response, "location"), error);
  bool ok = target != NULL && setup_set_url(call, target, error);
  base_free(target);
  if (!ok)
    return false;
  call->response.redirects++;
  call->response.status = 0;
  call->headers_done = call->redirecting = false;
  call->body_bytes = call->header_bytes = 0;
  forget_headers(call);
  leave_multi(call);
  if (!setup_easy(call) || !client_add(call))
    return error_set(error, ERR_INTERNAL, NULL);
  return true;
}

void call_completed(struct http_call *call, CURLcode code) {
  leave_multi(call);
  if (call->cancelled) {
    call_free(call);
    return;
  }
  struct error error;
  if (code != CURLE_OK) {
    translate(call, code, &error);
    finish(call, &error);
  } else if (!call->redirecting) {
    finish(call, NULL);
  } else if (!follow(call, &error)) {
    finish(call, &error);
  }
}

const char *http_client_response_header(const struct http_client_response *response, const char *name) {
  for (size_t i = 0; i < response->header_count; i++)
    if (strcasecmp(response->headers[i].name, name) == 0)
      return response->headers[i].value;
  return NULL;
}

void http_call_cancel(struct http_call *call) {
  BASE_CHECK_MAGIC(call, HTTP_CALL_MAGIC);
  if (call->kept.client->inside == 0) {
    call_free(call);
    return;
  }
  call->cancelled = true;
  client_kick_soon(call->kept.client);
}

void http_call_pause(struct http_call *call) {
  BASE_CHECK_MAGIC(call, HTTP_CALL_MAGIC);
  BASE_CHECK(call->request.on_data != NULL);
  call->paused = true;
  call_arm_idle(call);
}

void http_call_resume(struct http_call *call) {
  BASE_CHECK_MAGIC(call, HTTP_CALL_MAGIC);
  if (!call->paused)
    return;
  call->paused = false;
  call_arm_idle(call);
  if (call->curl_paused)
    client_kick_soon(call->kept.client);
}

/* post.c: one POST to an upstream and what comes back: a JSON body or an event stream. The answer is handed on as soon
 * as it is there; a stream that the upstream leaves open is read to its end, so that its connection can be used again.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "modules/mcp/upstream/upstream_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/json.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"

#define SESSION_ID_MAX 512

struct post {
  LIST_ENTRY(post) entry;
  struct upstream *upstream;
  struct http_call *http;
  struct http_sse_parser *sse; /* NULL: the body is JSON, or nothing */
  struct buf body;
  int64_t id;
  int status;
  char *session_id;
  bool reading, cancelled;            /* bytes are being looked at; given up meanwhile */
  const struct post_handler *handler; /* NULL: nobody is interested (any more) */
  void *arg;
};

/* ---- headers ---- */

void header_list_add(struct header_list *list, const char *name, const char *value) {
  list->items = base_realloc_array(list->items, list->count + 1, sizeof(*list->items));
  list->items[list->count++] = (struct http_header){.name = base_strdup(name), .value = base_strdup(value)};
}

void header_list_copy(struct header_list *list, const core_common_v1_InvocationPlan *plan) {
  for (pb_size_t i = 0; i < plan->headers_count; i++)
    if (plan->headers[i].name && plan->headers[i].value)
      header_list_add(list, plan->headers[i].name, plan->headers[i].value);
}

void header_list_append(struct header_list *list, const struct header_list *other) {
  for (size_t i = 0; i < other->count; i++)
    header_list_add(list, other->items[i].name, other->items[i].value);
}

void header_list_clear(struct header_list *list) {
  for (size_t i = 0; i < list->count; i++) {
    char *value = (char *)(uintptr_t)list->items[i].value;
    secret_wipe(value, strlen(value));
    base_free(value);
    base_free((char *)(uintptr_t)list->items[i].name);
  }
  base_free(list->items);
  *list = (struct header_list){0};
}

/* ---- answers ---- */

static void post_free(struct post *post) {
  LIST_REMOVE(post, entry);
  http_sse_parser_free(&post->sse);
  buf_free(&post->body);
  base_free(post->session_id);
  base_free(post);
}

/* Hands the answer to its owner, once. */
static void answer(struct post *post, const struct mcp_message *message, const struct error *err) {
  const struct post_handler *handler = BASE_TAKE(post->handler);
  struct post_answer value = {.http_status = post->status, .session_id = post->session_id};
  if (!handler)
    return;
  if (message) {
    value.result = message->result;
    value.error = message->error;
  }
  handler->on_answer(post->arg, &value, err);
}

static bool id_matches(const struct post *post, struct mcp_slice id) {
  char text[24];
  snprintf(text, sizeof(text), "%lld", (long long)post->id);
  return id.length == strlen(text) && memcmp(id.data, text, id.length) == 0;
}

/* One message of the upstream; what is malformed or meant for nobody is dropped. */
static void message_take(struct post *post, const char *data, size_t length) {
  struct mcp_message message;
  if (!post->handler || mcp_message_parse(data, length, &message) != MCP_FAULT_NONE)
    return;
  if (message.kind != MCP_MESSAGE_RESPONSE) {
    if (post->handler->on_message)
      post->handler->on_message(post->arg, &message, message.params);
    return;
  }
  if (post->id && id_matches(post, message.id))
    answer(post, &message, NULL);
}

static void body_take(struct post *post, const char *data, size_t length) {
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  if (!json_check(data, length, JSON_DEPTH_MAX, NULL))
    return;
  if (!json_walk(data, length, '[', &cursor)) {
    message_take(post, data, length);
    return;
  }
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) /* 2025-03-26 may answer in a batch */
    message_take(post, value, value_length);
}

static void on_event(void *context, const struct http_sse_message *message) {
  struct post *post = context;
  if (message->data_bytes && str_equal(message->event, "message"))
    body_take(post, message->data, message->data_bytes);
}

/* ---- HTTP ---- */

static void on_headers(void *context, struct http_call *call, const struct http_client_response *response) {
  struct post *post = context;
  const struct http_sse_handler handler = {.on_event = on_event, .context = post};
  const struct http_sse_limits limits = {.line_bytes_max = post->upstream->response_bytes_max,
                                         .event_bytes_max = post->upstream->response_bytes_max};
  const char *type = http_client_response_header(response, "content-type");
  const char *session_id = http_client_response_header(response, "mcp-session-id");
  (void)call;
  post->status = response->status;
  if (session_id && str_is_visible_ascii(session_id) && strlen(session_id) <= SESSION_ID_MAX && !post->session_id)
    post->session_id = base_strdup(session_id);
  if (type && strncasecmp(type, "text/event-stream", 17) == 0 && !post->sse)
    post->sse = http_sse_parser_create(&limits, &handler);
}

static void on_data(void *context, struct http_call *call, const void *data, size_t length) {
  struct post *post = context;
  struct error err = {0};
  if (!post->sse) {
    if (post->handler)
      buf_append(&post->body, data, length);
    return;
  }
  post->reading = true;
  bool ok = http_sse_parser_feed(post->sse, data, length, &err);
  post->reading = false;
  if (ok && !post->cancelled)
    return;
  http_call_cancel(call);
  post->http = NULL;
  if (!ok)
    answer(post, NULL, &err);
  post_free(post);
}

static void on_done(void *context, struct http_call *call, const struct http_client_response *response,
                    const struct error *err) {
  struct post *post = context;
  (void)call, (void)response;
  post->http = NULL;
  post->reading = true; /* a cancel in a callback leaves the freeing to us */
  if (!err && !post->sse && post->body.length)
    body_take(post, post->body.data, post->body.length);
  answer(post, NULL, err); /* if nothing else was one */
  post_free(post);
}

struct post *post_start(struct upstream *upstream, const struct post_request *request,
                        const struct post_handler *handler, void *arg, struct error *err) {
  struct post *post = BASE_NEW(struct post);
  header_list_add(request->headers, "Content-Type", "application/json");
  header_list_add(request->headers, "Accept", "application/json, text/event-stream");
  const struct http_client_request http_request = {
      .method = "POST",
      .url = upstream->url,
      .headers = request->headers->items,
      .header_count = request->headers->count,
      .body = request->body->data,
      .body_bytes = request->body->length,
      .timeout_ms = request->timeout_ms,
      .response_bytes_max = upstream->response_bytes_max,
      .redirects_max = upstream->redirects_max,
      .decompress = true,
      .on_headers = on_headers,
      .on_data = on_data,
      .on_done = on_done,
      .context = post,
  };
  post->upstream = upstream;
  post->id = request->id;
  post->handler = handler;
  post->arg = arg;
  LIST_INSERT_HEAD(&upstream->posts, post, entry);
  post->http = http_client_start(upstream->http, &http_request, err);
  header_list_clear(request->headers);
  if (!post->http) {
    post_free(post);
    return NULL;
  }
  return post;
}

void post_cancel(struct post *post) {
  post->handler = NULL;
  if (post->reading) {
    post->cancelled = true;
    return;
  }
  if (post->http)
    http_call_cancel(BASE_TAKE(post->http));
  post_free(post);
}

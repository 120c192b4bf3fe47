/* request.c: a plan made into a request: method, URL, headers, query or body, in that order (docs/rest.md). The
 * plan's headers come first and are marked private: none of them follows a redirect to another origin. */
#include <string.h>
#include <strings.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/str.h"

#define EXTRA_HEADERS_MAX 4 /* content-type, accept, traceparent, tracestate */
#define BUFFER_KEPT_BYTES 65536
#define ACCEPT_DEFAULT "application/json, text/*;q=0.9, */*;q=0.8"

/* Where the arguments go. DELETE is like GET unless the plan names a content type: most servers ignore its body. */
enum placement { PLACE_QUERY, PLACE_BODY, PLACE_BY_TYPE };
static const struct {
  const char *name;
  enum placement placement;
} methods[] = {{"GET", PLACE_QUERY},  {"POST", PLACE_BODY},      {"PUT", PLACE_BODY},
               {"PATCH", PLACE_BODY}, {"DELETE", PLACE_BY_TYPE}, {"HEAD", PLACE_QUERY}};

static const char *header_value(const struct rest_request *request, const char *name) {
  for (size_t i = 0; i < request->header_count; i++)
    if (strcasecmp(request->headers[i].name, name) == 0)
      return request->headers[i].value;
  return NULL;
}

static void header_default(struct rest_request *request, const char *name, const char *value) {
  if (!str_is_empty(value) && !header_value(request, name))
    request->headers[request->header_count++] = (struct http_header){name, value};
}

/* The plan's headers; its content type apart, because the body decides about that one. */
static const char *plan_headers_take(const core_common_v1_InvocationPlan *plan, struct rest_request *request) {
  const char *content_type = NULL;
  for (pb_size_t i = 0; i < plan->headers_count; i++) {
    const core_common_v1_Header *header = &plan->headers[i];
    const char *name = header->name ? header->name : "", *value = header->value ? header->value : "";
    if (strcasecmp(name, "content-type") == 0)
      content_type = value;
    else
      request->headers[request->header_count++] = (struct http_header){name, value};
  }
  request->private_header_count = request->header_count;
  return content_type;
}

static bool body_make(const struct rest_fields *fields, const struct rest_arguments *arguments, bool whole,
                      const char *content_type, struct rest_request *request, struct error *err) {
  enum rest_body_kind kind = rest_body_kind(content_type);
  bool ok = true;
  if (kind == REST_BODY_FORM)
    ok = rest_body_form(fields, request->arena, &request->body_buffer, err);
  else if (kind == REST_BODY_MULTIPART)
    ok = rest_body_multipart(fields, request->arena, &request->body_buffer, &content_type, err);
  else if (!whole)
    rest_body_json(fields, &request->body_buffer);
  if (!ok)
    return false;
  bool original = kind == REST_BODY_JSON && whole;
  request->body = original ? arguments->json : request->body_buffer.data;
  request->body_bytes = original ? arguments->length : request->body_buffer.length;
  header_default(request, "content-type", str_is_empty(content_type) ? "application/json" : content_type);
  return true;
}

static bool placement_find(const core_common_v1_RestPlan *rest, const char *content_type, struct rest_request *request,
                           bool *in_body, struct error *err) {
  const char *method = str_is_empty(rest->method) ? "GET" : rest->method;
  for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
    if (strcasecmp(methods[i].name, method) != 0)
      continue;
    request->method = methods[i].name;
    *in_body =
        methods[i].placement == PLACE_BODY || (methods[i].placement == PLACE_BY_TYPE && !str_is_empty(content_type));
    return true;
  }
  return error_set(err, ERR_HTTP_METHOD_UNSUPPORTED, "A REST tool's method is GET, HEAD, POST, PUT, PATCH or DELETE.");
}

bool rest_request_build(const core_common_v1_InvocationPlan *plan, struct rest_request *request, struct error *err) {
  const core_common_v1_RestPlan *rest = plan->call.rest;
  struct rest_arguments arguments;
  struct rest_fields fields = {0};
  bool in_body = false;
  if (!request->arena)
    request->arena = arena_create(0);
  size_t room = (size_t)plan->headers_count + rest->header_mapping_count;
  request->headers = arena_alloc(request->arena, (room + EXTRA_HEADERS_MAX) * sizeof(*request->headers));
  const char *content_type = plan_headers_take(plan, request);
  if (!str_is_empty(rest->content_type))
    content_type = rest->content_type;
  if (!rest_arguments_read(&arguments, request->arena, plan->arguments_json, err) ||
      !placement_find(rest, content_type, request, &in_body, err) ||
      !rest_template_expand(rest->url_template, &arguments, &request->url, err))
    return false;
  bool mapped = rest->query_mapping_count > 0 || rest->header_mapping_count > 0;
  bool whole = in_body && !mapped && !arguments.items; /* the arguments travel as they are */
  if (!whole || rest_body_kind(content_type) != REST_BODY_JSON) {
    if (!rest_arguments_split(&arguments, err) ||
        !rest_headers_map(rest, &arguments, request->headers, &request->header_count, room, err) ||
        !rest_fields_map(rest, &arguments, &fields, err))
      return false;
  }
  bool ok = in_body ? body_make(&fields, &arguments, whole, content_type, request, err)
                    : rest_query_append(&fields, request->arena, &request->url, err);
  if (!ok)
    return false;
  header_default(request, "accept", ACCEPT_DEFAULT);
  if (plan->trace) {
    header_default(request, "traceparent", plan->trace->traceparent);
    header_default(request, "tracestate", plan->trace->tracestate);
  }
  return true;
}

/* A big one does not stay. */
static void buffer_empty(struct buf *buffer) {
  if (buffer->capacity > BUFFER_KEPT_BYTES)
    buf_free(buffer);
  else
    buf_clear(buffer);
}

void rest_request_reset(struct rest_request *request) {
  struct rest_request kept = {.arena = request->arena, .url = request->url, .body_buffer = request->body_buffer};
  if (kept.arena)
    arena_reset(kept.arena);
  if (kept.body_buffer.data)
    explicit_bzero(kept.body_buffer.data, kept.body_buffer.length);
  buffer_empty(&kept.url);
  buffer_empty(&kept.body_buffer);
  *request = kept;
}

void rest_request_clear(struct rest_request *request) {
  if (request->body_buffer.data)
    explicit_bzero(request->body_buffer.data, request->body_buffer.length);
  buf_free(&request->body_buffer);
  buf_free(&request->url);
  arena_free(&request->arena);
  *request = (struct rest_request){0};
}

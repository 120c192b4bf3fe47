/* rest_internal.h: the parts of the REST module and what they hand each other. Everything runs on the module's one
 * loop.
 *
 * One invocation: arguments → template (URL) → mapping (headers, fields) → query or body → http_client → [filter] →
 * result. What the plan says is the operator's word, approved by the core; what the arguments say is anybody's; what
 * the upstream says is anybody's too. Docs: docs/rest.md. */
#ifndef GATEHOUSE_REST_INTERNAL_H
#define GATEHOUSE_REST_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/error.h"
#include "sdk/http/http_client.h"
#include "wire/nano/core/common/v1/common.pb.h"

struct event_base;
struct module;
struct module_invocation;

#define REST_ARGUMENTS_MAX 1024
#define REST_URL_BYTES_MAX 16384
#define REST_RESPONSE_BYTES_DEFAULT (8u << 20)
#define REST_RESPONSE_BYTES_MAX (64u << 20)
#define REST_TIMEOUT_DEFAULT_MS 60000

/* ---- arguments.c: the arguments, as raw tokens of one JSON object ---- */

struct rest_argument {
  const char *name; /* decoded */
  const char *raw;  /* token inside the arguments */
  size_t raw_length;
  bool consumed; /* by the URL template */
};

struct rest_arguments {
  struct arena *arena; /* not owned */
  const char *json;    /* one JSON object, checked */
  size_t length;
  struct rest_argument *items; /* NULL until split */
  size_t count;
};

/* Checks that json (NULL or "": no arguments) is one JSON object. ERR_JSON_*, ERR_ARGUMENT_INVALID. json outlives
 * *arguments. */
bool rest_arguments_read(struct rest_arguments *arguments, struct arena *arena, const char *json, struct error *err);

/* Takes the object apart, once. ERR_ARGUMENT_INVALID: a name twice, or with U+0000; ERR_ARGUMENT_TOO_LARGE. */
bool rest_arguments_split(struct rest_arguments *arguments, struct error *err);
struct rest_argument *rest_arguments_find(const struct rest_arguments *arguments, const char *name); /* after split */

enum rest_value_kind { REST_VALUE_NULL, REST_VALUE_BOOL, REST_VALUE_NUMBER, REST_VALUE_STRING, REST_VALUE_OTHER };
enum rest_value_kind rest_value_kind(const char *raw);

/* A string, number or boolean as text in the arena: strings decoded, numbers in their shortest form ("1.0" → "1").
 * ERR_ARGUMENT_INVALID, naming `name`, for null, arrays, objects and strings with U+0000. */
const char *rest_value_text(struct arena *arena, const char *name, const char *raw, size_t raw_length,
                            struct error *err);

/* ---- template.c: the URL ---- */

/* Appends the URL that the template gives, every {name} replaced by its argument (which becomes consumed). Scheme and
 * authority are the template's bytes; a value is percent-encoded and can be no, one or several segments of nothing:
 * path segments that come out empty, "." or ".." are refused, as are such parts inside a value. Splits the arguments
 * when it needs them. ERR_ARGUMENT_MISSING, ERR_ARGUMENT_INVALID, ERR_ARGUMENT_TOO_LARGE; ERR_HTTP_URL_INVALID when the
 * template itself is wrong. */
bool rest_template_expand(const char *url_template, struct rest_arguments *arguments, struct buf *url,
                          struct error *err);

/* ---- mapping.c: which arguments travel where ---- */

/* A named value on its way upstream. */
struct rest_field {
  const char *name;
  const char *raw;
  size_t raw_length;
};

struct rest_fields {
  struct rest_field *items; /* in the arena */
  size_t count;
};

/* Whether arguments may set this header at all (docs/rest.md). */
bool rest_header_target_is_allowed(const char *name);

/* The header mapping, into headers[0..*count) with room for `room`. Reads consumed arguments too; null and absent ones
 * set nothing; a name that is among the headers already is refused. ERR_ARGUMENT_INVALID. */
bool rest_headers_map(const core_common_v1_RestPlan *plan, const struct rest_arguments *arguments,
                      struct http_header *headers, size_t *count, size_t room, struct error *err);

/* What is left for query or body: with any mapping present the mapped arguments under their new names (scalars only),
 * else all arguments that the template did not consume. ERR_ARGUMENT_INVALID. */
bool rest_fields_map(const core_common_v1_RestPlan *plan, const struct rest_arguments *arguments,
                     struct rest_fields *fields, struct error *err);

/* Appends the fields to the URL's query: arrays of scalars repeat the name, null is left out, a name that the URL has
 * already is left to the URL. ERR_ARGUMENT_INVALID for objects. */
bool rest_query_append(const struct rest_fields *fields, struct arena *arena, struct buf *url, struct error *err);

/* ---- body.c ---- */

enum rest_body_kind { REST_BODY_JSON, REST_BODY_FORM, REST_BODY_MULTIPART };
enum rest_body_kind rest_body_kind(const char *content_type);

void rest_body_json(const struct rest_fields *fields, struct buf *body);
/* Arrays of scalars repeat the name, null is left out. ERR_ARGUMENT_INVALID for objects. */
bool rest_body_form(const struct rest_fields *fields, struct arena *arena, struct buf *body, struct error *err);
/* Arrays and objects travel as parts of type application/json. The boundary is random. *content_type: in the arena. */
bool rest_body_multipart(const struct rest_fields *fields, struct arena *arena, struct buf *body,
                         const char **content_type, struct error *err);

/* ---- request.c: a plan made into a request ---- */

struct rest_request {
  struct arena *arena;
  const char *method;
  struct buf url;
  struct http_header *headers; /* the plan's first; their values stay in the plan */
  size_t header_count;
  size_t private_header_count; /* how many came from the plan */
  struct buf body_buffer;
  const void *body; /* NULL: none */
  size_t body_bytes;
};

/* Fills *request (zeroed or reset before). The plan outlives it. Errors as above, and ERR_HTTP_METHOD_UNSUPPORTED. */
bool rest_request_build(const core_common_v1_InvocationPlan *plan, struct rest_request *request, struct error *err);
void rest_request_reset(struct rest_request *request); /* wipes, keeps some memory for the next one */
void rest_request_clear(struct rest_request *request); /* wipes; fine on a zeroed struct */

/* ---- egress.c: clients by policy ---- */

struct rest_clients;
struct rest_clients *rest_clients_create(struct event_base *base);
void rest_clients_free(struct rest_clients **clients); /* cancels what is in flight; nulls; NULL-safe */
size_t rest_clients_count(const struct rest_clients *clients);

/* The client that enforces this policy (NULL: the default one). It may be gone after the next call of this function,
 * unless it has calls in flight. Not from inside an http_client callback. ERR_ARGUMENT_INVALID: the policy cannot be
 * read. ERR_HTTP_URL_BLOCKED: it allows no scheme that this module speaks. */
struct http_client *rest_clients_get(struct rest_clients *clients, const core_common_v1_EgressPolicy *policy,
                                     struct error *err);

/* ---- result.c: an answer made into a tool result ---- */

struct rest_reply {
  int status;
  const char *content_type; /* NULL: none was named */
  const char *body;
  size_t length;
  bool wants_object; /* the tool declares an output schema */
};

struct rest_result {
  struct buf content;    /* JSON array of content blocks */
  struct buf structured; /* JSON; empty: none */
  bool is_error;
};

bool rest_status_is_success(int status);
/* True when the body is JSON; *body and *length are narrowed to it (byte order mark and white space aside). */
bool rest_reply_is_json(const char **body, size_t *length);
void rest_result_make(const struct rest_reply *reply, struct rest_result *result);
/* A tool error in our own words. */
void rest_result_refuse(struct rest_result *result, const char *text);
void rest_result_clear(struct rest_result *result);

/* ---- filter.c: response filters, run by child processes ---- */

#define REST_FILTER_WORKERS_MAX 2
#define REST_FILTER_QUEUE_MAX 128
#define REST_FILTER_TIME_MS 1000 /* on a processor */
#define REST_FILTER_WAIT_MS 10000
#define REST_FILTER_PROGRAM_BYTES_MAX 16384
#define REST_FILTER_OUTPUT_BYTES_MAX (8u << 20)
#define REST_FILTER_WORKER_OPTION "--filter-worker"

enum rest_filter_outcome {
  REST_FILTER_DONE,
  REST_FILTER_INVALID,   /* the program does not compile */
  REST_FILTER_FAILED,    /* it failed on this input */
  REST_FILTER_EMPTY,     /* nothing but null came out */
  REST_FILTER_TOO_LARGE, /* output, or input */
  REST_FILTER_TIMEOUT,   /* it was stopped */
  REST_FILTER_BUSY,      /* too many are waiting */
  REST_FILTER_OUTCOMES
};

struct rest_filters;
struct rest_filter_job;
/* json: valid until it returns; only for REST_FILTER_DONE. One output is itself, several are an array. */
typedef void rest_filter_done(void *arg, enum rest_filter_outcome outcome, const char *json, size_t length);

/* worker_program: path of the program that runs as worker; NULL: the one that is running. Kept by pointer. */
struct rest_filters *rest_filters_create(struct event_base *base, const char *worker_program);
void rest_filters_free(struct rest_filters **filters); /* without callbacks; nulls; NULL-safe */

/* Runs the jq program on one JSON text; both are copied. NULL: refused at once with *outcome, the callback does not
 * come. Else the callback comes once, later, unless the job is cancelled. */
struct rest_filter_job *rest_filter_start(struct rest_filters *filters, const char *program, const char *json,
                                          size_t length, rest_filter_done *done, void *arg,
                                          enum rest_filter_outcome *outcome);
void rest_filter_cancel(struct rest_filter_job *job);
const char *rest_filter_outcome_text(enum rest_filter_outcome outcome); /* for the tool's caller */

/* Frames between a filter and its worker (filter.c, filter_worker.c); machine byte order, one machine. */
struct rest_filter_request {
  uint32_t program_bytes;
  uint32_t json_bytes;
};
struct rest_filter_reply {
  uint32_t outcome;
  uint32_t json_bytes;
};

/* filter_worker.c: the life of such a child; fd is its end of the socket pair. Returns the exit code. */
int rest_filter_worker_main(int fd);

/* ---- invoke.c ---- */

struct rest {
  struct module *module;
  struct rest_clients *clients;
  struct rest_filters *filters;
  struct rest_request request; /* of the invocation that begins: http_client copies it */
  uint64_t filtered_total;
  uint32_t in_flight;
};

/* Carries out one approved call. */
void rest_invoke(struct module *module, struct module_invocation *invocation);

#endif

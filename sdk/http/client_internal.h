/* client_internal.h: the inside of the HTTP client.
 *
 *   client.c         the client: libcurl's multi handle on the loop, completions, reuse of easy handles
 *   client_call.c    one call: what libcurl asks and tells, deadlines, redirects, its end
 *   client_setup.c   a request checked, copied and turned into libcurl's options
 *
 * libcurl may not be called back from inside its own callbacks. So whatever the user does there (start, cancel, resume)
 * is noted on the call and done by client_kick() from the loop. */
#ifndef GATEHOUSE_HTTP_CLIENT_INTERNAL_H
#define GATEHOUSE_HTTP_CLIENT_INTERNAL_H

#include <curl/curl.h>
#include <event2/event.h>
#include <sys/queue.h>

#include "sdk/base/alloc.h"
#include "sdk/base/arena.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/http/http_client.h"

#define HTTP_CLIENT_MAGIC 0x48434c49u
#define HTTP_CALL_MAGIC 0x4843414cu
#define HTTP_CALLS_KEPT_MAX 64
#define HTTP_BUFFER_KEPT_BYTES 65536 /* a kept call lets go of a bigger buffer */

TAILQ_HEAD(http_call_list, http_call);

/* A socket that libcurl opened through us, by its number. Its event stays with the loop while the connection waits for
 * its next request, so that a kept connection costs no system call to watch. */
struct http_socket {
  struct event *event;
  bool ours;   /* we are told when it is closed */
  bool wanted; /* libcurl waits for it */
};

struct http_client {
  uint32_t magic;
  struct event_base *base;
  CURLM *multi;
  struct event *timer;      /* libcurl's own; never taken back: it may come too early and is then set again */
  int64_t timer_due_us;     /* when libcurl wants to be called; INT64_MAX: not at all */
  int64_t timer_pending_us; /* when the timer comes; INT64_MAX: it is not set */
  struct event *begin;      /* what was added begins, all of one turn of the loop together */
  struct event *kick;       /* postponed work */
  struct http_call_list calls;
  size_t call_count;
  struct http_call *kept[HTTP_CALLS_KEPT_MAX]; /* finished, for the next ones */
  size_t kept_count;
  struct http_socket *sockets;
  size_t socket_count;
  const struct http_egress_policy *egress;
  struct http_egress_policy *own_egress;
  char *ca_file;
  char *agent_field; /* "User-Agent: …" */
  unsigned inside;   /* libcurl is on the stack */
  bool adding;       /* a call is being added: the begin event follows */
};

/* What a call keeps for the next one. */
struct http_call_kept {
  struct http_client *client;
  CURL *easy; /* with its permanent options */
  struct arena *arena;
  struct arena *reply_arena; /* response fields of the current hop */
  struct buf request_body;
  struct buf body;
  struct event *deadline;      /* as lazy as the client's timer: it stays set from call to call */
  int64_t deadline_pending_us; /* when it comes; INT64_MAX: it is not set */
  struct event *idle;
  struct http_url origin; /* of the current hop: allowed by the policy; no path, no query */
  char *origin_text;      /* as it was written: "http://host:port"; NULL: none yet */
  size_t origin_length;
  CURLU *address;         /* what libcurl connects to: the origin, or the whole URL when it has to be encoded */
  bool address_is_origin; /* the request target is given apart */
  bool decompress;        /* as the easy handle has it */
};

/* A field of the request as libcurl takes it; in the arena. */
struct http_call_field {
  struct curl_slist line; /* linked anew for each hop */
  size_t length;
  bool is_private; /* not for another origin */
  bool is_content; /* about the body */
};

#define HTTP_CALL_OWN_FIELDS 4 /* agent, encodings, and two of libcurl's own that are kept away */

struct http_call {
  uint32_t magic;
  TAILQ_ENTRY(http_call) link;
  struct http_call_kept kept;
  struct http_client_request request; /* pointers into the arena; data callbacks; the fields are below */
  int64_t deadline_us;
  const char *url; /* of the current hop; in the arena */
  struct http_call_field *fields;
  size_t field_count;
  struct curl_slist own_fields[HTTP_CALL_OWN_FIELDS];
  bool has_agent; /* the request brings its own */
  bool has_encoding;
  bool has_type;
  struct http_client_response response;
  struct http_header *reply_headers;
  size_t reply_header_capacity;
  size_t header_bytes;
  size_t body_bytes;
  char error_text[CURL_ERROR_SIZE];
  bool added;        /* in the multi handle */
  bool headers_done; /* final header section seen */
  bool redirecting;  /* this hop's answer is a redirect that we follow */
  bool body_dropped; /* the next hop is a GET */
  bool sent;         /* this hop's request went out, or was about to */
  bool cross_origin; /* credentials are not sent any more */
  bool blocked;
  bool too_large;
  bool cancelled;
  bool paused;
  bool curl_paused;
  bool start_late; /* to be added by the kick */
};

/* client.c */
void client_kick_soon(struct http_client *client);
CURL *client_easy_create(struct http_client *client);
int client_on_close(void *context, curl_socket_t fd);
void client_socket_opened(struct http_client *client, curl_socket_t fd);
bool client_add(struct http_call *call);

/* client_setup.c */
bool setup_copy_request(struct http_call *call, const struct http_client_request *request, struct error *err);
bool setup_set_url(struct http_call *call, const char *url, struct error *err); /* copies url */
bool setup_easy(struct http_call *call);                                        /* every option of this hop */

/* client_call.c */
struct http_call *call_take(struct http_client *client);    /* a kept one or a new one, among the client's calls */
void call_destroy(struct http_call *call);                  /* a kept one, for good */
void call_free(struct http_call *call);                     /* without callbacks */
void call_completed(struct http_call *call, CURLcode code); /* libcurl is done with this hop */
void call_fail(struct http_call *call, const struct error *error);
size_t call_on_header(char *data, size_t size, size_t count, void *context);
size_t call_on_data(char *data, size_t size, size_t count, void *context);
curl_socket_t call_on_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address);
int call_on_send(void *context, char *address, char *local_address, int port, int local_port);
void call_arm_idle(struct http_call *call);
void call_timers_start(struct http_call *call);

#endif

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
#define HTTP_EASY_KEPT_MAX 64

TAILQ_HEAD(http_call_list, http_call);

struct http_client {
  uint32_t magic;
  struct event_base *base;
  CURLM *multi;
  struct event *timer; /* libcurl's own */
  struct event *kick;  /* postponed work */
  struct http_call_list calls;
  size_t call_count;
  CURL *easies[HTTP_EASY_KEPT_MAX];
  size_t easy_count;
  const struct http_egress_policy *egress;
  struct http_egress_policy *own_egress;
  char *ca_file;
  char *user_agent;
  unsigned inside; /* libcurl is on the stack */
};

struct http_call {
  uint32_t magic;
  struct http_client *client;
  TAILQ_ENTRY(http_call) link;
  struct http_client_request request; /* pointers into the arena; data callbacks */
  struct arena *arena;
  struct buf request_body;
  char *url; /* of the current hop */
  struct http_url parsed;
  CURL *easy;
  struct curl_slist *fields;
  struct event *deadline;
  struct event *idle;
  struct http_client_response response;
  struct buf body;
  struct arena *reply_arena; /* response fields of the current hop */
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
CURL *client_easy_take(struct http_client *client);
void client_easy_give(struct http_client *client, CURL *easy);
bool client_add(struct http_call *call);

/* client_setup.c */
bool setup_copy_request(struct http_call *call, const struct http_client_request *request, struct error *err);
bool setup_set_url(struct http_call *call, char *url, struct error *err); /* takes url */
bool setup_easy(struct http_call *call);                                  /* every option of this hop */

/* client_call.c */
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

/* http_client.h: the HTTP client of every module: libcurl's multi interface on the module's own libevent loop, with
 * connection pools, deadlines, size limits, streaming with back-pressure and the egress policy (RST-2, DESIGN).
 *
 * One loop, no threads of ours (libcurl resolves names in a helper thread of its own; numeric addresses need none).
 * Every function and callback runs on the loop's thread. HTTP/2 is used over TLS where the upstream offers it. No
 * proxy, no cookie, no netrc; the environment is ignored. A POST or PATCH is never sent twice; other methods are sent
 * again when a kept connection turns out closed. Redirects are followed here, up to redirects_max, each target
 * checked against the policy; credentials (Authorization, Cookie, Proxy-Authorization, X-Api-Key, Api-Key) are dropped
 * when the origin changes; 301, 302 (for POST) and 303 become GET without body, 307 and 308 repeat the request. */
#ifndef GATEHOUSE_HTTP_CLIENT_H
#define GATEHOUSE_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/buf.h"
#include "sdk/base/error.h"
#include "sdk/http/http_egress.h"
#include "sdk/http/http_header.h"

struct event_base;
struct http_client;
struct http_call;

struct http_client_options {
  const struct http_egress_policy *egress; /* NULL: the default policy. Outlives the client. One policy per client,
                                              because pooled connections were checked against it */
  const char *ca_file;                     /* PEM; NULL: the system's */
  const char *user_agent;                  /* NULL: "gatehouse/<version>" */
  long connections_max;                    /* in all; 0: 256. Calls above wait, their deadline runs */
  long connections_per_origin_max;         /* 0: 64 */
  long idle_connections_max;               /* kept for reuse; 0: 64 */
};

/* libcurl is loaded by the first call that needs it, which takes some milliseconds. This begins it on a thread of its
 * own and returns at once; a second time it does nothing. Loop's thread. */
void http_client_prepare(void);

struct http_client *http_client_create(struct event_base *base, const struct http_client_options *options);

/* Cancels every call (without callbacks) and closes the pool. Nulls; NULL-safe. Not from inside a callback. */
void http_client_free(struct http_client **client);
size_t http_client_in_flight(const struct http_client *client);

/* An answer. Everything belongs to the call and is valid until on_done returns. */
struct http_client_response {
  int status; /* 0 until the header section is complete */
  const struct http_header *headers;
  size_t header_count;
  struct buf *body; /* buffered calls: complete in on_done (its content may be taken); streamed calls: empty */
  const char *url;  /* of the last request: differs after redirects */
  unsigned redirects;
};

/* First value of a field, any case; NULL: absent. */
const char *http_client_response_header(const struct http_client_response *response, const char *name);

struct http_client_request {
  const char *method; /* NULL: GET, or POST with a body */
  const char *url;
  const struct http_header *headers; /* values with control characters, Host-smuggling and framing fields are refused */
  size_t header_count;
  size_t private_header_count; /* the first so many of headers are credentials too: dropped when the origin changes */
  const void *body;            /* copied */
  size_t body_bytes;
  int64_t
      timeout_ms; /* whole call with redirects, from now; 0: 60 s. Streams too: choose it long, or idle_timeout_ms */
  int64_t connect_timeout_ms;       /* 0: 10 s */
  int64_t idle_timeout_ms;          /* without a byte from the upstream (not while paused); 0: none */
  size_t response_bytes_max;        /* body as received; 0: 16 MiB; SIZE_MAX: unbounded (streams) */
  size_t response_header_bytes_max; /* 0: 64 KiB */
  unsigned redirects_max;           /* 0: a redirect is an answer like any other */
  bool decompress;                  /* ask for gzip, deflate; response_bytes_max counts the decompressed bytes */

  /* Final header section (interim and followed redirects are not shown). May be NULL. */
  void (*on_headers)(void *context, struct http_call *call, const struct http_client_response *response);
  /* Not NULL: the body is streamed here and not kept. */
  void (*on_data)(void *context, struct http_call *call, const void *data, size_t length);
  /* Required; exactly once, never from inside http_client_start; the call is gone when it returns. err is NULL on
   * success, which is any complete answer, whatever its status. Errors: ERR_HTTP_URL_BLOCKED,
   * ERR_HTTP_UPSTREAM_CONNECT, _TLS, _TIMEOUT, _PROTOCOL, _TOO_LARGE, ERR_HTTP_UPSTREAM_REDIRECTS. */
  void (*on_done)(void *context, struct http_call *call, const struct http_client_response *response,
                  const struct error *err);
  void *context;
};

/* Starts a call; the request is copied. NULL with ERR_HTTP_URL_INVALID, ERR_HTTP_URL_BLOCKED or ERR_ARGUMENT_INVALID
 * (method, headers) when it is refused at once; on_done is then not called. */
struct http_call *http_client_start(struct http_client *client, const struct http_client_request *request,
                                    struct error *err);

/* Ends the call now; no callback comes any more; allowed in its own on_headers and on_data (not in on_done). */
void http_call_cancel(struct http_call *call);

/* Streamed calls: stop taking bytes from the upstream, and go on. A few bytes that were already read may still be
 * delivered on resume, never while paused. Allowed in callbacks. */
void http_call_pause(struct http_call *call);
void http_call_resume(struct http_call *call);

#endif

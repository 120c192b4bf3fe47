/* http_server.h: the HTTP server of every module: HTTP/1.1 (strict), HTTP/2 (h2c by prior knowledge, h2 by ALPN), TLS,
 * streamed replies with back-pressure, server-sent events, graceful drain (DESIGN "Ingress", LIF, ERR-4).
 *
 * One libevent loop, no threads: every function here and every callback runs on the thread of the event base.
 *
 * Life of a request: the server reads it whole (unless the headers hook asks to stream the body), then calls
 * on_request. From that moment the *handler owns the request* and must finish it exactly once, at once or at any later
 * time: http_response_send*()   or   http_response_start() … http_response_end()   or   http_request_abort(). Until
 * then every pointer obtained from the request stays valid, whatever happens to the client; after it, none is.
 *
 * When the client goes away first, on_close is called once (http_request_on_close). The handler still has to finish the
 * request; what it sends is discarded. A client that only closed its sending half (FIN) looks the same on the wire as
 * one that closed altogether, so on_close is called as well, with HTTP_CLOSE_HALF: a handler that cancels on it gives
 * MCP's "closing the stream is cancellation"; one that replies nevertheless gets its reply delivered if the client
 * still reads.
 *
 * HTTP/1.1 pipelining: requests of one connection are handled one after the other, in order; bytes read ahead are
 * bounded and a disconnect is noticed even
 * while reading is stopped by that bound (as long as the kernel can take the client's last bytes: a FIN stands behind
 * them). HTTP/2 streams are handled
 * concurrently.
 *
 * Refused by the server itself, with a body made by the error hook: malformed messages (400), time-outs (408), bodies
 * (413), targets (414), header sections (431) over their limit, CONNECT and unknown transfer codings (501), versions
 * (505), too many connections (503). After such a refusal an HTTP/1.1 connection is closed in order (lingering, so that
 * the client can read the reply). */
#ifndef GATEHOUSE_HTTP_SERVER_H
#define GATEHOUSE_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/error.h"
#include "sdk/http/http_header.h"

struct event_base;
struct http_server;
struct http_request;
struct http_tls; /* http_tls.h */

/* ---- the loop ---- */

/* An event base tuned for many short exchanges (epoll change list: half the epoll_ctl calls). SIGPIPE is ignored from
 * here on, unless the process handles it: writing to a peer that has gone is an error of that write. Never NULL; free
 * it with event_base_free. */
struct event_base *http_event_base_new(void);

/* ---- the server ---- */

struct http_server_limits {
#define HTTP_LIMIT(name, type, default_value, meaning) type name;
#include "sdk/http/http_server_limits.def"
#undef HTTP_LIMIT
};

/* A request that is complete and now belongs to the handler. */
typedef void (*http_request_handler)(void *context, struct http_request *request);

/* What the headers hook wants with the body. */
enum http_body_mode {
  HTTP_BODY_BUFFER, /* read it whole, then on_request (the default) */
  HTTP_BODY_STREAM, /* on_request is called at once; the handler has called, or calls there, http_request_body_stream */
  HTTP_BODY_REFUSE, /* the hook has finished the request already (401, 413, …); the body is not read, the connection
                       closes when there is one */
};

/* Called when the header section is complete and before any of the body is read (and before "100 Continue" is sent). */
typedef enum http_body_mode (*http_headers_handler)(void *context, struct http_request *request);

/* Renders an error the server itself must answer: append the body and return its media type (static text). path is the
 * raw path when it is known, else NULL. */
typedef const char *(*http_error_renderer)(void *context, int status, const struct error *error, const char *path,
                                           struct buf *body);

struct http_server_options {
  struct http_server_limits limits;
  http_request_handler on_request;  /* required */
  http_headers_handler on_headers;  /* may be NULL */
  http_error_renderer render_error; /* NULL: application/problem+json with the stable code in "code" */
  void *context;                    /* handed to the three */
  bool http2_disabled;
};

/* Fills options with the defaults of http_server_limits.def; everything else zero. */
void http_server_options_init(struct http_server_options *options);

/* The options are copied; base outlives the server. Never NULL. */
struct http_server *http_server_create(struct event_base *base, const struct http_server_options *options);

/* Closes listeners and connections; requests that a handler still owns get on_close (HTTP_CLOSE_SHUTDOWN) and stay
 * valid until they are finished. Nulls the pointer; NULL-safe. Must not be called from inside a callback of this
 * server. */
void http_server_free(struct http_server **server);

/* Takes over a listening socket (TCP or Unix), e.g. one of LISTEN_FDS; the server closes it. tls may be NULL (plain
 * text); it must outlive the server. Errors: ERR_IO when fd is no listening socket (fd is then still the caller's). */
bool http_server_listen_fd(struct http_server *server, int fd, struct http_tls *tls, struct error *err);

/* Takes over a connected socket, e.g. one handed over by SCM_RIGHTS; optional bytes that were already read from it are
 * given first. The server closes fd in any case. False (ERR_HTTP_CONNECTION_LIMIT, ERR_MODULE_DRAINING, ERR_IO) when it
 * was refused. */
bool http_server_adopt_fd(struct http_server *server, int fd, struct http_tls *tls, const void *already_read,
                          size_t already_read_bytes, struct error *err);

/* Drain (LIF): stops accepting, answers "Connection: close" and GOAWAY, closes idle connections, lets what is in flight
 * finish. on_drained (may be NULL) is called once, from the loop, when no connection is left or deadline_ms (from now,
 * in milliseconds) has passed; at the deadline the remaining connections are closed. A second call only shortens the
 * deadline. */
void http_server_drain(struct http_server *server, int64_t deadline_ms, void (*on_drained)(void *context),
                       void *context);

/* The same for a server whose listeners another process serves on (LIF-9): connections without a request stay open
 * until the client has had one more reply, with "Connection: close", or the deadline passes. */
void http_server_hand_over(struct http_server *server, int64_t deadline_ms, void (*on_drained)(void *context),
                           void *context);

/* Requests that are being read or handled now; connections open now. */
size_t http_server_in_flight(const struct http_server *server);
size_t http_server_connection_count(const struct http_server *server);

/* Counters since the start, for metrics. */
struct http_server_stats {
  uint64_t connections_accepted;
  uint64_t connections_refused; /* over connections_max */
  uint64_t requests;            /* handed to the handler */
  uint64_t requests_refused;    /* answered by the server itself */
  uint64_t clients_dropped;     /* slow readers: hard limit or write time-out */
};
void http_server_stats_get(const struct http_server *server, struct http_server_stats *stats);

/* ---- the request ---- */

const char *http_request_method(const struct http_request *request); /* as sent, case kept; any token */
/* The path of the target, percent-decoded; starts with '/' (or is "*"). No NUL, no ".." segment: such targets are 400.
 * "%2F" is decoded too: use the raw path where that matters. */
const char *http_request_path(const struct http_request *request);
const char *http_request_path_raw(const struct http_request *request);
const char *http_request_query(const struct http_request *request); /* behind '?', raw; "" when there is none */
/* The value of the first query parameter of that name, decoded ('+' is a space), in the request's arena; NULL: absent.
 */
const char *http_request_query_value(struct http_request *request, const char *name);
const char *http_request_host(const struct http_request *request);           /* Host or :authority, as sent */
unsigned http_request_version(const struct http_request *request);           /* 10, 11 or 20 */
bool http_request_is_secure(const struct http_request *request);             /* came over TLS */
const char *http_request_client_address(const struct http_request *request); /* numeric; "unix" for Unix sockets */
uint16_t http_request_client_port(const struct http_request *request);       /* 0 for Unix sockets */

/* The value of the first field of that name (any case), optional white space trimmed; NULL: absent. */
const char *http_request_header(const struct http_request *request, const char *name);
/* The next value of that name: start with *index 0 and call until NULL. */
const char *http_request_header_next(const struct http_request *request, const char *name, size_t *index);
size_t http_request_header_count(const struct http_request *request);
/* The index-th field in the order of arrival, index < count; names as sent (lower case over HTTP/2). */
struct http_header http_request_header_at(const struct http_request *request, size_t index);

/* The body, complete in HTTP_BODY_BUFFER mode, NUL-terminated behind; never NULL. Owned by the request, but its content
 * may be taken (buf_take). */
struct buf *http_request_body(struct http_request *request);

/* Memory that lives as long as the request. */
struct arena *http_request_arena(struct http_request *request);

void http_request_data_set(struct http_request *request, void *data); /* the handler's own pointer */
void *http_request_data(const struct http_request *request);

/* Only in the headers hook: another body limit for this request, in bytes. */
void http_request_body_limit_set(struct http_request *request, size_t limit_bytes);

/* HTTP_BODY_STREAM: the body piece by piece, then one call with data NULL and length 0 at its end. A body cut short by
 * the client is reported by on_close only. Call it in the headers hook or in on_request. */
typedef void (*http_body_handler)(void *context, struct http_request *request, const void *data, size_t length);
void http_request_body_stream(struct http_request *request, http_body_handler on_data, void *context);

enum http_close_reason {
  HTTP_CLOSE_HALF,      /* the client closed its sending half, or altogether: it cannot be told apart */
  HTTP_CLOSE_PEER,      /* reset, broken, or the HTTP/2 stream was cancelled */
  HTTP_CLOSE_SLOW,      /* the client did not take its reply: hard limit or write time-out */
  HTTP_CLOSE_MALFORMED, /* a streamed body broke the protocol or its limit */
  HTTP_CLOSE_SHUTDOWN,  /* drain deadline or server freed */
};
typedef void (*http_close_handler)(void *context, struct http_request *request, enum http_close_reason reason);

/* Sets (or with NULL removes) the handler that is told, at most once, that the client is gone while the request is not
 * yet finished. If that has happened already the handler is called from the loop soon after. */
void http_request_on_close(struct http_request *request, http_close_handler on_close, void *context);

/* True when replying is pointless: the connection is lost (not for HTTP_CLOSE_HALF). */
bool http_request_is_gone(const struct http_request *request);

/* ---- the reply ---- */

/* Adds a field to the reply; before send or start. Refused with false (and logged): an invalid name or value, and the
 * fields the server owns (Content-Length, Transfer-Encoding, Connection, Keep-Alive, Upgrade, Date). Text is copied. */
bool http_response_header_add(struct http_request *request, const char *name, const char *value);

/* Sends a whole reply and finishes the request. content_type may be NULL; body is copied. HEAD, 204 and 304 send no
 * body (HEAD keeps its Content-Length). status 200…599. */
void http_response_send(struct http_request *request, int status, const char *content_type, const void *body,
                        size_t body_bytes);
/* The same with a body whose memory is taken over (body is empty afterwards). */
void http_response_send_buf(struct http_request *request, int status, const char *content_type, struct buf *body);
/* The error in the server's form (the error hook), with the status of its category, and Retry-After where known. */
void http_response_send_error(struct http_request *request, const struct error *error);

/* Streamed reply of unknown length: chunked over HTTP/1.1, DATA over HTTP/2, until close over HTTP/1.0. */
void http_response_start(struct http_request *request, int status, const char *content_type);
/* Queues bytes (copied). False when the client is gone, also when these bytes would exceed output_hard_limit_bytes:
 * then the client is dropped (HTTP_CLOSE_SLOW). The request still has to be finished. */
bool http_response_write(struct http_request *request, const void *data, size_t length);
/* Ends the streamed reply and finishes the request. */
void http_response_end(struct http_request *request);
/* Finishes the request without (the rest of) a reply: the connection is closed, or the HTTP/2 stream reset, so that the
 * client sees a broken reply. */
void http_request_abort(struct http_request *request);

bool http_response_is_started(const struct http_request *request);
/* Back-pressure: bytes queued for this reply; whether they exceed output_high_water_bytes; a call when they have fallen
 * below half of it (at most once per congestion). */
size_t http_response_queued_bytes(const struct http_request *request);
bool http_response_is_congested(const struct http_request *request);
typedef void (*http_drained_handler)(void *context, struct http_request *request);
void http_response_on_drained(struct http_request *request, http_drained_handler on_drained, void *context);

/* ---- server-sent events (MCP 1.4, 1.8; LLM streaming) ---- */

/* Starts a text/event-stream reply (200, no-store, X-Accel-Buffering: no). A comment line is sent after every
 * keepalive_ms milliseconds without output; 0: never. End it with http_response_end. */
void http_sse_start(struct http_request *request, int64_t keepalive_ms);
/* One event; id and event may be NULL (id "" is sent as an empty id). data is split into "data:" lines at CR, LF, CRLF;
 * with data NULL no data line is sent. False like http_response_write, or when id or event hold CR, LF or NUL. */
bool http_sse_event(struct http_request *request, const char *id, const char *event, const char *data,
                    size_t data_bytes);
bool http_sse_comment(struct http_request *request, const char *text); /* line breaks become spaces */
bool http_sse_retry(struct http_request *request, uint32_t retry_ms);

#endif

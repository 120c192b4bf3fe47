/* http_internal.h: the inside of the HTTP server, shared by its files only.
 *
 *   server.c      listeners, accept, drain, counters
 *   connection.c  one socket: bufferevent, timers, deferred close; knows no HTTP
 *   http1*.c      HTTP/1.1 on a connection          } two implementations of
 *   http2*.c      HTTP/2 on a connection            } struct http_protocol
 *   request.c     the request object and its life
 *   response.c    replies, protocol neutral
 *   target.c      request targets, the same checks for both protocols
 *
 * Rule that keeps hostile input from crashing us: a connection is freed in one place only, connection_tick(), which the
 * loop calls with nothing of ours on the stack. Everything else marks it doomed (connection_doom) and goes on. */
#ifndef GATEHOUSE_HTTP_INTERNAL_H
#define GATEHOUSE_HTTP_INTERNAL_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/http/http_server.h"
#include "sdk/http/http_tls.h"

#define HTTP_SERVER_MAGIC 0x48535256u
#define HTTP_CONNECTION_MAGIC 0x48434f4eu
#define HTTP_REQUEST_MAGIC 0x48524551u
#define HTTP_NEVER INT64_MAX
#define HTTP_LINGER_MS 1000
#define HTTP_DATE_BYTES 32

struct http_connection;

/* What a protocol does with its connection and its requests. */
struct http_protocol {
  void (*on_input)(struct http_connection *connection); /* bytes wait in the input buffer */
  void (*on_end)(struct http_connection *connection);   /* the client closed its sending half */
  void (*on_tick)(struct http_connection *connection);  /* postponed work, room in the output, a deadline passed */
  void (*drain)(struct http_connection *connection);
  void (*detach)(struct http_connection *connection,
                 enum http_close_reason reason); /* connection goes: let requests go */
  void (*reply)(struct http_request *request, int status, const void *body, size_t body_bytes); /* whole */
  void (*start)(struct http_request *request, int status);
  bool (*write)(struct http_request *request, const void *data, size_t length);
  void (*end)(struct http_request *request);
  void (*abort)(struct http_request *request);
  void (*drop)(struct http_request *request); /* too slow a reader; the handler keeps the request */
  size_t (*queued)(const struct http_request *request);
};
extern const struct http_protocol http1_protocol;
extern const struct http_protocol http2_protocol;

TAILQ_HEAD(http_connection_list, http_connection);
TAILQ_HEAD(http_request_list, http_request);

struct http_listener {
  struct http_server *server;
  struct http_tls *tls;
  struct event *event;
  struct event *resume; /* after running out of descriptors */
  int fd;
  struct http_listener *next;
};

struct http_server {
  uint32_t magic;
  struct event_base *base;
  struct http_server_options options;
  struct http_listener *listeners;
  struct http_connection_list connections;
  size_t connection_count;
  struct http_request_list requests; /* alive: being read or owned by the handler */
  size_t in_flight;
  struct http_request_list spare; /* finished, kept for reuse */
  size_t spare_count;
  struct http_server_stats stats;
  struct buf scratch; /* a reply's head while it is built */
  struct buf frames;  /* HTTP/2 frames on their way; apart, because callbacks run while they are made */
  char date[HTTP_DATE_BYTES];
  int64_t date_second;
  bool draining, handing_over;
  struct event *drain_timer;
  int64_t drain_deadline_ms;
  void (*on_drained)(void *context);
  void *drained_context;
};

/* Where an HTTP/1.1 connection is. */
enum http1_state {
  HTTP1_HEAD,   /* waiting for, or in, a header section */
  HTTP1_BODY,   /* reading a body */
  HTTP1_BUSY,   /* the request is complete, its reply is not */
  HTTP1_LINGER, /* last reply queued; whatever arrives is thrown away */
};

struct http1_connection {
  enum http1_state state;
  struct http_request *request;
  void *parser;      /* struct http_parser, see http1.c */
  size_t scanned;    /* input bytes already searched for the end of the header section */
  size_t line_start; /* of the line that is being searched */
  uint64_t body_bytes;
  bool body_complete;
  const char *framing_mark; /* where the bytes begin that are not chunk data */
  bool framing_cr;          /* the last byte outside chunk data was CR */
  bool framing_lf;          /* … or LF */
  bool framing_bad;
  bool chunked;
  bool keep_alive;
  bool reply_chunked;
  bool in_input;
  size_t requests;
};

struct http2_connection;

struct http_connection {
  uint32_t magic;
  struct http_server *server;
  TAILQ_ENTRY(http_connection) link;
  const struct http_protocol *protocol; /* NULL until the first bytes (or ALPN) tell */
  struct bufferevent *bev;
  struct evbuffer *input;
  struct evbuffer *output;
  struct event *read_event;   /* of a plain socket; NULL: TLS, which the bufferevent reads */
  struct event *timer;        /* runs connection_tick: deadlines and postponed work */
  struct event *closed_event; /* EPOLLRDHUP while reading is stopped */
  int64_t timer_due_ms;       /* when the timer is armed for; HTTP_NEVER: not armed */
  int64_t read_deadline_ms;
  int64_t write_deadline_ms;
  int fd;
  bool secure;
  bool reading_stopped;
  bool peer_ended;    /* FIN seen */
  bool watch_output;  /* on_tick when output was taken */
  bool doomed;        /* to be freed at the next tick */
  bool close_flushed; /* close once the output is empty */
  bool lingering;     /* … and then wait for the client's end for a moment */
  bool shut;          /* our sending half is closed */
  enum http_close_reason doom_reason;
  char address[INET6_ADDRSTRLEN];
  uint16_t port;
  struct http1_connection h1;
  struct http2_connection *h2;
};

/* A field of a request, with what of its name can be compared at once. */
struct http_field {
  struct http_header header;
  uint32_t tag; /* request.c: of length, first and last character */
};

enum http_request_phase { HTTP_REQUEST_READING, HTTP_REQUEST_HANDLING };

struct http_sse_state {
  struct event *timer;
  int64_t keepalive_ms;
  int64_t last_ms;
};

struct http2_stream;

struct http_request {
  uint32_t magic;
  enum http_request_phase phase;
  struct http_server *server;         /* NULL once the server was freed */
  struct http_connection *connection; /* NULL once the connection is lost */
  struct http2_stream *stream;        /* HTTP/2 only */
  TAILQ_ENTRY(http_request) link;
  struct arena *arena;
  const char *method;
  const char *path;
  const char *path_raw;
  const char *query;
  const char *host;
  unsigned version;
  bool secure;
  bool head_only;
  bool hooked; /* inside the headers hook */
  bool finished_in_hook;
  struct http_field *headers;
  size_t header_count;
  size_t header_capacity;
  size_t body_limit_bytes;
  enum http_body_mode body_mode;
  struct buf body;
  http_body_handler on_body;
  void *on_body_context;
  http_close_handler on_close;
  void *on_close_context;
  struct event *close_event;
  bool closed; /* on_close was due (told, or nobody to tell) */
  bool close_told;
  enum http_close_reason close_reason;
  bool started;
  bool ended_body; /* the end of a streamed body was told */
  struct http_header *reply_headers;
  size_t reply_header_count;
  size_t reply_header_capacity;
  const char *reply_content_type;
  bool congested;
  http_drained_handler on_drained;
  void *on_drained_context;
  struct http_sse_state *sse;
  char address[INET6_ADDRSTRLEN];
  uint16_t port;
  void *data;
};

/* An error the server answers by itself. status 0: none. */
struct http_refusal {
  int status;
  enum error_code code;
  const char *message; /* static; NULL: the table's summary */
};

/* server.c */
const char *http_server_date(struct http_server *server);
void http_server_connection_gone(struct http_server *server);
const char *http_server_render_error(struct http_server *server, int status, const struct error *error,
                                     const char *path, struct buf *body);

/* connection.c */
bool connection_create(struct http_server *server, int fd, struct http_tls *tls, const void *first, size_t first_bytes);
void connection_free(struct http_connection *connection);
void connection_doom(struct http_connection *connection, enum http_close_reason reason);
void connection_postpone(struct http_connection *connection);                        /* protocol->on_tick soon */
void connection_read_deadline(struct http_connection *connection, int64_t after_ms); /* HTTP_NEVER: none */
void connection_write(struct http_connection *connection, const struct iovec *parts, int count);
void connection_read_stop(struct http_connection *connection);
void connection_read_resume(struct http_connection *connection);
void connection_close_flushed(struct http_connection *connection, bool linger);

/* tls.c */
struct ssl_st *tls_session_new(struct http_tls *tls);
bool tls_session_is_h2(struct ssl_st *session);

/* http1.c, http1_head.c, http1_reply.c */
void http1_attach(struct http_connection *connection);
void http1_release(struct http_connection *connection); /* frees what http1_attach made */
void http1_reply_done(struct http_connection *connection);
struct http1_facts {
  uint64_t content_length;
  unsigned http_major;
  unsigned http_minor;
  bool chunked;
  bool has_length;
  bool keep_alive;
  bool expects_continue;
  bool message_complete;
};
bool http1_head_check(const struct http_server_limits *limits, const char *head, size_t length,
                      struct http_refusal *refusal);
bool http1_head_semantics(struct http_request *request, const struct http1_facts *facts, struct http_refusal *refusal);
void http1_reply(struct http_request *request, int status, const void *body, size_t body_bytes);
void http1_start(struct http_request *request, int status);
bool http1_write(struct http_request *request, const void *data, size_t length);
void http1_end(struct http_request *request);
void http1_abort(struct http_request *request);
void http1_drop(struct http_request *request);
size_t http1_queued(const struct http_request *request);

/* http2.c, http2_reply.c */
#define HTTP2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define HTTP2_PREFACE_BYTES 24
bool http2_attach(struct http_connection *connection);
struct http2_stream {
  TAILQ_ENTRY(http2_stream) link;
  struct http_connection *connection;
  struct http_request *request; /* NULL once finished */
  struct evbuffer *pending;     /* reply bytes that nghttp2 has not taken */
  int32_t id;
  size_t header_bytes;
  int64_t read_deadline_ms; /* HTTP_NEVER: the request is complete */
  struct http_refusal refusal;
  bool headers_done;
  bool deferred; /* nghttp2 waits for more */
  bool ended;    /* nothing comes behind what is pending */
  bool dead;     /* reset by us */
  bool slow;     /* … because its reader was too slow */
};
struct http2_connection {
  struct nghttp2_session *session;
  TAILQ_HEAD(, http2_stream) streams;
  size_t stream_count;
  size_t requests;
  bool in_input;
  bool goaway_sent;
};
void http2_reply(struct http_request *request, int status, const void *body, size_t body_bytes);
void http2_start(struct http_request *request, int status);
bool http2_write(struct http_request *request, const void *data, size_t length);
void http2_end(struct http_request *request);
void http2_abort(struct http_request *request);
void http2_drop(struct http_request *request);
size_t http2_queued(const struct http_request *request);

/* target.c: fills path, path_raw, query (and host for the absolute form) in the request's arena. */
bool target_parse(struct http_request *request, const char *target, size_t length, struct http_refusal *refusal);
bool target_host_is_valid(const char *host);

/* request.c */
struct http_request *request_create(struct http_connection *connection);
void request_header_push(struct http_request *request, const char *name, const char *value);
void request_free(struct http_request *request);                                /* without a word to anybody */
void request_lost(struct http_request *request, enum http_close_reason reason); /* the connection or stream is gone */
void request_half_closed(struct http_request *request);
/* Runs the headers hook: HTTP_BODY_REFUSE means that the request no longer exists for the caller. */
enum http_body_mode request_hook(struct http_request *request);
void request_dispatch(struct http_request *request); /* to on_request; the handler may have finished it on return */
/* A piece of the body: kept or handed on. False: over the limit. */
bool request_body_append(struct http_request *request, const void *data, size_t length);
void request_body_end(struct http_request *request);
void request_check_drained(struct http_request *request); /* calls on_drained when due; may finish the request */

/* response.c */
bool status_has_no_body(int status); /* status.c */
void response_refuse(struct http_request *request, const struct http_refusal *refusal);

#endif

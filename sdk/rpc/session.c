/* session.c: one HTTP/2 connection: a socket, an nghttp2 session, and the turn-taking between them.
 *
 * Reading: up to 128 KB at a time straight into nghttp2. Writing: everything that callbacks queued in one turn of the
 * loop leaves with one send(), from an event that becomes active at the first need and runs after what is active
 * already. When the socket is full, nghttp2 keeps its frames (we stop asking), so a peer that does not read holds back
 * the streams, not our memory.
 *
 * Life: closing may happen anywhere, also inside nghttp2's callbacks, where nghttp2 must not be freed; `depth` counts
 * how often it is on the stack and the last one out frees. After `closed` no callback reaches a stream or the owner. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sdk/base/secret.h"
#include "sdk/rpc/rpc_internal.h"

#define SESSION_MAGIC 0x52504353u
#define READ_BYTES ((size_t)128 << 10)
#define READ_ROUNDS 4 /* then others get their turn */
#define OUT_BYTES_MAX ((size_t)256 << 10)
#define OUT_KEEP_BYTES ((size_t)64 << 10)
#define CONNECTION_WINDOW_BYTES (4 << 20)
#define RESET_BURST 10000 /* RST_STREAM frames a peer may send at once, and a second */
#define RESET_RATE 1000

static _Thread_local uint8_t read_buffer[READ_BYTES]; /* pages are touched only as far as peers fill them */

/* Leaves nghttp2; frees a closed session when it was the last one on the stack. */
static void session_leave(struct rpc_session *session) {
  if (--session->depth > 0 || !session->closed)
    return;
  nghttp2_session_del(session->h2);
  buf_free(&session->out);
  session->magic = 0;
  if (session->ops->freed != NULL)
    session->ops->freed(session);
  base_free(session);
}

void rpc_session_close(struct rpc_session *session, enum rpc_loss loss) {
  BASE_CHECK_MAGIC(session, SESSION_MAGIC);
  if (session->closed)
    return;
  session->closed = true;
  session->loss = loss;
  session->depth++;
  event_del(&session->read_event);
  event_del(&session->write_event);
  event_del(&session->flush_event);
  close(session->fd);
  session->fd = -1;
  if (session->ops->closing != NULL)
    session->ops->closing(session);
  struct rpc_stream *stream;
  while ((stream = TAILQ_FIRST(&session->streams)) != NULL) {
    rpc_stream_enter(stream);
    rpc_stream_detach(stream, false, 0);
    stream->ops->closed(stream, session, 0);
    rpc_stream_leave(stream);
  }
  if (session->ops->lost != NULL)
    session->ops->lost(session);
  session_leave(session);
}

void rpc_session_flush_later(struct rpc_session *session) {
  if (session->closed || session->flushing || session->write_waiting)
    return;
  session->flushing = true;
  event_active(&session->flush_event, EV_TIMEOUT, 0);
}

/* True: all that was in `out` is gone. False: the socket is full or the session was closed. */
static bool session_send(struct rpc_session *session) {
  while (session->out_offset < session->out.length) {
    ssize_t sent = send(session->fd, session->out.data + session->out_offset, session->out.length - session->out_offset,
                        MSG_NOSIGNAL);
    if (sent > 0) {
      session->out_offset += (size_t)sent;
    } else if (sent < 0 && errno == EINTR) {
      continue;
    } else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      session->write_waiting = true;
      BASE_CHECK(event_add(&session->write_event, NULL) == 0);
      return false;
    } else {
      rpc_session_close(session, RPC_LOSS_PEER_GONE);
      return false;
    }
  }
  session->out_offset = 0;
  if (session->out.capacity > OUT_KEEP_BYTES)
    buf_free(&session->out);
  else
    buf_clear(&session->out);
  return true;
}

static void session_flush(struct rpc_session *session) {
  session->depth++;
  bool more = true;
  while (more && !session->closed) {
    more = false;
    while (!session->closed) {
      const uint8_t *data;
      ssize_t length = nghttp2_session_mem_send(session->h2, &data);
      if (length < 0) {
        rpc_session_close(session, RPC_LOSS_PROTOCOL);
        break;
      }
      if (length == 0)
        break;
      buf_append(&session->out, data, (size_t)length);
      if (session->out.length >= OUT_BYTES_MAX) {
        more = true;
        break;
      }
    }
    if (session->closed || !session_send(session))
      break;
  }
  /* After a GOAWAY in either direction and with the last stream gone, nghttp2 wants neither. */
  if (!session->closed && !session->write_waiting && !nghttp2_session_want_read(session->h2) &&
      !nghttp2_session_want_write(session->h2))
    rpc_session_close(session, RPC_LOSS_PEER_GONE);
  session_leave(session);
}

static void flush_ready(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct rpc_session *session = arg;
  session->flushing = false;
  session_flush(session);
}

static void write_ready(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct rpc_session *session = arg;
  session->write_waiting = false;
  session->depth++;
  if (session_send(session))
    session_flush(session);
  session_leave(session);
}

static void read_ready(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct rpc_session *session = arg;
  session->depth++;
  for (int round = 0; round < READ_ROUNDS && !session->closed; round++) {
    ssize_t length = recv(session->fd, read_buffer, sizeof(read_buffer), 0);
    if (length < 0 && errno == EINTR)
      continue;
    if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
      break;
    if (length <= 0) {
      rpc_session_close(session, RPC_LOSS_PEER_GONE);
      break;
    }
    ssize_t taken = nghttp2_session_mem_recv(session->h2, read_buffer, (size_t)length);
    secret_wipe(read_buffer, (size_t)length); /* it outlives every call, whose credential may be in it */
    if (taken < 0) {
      rpc_session_close(session, RPC_LOSS_PROTOCOL);
      break;
    }
    if ((size_t)length < sizeof(read_buffer))
      break;
  }
  if (!session->closed && (nghttp2_session_want_write(session->h2) || !nghttp2_session_want_read(session->h2)))
    rpc_session_flush_later(session);
  session_leave(session);
}

/* ---- nghttp2's callbacks: find the stream, hand over. A closed session makes nghttp2 stop. ---- */

static struct rpc_stream *stream_find(nghttp2_session *h2, int32_t stream_id) {
  return nghttp2_session_get_stream_user_data(h2, stream_id);
}

static int verdict(const struct rpc_session *session) {
  return session->closed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *user_data) {
  struct rpc_session *session = user_data;
  if (session->closed)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  if (!session->is_server || frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
    return 0;
  struct rpc_stream *stream = session->refusing ? NULL : session->ops->open(session, frame->hd.stream_id);
  if (stream == NULL) {
    nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_REFUSED_STREAM);
    return 0;
  }
  rpc_stream_attach(stream, session, frame->hd.stream_id);
  nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, stream);
  return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *user_data) {
  (void)flags;
  struct rpc_session *session = user_data;
  if (session->closed)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  struct rpc_stream *stream = stream_find(h2, frame->hd.stream_id);
  if (stream != NULL && frame->hd.type == NGHTTP2_HEADERS) {
    rpc_stream_enter(stream);
    stream->ops->header(stream, (const char *)name, name_length, (const char *)value, value_length);
    rpc_stream_leave(stream);
  }
  return verdict(session);
}

static int on_frame_recv(nghttp2_session *h2, const nghttp2_frame *frame, void *user_data) {
  struct rpc_session *session = user_data;
  if (session->closed)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  struct rpc_stream *stream = frame->hd.stream_id > 0 ? stream_find(h2, frame->hd.stream_id) : NULL;
  if (stream != NULL && (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)) {
    rpc_stream_enter(stream);
    if (frame->hd.type == NGHTTP2_HEADERS)
      stream->ops->headers_end(stream, end);
    if (end)
      rpc_stream_remote_end(stream);
    rpc_stream_leave(stream);
  }
  if (!session->closed && frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0 &&
      session->ops->settings != NULL)
    session->ops->settings(session);
  if (!session->closed && frame->hd.type == NGHTTP2_GOAWAY && session->ops->goaway != NULL)
    session->ops->goaway(session);
  return verdict(session);
}

static int on_data_chunk(nghttp2_session *h2, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t length,
                         void *user_data) {
  (void)flags;
  struct rpc_session *session = user_data;
  if (session->closed)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  /* The connection's window is always given back: one paused stream must not stop the others. */
  nghttp2_session_consume_connection(h2, length);
  struct rpc_stream *stream = stream_find(h2, stream_id);
  if (stream == NULL) {
    nghttp2_session_consume_stream(h2, stream_id, length);
    return 0;
  }
  rpc_stream_enter(stream);
  rpc_stream_receive(stream, data, length);
  rpc_stream_leave(stream);
  return verdict(session);
}

static int on_stream_close(nghttp2_session *h2, int32_t stream_id, uint32_t h2_error, void *user_data) {
  struct rpc_session *session = user_data;
  if (session->closed)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  struct rpc_stream *stream = stream_find(h2, stream_id);
  if (stream != NULL) {
    rpc_stream_enter(stream);
    rpc_stream_detach(stream, false, 0);
    stream->ops->closed(stream, NULL, h2_error);
    rpc_stream_leave(stream);
  }
  return verdict(session);
}

/* A server that has answered need not wait for the rest of the request. */
static int on_frame_send(nghttp2_session *h2, const nghttp2_frame *frame, void *user_data) {
  struct rpc_session *session = user_data;
  if (session->is_server && frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
    struct rpc_stream *stream = stream_find(h2, frame->hd.stream_id);
    if (stream != NULL && !stream->remote_done)
      nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
  }
  return 0;
}

static nghttp2_session *h2_create(struct rpc_session *session) {
  nghttp2_session_callbacks *callbacks;
  nghttp2_option *option;
  nghttp2_session *h2;
  BASE_CHECK(nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_stream_reset_rate_limit(option, RESET_BURST, RESET_RATE);
  if (session->is_server) {
    /* Some clients send the raw socket path as :authority, which nghttp2 would refuse. server_call.c checks requests.
     */
    nghttp2_option_set_no_http_messaging(option, 1);
    BASE_CHECK(nghttp2_session_server_new2(&h2, callbacks, session, option) == 0);
  } else {
    BASE_CHECK(nghttp2_session_client_new2(&h2, callbacks, session, option) == 0);
  }
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);
  return h2;
}

struct rpc_session *rpc_session_create(struct event_base *base, int fd, bool is_server,
                                       const struct rpc_session_ops *ops, void *owner,
                                       const struct rpc_session_options *options) {
  struct rpc_session *session = BASE_NEW(struct rpc_session);
  session->magic = SESSION_MAGIC;
  session->fd = fd;
  session->is_server = is_server;
  session->ops = ops;
  session->owner = owner;
  session->received_bytes_max = options->received_bytes_max;
  TAILQ_INIT(&session->streams);
  evutil_make_socket_nonblocking(fd);
  evutil_make_socket_closeonexec(fd);
  session->h2 = h2_create(session);
  nghttp2_settings_entry settings[4] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, (uint32_t)options->stream_window_bytes},
                                        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)options->metadata_bytes_max},
                                        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1}};
  settings[3] = is_server
                    ? (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options->concurrent_streams_max}
                    : (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
  BASE_CHECK(nghttp2_submit_settings(session->h2, NGHTTP2_FLAG_NONE, settings, 4) == 0);
  BASE_CHECK(nghttp2_session_set_local_window_size(session->h2, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW_BYTES) == 0);
  BASE_CHECK(event_assign(&session->read_event, base, fd, EV_READ | EV_PERSIST, read_ready, session) == 0);
  BASE_CHECK(event_assign(&session->write_event, base, fd, EV_WRITE, write_ready, session) == 0);
  BASE_CHECK(event_assign(&session->flush_event, base, -1, 0, flush_ready, session) == 0);
  BASE_CHECK(event_add(&session->read_event, NULL) == 0);
  rpc_session_flush_later(session);
  return session;
}

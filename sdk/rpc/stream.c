/* stream.c: one HTTP/2 stream as both sides see it: bytes that came and are not delivered, bytes that are queued and
 * not sent, and the peer's window between them.
 *
 * Flow control: what was delivered, and the part of a message that is still growing, is given back to the peer's window
 * at once; what waits because the application paused is not. So a paused stream holds at most one message and one
 * window.
 *
 * What came is wiped when it was delivered: a plan has a credential in it, which is held no longer than its call
 * (BND-5). */
#include "sdk/base/secret.h"
#include "sdk/rpc/rpc_internal.h"

void rpc_stream_init(struct rpc_stream *stream, const struct rpc_stream_ops *ops, size_t message_bytes_max,
                     size_t send_buffer_bytes) {
  stream->ops = ops;
  stream->message_bytes_max = message_bytes_max;
  stream->send_buffer_bytes = send_buffer_bytes;
}

void rpc_stream_attach(struct rpc_stream *stream, struct rpc_session *session, int32_t id) {
  BASE_CHECK(stream->session == NULL);
  stream->session = session;
  stream->id = id;
  TAILQ_INSERT_TAIL(&session->streams, stream, link);
}

void rpc_stream_enter(struct rpc_stream *stream) {
  stream->busy++;
}

void rpc_stream_leave(struct rpc_stream *stream) {
  if (--stream->busy == 0 && stream->dead)
    stream->ops->release(stream);
}

void rpc_stream_bury(struct rpc_stream *stream) {
  BASE_CHECK(stream->session == NULL && !stream->dead);
  stream->dead = true;
  stream->broken = true;
  if (stream->busy == 0)
    stream->ops->release(stream);
}

static void buffer_recycle(struct buf *buf) {
  if (buf->capacity > RPC_POOL_BUFFER_BYTES)
    buf_free(buf);
  else
    buf_clear(buf);
}

static void received_wipe(struct rpc_stream *stream) {
  if (stream->in.length > 0)
    secret_wipe(stream->in.data, stream->in.length);
}

/* Memory that it outgrows is wiped too. */
static void received_append(struct rpc_stream *stream, const uint8_t *data, size_t length) {
  struct buf *in = &stream->in;
  if (in->length > 0 && in->length + length >= in->capacity) {
    struct buf larger = {0};
    buf_reserve(&larger, 2 * (in->length + length));
    buf_append(&larger, in->data, in->length);
    received_wipe(stream);
    buf_free(in);
    *in = larger;
  }
  buf_append(in, data, length);
}

static void received_recycle(struct rpc_stream *stream) {
  received_wipe(stream);
  buffer_recycle(&stream->in);
}

static void account(struct rpc_stream *stream, size_t held) {
  if (stream->session != NULL)
    stream->session->received_bytes += held - stream->accounted;
  stream->accounted = held;
}

static void consume(struct rpc_stream *stream, size_t length) {
  stream->unconsumed -= length;
  if (length > 0 && stream->session != NULL && !stream->session->closed && !stream->remote_done) {
    nghttp2_session_consume_stream(stream->session->h2, stream->id, length);
    if (stream->session->depth == 0)
      rpc_session_flush_later(stream->session);
  }
}

void rpc_stream_detach(struct rpc_stream *stream, bool reset, uint32_t h2_error) {
  struct rpc_session *session = stream->session;
  if (session == NULL)
    return;
  account(stream, 0);
  TAILQ_REMOVE(&session->streams, stream, link);
  stream->session = NULL;
  if (session->closed)
    return;
  nghttp2_session_set_stream_user_data(session->h2, stream->id, NULL);
  if (reset) {
    nghttp2_submit_rst_stream(session->h2, NGHTTP2_FLAG_NONE, stream->id, h2_error);
    rpc_session_flush_later(session);
  }
}

void rpc_stream_recycle(struct rpc_stream *stream) {
  BASE_CHECK(stream->session == NULL);
  received_recycle(stream);
  buffer_recycle(&stream->out);
  struct buf in = stream->in, out = stream->out;
  *stream = (struct rpc_stream){.in = in, .out = out};
}

void rpc_stream_free(struct rpc_stream *stream) {
  BASE_CHECK(stream->session == NULL);
  received_wipe(stream);
  buf_free(&stream->in);
  buf_free(&stream->out);
}

static void violate(struct rpc_stream *stream, enum rpc_frame_result result) {
  struct rpc_status status;
  rpc_frame_error(result, &status);
  stream->broken = true;
  stream->ops->violation(stream, &status);
}

/* ---- receiving ---- */

bool rpc_stream_single(const struct rpc_stream *stream, const uint8_t **message, size_t *length) {
  const uint8_t *data = (const uint8_t *)stream->in.data;
  if (rpc_frame_parse(data, stream->in.length, stream->message_bytes_max, length) != RPC_FRAME_COMPLETE)
    return false;
  *message = data + RPC_PREFIX_BYTES;
  return true;
}

static void single_check(struct rpc_stream *stream) {
  size_t length = 0;
  enum rpc_frame_result result =
      rpc_frame_parse((const uint8_t *)stream->in.data, stream->in.length, stream->message_bytes_max, &length);
  if (result == RPC_FRAME_COMPLETE && stream->in.length > RPC_PREFIX_BYTES + length)
    result = RPC_FRAME_MALFORMED; /* a second message */
  if (result != RPC_FRAME_COMPLETE && result != RPC_FRAME_PARTIAL)
    violate(stream, result);
}

/* Delivers the complete messages at the start of data; returns how many bytes they took. */
static size_t deliver(struct rpc_stream *stream, const uint8_t *data, size_t length) {
  size_t offset = 0;
  while (!stream->paused && !stream->broken && offset < length) {
    size_t message_length = 0;
    enum rpc_frame_result result =
        rpc_frame_parse(data + offset, length - offset, stream->message_bytes_max, &message_length);
    if (result == RPC_FRAME_PARTIAL)
      break;
    if (result != RPC_FRAME_COMPLETE) {
      violate(stream, result);
      break;
    }
    const uint8_t *message = data + offset + RPC_PREFIX_BYTES;
    offset += RPC_PREFIX_BYTES + message_length;
    stream->ops->message(stream, message, message_length);
  }
  return offset;
}

/* What is left after a delivery: window and accounting. */
static void settle(struct rpc_stream *stream) {
  size_t held = stream->in.length - stream->in_offset;
  if (stream->broken) {
    stream->in_offset = 0;
    received_recycle(stream);
    held = 0;
  }
  size_t keep = stream->paused && held < stream->unconsumed ? held : stream->paused ? stream->unconsumed : 0;
  consume(stream, stream->unconsumed - keep);
  account(stream, held);
  if (stream->session != NULL && stream->session->received_bytes_max > 0 &&
      stream->session->received_bytes > stream->session->received_bytes_max && !stream->broken)
    violate(stream, RPC_FRAME_TOO_LARGE);
}

void rpc_stream_receive(struct rpc_stream *stream, const uint8_t *data, size_t length) {
  stream->unconsumed += length;
  if (stream->broken) {
    consume(stream, stream->unconsumed);
    return;
  }
  size_t taken = 0;
  if (!stream->single && !stream->paused && stream->in.length == 0)
    taken = deliver(stream, data, length); /* the common case: nothing is copied */
  if (taken < length && !stream->broken)
    received_append(stream, data + taken, length - taken);
  if (stream->single)
    single_check(stream);
  else if (!stream->paused && stream->in.length > 0)
    rpc_stream_pump(stream);
  settle(stream);
}

void rpc_stream_pump(struct rpc_stream *stream) {
  if (!stream->single && stream->in.length > stream->in_offset) {
    stream->in_offset +=
        deliver(stream, (const uint8_t *)stream->in.data + stream->in_offset, stream->in.length - stream->in_offset);
    if (stream->in_offset == stream->in.length) {
      stream->in_offset = 0;
      received_recycle(stream);
    } else if (stream->in_offset > stream->in.length / 2) {
      buf_consume(&stream->in, stream->in_offset);
      secret_wipe(stream->in.data + stream->in.length, stream->in_offset);
      stream->in_offset = 0;
    }
    settle(stream);
  }
  if (stream->remote_done && !stream->remote_told && !stream->paused && !stream->broken) {
    stream->remote_told = true;
    stream->ops->remote_end(stream);
  }
}

void rpc_stream_remote_end(struct rpc_stream *stream) {
  stream->remote_done = true;
  rpc_stream_pump(stream);
}

/* ---- sending ---- */

void rpc_stream_kick(struct rpc_stream *stream) {
  if (stream->session == NULL)
    return;
  if (stream->deferred) {
    stream->deferred = false;
    nghttp2_session_resume_data(stream->session->h2, stream->id);
  }
  rpc_session_flush_later(stream->session);
}

static size_t queued(const struct rpc_stream *stream) {
  return stream->out.length - stream->out_offset;
}

bool rpc_stream_may_send(const struct rpc_stream *stream, size_t length) {
  if (stream->out_end || stream->broken)
    return false;
  return queued(stream) == 0 || queued(stream) + length <= stream->send_buffer_bytes * RPC_SEND_REFUSE_FACTOR;
}

enum rpc_send_result rpc_stream_send_result(struct rpc_stream *stream) {
  rpc_stream_kick(stream);
  if (queued(stream) <= stream->send_buffer_bytes)
    return RPC_SEND_OK;
  stream->want_writable = true;
  return RPC_SEND_FULL;
}

static ssize_t provide(nghttp2_session *h2, int32_t stream_id, uint8_t *target, size_t length, uint32_t *flags,
                       nghttp2_data_source *source, void *user_data) {
  (void)source;
  (void)user_data;
  struct rpc_stream *stream = nghttp2_session_get_stream_user_data(h2, stream_id);
  if (stream == NULL)
    return NGHTTP2_ERR_DEFERRED; /* detached: its RST_STREAM is on the way */
  size_t count = queued(stream) < length ? queued(stream) : length;
  if (count == 0 && !stream->out_end) {
    stream->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  if (count > 0)
    memcpy(target, stream->out.data + stream->out_offset, count);
  stream->out_offset += count;
  if (queued(stream) == 0) {
    if (!stream->keep_out) {
      buffer_recycle(&stream->out);
      stream->out_offset = 0;
    }
    if (stream->out_end) {
      stream->out_done = true;
      *flags |= NGHTTP2_DATA_FLAG_EOF | stream->ops->out_end(stream);
    }
  } else if (!stream->keep_out && stream->out_offset > stream->out.length / 2) {
    buf_consume(&stream->out, stream->out_offset);
    stream->out_offset = 0;
  }
  if (stream->want_writable && queued(stream) <= stream->send_buffer_bytes / 2) {
    stream->want_writable = false;
    stream->ops->writable(stream);
  }
  return (ssize_t)count;
}

nghttp2_data_provider rpc_stream_provider(void) {
  return (nghttp2_data_provider){.read_callback = provide};
}

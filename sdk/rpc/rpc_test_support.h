/* rpc_test_support.h: what the tests of this room and its interop peer share: a small service with one method of each
 * behaviour, and a loop that runs until a condition holds (never for a fixed time). */
#ifndef GATEHOUSE_RPC_TEST_SUPPORT_H
#define GATEHOUSE_RPC_TEST_SUPPORT_H

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/clock.h"
#include "sdk/base/error.h"
#include "sdk/base/str.h"
#include "sdk/rpc/rpc.h"

static unsigned support_cancelled; /* calls that were cancelled under their handler */
static unsigned support_handled;   /* calls that reached a handler */
static size_t support_streamed;    /* messages that Stream has queued */

/* Unary: the request comes back. */
static void support_echo(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  (void)arg;
  support_handled++;
  rpc_server_call_reply(call, message, length);
}

/* Unary: an error with every field of the envelope. */
static void support_fail(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  (void)message, (void)length, (void)arg;
  struct error error;
  error_set(&error, ERR_RATE_LIMIT_EXCEEDED, "Slow down: 100%% \xc3\xbc\nsaid");
  error.retry_after_ms = 1500;
  error.origin = ERROR_ORIGIN_PLUGIN;
  str_copy(error.trace_id, sizeof(error.trace_id), "0af7651916cd43dd8448eb211c80319c");
  rpc_server_call_fail(call, &error);
}

static void support_hang_cancelled(void *arg, struct rpc_server_call *call) {
  (void)arg;
  support_cancelled++;
  rpc_server_call_finish(call, NULL);
}

/* Unary and stream: no answer until cancelled. */
static void support_hang(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  (void)message, (void)length, (void)arg;
  support_handled++;
  rpc_server_call_handle(call, &(struct rpc_server_call_handler){.on_cancelled = support_hang_cancelled}, NULL);
}

/* Unary: x-test and x-test-bin come back as metadata, the remaining deadline as text. */
static void support_metadata(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  (void)message, (void)length, (void)arg;
  static const char *const names[] = {"x-test", "x-test-bin"};
  for (size_t i = 0; i < 2; i++) {
    struct rpc_metadata copy = {.name = names[i]};
    copy.value = rpc_server_call_metadata(call, names[i], &copy.length);
    if (copy.value != NULL && !rpc_server_call_metadata_add(call, &copy))
      abort();
  }
  char *text = base_asprintf("%lld", (long long)rpc_server_call_remaining_ms(call));
  rpc_server_call_reply(call, (const uint8_t *)text, strlen(text));
  base_free(text);
}

struct support_stream {
  unsigned long left;
  size_t size;
  uint8_t *message;
};

static void support_stream_free(struct support_stream *stream) {
  base_free(stream->message);
  base_free(stream);
}

static void support_stream_more(void *arg, struct rpc_server_call *call) {
  struct support_stream *stream = arg;
  enum rpc_send_result result = RPC_SEND_OK;
  while (stream->left > 0 && result == RPC_SEND_OK) {
    memset(stream->message, (int)(stream->left & 0xff), stream->size);
    result = rpc_server_call_send(call, stream->message, stream->size);
    if (result == RPC_SEND_REFUSED)
      return;
    stream->left--;
    support_streamed++;
  }
  if (stream->left == 0) {
    support_stream_free(stream);
    rpc_server_call_finish(call, NULL);
  }
}

static void support_stream_cancelled(void *arg, struct rpc_server_call *call) {
  support_stream_free(arg);
  support_cancelled++;
  rpc_server_call_finish(call, NULL);
}

/* Server stream: request "<count> <size>" is answered with that many messages, as fast as the reader takes them. */
static void support_stream(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  (void)arg;
  char text[64] = "", *end;
  memcpy(text, message, length < sizeof(text) - 1 ? length : sizeof(text) - 1);
  struct support_stream *stream = BASE_NEW(struct support_stream);
  stream->left = strtoul(text, &end, 10);
  stream->size = strtoul(end, NULL, 10);
  stream->message = base_alloc(stream->size + 1);
  rpc_server_call_handle(
      call,
      &(struct rpc_server_call_handler){.on_writable = support_stream_more, .on_cancelled = support_stream_cancelled},
      stream);
  support_stream_more(stream, call);
}

static void support_bidi_message(void *arg, struct rpc_server_call *call, const uint8_t *message, size_t length) {
  (void)arg;
  if (rpc_server_call_send(call, message, length) == RPC_SEND_FULL)
    rpc_server_call_pause(call);
}

static void support_bidi_writable(void *arg, struct rpc_server_call *call) {
  (void)arg;
  rpc_server_call_resume(call);
}

static void support_bidi_end(void *arg, struct rpc_server_call *call) {
  (void)arg;
  rpc_server_call_finish(call, NULL);
}

/* Bidirectional: every message comes back, the end too. */
static void support_bidi(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  (void)message, (void)length, (void)arg;
  support_handled++;
  rpc_server_call_handle(call,
                         &(struct rpc_server_call_handler){.on_message = support_bidi_message,
                                                           .on_writable = support_bidi_writable,
                                                           .on_half_close = support_bidi_end,
                                                           .on_cancelled = support_hang_cancelled},
                         NULL);
}

__attribute__((unused)) static const struct rpc_method support_methods[] = {
    {"/test.Echo/Unary", RPC_METHOD_UNARY, support_echo},
    {"/test.Echo/Fail", RPC_METHOD_UNARY, support_fail},
    {"/test.Echo/Hang", RPC_METHOD_UNARY, support_hang},
    {"/test.Echo/Metadata", RPC_METHOD_UNARY, support_metadata},
    {"/test.Echo/Stream", RPC_METHOD_SERVER_STREAM, support_stream},
    {"/test.Echo/Bidi", RPC_METHOD_BIDI, support_bidi},
};
#define SUPPORT_METHOD_COUNT (sizeof(support_methods) / sizeof(support_methods[0]))

/* What a call brought. */
struct support_result {
  bool done;
  struct rpc_status status;
  struct buf reply;
  unsigned messages, writable;
};

__attribute__((unused)) static void support_unary_done(void *arg, const struct rpc_status *status, const uint8_t *reply,
                                                       size_t length) {
  struct support_result *result = arg;
  result->done = true;
  result->status = *status;
  result->messages += reply != NULL;
  if (length > 0)
    buf_append(&result->reply, reply, length);
}

__attribute__((unused)) static void support_on_message(void *arg, const uint8_t *message, size_t length) {
  struct support_result *result = arg;
  result->messages++;
  buf_append(&result->reply, message, length);
}

__attribute__((unused)) static void support_on_writable(void *arg) {
  struct support_result *result = arg;
  result->writable++;
}

__attribute__((unused)) static void support_on_status(void *arg, const struct rpc_status *status) {
  struct support_result *result = arg;
  result->done = true;
  result->status = *status;
}

__attribute__((unused)) static const struct rpc_stream_handler support_stream_handler = {
    .on_message = support_on_message, .on_writable = support_on_writable, .on_status = support_on_status};

/* Runs the loop until the condition holds; 20 s without is a failure. */
#define SUPPORT_RUN_UNTIL(base, condition)                                                                             \
  do {                                                                                                                 \
    int64_t support_end_ms_ = clock_monotonic_ms() + 20000;                                                            \
    while (!(condition)) {                                                                                             \
      ck_assert_msg(clock_monotonic_ms() < support_end_ms_, "timed out waiting for %s", #condition);                   \
      struct timeval support_tick_ = {.tv_usec = 20000};                                                               \
      event_base_loopexit((base), &support_tick_);                                                                     \
      event_base_loop((base), EVLOOP_ONCE);                                                                            \
    }                                                                                                                  \
  } while (0)

#endif

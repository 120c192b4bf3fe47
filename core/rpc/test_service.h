/* test_service.h: a small service for this room's tests and its interop server: raw bytes in, raw bytes out.
 * Included by test programs only.
 *
 *   Echo   unary   the request back; metadata "x-late-ms" answers that much later
 *   Fail   unary   CONFLICT with a message; an empty request: as create (ALREADY_EXISTS)
 *   Hold   unary   never answers; ends when cancelled
 *   Who    unary   "<listener> <uid> <gid> <pid> <remaining_ms or -> <metadata x-test>"
 *   Binary unary   metadata x-test-bin, decoded
 *   Count  stream  "<n> <size>": n messages of that size, as fast as the reader reads
 *   Chat   bidi    every message back, then OK at half-close; "fail" ends it with an error */
#ifndef GATEHOUSE_CORE_RPC_TEST_SERVICE_H
#define GATEHOUSE_CORE_RPC_TEST_SERVICE_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/rpc/core_rpc.h"
#include "sdk/base/alloc.h"

struct test_service {
  unsigned cancelled, freed, held, late, produced; /* core thread */
};

struct test_late {
  struct core_rpc_call *call;
  struct core_rpc_timer *timer;
  struct test_service *service;
};

static void test_late_reply(void *argument) {
  struct test_late *late = argument;
  late->timer = NULL;
  size_t length;
  const uint8_t *data = core_rpc_call_request(late->call, &length);
  core_rpc_call_reply(late->call, data, length);
}

static void test_late_cancel(struct core_rpc_call *call, void *user) {
  struct test_late *late = user;
  late->service->cancelled++;
  core_rpc_timer_cancel(&late->timer);
  core_rpc_call_fail_code(call, ERR_CANCELLED);
}

static void test_late_free(void *user) {
  struct test_late *late = user;
  late->service->freed++;
  base_free(late);
}

static const struct core_rpc_call_events test_late_events = {.on_cancel = test_late_cancel, .on_free = test_late_free};

static struct test_late *test_late_begin(struct core_rpc_call *call, struct test_service *service) {
  struct test_late *late = BASE_NEW(struct test_late);
  *late = (struct test_late){.call = call, .service = service};
  core_rpc_call_events_set(call, &test_late_events, late);
  return late;
}

static void test_echo(struct core_rpc_call *call, void *user) {
  size_t length, wait_length;
  const char *wait = core_rpc_call_metadata(call, "x-late-ms", &wait_length);
  if (wait != NULL) {
    char text[16] = {0};
    memcpy(text, wait, wait_length < 15 ? wait_length : 15);
    struct test_late *late = test_late_begin(call, user);
    late->service->late++;
    late->timer = core_rpc_timer_start(core_rpc_call_loop(call), strtoull(text, NULL, 10), test_late_reply, late);
    return;
  }
  const uint8_t *data = core_rpc_call_request(call, &length);
  core_rpc_call_reply(call, data, length);
}

static void test_fail(struct core_rpc_call *call, void *user) {
  struct error err;
  size_t length;
  (void)user;
  error_set(&err, ERR_CATALOG_CONFLICT, "it is \"there\" already: %s", "caf\xc3\xa9");
  err.retry_after_ms = 250;
  (void)core_rpc_call_request(call, &length);
  if (length == 0)
    core_rpc_call_fail_create(call, &err);
  else
    core_rpc_call_fail(call, &err);
}

static void test_hold(struct core_rpc_call *call, void *user) {
  struct test_service *service = user;
  service->held++;
  (void)test_late_begin(call, service);
}

static void test_who(struct core_rpc_call *call, void *user) {
  const struct core_rpc_peer *peer = core_rpc_call_peer(call);
  size_t length;
  const char *metadata = core_rpc_call_metadata(call, "x-test", &length);
  (void)user;
  int64_t remaining_ms = core_rpc_call_remaining_ms(call);
  char *text = base_asprintf("%s %u %u %d %" PRId64 " %.*s", peer->listener, peer->uid, peer->gid, peer->pid,
                             remaining_ms == INT64_MAX ? -1 : remaining_ms, metadata == NULL ? 1 : (int)length,
                             metadata == NULL ? "-" : metadata);
  core_rpc_call_reply(call, text, strlen(text));
  base_free(text);
}

static void test_binary(struct core_rpc_call *call, void *user) {
  size_t length;
  const char *value = core_rpc_call_metadata(call, "x-test-bin", &length);
  (void)user;
  if (value == NULL)
    core_rpc_call_fail_code(call, ERR_ARGUMENT_INVALID);
  else
    core_rpc_call_reply(call, value, length);
}

struct test_count {
  struct test_service *service;
  unsigned long left;
  size_t size;
  uint8_t *message;
};

static void test_count_more(struct core_rpc_call *call, void *user) {
  struct test_count *count = user;
  while (count->left > 1 && core_rpc_call_send(call, count->message, count->size)) {
    count->left--;
    count->service->produced++;
  }
  if (count->left == 0) {
    core_rpc_call_finish(call);
  } else if (count->left == 1) { /* the last one and the end together */
    count->left--;
    count->service->produced++;
    core_rpc_call_finish_with(call, count->message, count->size);
  }
}

static void test_count_cancel(struct core_rpc_call *call, void *user) {
  struct test_count *count = user;
  count->service->cancelled++;
  core_rpc_call_finish(call);
}

static void test_count_free(void *user) {
  struct test_count *count = user;
  count->service->freed++;
  base_free(count->message);
  base_free(count);
}

static const struct core_rpc_call_events test_count_events = {
    .on_cancel = test_count_cancel, .on_writable = test_count_more, .on_free = test_count_free};

static void test_count(struct core_rpc_call *call, void *user) {
  size_t length;
  const uint8_t *data = core_rpc_call_request(call, &length);
  char *text = base_strndup(length == 0 ? "" : (const char *)data, length);
  struct test_count *count = BASE_NEW(struct test_count);
  count->service = user;
  bool valid = sscanf(text, "%lu %zu", &count->left, &count->size) == 2 && count->size <= 1u << 20;
  base_free(text);
  count->message = base_calloc(1, count->size + 1);
  memset(count->message, 'x', count->size);
  core_rpc_call_events_set(call, &test_count_events, count);
  if (valid)
    test_count_more(call, count);
  else
    core_rpc_call_fail_code(call, ERR_ARGUMENT_INVALID);
}

static void test_chat_message(struct core_rpc_call *call, const uint8_t *data, size_t length, void *user) {
  (void)user;
  if (length == 4 && memcmp(data, "fail", 4) == 0) {
    core_rpc_call_fail_code(call, ERR_AUTH_PERMISSION_DENIED);
    return;
  }
  (void)core_rpc_call_send(call, data, length);
  if (core_rpc_call_is_writable(call))
    core_rpc_call_read(call);
}

static void test_chat_writable(struct core_rpc_call *call, void *user) {
  (void)user;
  core_rpc_call_read(call);
}

static void test_chat_end(struct core_rpc_call *call, void *user) {
  (void)user;
  core_rpc_call_finish(call);
}

static void test_chat_cancel(struct core_rpc_call *call, void *user) {
  ((struct test_service *)user)->cancelled++;
  core_rpc_call_finish(call);
}

static void test_chat_free(void *user) {
  ((struct test_service *)user)->freed++;
}

static const struct core_rpc_call_events test_chat_events = {.on_message = test_chat_message,
                                                             .on_half_close = test_chat_end,
                                                             .on_writable = test_chat_writable,
                                                             .on_cancel = test_chat_cancel,
                                                             .on_free = test_chat_free};

static void test_chat(struct core_rpc_call *call, void *user) {
  core_rpc_call_events_set(call, &test_chat_events, user);
  core_rpc_call_read(call);
}

static struct test_service test_service_state;

static const struct core_rpc_method test_service_methods[] = {
    {"/test.v1.Test/Echo", CORE_RPC_UNARY, test_echo, &test_service_state},
    {"/test.v1.Test/Fail", CORE_RPC_UNARY, test_fail, &test_service_state},
    {"/test.v1.Test/Hold", CORE_RPC_UNARY, test_hold, &test_service_state},
    {"/test.v1.Test/Who", CORE_RPC_UNARY, test_who, &test_service_state},
    {"/test.v1.Test/Binary", CORE_RPC_UNARY, test_binary, &test_service_state},
    {"/test.v1.Test/Count", CORE_RPC_SERVER_STREAM, test_count, &test_service_state},
    {"/test.v1.Test/Chat", CORE_RPC_BIDI, test_chat, &test_service_state},
    {"/test.v1.Test/EchoUnderANameLongerThanWhatFitsASlice", CORE_RPC_UNARY, test_echo, &test_service_state},
};
enum { TEST_SERVICE_METHODS = sizeof(test_service_methods) / sizeof(test_service_methods[0]) };

#endif

/* test_harness.h: a loop on a thread of its own and a client of it, for this room's tests. Included by *_test.c only.
 */
#ifndef GATEHOUSE_CORE_RPC_TEST_HARNESS_H
#define GATEHOUSE_CORE_RPC_TEST_HARNESS_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/rpc/core_rpc.h"
#include "core/rpc/test_service.h"
#include "sdk/base/buf.h"
#include "sdk/base/clock.h"
#include "sdk/base/test.h"

struct harness {
  char directory[64];
  char *path;
  struct core_rpc_loop *loop;
  struct core_rpc_channel *channel;
  struct core_rpc_listener *listener;
  pthread_t thread;
};

static void *harness_run(void *argument) {
  core_rpc_loop_run(argument);
  return NULL;
}

/* Everything but run, so that a test can register more. */
static inline void harness_prepare(struct harness *harness, const struct core_rpc_options *options) {
  *harness = (struct harness){.directory = "/tmp/core_rpc_test.XXXXXX"};
  ck_assert_ptr_nonnull(mkdtemp(harness->directory));
  harness->path = base_asprintf("%s/core.sock", harness->directory);
  harness->loop = core_rpc_loop_create(options);
  core_rpc_server_register(harness->loop, test_service_methods, TEST_SERVICE_METHODS);
  core_rpc_health_register(harness->loop);
  struct error err;
  harness->listener =
      core_rpc_listen(harness->loop,
                      &(struct core_rpc_listen_options){
                          .path = harness->path, .name = "tester", .owner_uid = (uid_t)-1, .owner_gid = (gid_t)-1},
                      &err);
  ck_assert_ptr_nonnull(harness->listener);
  harness->channel = core_rpc_channel_create(harness->loop, harness->path);
  ck_assert_ptr_nonnull(harness->channel);
}

static inline void harness_go(struct harness *harness) {
  ck_assert_int_eq(pthread_create(&harness->thread, NULL, harness_run, harness->loop), 0);
}

static inline void harness_start(struct harness *harness) {
  harness_prepare(harness, NULL);
  harness_go(harness);
}

static inline void harness_remove_directory(struct harness *harness) {
  DIR *directory = opendir(harness->directory);
  for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
    (void)unlinkat(dirfd(directory), entry->d_name, 0);
  closedir(directory);
  ck_assert_int_eq(rmdir(harness->directory), 0);
  base_free(harness->path);
}

/* Returns how many milliseconds it took until run returned. */
static inline int64_t harness_stop(struct harness *harness, uint32_t grace_ms) {
  int64_t began_ms = clock_monotonic_ms();
  core_rpc_loop_stop(harness->loop, grace_ms);
  pthread_join(harness->thread, NULL);
  int64_t took_ms = clock_monotonic_ms() - began_ms;
  core_rpc_loop_free(&harness->loop);
  harness_remove_directory(harness);
  return took_ms;
}

/* ---- a call from the test's thread ---- */

struct probe {
  struct harness *harness;
  struct core_rpc_channel *channel; /* NULL: the harness's */
  struct core_rpc_request request;
  unsigned cancel_after;    /* cancels when so many messages came; 0: never */
  const char *const *sends; /* bidi: what to send, NULL-terminated, then half-close */
  struct core_rpc_client_call *call;
  atomic_uint messages;
  size_t bytes;
  atomic_bool done;
  int grpc_status;
  struct error err;
  bool lost, unsent;
  struct buf data; /* the reply, or all stream messages one after the other */
  int64_t took_ms;
};

static void probe_on_message(struct core_rpc_client_call *call, const uint8_t *data, size_t length, void *user) {
  struct probe *probe = user;
  probe->bytes += length;
  if (probe->data.length < 4096)
    buf_append(&probe->data, data, length);
  if (atomic_fetch_add(&probe->messages, 1) + 1 == probe->cancel_after)
    core_rpc_client_cancel(call);
}

static void probe_on_done(struct core_rpc_client_call *call, const struct core_rpc_result *result, void *user) {
  struct probe *probe = user;
  (void)call;
  probe->grpc_status = result->grpc_status;
  probe->err = result->err;
  probe->lost = result->lost;
  probe->unsent = result->unsent;
  if (result->data != NULL)
    buf_append(&probe->data, result->data, result->length);
  probe->took_ms = clock_monotonic_ms() - probe->took_ms;
  atomic_store(&probe->done, true);
}

static const struct core_rpc_client_events probe_events = {.on_message = probe_on_message, .on_done = probe_on_done};

static void probe_begin_task(void *argument) {
  struct probe *probe = argument;
  probe->request.events = &probe_events;
  probe->request.user = probe;
  if (probe->request.timeout_ms == 0)
    probe->request.timeout_ms = 20000;
  probe->took_ms = clock_monotonic_ms();
  struct core_rpc_channel *channel = probe->channel != NULL ? probe->channel : probe->harness->channel;
  probe->call = core_rpc_client_start(channel, &probe->request);
  if (probe->request.kind != CORE_RPC_BIDI || probe->sends == NULL)
    return;
  for (const char *const *text = probe->sends; *text != NULL; text++)
    (void)core_rpc_client_send(probe->call, *text, strlen(*text));
  core_rpc_client_half_close(probe->call);
}

static inline void probe_cancel_task(void *argument) {
  struct probe *probe = argument;
  if (!atomic_load(&probe->done))
    core_rpc_client_cancel(probe->call);
}

static inline void probe_begin(struct harness *harness, struct probe *probe) {
  probe->harness = harness;
  ck_assert(core_rpc_post(harness->loop, probe_begin_task, probe));
}

#define WAIT_UNTIL(condition)                                                                                          \
  do {                                                                                                                 \
    int64_t wait_end_ms_ = clock_monotonic_ms() + 20000;                                                               \
    while (!(condition)) {                                                                                             \
      ck_assert_msg(clock_monotonic_ms() < wait_end_ms_, "timed out waiting for " #condition);                         \
      usleep(500);                                                                                                     \
    }                                                                                                                  \
  } while (0)

static inline void probe_wait(struct probe *probe) {
  WAIT_UNTIL(atomic_load(&probe->done));
}

static inline void probe_run(struct harness *harness, struct probe *probe) {
  probe_begin(harness, probe);
  probe_wait(probe);
}

/* Runs on the core thread and waits for it. */
struct harness_sync {
  core_rpc_task *task;
  void *argument;
  atomic_bool done;
};

static void harness_sync_task(void *argument) {
  struct harness_sync *sync = argument;
  sync->task(sync->argument);
  atomic_store(&sync->done, true);
}

static inline void harness_on_core(struct harness *harness, core_rpc_task *task, void *argument) {
  struct harness_sync sync = {.task = task, .argument = argument};
  ck_assert(core_rpc_post(harness->loop, harness_sync_task, &sync));
  WAIT_UNTIL(atomic_load(&sync.done));
}

#endif

/* store_bench.c: durable events per second of the SQLite store against the physical limit, a preallocated log file with
 * fdatasync, in interleaved rounds of one run (facts.md section 7). Ratios count, absolutes belong to the machine.
 *
 *   store_bench [folder] [seconds per round] [rounds] [events put in beforehand]
 *
 * "1/commit" keeps the writer busy with one event per transaction (group limit 1): the store's share of what the disk
 * gives. "64/commit" is one batch of 64 events per transaction. "grouped" is single-event commits with group commit on,
 * as the core issues them. "latency" is one commit at a time, acknowledged on the caller's thread: two thread wakes
 * more than a bare fdatasync. Every round checks that each event was stored. Exit code 1: a target was missed. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/store/store.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/id.h"
#include "sdk/base/log.h"

#define EVENT_BYTES 300
#define PREALLOCATED_BYTES (64 << 20)
#define ROUNDS_MAX 50

enum row { LOG_1, LOG_64, STORE_1, STORE_64, STORE_GROUPED, STORE_LATENCY, LOG_LATENCY, ROW_COUNT };
static const char *const row_names[ROW_COUNT] = {"log, 1/commit",          "log, 64/commit",
                                                 "store, 1/commit",        "store, 64/commit",
                                                 "store, grouped 1s",      "store, one at a time (us)",
                                                 "log, one at a time (us)"};

static double results[ROW_COUNT][ROUNDS_MAX];
static char payload[EVENT_BYTES + 1];
static double seconds = 0.5;

static void die(const char *what) {
  fprintf(stderr, "store_bench: %s\n", what);
  exit(2);
}

static char *path_in(const char *folder, const char *name) {
  return base_asprintf("%s/%s", folder, name);
}

/* Events per second of a preallocated, recycled log file. */
static double bench_log(const char *folder, unsigned per_commit) {
  char *path = path_in(folder, "bench.log");
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  size_t size = (EVENT_BYTES + 24) * (size_t)per_commit, at = 0;
  char *block = base_calloc(1, size);
  static bool filled;
  char *zeroes = base_calloc(1, 1 << 20);
  for (size_t i = 0; !filled && i < PREALLOCATED_BYTES; i += 1 << 20)
    if (pwrite(fd, zeroes, 1 << 20, (off_t)i) != 1 << 20)
      die("cannot preallocate the log");
  base_free(zeroes);
  filled = true;
  if (fd < 0 || fsync(fd) != 0)
    die("cannot open the log");
  uint64_t events = 0;
  int64_t start = clock_monotonic_us(), end = start + (int64_t)(seconds * 1e6), now;
  do {
    for (unsigned i = 0; i < per_commit; i++)
      memcpy(block + i * (EVENT_BYTES + 24) + 24, payload, EVENT_BYTES);
    if (at + size > PREALLOCATED_BYTES)
      at = 0;
    if (pwrite(fd, block, size, (off_t)at) != (ssize_t)size || fdatasync(fd) != 0)
      die("the log cannot be written");
    at += size;
    events += per_commit;
    now = clock_monotonic_us();
  } while (now < end);
  close(fd);
  base_free(block);
  base_free(path);
  return (double)events * 1e6 / (double)(now - start);
}

static struct store_batch *batch_of(unsigned count, uint64_t number) {
  struct store_batch *batch = store_batch_create();
  char id[ID_UUID_BYTES], trace[40];
  snprintf(trace, sizeof(trace), "trace-%llu", (unsigned long long)number / 8);
  for (unsigned i = 0; i < count; i++) {
    id_uuid_v4(id);
    store_batch_append_event(batch, &(struct store_event){.event_id = id,
                                                          .trace_id = trace,
                                                          .context_id = "context-1",
                                                          .family = "graph_update",
                                                          .type = "node_add",
                                                          .wall_us = (int64_t)number,
                                                          .bytes = payload,
                                                          .length = EVENT_BYTES});
  }
  return batch;
}

static void count_done(void *arg, const struct store_commit_result *result, const struct error *err) {
  (void)result;
  if (err)
    die(err->message);
  ++*(uint64_t *)arg;
}

static struct store *open_store(const char *folder, size_t group_limit) {
  struct error err = {0};
  char *path = path_in(folder, "bench.db");
  struct store *store = store_open(&(struct store_options){.backend = "sqlite",
                                                           .path = path,
                                                           .durability = STORE_DURABLE,
                                                           .group_limit_batches = group_limit,
                                                           .queue_limit_bytes = 4 << 20},
                                   &err);
  if (!store)
    die(err.message);
  base_free(path);
  return store;
}

static void check_stored(struct store *store, uint64_t before, uint64_t events) {
  if (store_last_seq(store) != before + events)
    die("events are missing");
}

static void keep_busy(struct store *store, unsigned per_commit, uint64_t *sent, uint64_t *done, double for_seconds) {
  int64_t end = clock_monotonic_us() + (int64_t)(for_seconds * 1e6);
  while (clock_monotonic_us() < end) {
    while (*sent - *done < 512 && !store_queue_full(store)) {
      struct store_batch *batch = batch_of(per_commit, (*sent)++);
      store_commit(store, &batch, count_done, done);
    }
    store_dispatch(store);
    usleep(200);
  }
}

/* Events per second with the queue kept busy; the write-ahead log has reached its size before the clock starts. */
static double bench_store(const char *folder, unsigned per_commit, size_t group_limit) {
  struct store *store = open_store(folder, group_limit);
  uint64_t done = 0, sent = 0, before = store_last_seq(store);
  keep_busy(store, per_commit, &sent, &done, 0.4);
  uint64_t done_before = done;
  int64_t start = clock_monotonic_us();
  keep_busy(store, per_commit, &sent, &done, seconds);
  double rate = (double)((done - done_before) * per_commit) * 1e6 / (double)(clock_monotonic_us() - start);
  struct store_batch *last = store_batch_create();
  store_commit_sync(store, &last, NULL, NULL);
  check_stored(store, before, sent * per_commit);
  store_close(&store);
  return rate;
}

/* Mean microseconds from commit to acknowledgement, one at a time. */
static double bench_latency(const char *folder) {
  struct store *store = open_store(folder, 0);
  uint64_t count = 0;
  int64_t start = clock_monotonic_us(), end = start + (int64_t)(seconds * 1e6), now;
  do {
    struct store_batch *batch = batch_of(1, count++);
    struct error err;
    if (!store_commit_sync(store, &batch, NULL, &err))
      die(err.message);
    now = clock_monotonic_us();
  } while (now < end);
  store_close(&store);
  return (double)(now - start) / (double)count;
}

static void prefill(const char *folder, uint64_t events) {
  struct store *store = open_store(folder, 0);
  uint64_t done = 0;
  for (uint64_t n = 0; n < events; n += 64) {
    struct store_batch *batch = batch_of(64, n);
    store_commit(store, &batch, count_done, &done);
    while (store_queue_full(store)) {
      store_dispatch(store);
      usleep(100);
    }
  }
  store_close(&store);
}

static int compare(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

static double median(enum row row, unsigned rounds) {
  qsort(results[row], rounds, sizeof(double), compare);
  return results[row][rounds / 2];
}

int main(int argc, char **argv) {
  const char *root = argc > 1 ? argv[1] : "/tmp";
  seconds = argc > 2 ? atof(argv[2]) : seconds;
  unsigned rounds = argc > 3 ? (unsigned)atoi(argv[3]) : 5;
  uint64_t before = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
  char *folder = path_in(root, "store-bench-XXXXXX");
  log_init("bench", LOG_WARN);
  if (rounds == 0 || rounds > ROUNDS_MAX || !mkdtemp(folder))
    die("usage: store_bench [folder] [seconds] [rounds 1..50] [events beforehand]");
  memset(payload, 'x', EVENT_BYTES);
  prefill(folder, before);
  for (unsigned i = 0; i < rounds; i++) {
    results[LOG_1][i] = bench_log(folder, 1);
    results[STORE_1][i] = bench_store(folder, 1, 1);
    results[LOG_64][i] = bench_log(folder, 64);
    results[STORE_64][i] = bench_store(folder, 64, 1);
    results[STORE_GROUPED][i] = bench_store(folder, 1, 0);
    results[STORE_LATENCY][i] = bench_latency(folder);
    results[LOG_LATENCY][i] = 1e6 / results[LOG_1][i];
  }
  int64_t opened = clock_monotonic_us();
  struct store *store = open_store(folder, 0);
  opened = clock_monotonic_us() - opened;
  double value[ROW_COUNT];
  printf("%-28s %12s\n", "events of 300 bytes", "median");
  for (enum row row = 0; row < ROW_COUNT; row++)
    printf("%-28s %12.0f\n", row_names[row], value[row] = median(row, rounds));
  double one = value[STORE_1] / value[LOG_1], many = value[STORE_64] / value[LOG_64];
  double latency = value[STORE_LATENCY] / value[LOG_LATENCY];
  printf("\nratio 1/commit   %.2f (target 0.85)\nratio 64/commit  %.2f (target 0.60)\nlatency ratio    %.2f\n", one,
         many, latency);
  printf("events in the store %llu, opened in %.1f ms\n", (unsigned long long)store_last_seq(store),
         (double)opened / 1000);
  store_close(&store);
  static const char *const names[] = {"bench.log", "bench.db", "bench.db.lock"};
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
    char *path = path_in(folder, names[i]);
    unlink(path);
    base_free(path);
  }
  rmdir(folder);
  base_free(folder);
  return one >= 0.85 && many >= 0.6 ? 0 : 1;
}

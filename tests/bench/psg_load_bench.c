/* psg_load_bench.c: how long a core that was killed needs to have its state graph back, and what the checkpoints that
 * make it quick cost the core thread.
 *
 *   psg_load_bench [folder] [executions in the log] [rounds]
 *
 * Fills a log with executions, flushed in batches as the core does under load (history: the default 4096 spans). Each
 * round forks: the child opens the graph, carries out a few executions more and dies without a word. Printed are the
 * times of psg_open and, while the log is filled, of the flushes with the longest one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/psg/psg.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"

#define BATCH 25
#define MORE_EXECUTIONS 50

static void die(const char *what, const struct error *err) {
  fprintf(stderr, "psg_load_bench: %s: %s\n", what, err->message);
  _exit(2);
}

static int64_t thread_busy_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static struct store *store_at(const char *path) {
  struct error err = {0};
  struct store *store =
      store_open(&(struct store_options){.backend = "sqlite", .path = path, .durability = STORE_DURABLE}, &err);
  if (!store)
    die("store_open", &err);
  return store;
}

static struct psg *psg_at(struct store *store) {
  struct error err = {0};
  struct psg *psg = psg_open(&(struct psg_options){.store = store}, &err);
  if (!psg)
    die("psg_open", &err);
  return psg;
}

/* Returns the microseconds of the longest flush. */
static int64_t carry_out(struct store *store, struct psg *psg, unsigned executions) {
  static const struct psg_execution_start start = {.executor_kind = "tool",
                                                   .record_id = "6f2c1c1e-6b57-4b0c-8b9a-7d5b7c3c9a10",
                                                   .record_name = "weather.forecast",
                                                   .module_id = "mcp",
                                                   .owner_family = "mcp",
                                                   .subject = "dev@example.com",
                                                   .trace_id = "0af7651916cd43dd8448eb211c80319c",
                                                   .request_id = "req-0001"};
  int64_t longest_us = 0;
  for (unsigned done = 0; done < executions; done += BATCH) {
    char ids[BATCH][ID_UUID_BYTES];
    for (unsigned i = 0; i < BATCH; i++)
      psg_execution_begin(psg, &start, ids[i]);
    for (unsigned half = 0; half < 2; half++) {
      int64_t begun_us = thread_busy_us();
      psg_flush(psg);
      int64_t took_us = thread_busy_us() - begun_us;
      longest_us = took_us > longest_us ? took_us : longest_us;
      struct store_batch *empty = store_batch_create();
      store_commit_sync(store, &empty, NULL, NULL);
      for (unsigned i = 0; i < BATCH && half == 0; i++)
        psg_execution_end(psg, ids[i], PSG_EXECUTION_COMPLETED, 1234, NULL, 567);
    }
  }
  return longest_us;
}

static void killed_in(const char *path, unsigned executions, int report) {
  pid_t child = fork();
  if (child == 0) {
    int64_t begun_us = clock_monotonic_us();
    struct store *store = store_at(path);
    int64_t store_us = clock_monotonic_us(), busy_us = thread_busy_us();
    struct psg *psg = psg_at(store);
    int64_t psg_us = clock_monotonic_us();
    busy_us = thread_busy_us() - busy_us;
    int64_t longest_us = carry_out(store, psg, executions);
    if (report < 0)
      printf("longest flush while filling: busy %lld us\n", (long long)longest_us);
    else
      printf("round %d: store_open %lld us, psg_open %lld us (busy %lld us), %llu nodes, %llu edges\n", report,
             (long long)(store_us - begun_us), (long long)(psg_us - store_us), (long long)busy_us,
             (unsigned long long)psg_node_count(psg), (unsigned long long)psg_edge_count(psg));
    fflush(stdout);
    _exit(0);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
    exit(2);
}

int main(int argc, char **argv) {
  const char *folder = argc > 1 ? argv[1] : "/tmp";
  unsigned executions = argc > 2 ? (unsigned)atoi(argv[2]) : 50000;
  int rounds = argc > 3 ? atoi(argv[3]) : 5;
  log_level_set(LOG_ERROR);
  char *path = base_asprintf("%s/psg_load_bench.%d.db", folder, (int)getpid());
  killed_in(path, executions, -1);
  for (int round = 0; round < rounds; round++)
    killed_in(path, MORE_EXECUTIONS, round);
  static const char *const ends[] = {"", "-wal", "-shm", ".lock"};
  for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
    char *file = base_asprintf("%s%s", path, ends[i]);
    unlink(file);
    base_free(file);
  }
  base_free(path);
  return 0;
}

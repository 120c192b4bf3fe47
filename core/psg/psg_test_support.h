/* psg_test_support.h: what the tests of this room share: a store on disk or in memory, and a graph on it. Included by
 * *_test.c only. */
#ifndef GATEHOUSE_CORE_PSG_TEST_SUPPORT_H
#define GATEHOUSE_CORE_PSG_TEST_SUPPORT_H

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/psg/psg_internal.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/base/test.h"

struct bench {
  char folder[64], path[96];
  struct store *store;
  struct psg *psg;
  uint32_t execution_history;
};

__attribute__((unused)) static void bench_start(struct bench *bench) {
  struct error err = {0};
  struct store_options options = {
      .backend = "sqlite", .path = bench->path, .durability = STORE_EPHEMERAL, .idle_ms = 20};
  bench->store = store_open(&options, &err);
  ck_assert_msg(bench->store != NULL, "%s: %s", err.code, err.message);
  bench->psg =
      psg_open(&(struct psg_options){.store = bench->store, .execution_history = bench->execution_history}, &err);
  ck_assert_msg(bench->psg != NULL, "%s: %s", err.code, err.message);
}

__attribute__((unused)) static void bench_open(struct bench *bench) {
  const char *root = getenv("TMPDIR");
  log_level_set(LOG_FATAL);
  snprintf(bench->folder, sizeof(bench->folder), "%.40s/psg-test-XXXXXX", root ? root : "/tmp");
  ck_assert_ptr_nonnull(mkdtemp(bench->folder));
  snprintf(bench->path, sizeof(bench->path), "%s/store.db", bench->folder);
  bench_start(bench);
}

/* Flushes and waits until the store has everything. */
__attribute__((unused)) static void bench_settle(struct bench *bench) {
  struct error err = {0};
  ck_assert_msg(psg_commit_now(bench->psg, false, &err), "%s", err.code);
}

/* Ends as kill -9 would: what was not flushed is lost, no end of the run is written. */
__attribute__((unused)) static void bench_crash(struct bench *bench) {
  struct psg *psg = bench->psg;
  if (psg->in_flight) { /* its answer must find the graph */
    struct store_batch *batch = store_batch_create();
    store_commit_sync(bench->store, &batch, NULL, NULL);
  }
  psg_modules_free(psg);
  psg_graph_clear(&psg->graph);
  psg_journal_free(psg);
  base_free(psg);
  store_close(&bench->store);
}

__attribute__((unused)) static void bench_stop(struct bench *bench) {
  psg_close(&bench->psg);
  store_close(&bench->store);
}

__attribute__((unused)) static void bench_remove(struct bench *bench) {
  DIR *folder = opendir(bench->folder);
  for (struct dirent *entry; folder && (entry = readdir(folder));) {
    char path[400];
    snprintf(path, sizeof(path), "%s/%s", bench->folder, entry->d_name);
    unlink(path);
  }
  if (folder)
    closedir(folder);
  rmdir(bench->folder);
}

/* Sums over the log (PSG-12) and how many events of each kind it has. */
struct tally {
  int64_t nodes, edges;
  uint64_t updates, stages, executions;
  char last_time[CLOCK_RFC3339_BYTES];
};

__attribute__((unused)) static bool tally_event(void *arg, const struct store_event *event) {
  struct tally *tally = arg;
  struct error err = {0};
  const char *token;
  size_t length;
  ck_assert_msg(psg_event_check(event->bytes, event->length, &err), "%s in %.*s", err.message, (int)event->length,
                (const char *)event->bytes);
  char *timestamp = psg_object_text(event->bytes, event->length, "timestamp");
  ck_assert_msg(strcmp(timestamp, tally->last_time) > 0, "EVT-14: %s after %s", timestamp, tally->last_time);
  str_copy(tally->last_time, sizeof(tally->last_time), timestamp);
  base_free(timestamp);
  tally->stages += str_equal(event->family, "pipeline_stage");
  tally->executions += str_equal(event->family, "runtime_execution");
  if (!str_equal(event->family, "graph_update"))
    return true;
  tally->updates++;
  ck_assert(json_member(event->bytes, event->length, "node_delta", &token, &length));
  tally->nodes += strtoll(token, NULL, 10);
  ck_assert(json_member(event->bytes, event->length, "edge_delta", &token, &length));
  tally->edges += strtoll(token, NULL, 10);
  return true;
}

__attribute__((unused)) static struct tally bench_tally(struct bench *bench) {
  struct tally tally = {0};
  struct store_event_query all = {0};
  ck_assert(store_events_read(bench->store, &all, tally_event, &tally, NULL));
  return tally;
}

__attribute__((unused)) static void law_holds(struct bench *bench) {
  bench_settle(bench);
  struct tally tally = bench_tally(bench);
  ck_assert_int_eq(tally.nodes, (int64_t)psg_node_count(bench->psg));
  ck_assert_int_eq(tally.edges, (int64_t)psg_edge_count(bench->psg));
}

#endif

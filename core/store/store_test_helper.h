/* store_test_helper.h: what the tests of this room share: a scratch folder, both back ends, small builders. */
#ifndef GATEHOUSE_CORE_STORE_TEST_HELPER_H
#define GATEHOUSE_CORE_STORE_TEST_HELPER_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/store/store.h"
#include "sdk/base/id.h"
#include "sdk/base/test.h"

struct scratch {
  char folder[64];
  char path[96];
};

static inline void scratch_open(struct scratch *scratch) {
  const char *root = getenv("TMPDIR");
  snprintf(scratch->folder, sizeof(scratch->folder), "%.40s/store-test-XXXXXX", root ? root : "/tmp");
  ck_assert_ptr_nonnull(mkdtemp(scratch->folder));
  snprintf(scratch->path, sizeof(scratch->path), "%s/store.db", scratch->folder);
}

static inline void scratch_close(struct scratch *scratch) {
  DIR *folder = opendir(scratch->folder);
  for (struct dirent *entry; folder && (entry = readdir(folder));) {
    char path[400];
    snprintf(path, sizeof(path), "%s/%s", scratch->folder, entry->d_name);
    unlink(path);
  }
  if (folder)
    closedir(folder);
  rmdir(scratch->folder);
}

/* FOR_BACKENDS(store, scratch) { … }: the block runs once for each back end with an open store. */
static const char *const test_backends[] = {"memory", "sqlite"};
#define FOR_BACKENDS(backend_)                                                                                         \
  for (size_t backend_##_i = 0; backend_##_i < sizeof(test_backends) / sizeof(test_backends[0]); backend_##_i++)       \
    for (const char *backend_ = test_backends[backend_##_i]; backend_; backend_ = NULL)

static inline struct store_options test_options(const char *backend, const struct scratch *scratch) {
  return (struct store_options){.backend = backend,
                                .path = scratch->path,
                                .durability = strcmp(backend, "memory") == 0 ? STORE_EPHEMERAL : STORE_DURABLE,
                                .idle_ms = 20};
}

static inline struct store *test_open(const struct store_options *options) {
  struct error err = {0};
  struct store *store = store_open(options, &err);
  ck_assert_msg(store != NULL, "%s: %s", err.code, err.message);
  return store;
}

/* Commits and checks the code: NULL expects success. */
static inline struct store_commit_result test_commit(struct store *store, struct store_batch *batch, const char *code) {
  struct store_commit_result result = {0};
  struct error err = {0};
  bool good = store_commit_sync(store, &batch, &result, &err);
  ck_assert_msg(good == (code == NULL), "%s: %s", err.code, err.message);
  ck_assert_str_eq(err.code, code ? code : "");
  return result;
}

static inline struct store_commit_result test_put(struct store *store, const char *key, const char *value,
                                                  uint64_t expected, const char *code) {
  struct store_batch *batch = store_batch_create();
  store_batch_put(batch, "tools", key, value, strlen(value), expected);
  return test_commit(store, batch, code);
}

static inline void test_expect(struct store *store, const char *key, const char *value) {
  struct store_value found;
  struct error err = {0};
  bool there = store_get(store, "tools", key, &found, &err);
  ck_assert_msg(there == (value != NULL), "%s %s", key, err.code);
  if (there)
    ck_assert_str_eq(found.data, value);
  else
    ck_assert_str_eq(err.code, "not_found");
  store_value_free(&found);
}

/* An event with number n in its bytes; trace and context by n modulo. */
static inline void test_event_add(struct store_batch *batch, uint64_t n, const char *event_id) {
  char id[ID_UUID_BYTES], trace[32], context[32], bytes[64];
  if (!event_id)
    id_uuid_v4(id);
  snprintf(trace, sizeof(trace), "trace-%llu", (unsigned long long)(n % 7));
  snprintf(context, sizeof(context), "context-%llu", (unsigned long long)(n % 3));
  int length = snprintf(bytes, sizeof(bytes), "{\"n\":%llu}", (unsigned long long)n);
  store_batch_append_event(batch, &(struct store_event){.event_id = event_id ? event_id : id,
                                                        .trace_id = trace,
                                                        .context_id = context,
                                                        .family = n % 2 ? "graph_update" : "pipeline_stage",
                                                        .type = "node_add",
                                                        .wall_us = (int64_t)n,
                                                        .bytes = bytes,
                                                        .length = (size_t)length});
}

struct seen {
  uint64_t count, first_seq, last_seq;
  char text[4096];
};

static inline bool seen_event(void *arg, const struct store_event *event) {
  struct seen *seen = arg;
  seen->count++;
  if (!seen->first_seq)
    seen->first_seq = event->seq;
  ck_assert_uint_gt(event->seq, seen->last_seq);
  seen->last_seq = event->seq;
  return true;
}

static inline struct seen test_events(struct store *store, struct store_event_query query) {
  struct seen seen = {0};
  struct error err = {0};
  ck_assert_msg(store_events_read(store, &query, seen_event, &seen, &err), "%s", err.code);
  return seen;
}

static inline bool seen_row(void *arg, const struct store_row *row) {
  struct seen *seen = arg;
  seen->count++;
  snprintf(seen->text + strlen(seen->text), sizeof(seen->text) - strlen(seen->text), "%s=%.*s;", row->key,
           (int)row->length, (const char *)row->value);
  return true;
}

#endif

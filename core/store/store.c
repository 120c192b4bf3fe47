/* store.c: opening, closing, reading, numbers. The handle ties a back end to the writer thread (store_writer.c). */
#include "core/store/store.h"

#include <endian.h>
#include <string.h>

#include "core/store/store_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

static const struct store_backend *const backends[] = {&store_memory_backend, &store_sqlite_backend};

static const struct store_backend *backend_find(const char *name) {
  for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
    if (str_equal(backends[i]->name, name))
      return backends[i];
  return NULL;
}

static void options_copy(struct store_options *target, const struct store_options *source) {
  *target = *source;
  target->backend = target->path = target->sqlite_vfs = NULL; /* needed by open only */
  if (!target->queue_limit_bytes)
    target->queue_limit_bytes = 16u << 20;
  if (!target->group_limit_batches)
    target->group_limit_batches = 1024;
  if (!target->idle_ms)
    target->idle_ms = 200;
}

static void store_close_rest(struct store *store) {
  store_feed_end_all(store);
  store->backend->close(store->self);
  store_handover_destroy(store);
  store->magic = 0;
  base_free(store);
}

struct store *store_open(const struct store_options *options, struct error *err) {
  const struct store_backend *backend = backend_find(options->backend);
  if (!backend) {
    error_set(err, ERR_ARGUMENT_INVALID, "There is no such store back end.");
    return NULL;
  }
  if (options->durability == STORE_REPLICATED) {
    error_set(err, ERR_UNSUPPORTED, "No store back end keeps replicas.");
    return NULL;
  }
  if (!backend->accepts(options, err))
    return NULL;
  struct store *store = BASE_NEW(struct store);
  options_copy(&store->options, options);
  store->backend = backend;
  store->self = backend->open(options, &store->position, err);
  if (!store->self) {
    base_free(store);
    return NULL;
  }
  store->revision = store->position.revision;
  store->seq = store->position.seq;
  store->wall_us = store->position.wall_us;
  store->magic = STORE_MAGIC;
  store_handover_init(store);
  if (!store_writer_start(store, err)) {
    store_close_rest(store);
    return NULL;
  }
  return store;
}

void store_close(struct store **store_pointer) {
  struct store *store = BASE_TAKE(*store_pointer);
  if (!store)
    return;
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  BASE_CHECK(store->callback_depth == 0);
  do { /* the last callbacks may commit more */
    store_writer_stop(store);
    store_dispatch(store);
  } while (store->queue_head && store_writer_start(store, NULL));
  store_close_rest(store);
}

struct store *store_reader_create(const struct store *store) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  struct store *reader = BASE_NEW(struct store);
  reader->magic = STORE_MAGIC;
  reader->backend = store->backend;
  reader->self = store->self;
  reader->reader = true;
  reader->seq = store->seq;
  return reader;
}

bool store_reader_begin(struct store *reader, struct error *err) {
  BASE_CHECK(reader->reader && !reader->reader_begun);
  void *self = reader->backend->reader_open(reader->self, err);
  reader->reader_begun = self != NULL;
  if (self)
    reader->self = self;
  return self != NULL;
}

void store_reader_close(struct store **reader_pointer) {
  struct store *reader = BASE_TAKE(*reader_pointer);
  if (!reader)
    return;
  BASE_CHECK_MAGIC(reader, STORE_MAGIC);
  BASE_CHECK(reader->reader);
  if (reader->reader_begun)
    reader->backend->reader_close(reader->self);
  reader->magic = 0;
  base_free(reader);
}

uint64_t store_revision(const struct store *store) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  return store->revision;
}

uint64_t store_last_seq(const struct store *store) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  return store->seq;
}

int64_t store_event_time_next(struct store *store) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  int64_t now_us = clock_wall_us();
  store->wall_us = now_us > store->wall_us ? now_us : store->wall_us + 1;
  return store->wall_us;
}

void store_value_free(struct store_value *value) {
  base_free(value->data);
  *value = (struct store_value){0};
}

bool store_get(struct store *store, const char *name_space, const char *key, struct store_value *value,
               struct error *err) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  *value = (struct store_value){0};
  return store->backend->get(store->self, name_space, key, value, err);
}

bool store_scan(struct store *store, const char *name_space, const char *key_prefix, store_row_visit *visit, void *arg,
                struct error *err) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  return store->backend->scan(store->self, name_space, name_space && key_prefix ? key_prefix : "", visit, arg, err);
}

bool store_event_matches(const struct store_event_query *query, const struct store_event *event) {
  return (str_is_empty(query->trace_id) || strcmp(query->trace_id, event->trace_id) == 0) &&
         (str_is_empty(query->context_id) || strcmp(query->context_id, event->context_id) == 0) &&
         (str_is_empty(query->family) || strcmp(query->family, event->family) == 0) &&
         (str_is_empty(query->type) || strcmp(query->type, event->type) == 0) &&
         (query->since_wall_us == 0 || event->wall_us >= query->since_wall_us);
}

bool store_events_read(struct store *store, const struct store_event_query *query, store_event_visit *visit, void *arg,
                       struct error *err) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  struct store_event_query bounded = *query;
  if (!bounded.limit)
    bounded.limit = UINT64_MAX;
  if (!bounded.through_seq || bounded.through_seq > store->seq)
    bounded.through_seq = store->seq;
  if (bounded.after_seq >= bounded.through_seq)
    return true;
  return store->backend->events(store->self, &bounded, visit, arg, err);
}

struct checkpoint_reading {
  const char *name;
  store_checkpoint_visit *visit;
  void *arg;
  bool found, whole;
};

static bool checkpoint_row(void *arg, const struct store_row *row) {
  struct checkpoint_reading *reading = arg;
  uint64_t seq;
  reading->found = str_equal(row->key, reading->name); /* the first with this prefix, or there is none */
  reading->whole = row->length >= sizeof(seq);
  if (reading->found && reading->whole) {
    memcpy(&seq, row->value, sizeof(seq));
    reading->visit(reading->arg, be64toh(seq), (const char *)row->value + sizeof(seq), row->length - sizeof(seq));
  }
  return false;
}

bool store_checkpoint_read(struct store *store, const char *name, store_checkpoint_visit *visit, void *arg,
                           struct error *err) {
  struct checkpoint_reading reading = {.name = name, .visit = visit, .arg = arg};
  if (!store_scan(store, STORE_CHECKPOINT_NAMESPACE, name, checkpoint_row, &reading, err))
    return false;
  if (!reading.found)
    return error_set(err, ERR_NOT_FOUND, NULL);
  return reading.whole || error_set(err, ERR_STORE_CORRUPT, NULL);
}

void store_metrics_get(const struct store *store, struct store_metrics *metrics) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  const struct store_counters *counters = &store->counters;
#define COUNTER(name) metrics->name = atomic_load_explicit(&counters->name, memory_order_relaxed)
  COUNTER(commits);
  COUNTER(commits_failed);
  COUNTER(groups);
  COUNTER(events);
  COUNTER(rows);
  COUNTER(checkpoints);
  COUNTER(queue_bytes);
  COUNTER(queue_batches);
  COUNTER(sync_us_sum);
  COUNTER(sync_count);
  for (size_t i = 0; i < STORE_LATENCY_BUCKETS; i++)
    COUNTER(sync_latency[i]);
#undef COUNTER
}

/* store_writer.c: the log-writer thread: takes what is queued, applies it as one transaction with one fsync, hands the
 * outcomes back, and does the back end's housekeeping between groups.
 *
 * A batch that is refused (conflict, duplicate) fails alone. When the transaction itself fails nothing of the group is
 * visible; because one large batch can be what fills the disk, each batch of the group is then tried on its own.
 * Nothing is retried later by itself: whoever waits gets the error and decides. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "core/store/store_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/crash.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define GROUP_BYTES_MAX (8u << 20)

const uint32_t store_latency_bounds_us[STORE_LATENCY_BUCKETS - 1] = {50,   100,   200,   500,    1000,   2000,
                                                                     5000, 10000, 50000, 200000, 1000000};

static void count_sync(struct store *store, int64_t elapsed_us) {
  unsigned bucket = 0;
  while (bucket < STORE_LATENCY_BUCKETS - 1 && elapsed_us > store_latency_bounds_us[bucket])
    bucket++;
  atomic_fetch_add_explicit(&store->counters.sync_latency[bucket], 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&store->counters.sync_us_sum, (uint64_t)elapsed_us, memory_order_relaxed);
  atomic_fetch_add_explicit(&store->counters.sync_count, 1, memory_order_relaxed);
}

static void fail_group(struct store_batch *first, size_t count, const struct error *err) {
  for (struct store_batch *batch = first; count-- > 0; batch = batch->next)
    if (!error_is_set(&batch->error))
      batch->error = *err;
}

/* One transaction over count batches from first. False: rolled back, and *err says why; batches that were refused keep
 * their own error, the others have none. */
static bool group_try(struct store *store, struct store_batch *first, size_t count, struct error *err) {
  const struct store_backend *backend = store->backend;
  const struct store_position before = store->position;
  size_t applied = 0;
  if (!backend->group_begin(store->self, err))
    return false;
  struct store_batch *batch = first;
  for (size_t i = 0; i < count; i++, batch = batch->next) {
    if (error_is_set(&batch->error))
      continue;
    enum store_apply outcome = backend->batch_apply(store->self, batch, &store->position);
    if (outcome == STORE_APPLY_FAILED) {
      *err = batch->error;
      error_clear(&batch->error);
      goto rollback;
    }
    applied += outcome == STORE_APPLY_OK;
  }
  if (applied == 0)
    goto rollback_empty;
  int64_t started_us = clock_monotonic_us();
  if (!backend->group_commit(store->self, err))
    goto rollback;
  count_sync(store, clock_monotonic_us() - started_us);
  atomic_fetch_add_explicit(&store->counters.groups, 1, memory_order_relaxed);
  return true;

rollback:
  store->position = before;
  backend->group_rollback(store->self, &store->position);
  return false;
rollback_empty:
  BASE_CHECK(store->position.seq == before.seq && store->position.revision == before.revision);
  backend->group_rollback(store->self, &store->position);
  return true;
}

static void group_run(struct store *store, struct store_batch *first, size_t count) {
  struct error err = {0};
  if (group_try(store, first, count, &err))
    return;
  if (count == 1 || !error_is(&err, ERR_STORE_FULL)) {
    fail_group(first, count, &err);
    return;
  }
  for (struct store_batch *batch = first; count-- > 0; batch = batch->next)
    if (!error_is_set(&batch->error) && !group_try(store, batch, 1, &err))
      batch->error = err;
}

static void count_batch(struct store *store, struct store_batch *batch) {
  struct store_counters *counters = &store->counters;
  if (error_is_set(&batch->error)) {
    batch->result = (struct store_commit_result){0};
    atomic_fetch_add_explicit(&counters->commits_failed, 1, memory_order_relaxed);
    return;
  }
  uint64_t events = batch->result.first_seq ? batch->result.last_seq - batch->result.first_seq + 1 : 0;
  atomic_fetch_add_explicit(&counters->commits, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&counters->events, events, memory_order_relaxed);
  atomic_fetch_add_explicit(&counters->rows, batch->op_count - events, memory_order_relaxed);
}

/* Under lock: cuts a group off the queue. */
static size_t group_take(struct store *store, struct store_batch **first) {
  size_t count = 0, bytes = 0;
  struct store_batch *last = NULL;
  *first = store->queue_head;
  while (store->queue_head && count < store->options.group_limit_batches && bytes < GROUP_BYTES_MAX) {
    last = store->queue_head;
    bytes += last->size_bytes;
    count++;
    store->queue_head = last->next;
  }
  last->next = NULL;
  if (!store->queue_head)
    store->queue_tail = NULL;
  return count;
}

/* Under lock: outcomes become visible to the core thread. */
static void group_finish(struct store *store, struct store_batch *first, size_t count) {
  size_t bytes = 0;
  struct store_batch *last = first;
  for (struct store_batch *batch = first; batch; batch = batch->next) {
    batch->finished = true;
    bytes += batch->size_bytes;
    last = batch;
  }
  *(store->finished_tail ? &store->finished_tail->next : &store->finished_head) = first;
  store->finished_tail = last;
  atomic_fetch_sub_explicit(&store->counters.queue_bytes, bytes, memory_order_relaxed);
  atomic_fetch_sub_explicit(&store->counters.queue_batches, count, memory_order_relaxed);
  pthread_cond_broadcast(&store->finished);
}

/* Under lock: waits for work. True: nothing came for idle_ms and housekeeping is due. */
static bool wait_for_work(struct store *store, bool housekeeping_due) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += store->options.idle_ms / 1000;
  until.tv_nsec += (long)(store->options.idle_ms % 1000) * 1000000L;
  if (until.tv_nsec >= 1000000000L) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000L;
  }
  while (!store->queue_head && !store->stopping) {
    if (!housekeeping_due)
      pthread_cond_wait(&store->queued, &store->lock);
    else if (pthread_cond_timedwait(&store->queued, &store->lock, &until) == ETIMEDOUT)
      return !store->queue_head;
  }
  return false;
}

/* Under lock: what operators are told. Logged is when the store begins to fail and when it recovers, not each failure
 * in between. err NULL: it took a write. */
static void health_note(struct store *store, const struct error *err) {
  struct store_health *health = &store->health;
  if (err && !health->failing) {
    log_error_value(LOG_ERROR, STORE_ROOM, "commits fail", err);
    health->since_us = clock_monotonic_us();
  } else if (!err && health->failing) {
    log_event(LOG_INFO, STORE_ROOM, "commits succeed again");
  }
  health->failing = err != NULL;
  str_copy(health->code, sizeof(health->code), err ? err->code : "");
}

/* A refusal that is the batch's own fault says nothing about the store. */
static bool store_is_at_fault(const struct error *err) {
  return (err->category == ERROR_CATEGORY_UNAVAILABLE || err->category == ERROR_CATEGORY_INTERNAL) &&
         !error_is(err, ERR_STORE_BUSY);
}

static void health_judge(struct store *store, const struct store_batch *first) {
  for (const struct store_batch *batch = first; batch; batch = batch->next)
    if (!error_is_set(&batch->error))
      health_note(store, NULL);
    else if (store_is_at_fault(&batch->error))
      health_note(store, &batch->error);
}

/* Somebody else held the lock: whether it is free again is seen without a write. */
static void lock_try(struct store *store) {
  struct error err = {0};
  if (!str_equal(store->health.code, error_code_text(ERR_STORE_LOCKED)) ||
      !store->backend->group_begin(store->self, &err))
    return;
  store->backend->group_rollback(store->self, &store->position);
  pthread_mutex_lock(&store->lock);
  health_note(store, NULL);
  pthread_mutex_unlock(&store->lock);
}

void store_health_get(struct store *store, struct store_health *health) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  pthread_mutex_lock(&store->lock);
  *health = store->health;
  pthread_mutex_unlock(&store->lock);
}

static void housekeep(struct store *store, bool idle) {
  unsigned made = store->backend->housekeep(store->self, &store->position, idle);
  atomic_fetch_add_explicit(&store->counters.checkpoints, made, memory_order_relaxed);
}

static void *writer_main(void *arg) {
  struct store *store = arg;
  bool housekeeping_due = true;
  pthread_mutex_lock(&store->lock);
  for (;;) {
    if (wait_for_work(store, housekeeping_due)) {
      pthread_mutex_unlock(&store->lock);
      housekeep(store, true);
      lock_try(store);
      pthread_mutex_lock(&store->lock);
      housekeeping_due = store->health.failing;
      continue;
    }
    if (!store->queue_head)
      break; /* stopping, and everything is committed */
    struct store_batch *group;
    size_t count = group_take(store, &group);
    pthread_mutex_unlock(&store->lock);

    group_run(store, group, count);
    for (struct store_batch *batch = group; batch; batch = batch->next)
      count_batch(store, batch);

    pthread_mutex_lock(&store->lock);
    health_judge(store, group);
    group_finish(store, group, count);
    pthread_mutex_unlock(&store->lock);
    if (store->options.wake)
      store->options.wake(store->options.wake_arg);
    housekeep(store, false);
    housekeeping_due = true;
    pthread_mutex_lock(&store->lock);
  }
  pthread_mutex_unlock(&store->lock);
  return NULL;
}

void store_handover_init(struct store *store) {
  pthread_condattr_t monotonic;
  BASE_CHECK(pthread_mutex_init(&store->lock, NULL) == 0 && pthread_condattr_init(&monotonic) == 0);
  BASE_CHECK(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
  BASE_CHECK(pthread_cond_init(&store->queued, &monotonic) == 0 && pthread_cond_init(&store->finished, NULL) == 0);
  pthread_condattr_destroy(&monotonic);
}

void store_handover_destroy(struct store *store) {
  pthread_mutex_destroy(&store->lock);
  pthread_cond_destroy(&store->queued);
  pthread_cond_destroy(&store->finished);
}

bool store_writer_start(struct store *store, struct error *err) {
  store->stopping = false;
  sigset_t before; /* signals belong to the core thread */
  crash_signals_block_others(&before);
  int failed = pthread_create(&store->writer, NULL, writer_main, store);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed)
    return error_set(err, ERR_STORE_FAILED, "The store's writer thread cannot be started.");
  pthread_setname_np(store->writer, "store-writer");
  return true;
}

void store_writer_stop(struct store *store) {
  pthread_mutex_lock(&store->lock);
  store->stopping = true;
  pthread_cond_signal(&store->queued);
  pthread_mutex_unlock(&store->lock);
  BASE_CHECK(pthread_join(store->writer, NULL) == 0);
}

/* ---- Core thread ---- */

bool store_queue_full(const struct store *store) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  return atomic_load_explicit(&store->counters.queue_bytes, memory_order_relaxed) > store->options.queue_limit_bytes;
}

void store_commit(struct store *store, struct store_batch **batch_pointer, store_done *done, void *arg) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  struct store_batch *batch = BASE_TAKE(*batch_pointer);
  BASE_CHECK_MAGIC(batch, STORE_BATCH_MAGIC);
  batch->done = done;
  batch->done_arg = arg;
  uint64_t queued_bytes = atomic_load_explicit(&store->counters.queue_bytes, memory_order_relaxed);
  if (!error_is_set(&batch->error) && queued_bytes > 2 * store->options.queue_limit_bytes)
    error_set(&batch->error, ERR_STORE_BUSY, NULL);
  if (error_is_set(&batch->error)) { /* it only travels to keep the order of callbacks */
    arena_reset(batch->arena);
    batch->op_count = 0;
    batch->size_bytes = 0;
  }
  pthread_mutex_lock(&store->lock);
  *(store->queue_tail ? &store->queue_tail->next : &store->queue_head) = batch;
  store->queue_tail = batch;
  atomic_fetch_add_explicit(&store->counters.queue_bytes, batch->size_bytes, memory_order_relaxed);
  atomic_fetch_add_explicit(&store->counters.queue_batches, 1, memory_order_relaxed);
  pthread_cond_signal(&store->queued);
  pthread_mutex_unlock(&store->lock);
}

struct sync_wait {
  struct store_commit_result result;
  struct error error;
};

static void sync_done(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct sync_wait *wait = arg;
  wait->result = *result;
  if (err)
    wait->error = *err;
}

bool store_commit_sync(struct store *store, struct store_batch **batch_pointer, struct store_commit_result *result,
                       struct error *err) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  BASE_CHECK(store->callback_depth == 0);
  struct sync_wait wait = {0};
  struct store_batch *batch = *batch_pointer;
  store_commit(store, batch_pointer, sync_done, &wait);
  pthread_mutex_lock(&store->lock);
  while (!batch->finished) /* only store_dispatch, on this thread, frees it */
    pthread_cond_wait(&store->finished, &store->lock);
  pthread_mutex_unlock(&store->lock);
  store_dispatch(store);
  if (result)
    *result = wait.result;
  if (err)
    *err = wait.error;
  return !error_is_set(&wait.error);
}

static void note_applied(struct store *store, const struct store_batch *batch) {
  if (batch->result.revision > store->revision)
    store->revision = batch->result.revision;
  if (batch->result.last_seq > store->seq)
    store->seq = batch->result.last_seq;
  for (size_t i = 0; i < batch->op_count; i++)
    if (batch->ops[i].kind == STORE_OP_EVENT && batch->ops[i].event.wall_us > store->wall_us)
      store->wall_us = batch->ops[i].event.wall_us;
}

size_t store_dispatch(struct store *store) {
  BASE_CHECK_MAGIC(store, STORE_MAGIC);
  BASE_CHECK(store->callback_depth == 0);
  pthread_mutex_lock(&store->lock);
  struct store_batch *next, *batch = BASE_TAKE(store->finished_head);
  store->finished_tail = NULL;
  pthread_mutex_unlock(&store->lock);

  size_t finished = 0, lost = 0;
  struct error lost_error = {0};
  for (; batch; batch = next, finished++) {
    next = batch->next;
    bool failed = error_is_set(&batch->error);
    if (!failed)
      note_applied(store, batch);
    else if (!batch->done && lost++ == 0)
      lost_error = batch->error;
    store->callback_depth++;
    if (batch->done)
      batch->done(batch->done_arg, &batch->result, failed ? &batch->error : NULL);
    if (!failed)
      store_feed_deliver(store, batch);
    store->callback_depth--;
    store_batch_free(&batch);
  }
  if (lost)
    log_event(LOG_WARN, STORE_ROOM, "unattended writes failed", LOG_INT("count", lost),
              LOG_TEXT("code", lost_error.code));
  store_feed_catch_up(store);
  return finished;
}

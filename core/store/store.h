/* store.h: the value state layer (VSL-1..16): key-value rows with revisions, an append-only event log, a change feed
 * and checkpoints, over a back end that the configuration picks ("memory" or "sqlite").
 *
 * Threads. One core thread owns a `struct store`: every function here is called on it. The store runs one log-writer
 * thread of its own, which is the only one that writes. A commit is handed over as a batch, the writer groups what is
 * queued into one transaction with one fsync, then calls `wake` (on the writer's thread); the core answers by calling
 * store_dispatch() on its own thread, which runs the `done` callbacks in commit order and then the change feed.
 *
 * Promises. A batch is applied whole or not at all. When `done` was called without an error, the batch is readable
 * (VSL-3) and, with STORE_DURABLE, it survives kill -9 and power loss as far as the disk keeps its word (VSL-5,
 * VSL-10). When it was called with an error nothing of the batch is visible. A batch that was neither answered nor
 * refused when the process died is either wholly there or wholly absent. Event bytes come back exactly as they were
 * given (VSL-8); the store makes no event of its own (EVT-15).
 *
 * Failures. A full disk is ERR_STORE_FULL for the commits that met it; the store stays open and later commits try
 * again. A damaged file is ERR_STORE_CORRUPT, never repaired or recreated silently. docs/store.md has the file format.
 */
#ifndef GATEHOUSE_CORE_STORE_H
#define GATEHOUSE_CORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sdk/base/error.h"
#include "sdk/base/id.h"

struct store;
struct store_batch;
struct store_feed;

/* Limits. Larger things are refused with ERR_ARGUMENT_TOO_LARGE when the batch is committed. */
#define STORE_NAMESPACE_MAX_BYTES 64      /* without the NUL; not empty; UTF-8 */
#define STORE_KEY_MAX_BYTES 1024          /* without the NUL; not empty; UTF-8 */
#define STORE_VALUE_MAX_BYTES (64u << 20) /* row values and checkpoints */
#define STORE_EVENT_MAX_BYTES (16u << 20) /* event bytes */
#define STORE_EVENT_FIELD_MAX_BYTES 256   /* trace_id, context_id, project_id, family, type */

/* VSL-5. */
enum store_durability {
  STORE_EPHEMERAL = 0,  /* no fsync; the only policy of the memory back end */
  STORE_DURABLE = 1,    /* acknowledged after fsync */
  STORE_REPLICATED = 2, /* refused with ERR_UNSUPPORTED: no back end here has replicas */
};

struct store_options {
  const char *backend; /* "memory" or "sqlite" */
  const char *path;    /* sqlite: the database file; its folder exists. "<path>.lock" is created beside it */
  enum store_durability durability;
  void (*wake)(
      void *wake_arg); /* completions are ready: arrange for store_dispatch(). May be NULL (tests). Called on the
                          writer thread, and on the core thread by store_feed_subscribe; must not call back in */
  void *wake_arg;
  size_t queue_limit_bytes;   /* store_queue_full() above this; commits refused above twice this. 0: 16 MiB */
  size_t group_limit_batches; /* most batches in one transaction. 0: 1024 */
  uint64_t size_limit_bytes;  /* database larger than this: ERR_STORE_FULL. 0: no limit */
  uint64_t check_limit_bytes; /* full structure check at open up to this file size, a quick look above. 0: 16 MiB */
  uint64_t change_history;    /* revisions the change feed can go back; trimmed when idle. 0: 100000 */
  uint32_t idle_ms;           /* quiet time after which the writer does its housekeeping. 0: 200 */
  const char *sqlite_vfs;     /* a registered SQLite VFS by name; NULL: the default one */
};

/* Opens the store and starts the writer thread. Copies the options. Blocks for the time that recovery and the checks
 * need. Returns NULL with: ERR_ARGUMENT_INVALID (unknown back end, no path), ERR_UNSUPPORTED (durability the back end
 * cannot honour), ERR_STORE_LOCKED (another process has it), ERR_STORE_CORRUPT (damaged, or not a store of ours),
 * ERR_STORE_VERSION (written by a newer version), ERR_STORE_FULL, ERR_STORE_FAILED (any other input/output error). */
struct store *store_open(const struct store_options *options, struct error *err);

/* Version of the schema that this program writes, and brings an older store to (docs/store.md). */
uint64_t store_schema_version(void);

/* Commits what is queued, runs the outstanding callbacks (store_dispatch), ends the writer, ends every feed, frees;
 * nulls the pointer. NULL-safe. Not from inside a callback of the store. */
void store_close(struct store **store);

/* A second way to read, for one other thread: what was committed and dispatched when it was made (rows: or later). Only
 * store_get, store_scan, store_events_read and store_checkpoint_read work on it. Made on the core thread, which costs
 * nothing; begun (ERR_STORE_*), read and closed on one other thread, or on the core thread when that one has ended. It
 * ends before the store. */
struct store *store_reader_create(const struct store *store);
bool store_reader_begin(struct store *reader, struct error *err);
void store_reader_close(struct store **reader); /* nulls; NULL-safe */

/* ---- Writing ---------------------------------------------------------------------------------------------------- */

/* Revisions: one counter for the whole store, increased by one with every committed batch that changes rows; every row
 * that a batch puts has that batch's revision. First revision: 1. What a put or delete expects of the row as it is: */
#define STORE_REVISION_ANY UINT64_MAX /* anything, also absence */
#define STORE_REVISION_NONE 0         /* no such row: create */

/* One entry of the event log. Texts are UTF-8 and copied; NULL reads as "". The index fields live outside the bytes
 * (VSL-16). seq is assigned by the store on commit: 1, 2, 3, … without gaps. */
struct store_event {
  uint64_t seq;           /* out: filled when read */
  const char *event_id;   /* a UUID in text form; unique in the log (VSL-2) */
  const char *trace_id;   /* "" when there is none */
  const char *context_id; /* "" when there is none */
  const char *project_id; /* "" when there is none */
  const char *family;     /* one of the event families; not empty */
  const char *type;       /* not empty */
  int64_t wall_us;        /* since 1970; see store_event_time_next */
  const void *bytes;      /* the event as it was emitted; opaque here */
  size_t length;
};

struct store_commit_result {
  uint64_t revision;  /* of the rows this batch put; without row changes: the store's revision at that time */
  uint64_t first_seq; /* of the batch's events, in the order they were appended; 0: no events */
  uint64_t last_seq;
};

/* Called once on the core thread. err is NULL on success, else why nothing was applied: ERR_STORE_CONFLICT (a row was
 * not at the expected revision), ERR_STORE_DUPLICATE (an event_id is in the log already), ERR_STORE_FULL,
 * ERR_STORE_BUSY (queue over its bound), ERR_STORE_LOCKED, ERR_STORE_CORRUPT, ERR_STORE_FAILED, ERR_ARGUMENT_*. May
 * commit further batches; must not call store_commit_sync, store_dispatch or store_close. */
typedef void store_done(void *arg, const struct store_commit_result *result, const struct error *err);

/* A batch under construction; builders copy everything they are given and never fail: the first bad argument is kept
 * and reported when the batch is committed. Operations apply in order, each sees the effect of those before it. */
struct store_batch *store_batch_create(void);
void store_batch_free(struct store_batch **batch); /* for a batch that is not committed; NULL-safe, nulls */
void store_batch_put(struct store_batch *batch, const char *name_space, const char *key, const void *value,
                     size_t length, uint64_t expected_revision);
/* Deleting an absent row: fine with STORE_REVISION_ANY, else ERR_STORE_CONFLICT. STORE_REVISION_NONE is refused. */
void store_batch_delete(struct store_batch *batch, const char *name_space, const char *key, uint64_t expected_revision);
void store_batch_append_event(struct store_batch *batch, const struct store_event *event);
/* The event ids of this batch come from this process's random generator and were in no batch before: they are compared
 * with the newest events, but the whole log is not searched for them, which costs the more the longer it is. Not for
 * ids that somebody else chose, nor for a batch that is tried again. */
void store_batch_ids_fresh(struct store_batch *batch);
size_t store_batch_size_bytes(const struct store_batch *batch); /* what it counts in the queue */

/* Hands the batch to the writer (takes it, nulls the pointer). done may be NULL: fire and forget; a failure is then
 * logged and counted. done is never called from inside store_commit. */
void store_commit(struct store *store, struct store_batch **batch, store_done *done, void *arg);

/* The same, waiting: for start-up, tools and tests. Runs store_dispatch() before it returns, so callbacks of earlier
 * commits run first. Errors as store_done. result may be NULL. */
bool store_commit_sync(struct store *store, struct store_batch **batch, struct store_commit_result *result,
                       struct error *err);

/* Runs the callbacks of finished commits in commit order, then the feed for each. Returns how many commits it finished.
 */
size_t store_dispatch(struct store *store);

/* Back-pressure: true while more than queue_limit_bytes wait for the writer. Callers stop taking new work then. */
bool store_queue_full(const struct store *store);

/* A wall time for the next event: never equal to or before one handed out or stored earlier, also across restarts
 * (EVT-14). Microseconds since 1970. */
int64_t store_event_time_next(struct store *store);

/* ---- Reading (committed state; blocks for the read only) --------------------------------------------------------- */

struct store_value {
  void *data; /* NUL added behind length */
  size_t length;
  uint64_t revision;
};
void store_value_free(struct store_value *value); /* zeroes the struct */

/* One row; the caller frees *value with store_value_free. Errors: ERR_NOT_FOUND, ERR_STORE_CORRUPT, ERR_STORE_FAILED.
 */
bool store_get(struct store *store, const char *name_space, const char *key, struct store_value *value,
               struct error *err);

/* A row during a scan or in the feed; valid during the callback. */
struct store_row {
  const char *name_space;
  const char *key;
  const void *value;
  size_t length;
  uint64_t revision;
};
/* Return false to stop early (the scan then still succeeds). May read and commit. */
typedef bool store_row_visit(void *arg, const struct store_row *row);

/* All rows of a namespace whose key starts with key_prefix (NULL: all), in byte order of the keys. name_space NULL:
 * every namespace (key_prefix NULL then). One consistent view. */
bool store_scan(struct store *store, const char *name_space, const char *key_prefix, store_row_visit *visit, void *arg,
                struct error *err);

/* Which events; all given conditions hold together. NULL texts and zero numbers do not restrict. Order: seq, ascending.
 */
struct store_event_query {
  uint64_t after_seq;
  uint64_t through_seq;
  uint64_t limit;
  const char *trace_id;
  const char *context_id;
  const char *family;
  const char *type;
  int64_t since_wall_us;
};
typedef bool store_event_visit(void *arg, const struct store_event *event);

/* VSL-6, VSL-7: trace_id and context_id use the index. Return false from visit to stop. */
bool store_events_read(struct store *store, const struct store_event_query *query, store_event_visit *visit, void *arg,
                       struct error *err);

/* What the core thread has been told of by store_dispatch so far. */
uint64_t store_revision(const struct store *store);
uint64_t store_last_seq(const struct store *store);

/* ---- Change feed --------------------------------------------------------------------------------------------------
 */

enum store_feed_kind { STORE_FEED_ROWS, STORE_FEED_EVENTS };
enum store_feed_item_kind {
  STORE_FEED_ROW_PUT,    /* row: with its value */
  STORE_FEED_ROW_DELETE, /* row: value NULL, revision of the deletion */
  STORE_FEED_EVENT,      /* event */
  STORE_FEED_SYNCED,     /* once: everything that was there at subscription has been delivered */
  STORE_FEED_GONE,       /* the history needed was trimmed meanwhile, or reading failed (err): the feed ends here */
};
struct store_feed_item {
  enum store_feed_item_kind kind;
  const struct store_row *row;
  const struct store_event *event;
  const struct error *err;
};
/* May read, commit, subscribe and unsubscribe (also itself). */
typedef void store_feed_visit(void *arg, const struct store_feed_item *item);

#define STORE_FEED_NOW UINT64_MAX
struct store_feed_options {
  enum store_feed_kind kind;
  uint64_t after;         /* rows: after this revision; events: after this seq; STORE_FEED_NOW: only what comes */
  const char *name_space; /* rows only; NULL: all but the store's own (names that start with '_') */
  const char *key_prefix; /* rows only; NULL: all */
  const char *trace_id;   /* events only, as the following; NULL: all */
  const char *context_id;
  const char *family;
};

/* Starts a feed: delivered on the core thread by store_dispatch, in order, each change once. A feed that resumes in the
 * past gets the latest state of each row that changed since, in revision order (an older state of a row that changed
 * again is skipped). Errors: ERR_STORE_REVISION_GONE (trimmed: scan and subscribe from store_revision()),
 * ERR_OUT_OF_RANGE (after lies in the future), ERR_STORE_*. The feed lives until unsubscribed or the store is closed.
 */
struct store_feed *store_feed_subscribe(struct store *store, const struct store_feed_options *options,
                                        store_feed_visit *visit, void *arg, struct error *err);
void store_feed_unsubscribe(struct store_feed **feed); /* NULL-safe, nulls; no callback after this returns */

/* Forgets the feed's row history up to and including this revision. Asynchronous, done as in store_commit. */
void store_feed_trim(struct store *store, uint64_t through_revision, store_done *done, void *arg);

/* ---- Checkpoints, export -------------------------------------------------------------------------------------------
 */

/* A named blob derived from the log up to and including seq; bounds the replay at start. Part of a batch. */
void store_checkpoint_put(struct store_batch *batch, const char *name, uint64_t seq, const void *data, size_t length);
/* In place: data is valid during the callback, for a checkpoint is read when nobody has time for copies of it. */
typedef void store_checkpoint_visit(void *arg, uint64_t seq, const void *data, size_t length);
/* Errors: ERR_NOT_FOUND when there is none, ERR_STORE_*. */
bool store_checkpoint_read(struct store *store, const char *name, store_checkpoint_visit *visit, void *arg,
                           struct error *err);

/* JSON lines (VSL-11): a header, every row (not checkpoints: they are derived), every event; bytes kept exactly. Import
 * goes into an empty store, keeps revisions and seqs, and is stops at the first bad line, naming it:
 * ERR_STORE_NOT_EMPTY, ERR_STORE_IMPORT (malformed), ERR_IO. Both block: tools and start-up. */
bool store_export(struct store *store, FILE *target, struct error *err);
bool store_import(struct store *store, FILE *source, struct error *err);

/* ---- Numbers
 * --------------------------------------------------------------------------------------------------------- */

#define STORE_LATENCY_BUCKETS 12
extern const uint32_t
    store_latency_bounds_us[STORE_LATENCY_BUCKETS - 1]; /* upper bounds; the last bucket is the rest */

struct store_metrics {
  uint64_t commits;        /* batches that succeeded */
  uint64_t commits_failed; /* batches that did not */
  uint64_t groups;         /* transactions: commits / groups is the grouping */
  uint64_t events;
  uint64_t rows;          /* puts and deletes */
  uint64_t queue_bytes;   /* now */
  uint64_t queue_batches; /* now */
  uint64_t checkpoints;   /* of the write-ahead log */
  uint64_t sync_us_sum;   /* time in the transactions' commit (write and fsync) */
  uint64_t sync_count;
  uint64_t sync_latency[STORE_LATENCY_BUCKETS]; /* not cumulative */
};
void store_metrics_get(const struct store *store, struct store_metrics *metrics); /* any thread */

/* Whether the store takes writes: from the first commit that failed for a reason of its own (not a conflict, not a full
 * queue) until one succeeds; a lock that somebody else holds is tried again by itself. */
struct store_health {
  bool failing;
  int64_t since_us;          /* monotonic */
  char code[ERROR_CODE_MAX]; /* of the last failure, such as "store.locked" */
};
void store_health_get(struct store *store, struct store_health *health); /* any thread */

#endif

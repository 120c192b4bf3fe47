/* store_internal.h: what the files of this room share. No other room includes it.
 *
 * store.c           open, close, reads, numbers
 * store_batch.c     building a batch
 * store_writer.c    the log-writer thread, groups, completions
 * store_feed.c      the change feed
 * store_portable.c  export and import
 * event_block.c     events as they lie on disk
 * event_index.c     which event has this id, trace or context (derived data, see there)
 * memory_backend.c, sqlite_*.c   the back ends, behind struct store_backend */
#ifndef GATEHOUSE_CORE_STORE_INTERNAL_H
#define GATEHOUSE_CORE_STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/store/store.h"
#include "sdk/base/arena.h"
#include "sdk/base/siphash.h"

#define STORE_MAGIC 0x53544f52u
#define STORE_BATCH_MAGIC 0x53544254u
#define STORE_FEED_MAGIC 0x53544644u
#define STORE_CHECKPOINT_NAMESPACE "_checkpoint"
#define STORE_ROOM "store"

/* ---- Batches ---- */

enum store_op_kind { STORE_OP_PUT, STORE_OP_DELETE, STORE_OP_EVENT, STORE_OP_TRIM };

struct store_op {
  enum store_op_kind kind;
  bool applied; /* set by the back end: it changed something */
  union {
    struct {
      struct store_row row;       /* revision is filled when applied */
      uint64_t expected_revision; /* rows */
      uint64_t import_revision;   /* not 0: keep this revision (import) */
    };
    struct {
      struct store_event event; /* seq is filled when applied */
      uint8_t event_id[ID_UUID_RAW_BYTES];
      char event_id_text[ID_UUID_BYTES];
    };
    uint64_t trim_revision;
  };
};

struct store_batch {
  uint32_t magic;
  bool has_rows;
  bool ids_fresh;       /* of the events: see store_batch_ids_fresh */
  bool can_fail_midway; /* an operation behind one on a row may be refused: the back end needs a way back for rows */
  bool import;          /* rows keep their revisions and leave no history behind */
  bool finished;        /* under the store's lock */
  uint64_t import_revision;
  struct arena *arena;
  struct store_op *ops;
  size_t op_count, op_capacity, size_bytes;
  struct error error; /* first bad argument, later the outcome */
  struct store_commit_result result;
  store_done *done;
  void *done_arg;
  struct store_batch *next;
};

struct store_op *store_batch_add(struct store_batch *batch, enum store_op_kind kind);

/* ---- Back ends ---- */

/* Where the log stands; owned by the writer, restored by it when a transaction fails. */
struct store_position {
  uint64_t revision;
  uint64_t seq;
  int64_t wall_us; /* highest wall time of any event */
};

enum store_apply {
  STORE_APPLY_OK,
  STORE_APPLY_REFUSED, /* this batch only; nothing of it stays; the transaction is good */
  STORE_APPLY_FAILED,  /* the transaction is lost; roll back */
};

typedef void store_change_visit(void *arg, const struct store_row *row, bool deleted);

/* One back end. `self` is its own handle. Errors are filled by the back end. */
struct store_backend {
  const char *name;
  bool (*accepts)(const struct store_options *options, struct error *err); /* arguments and durability */
  void *(*open)(const struct store_options *options, struct store_position *position, struct error *err);
  void (*close)(void *self);

  /* Writer thread. Applying advances *position; group_rollback forgets everything after position->seq. */
  bool (*group_begin)(void *self, struct error *err);
  enum store_apply (*batch_apply)(void *self, struct store_batch *batch, struct store_position *position);
  bool (*group_commit)(void *self, struct error *err);
  void (*group_rollback)(void *self, const struct store_position *position);
  /* Housekeeping between groups; idle: nothing is queued. Returns how many log checkpoints it made. */
  unsigned (*housekeep)(void *self, const struct store_position *position, bool idle);

  /* Any thread: a handle of its own for the functions below, all but changes and trimmed. */
  void *(*reader_open)(void *self, struct error *err);
  void (*reader_close)(void *reader);

  /* Core thread, or that of a reader. */
  bool (*get)(void *self, const char *name_space, const char *key, struct store_value *value, struct error *err);
  bool (*scan)(void *self, const char *name_space, const char *key_prefix, store_row_visit *visit, void *arg,
               struct error *err);
  bool (*events)(void *self, const struct store_event_query *query, store_event_visit *visit, void *arg,
                 struct error *err);
  /* Row changes with after < revision <= through, whole revisions, at least one and about limit of them;
   * *reached: the last revision looked at. */
  bool (*changes)(void *self, uint64_t after, uint64_t through, uint64_t limit, store_change_visit *visit, void *arg,
                  uint64_t *reached, struct error *err);
  bool (*trimmed)(void *self, uint64_t *revision, struct error *err);
};
extern const struct store_backend store_memory_backend;
extern const struct store_backend store_sqlite_backend;

/* Does the event satisfy the query (all but seq bounds and limit)? */
bool store_event_matches(const struct store_event_query *query, const struct store_event *event);

/* ---- The store ---- */

struct store_counters {
  atomic_uint_fast64_t commits, commits_failed, groups, events, rows, checkpoints, queue_bytes, queue_batches,
      sync_us_sum, sync_count, sync_latency[STORE_LATENCY_BUCKETS];
};

struct store {
  uint32_t magic;
  const struct store_backend *backend;
  void *self; /* of a reader that has not begun: that of its store */
  bool reader, reader_begun;
  struct store_options options;
  struct store_counters counters;

  /* Core thread. */
  uint64_t revision, seq; /* dispatched */
  int64_t wall_us;        /* last handed out */
  struct store_feed *feeds;
  unsigned callback_depth; /* inside done or feed callbacks */

  /* Writer thread. */
  struct store_position position;
  pthread_t writer;

  /* Hand-over, under lock. The only lock of this file set but the back ends' own, which are taken alone. */
  pthread_mutex_t lock;
  pthread_cond_t queued, finished;
  struct store_batch *queue_head, *queue_tail;
  struct store_batch *finished_head, *finished_tail;
  bool stopping;
  struct store_health health; /* the writer writes it */
};

void store_handover_init(struct store *store);
void store_handover_destroy(struct store *store);
bool store_writer_start(struct store *store, struct error *err);
void store_writer_stop(struct store *store); /* after everything queued is committed */
void store_feed_deliver(struct store *store, const struct store_batch *batch);
void store_feed_catch_up(struct store *store);
void store_feed_end_all(struct store *store);

/* ---- Event index (event_index.c) ---- */

enum event_index_kind { EVENT_INDEX_ID = 1, EVENT_INDEX_TRACE, EVENT_INDEX_CONTEXT, EVENT_INDEX_KINDS = 3 };
#define EVENT_INDEX_SALT_BYTES SIPHASH_KEY_BYTES
#define EVENT_INDEX_BUCKETS 64
#define EVENT_INDEX_ENTRY_BYTES 12 /* hash u64, distance from the segment's first seq u32, little endian */
#define EVENT_INDEX_SEGMENT_EVENTS 32768
#define EVENT_INDEX_FILTER_BLOCK_BYTES 32
#define EVENT_INDEX_SAVE_EVENTS 1024 /* of the tail in one stored row; divides a segment */
#define EVENT_INDEX_SAVED_BYTES 24   /* of one event there: its three hashes, little endian */

struct event_index;

struct event_index_hashes {
  uint64_t id, trace, context; /* trace, context 0: there is none */
};
struct event_index_segment {
  uint64_t first_seq, last_seq;
  uint32_t *filter; /* split block Bloom filter: blocks of 8 words */
  size_t filter_blocks;
};

struct event_index *event_index_create(const uint8_t salt[static EVENT_INDEX_SALT_BYTES]);
void event_index_free(struct event_index **index);
uint64_t event_index_hash(const struct event_index *index, enum event_index_kind kind, const void *data, size_t length);
struct event_index_hashes event_index_hashes(const struct event_index *index,
                                             const uint8_t id[static ID_UUID_RAW_BYTES], const char *trace_id,
                                             const char *context_id);
/* The tail: events after the last segment, in memory. seq must be the next one. */
void event_index_append(struct event_index *index, uint64_t seq, const struct event_index_hashes *hashes);
void event_index_truncate(struct event_index *index, uint64_t last_seq); /* forgets what is after */
size_t event_index_tail_count(struct event_index *index);
uint64_t event_index_last_seq(struct event_index *index); /* last seq that is in the index; 0: none */
/* The tail as bytes that are stored and loaded: count events from first_seq, which are all in the tail. */
void event_index_tail_save(struct event_index *index, uint64_t first_seq, size_t count, uint8_t *target);
void event_index_tail_load(struct event_index *index, const uint8_t *saved, size_t count); /* behind what is there */
uint64_t event_index_sealed_seq(struct event_index *index); /* last seq that is in a segment; 0: none */

/* Where a hash may occur: seqs of the tail, and segments whose filter says maybe. Arrays owned by the caller. */
struct event_index_candidates {
  uint64_t *seqs; /* ascending */
  size_t seq_count;
  uint64_t *segments; /* first seqs, ascending */
  size_t segment_count;
};
void event_index_find(struct event_index *index, enum event_index_kind kind, uint64_t hash, bool tail_only,
                      struct event_index_candidates *candidates);
void event_index_candidates_free(struct event_index_candidates *candidates);

/* Sealing: build segment and its buckets from the oldest EVENT_INDEX_SEGMENT_EVENTS of the tail; when they are stored,
 * adopt. */
struct event_index_sealing {
  struct event_index_segment segment;
  uint8_t *buckets[EVENT_INDEX_BUCKETS];
  size_t bucket_bytes[EVENT_INDEX_BUCKETS];
};
bool event_index_seal(struct event_index *index, size_t event_count, struct event_index_sealing *sealing);
void event_index_sealing_free(struct event_index_sealing *sealing);
void event_index_adopt(struct event_index *index, struct event_index_segment *segment); /* takes the filter */
unsigned event_index_bucket(uint64_t hash);
/* Appends the seqs in one bucket of the segment that starts at first_seq with this hash to candidates->seqs. */
void event_index_bucket_find(const uint8_t *bucket, size_t length, uint64_t first_seq, uint64_t hash,
                             struct event_index_candidates *candidates);

#endif

/* psg_internal.h: what the files of this room share.
 *
 *   graph.c       nodes and edges in memory; what changed since the last flush
 *   slab.c        memory for a graph that is loaded
 *   tables.c      types, edges, statuses as tables
 *   journal.c     events that wait, batches, the store, retries
 *   update.c      what changed → GraphUpdateEvents
 *   replay.c      GraphUpdateEvents and checkpoints → graph
 *   checkpoint.c  graph → checkpoint; state hash
 *   runs.c        the gateway's context and the trace of each run
 *   modules.c     lifecycle transitions; executions.c executions
 *   write.c       writes of modules; query.c reads
 *   event_check.c events against their schemas; event_emit.c events of modules */
#ifndef GATEHOUSE_CORE_PSG_INTERNAL_H
#define GATEHOUSE_CORE_PSG_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/psg/psg.h"
#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/id.h"

#define uthash_malloc(size_) base_alloc(size_)
#define uthash_free(pointer_, size_) base_free(pointer_)
#include <uthash.h>
#include <utlist.h>

#define PSG_MAGIC 0x9599a9f0u
#define PSG_TIME_LENGTH 27          /* "2026-07-28T10:00:00.000000Z" */
#define PSG_TEXT_MAX_BYTES 256      /* of a foreign text inside an event of ours; longer ones are cut */
#define PSG_OBJECT_MAX_BYTES 262144 /* of a node that a module writes */
#define PSG_OBJECT_DEPTH_MAX 32
#define PSG_UPDATE_MAX_BYTES (4u << 20)   /* a GraphUpdateEvent is closed when it is that long */
#define PSG_PENDING_MAX_BYTES (32u << 20) /* events that wait for a failing store; later ones are lost, and counted */
#define PSG_CHECKPOINT_OPERATIONS 6000u   /* graph operations between checkpoints; more for graphs with more nodes */
#define PSG_CHECKPOINT_IDLE_SHARE 6u      /* a quiet moment: a checkpoint after a sixth of that already */
#define PSG_CHECKPOINT_IDLE_MS 200
#define PSG_LOAD_WAIT_MS 250 /* what waits for the graph waits so long after the start of its load, then is refused */
#define PSG_RUNS_MAX 16      /* traces of earlier runs that are kept */
#define PSG_STAGES_MAX 32    /* stages kept per module */
#define PSG_INSTANCES_MAX 4  /* instances of a module that are told apart at once */
#define PSG_SOURCE_CORE "core"
#define PSG_FAMILY_UPDATE "graph_update"

/* ---- tables ---- */

enum psg_type {
#define PSG_TYPE(name, word, id, parent_field, parent, edge, goes, machine, writer) PSG_TYPE_##name,
#include "core/psg/types.def"
#undef PSG_TYPE
  PSG_TYPE_COUNT,
  PSG_TYPE_ANY,
  PSG_TYPE_NONE,
};
enum psg_edge_type {
#define PSG_EDGE(name, from, to, acyclic) PSG_EDGE_##name,
#include "core/psg/edges.def"
#undef PSG_EDGE
  PSG_EDGE_COUNT,
  PSG_EDGE_NONE,
};
enum psg_machine {
  PSG_MACHINE_NONE,
  PSG_MACHINE_CONTEXT,
  PSG_MACHINE_PLAN,
  PSG_MACHINE_STEP,
  PSG_MACHINE_CONFIRM,
  PSG_MACHINE_TRACE,
  PSG_MACHINE_SEGMENT,
  PSG_MACHINE_EXTENSION,
  PSG_MACHINE_DIALOG,
  PSG_MACHINE_COLLAB,
  PSG_MACHINE_NETWORK,
  PSG_MACHINE_CORE,
  PSG_MACHINE_STAGE,
};
enum psg_status_kind { PSG_STATUS_INITIAL, PSG_STATUS_PLAIN, PSG_STATUS_FROZEN, PSG_STATUS_TERMINAL };
enum psg_goes { PSG_GOES_UP, PSG_GOES_DOWN };
enum psg_writer { PSG_WRITER_MODULES, PSG_WRITER_CORE };

struct psg_type_info {
  const char *name, *word, *id_field, *parent_field;
  enum psg_type parent;
  enum psg_edge_type parent_edge;
  enum psg_goes goes;
  enum psg_machine machine;
  enum psg_writer writer;
};
struct psg_edge_info {
  const char *name;
  enum psg_type from, to;
  bool acyclic;
};
struct psg_status_info {
  enum psg_machine machine;
  const char *status, *stage;
  enum psg_status_kind kind;
};
extern const struct psg_type_info psg_types[PSG_TYPE_COUNT];
extern const struct psg_edge_info psg_edge_types[PSG_EDGE_COUNT];
enum psg_type psg_type_find(const char *name, size_t length);           /* PSG_TYPE_NONE: unknown */
enum psg_edge_type psg_edge_type_find(const char *name, size_t length); /* PSG_EDGE_NONE: unknown */
const struct psg_status_info *psg_status_find(enum psg_machine machine, const char *status); /* NULL: unknown */
bool psg_transition_allowed(enum psg_machine machine, const char *from, const char *to);

/* ---- graph ---- */

enum psg_change { PSG_UNCHANGED, PSG_ADDED, PSG_UPDATED };

struct psg_edge;
struct psg_node {
  UT_hash_handle hh;
  uint8_t key[ID_UUID_RAW_BYTES];
  char id[ID_UUID_BYTES];
  enum psg_type type;
  enum psg_change change;
  bool owned; /* the core's own: modules may not write it */
  bool live;  /* spans and stages: running */
  bool in_slab, object_in_slab;
  char *object; /* JSON, NUL behind length */
  uint32_t length, capacity;
  uint32_t place;                  /* in the checkpoint that is being written */
  uint16_t trace_at, trace_length; /* spans that began in this run: the trace id in the object; 0: look for it */
  const char *kind;                /* spans that began in this run: the executor kind; NULL: look for it */
  uint64_t revision;
  struct psg_edge *out, *in;
  uint32_t children;  /* nodes whose parent this is */
  uint32_t referrers; /* other edges that end here */
  struct psg_node *change_prev, *change_next;
  struct psg_node *list_prev, *list_next; /* ended spans, stages of a module, runs */
};

struct psg_edge_key {
  uint8_t from[ID_UUID_RAW_BYTES], to[ID_UUID_RAW_BYTES], type;
};
struct psg_edge {
  UT_hash_handle hh;
  struct psg_edge_key key;
  bool in_slab;
  enum psg_change change;
  struct psg_node *from, *to;
  struct psg_edge *out_prev, *out_next, *in_prev, *in_next, *change_prev, *change_next;
};

/* A node or edge of the log that is no longer in the graph, until the next flush. */
struct psg_gone_node {
  enum psg_type type;
  char id[ID_UUID_BYTES];
  uint32_t edges; /* of the log, that went with it */
};
struct psg_gone_edge {
  enum psg_edge_type type;
  char from[ID_UUID_BYTES], to[ID_UUID_BYTES];
};

struct psg_graph {
  struct psg_node *nodes;
  struct psg_edge *edges;
  struct psg_node *changed_nodes;
  struct psg_edge *changed_edges;
  struct psg_gone_node *gone_nodes;
  struct psg_gone_edge *gone_edges;
  size_t gone_node_count, gone_node_capacity, gone_edge_count, gone_edge_capacity;
  uint64_t logged_nodes, logged_edges; /* counts that the log says, as of the last flush */
  uint64_t version;                    /* moves with every change */
  bool loading;                        /* what happens is what the log says: nothing of it counts as changed */
  struct psg_chunk *slab;              /* while loading */
};

/* slab.c. Zeroed; NULL: ask the general allocator. */
struct psg_chunk;
void *psg_slab_take(struct psg_chunk **slab, size_t size_bytes);
void psg_slab_give(void *piece);
void psg_slab_close(struct psg_chunk **slab); /* nothing more is taken from it; the pieces stay */

bool psg_uuid_parse(const char *text, size_t length, uint8_t key[static ID_UUID_RAW_BYTES]);
struct psg_node *psg_graph_find(const struct psg_graph *graph, const char *id);
struct psg_node *psg_graph_find_key(const struct psg_graph *graph, const uint8_t key[static ID_UUID_RAW_BYTES]);
/* id is a UUID that is not in the graph; object is copied, with room for `spare` bytes more. */
struct psg_node *psg_graph_node_add(struct psg_graph *graph, enum psg_type type, const char *id, const char *object,
                                    size_t length, size_t spare, bool owned);
/* As it was written down: for loading. NULL: key is in the graph already. */
struct psg_node *psg_graph_node_restore(struct psg_graph *graph, enum psg_type type,
                                        const uint8_t key[static ID_UUID_RAW_BYTES], const char *object, size_t length,
                                        uint64_t revision, bool owned);
void psg_graph_node_set(struct psg_graph *graph, struct psg_node *node, const char *object, size_t length);
void psg_graph_node_reserve(struct psg_node *node, size_t length);           /* room for an object so long */
void psg_graph_node_changed(struct psg_graph *graph, struct psg_node *node); /* the object was edited in place */
void psg_graph_node_delete(struct psg_graph *graph, struct psg_node *node);  /* with its edges */
struct psg_edge *psg_graph_edge_find(const struct psg_graph *graph, enum psg_edge_type type,
                                     const struct psg_node *from, const struct psg_node *to);
/* NULL: it is there already. */
struct psg_edge *psg_graph_edge_add(struct psg_graph *graph, enum psg_edge_type type, struct psg_node *from,
                                    struct psg_node *to);
void psg_graph_edge_delete(struct psg_graph *graph, struct psg_edge *edge);
/* The edge that ties a node to its parent. */
void psg_graph_parent_link(struct psg_graph *graph, struct psg_node *node, struct psg_node *parent);
bool psg_edge_is_parental(const struct psg_edge *edge, struct psg_node **parent);
bool psg_graph_is_changed(const struct psg_graph *graph);
void psg_graph_settle(struct psg_graph *graph); /* what is now there is what the log says */
void psg_graph_clear(struct psg_graph *graph);
/* The text of a top-level string member, decoded; NULL: absent, no string. Caller frees. */
char *psg_object_text(const char *object, size_t length, const char *field);

/* ---- journal ---- */

struct psg_entry {
  size_t offset, length;
  char event_id[ID_UUID_BYTES], trace_id[ID_UUID_BYTES];
  const char *family, *type; /* literals */
  int64_t wall_us;
};
struct psg_waiter {
  psg_write_done *done;
  void *arg;
  uint64_t revision;
};
/* What goes into one store batch. */
struct psg_pending {
  struct buf bytes;
  struct psg_entry *entries;
  size_t entry_count, entry_capacity;
  struct psg_waiter *waiters;
  size_t waiter_count, waiter_capacity;
  struct buf checkpoint, sync;
  uint64_t operations; /* that only its checkpoint spares a replay */
  bool has_update;     /* there are graph_updates among its events */
};

struct psg_module;

/* The graph is loaded by a thread of its own: what belongs to it (all of struct psg but this) is the core thread's
 * again when the thread was joined. */
struct psg_load {
  pthread_t thread;
  struct store *reader;
  bool running;     /* not joined yet */
  atomic_bool done; /* the thread is about to end */
  struct timespec wait_until;
  bool fresh;                    /* there was nothing to load */
  struct error err;              /* set: it failed */
  struct psg_deferred *deferred; /* transitions of modules, oldest first */
};

struct psg {
  uint32_t magic;
  struct psg_options options;
  struct psg_graph graph;
  char graph_id[ID_UUID_BYTES], context_id[ID_UUID_BYTES], run_id[ID_UUID_BYTES];
  struct psg_node *run; /* the trace of this run */
  struct psg_node *runs;
  struct psg_node *ended; /* spans, oldest first */
  uint32_t run_count, ended_count;
  struct psg_module *modules;
  struct psg_load load;

  struct psg_pending waiting, flight;
  bool in_flight, failing;
  struct core_rpc_timer *timer;
  uint64_t events_lost;
  uint64_t operations; /* of the graph since the last checkpoint */
  struct core_rpc_timer *idle_timer;
  uint64_t idle_version; /* of the graph when the timer was set */
  char last_update_id[ID_UUID_BYTES], last_update_at[PSG_TIME_LENGTH + 1];
  char source[64]; /* of the changes since the last flush: a module, or "core" */

  struct buf scratch;
  int64_t time_second; /* time_text is formatted for it */
  char time_text[CLOCK_RFC3339_BYTES];
  struct id_pool ids; /* the core does not fork: a pool is never shared */
};

/* The time of the next event, and its text. */
int64_t psg_time_next(struct psg *psg, char text[static PSG_TIME_LENGTH + 1]);
void psg_time_text(struct psg *psg, int64_t wall_us, char text[static PSG_TIME_LENGTH + 1]);

/* Opens an event: `{"event_id":…` up to trace and context; append `,"field":…` to the returned buffer and close. The
 * time of the event is left in `at`. NULL: lost, the store has
 * been failing for too long; a graph_update never is. trace_id: "" is the run's. */
struct buf *psg_event_open(struct psg *psg, const char *family, const char *type, const char *trace_id,
                           char at[static PSG_TIME_LENGTH + 1]);
void psg_event_close(struct psg *psg); /* writes the last brace */
/* ,"key":"text" with escapes; text is cut to PSG_TEXT_MAX_BYTES. */
void psg_field(struct buf *json, const char *key, const char *text);
#define psg_literal(buf_, text_) buf_append((buf_), (text_), sizeof(text_) - 1)

void psg_touch(struct psg *psg); /* something waits: arms the timer */
void psg_source_set(struct psg *psg, const char *source);
void psg_waiter_add(struct psg *psg, psg_write_done *done, void *arg, uint64_t revision);
bool psg_commit_now(struct psg *psg, bool checkpoint, struct error *err); /* start and end: waits for the store */
void psg_journal_free(struct psg *psg);
/* update.c: turns what changed into events of psg->waiting. */
void psg_update_emit(struct psg *psg);
/* PipelineStageEvent. */
struct psg_stage_event {
  const char *type, *pipeline_id, *stage_id, *stage_name, *status, *trace_id;
  unsigned order;
  const char *resource_type, *resource_id, *from, *to, *reason;
};
void psg_stage_emit(struct psg *psg, const struct psg_stage_event *event);

/* ---- checkpoint and replay ---- */

void psg_checkpoint_write(struct psg *psg, const char *skip_through, struct buf *target);
/* Into an empty graph. False: not one that this core reads; the graph is empty then. */
bool psg_checkpoint_read(struct psg *psg, const void *data, size_t length, char skip_through[static ID_UUID_BYTES]);
void psg_checkpoint_idle(struct psg *psg); /* when nothing happens for a while, and it is worth it */
bool psg_load(struct psg *psg, struct store *store, struct error *err);

/* ---- the rest ---- */

bool psg_genesis_load(struct psg *psg, struct store *store, bool *fresh, struct error *err); /* and the graph */
bool psg_genesis_make(struct psg *psg, bool fresh, struct error *err); /* what of graph and context is missing */
void psg_run_begin(struct psg *psg);
void psg_run_end(struct psg *psg);
void psg_runs_index(struct psg *psg);
/* Ends what a run before this one, or the stop of this one, left open. */
void psg_executions_index(struct psg *psg);
void psg_executions_abandon(struct psg *psg, enum psg_execution_status status, const char *error_code);
void psg_modules_index(struct psg *psg);
void psg_transition_defer(struct psg *psg, const struct psg_module_transition *transition);
void psg_transitions_deferred(struct psg *psg, bool record); /* records or drops them */
void psg_modules_abandon(struct psg *psg, const char *status, const char *reason);
void psg_modules_free(struct psg *psg);
/* Sets the status that stands last in an object of ours, and what follows it. */
void psg_status_set(struct psg *psg, struct psg_node *node, const char *status, const char *more, size_t more_length);

#endif

/* memory_backend.c: the store without a disk: for tests and deployments that ask for EPHEMERAL. Same rules as SQLite:
 * sequential operations, whole batches, revisions, history, the event index.
 *
 * Rows are immutable and sorted by (namespace, key) in one array: lookups are binary searches, inserting moves pointers
 * (fine for the tens of thousands of rows a catalog has). A group keeps an undo list; the lock is held for a whole
 * group, so readers on the core thread see whole groups only. Nothing here can fail but size_limit_bytes. */
#include <string.h>

#include "core/store/store_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/id.h"
#include "sdk/base/str.h"

struct memory_row {
  uint64_t revision;
  size_t length;
  char *name_space, *key;
  void *value;
};

struct memory_change {
  uint64_t revision;
  bool deleted;
  char *name_space, *key;
};

struct memory_undo {
  char *name_space, *key;
  struct memory_row *before; /* NULL: there was no row */
};

struct memory {
  pthread_mutex_t lock;
  struct memory_row **rows;
  size_t row_count, row_capacity;
  struct memory_change *changes; /* ascending revision */
  size_t change_count, change_capacity;
  uint64_t trimmed;
  struct store_event **events; /* event seq i is events[i - 1]; strings and bytes in one block */
  size_t event_count, event_capacity;
  struct event_index *index;
  struct memory_undo *undo; /* of the running group */
  size_t undo_count, undo_capacity;
  size_t changes_before; /* of the running group */
  uint64_t trimmed_before, size_bytes, size_before, size_limit_bytes, change_history;
};

#define GROW(array, count, capacity)                                                                                   \
  do {                                                                                                                 \
    if ((count) == (capacity)) {                                                                                       \
      (capacity) = (capacity) ? (capacity)*2 : 64;                                                                     \
      (array) = base_realloc_array((array), (capacity), sizeof(*(array)));                                             \
    }                                                                                                                  \
  } while (0)

static bool memory_accepts(const struct store_options *options, struct error *err) {
  if (options->durability != STORE_EPHEMERAL)
    return error_set(err, ERR_UNSUPPORTED, "The memory store cannot be durable.");
  return true;
}

static void *memory_open(const struct store_options *options, struct store_position *position, struct error *err) {
  (void)err;
  uint8_t salt[EVENT_INDEX_SALT_BYTES];
  struct memory *memory = BASE_NEW(struct memory);
  BASE_CHECK(pthread_mutex_init(&memory->lock, NULL) == 0);
  id_random_bytes(salt, sizeof(salt));
  memory->index = event_index_create(salt);
  memory->size_limit_bytes = options->size_limit_bytes;
  memory->change_history = options->change_history ? options->change_history : 100000;
  *position = (struct store_position){0};
  return memory;
}

static void row_free(struct memory_row *row) {
  if (!row)
    return;
  base_free(row->name_space);
  base_free(row->key);
  base_free(row->value);
  base_free(row);
}

static void changes_drop_front(struct memory *memory, size_t count) {
  for (size_t i = 0; i < count; i++) {
    base_free(memory->changes[i].name_space);
    base_free(memory->changes[i].key);
  }
  memory->change_count -= count;
  if (count)
    memmove(memory->changes, memory->changes + count, memory->change_count * sizeof(*memory->changes));
}

static void memory_close(void *self) {
  struct memory *memory = self;
  for (size_t i = 0; i < memory->row_count; i++)
    row_free(memory->rows[i]);
  for (size_t i = 0; i < memory->event_count; i++)
    base_free(memory->events[i]);
  changes_drop_front(memory, memory->change_count);
  base_free(memory->rows);
  base_free(memory->changes);
  base_free(memory->events);
  base_free(memory->undo);
  event_index_free(&memory->index);
  pthread_mutex_destroy(&memory->lock);
  base_free(memory);
}

/* Index of the row, or where it would stand. */
static size_t row_find(const struct memory *memory, const char *name_space, const char *key, bool *found) {
  size_t low = 0, high = memory->row_count;
  *found = false;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = strcmp(memory->rows[middle]->name_space, name_space);
    if (order == 0)
      order = strcmp(memory->rows[middle]->key, key);
    if (order == 0) {
      *found = true;
      return middle;
    }
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

/* Puts row in place (NULL: removes what is there); gives back what was there. */
static struct memory_row *row_exchange(struct memory *memory, const char *name_space, const char *key,
                                       struct memory_row *row) {
  bool found;
  size_t at = row_find(memory, name_space, key, &found);
  struct memory_row *before = found ? memory->rows[at] : NULL;
  if (found && row) {
    memory->rows[at] = row;
  } else if (found) {
    memory->row_count--;
    memmove(&memory->rows[at], &memory->rows[at + 1], (memory->row_count - at) * sizeof(struct memory_row *));
  } else if (row) {
    GROW(memory->rows, memory->row_count, memory->row_capacity);
    memmove(&memory->rows[at + 1], &memory->rows[at], (memory->row_count - at) * sizeof(struct memory_row *));
    memory->rows[at] = row;
    memory->row_count++;
  }
  return before;
}

/* ---- groups ---- */

static bool memory_group_begin(void *self, struct error *err) {
  (void)err;
  struct memory *memory = self;
  pthread_mutex_lock(&memory->lock);
  memory->undo_count = 0;
  memory->changes_before = memory->change_count;
  memory->trimmed_before = memory->trimmed;
  memory->size_before = memory->size_bytes;
  return true;
}

static void undo_forget(struct memory_undo *undo) {
  base_free(undo->name_space);
  base_free(undo->key);
}

static void undo_to(struct memory *memory, size_t undo_count, size_t change_count, uint64_t seq) {
  while (memory->undo_count > undo_count) {
    struct memory_undo *undo = &memory->undo[--memory->undo_count];
    row_free(row_exchange(memory, undo->name_space, undo->key, undo->before));
    undo_forget(undo);
  }
  while (memory->change_count > change_count) {
    struct memory_change *change = &memory->changes[--memory->change_count];
    base_free(change->name_space);
    base_free(change->key);
  }
  while (memory->event_count > seq)
    base_free(memory->events[--memory->event_count]);
  event_index_truncate(memory->index, seq);
}

static bool memory_group_commit(void *self, struct error *err) {
  (void)err;
  struct memory *memory = self;
  for (size_t i = 0; i < memory->undo_count; i++) {
    row_free(memory->undo[i].before);
    undo_forget(&memory->undo[i]);
  }
  memory->undo_count = 0;
  size_t trimmed_changes = 0;
  while (trimmed_changes < memory->change_count && memory->changes[trimmed_changes].revision <= memory->trimmed)
    trimmed_changes++;
  changes_drop_front(memory, trimmed_changes);
  pthread_mutex_unlock(&memory->lock);
  return true;
}

static void memory_group_rollback(void *self, const struct store_position *position) {
  struct memory *memory = self;
  undo_to(memory, 0, memory->changes_before, position->seq);
  memory->trimmed = memory->trimmed_before;
  memory->size_bytes = memory->size_before;
  pthread_mutex_unlock(&memory->lock);
}

/* ---- applying ---- */

static bool id_is_known(struct memory *memory, const struct store_op *op, uint64_t hash) {
  struct event_index_candidates found;
  event_index_find(memory->index, EVENT_INDEX_ID, hash, false, &found);
  bool known = false;
  for (size_t i = 0; i < found.seq_count && !known; i++)
    known = strcmp(memory->events[found.seqs[i] - 1]->event_id, op->event_id_text) == 0;
  event_index_candidates_free(&found);
  return known;
}

static const char *pack(char **end, const char *text) {
  size_t size = strlen(text) + 1;
  char *start = memcpy(*end, text, size);
  *end += size;
  return start;
}

static struct store_event *event_copy(const struct store_op *op, uint64_t seq) {
  const struct store_event *event = &op->event;
  size_t size = sizeof(*event) + strlen(op->event_id_text) + strlen(event->trace_id) + strlen(event->context_id) +
                strlen(event->project_id) + strlen(event->family) + strlen(event->type) + 6 + event->length;
  struct store_event *copy = base_alloc(size);
  char *end = (char *)(copy + 1);
  *copy = *event;
  copy->seq = seq;
  copy->event_id = pack(&end, op->event_id_text);
  copy->trace_id = pack(&end, event->trace_id);
  copy->context_id = pack(&end, event->context_id);
  copy->project_id = pack(&end, event->project_id);
  copy->family = pack(&end, event->family);
  copy->type = pack(&end, event->type);
  memcpy(end, event->bytes, event->length);
  copy->bytes = end;
  return copy;
}

static bool apply_event(struct memory *memory, struct store_batch *batch, struct store_op *op,
                        struct store_position *position) {
  struct event_index_hashes hashes =
      event_index_hashes(memory->index, op->event_id, op->event.trace_id, op->event.context_id);
  if (id_is_known(memory, op, hashes.id))
    return error_set(&batch->error, ERR_STORE_DUPLICATE, NULL);
  uint64_t seq = ++position->seq;
  event_index_append(memory->index, seq, &hashes);
  GROW(memory->events, memory->event_count, memory->event_capacity);
  memory->events[memory->event_count++] = event_copy(op, seq);
  memory->size_bytes += op->event.length;
  op->event.seq = seq;
  op->event.event_id = op->event_id_text;
  if (op->event.wall_us > position->wall_us)
    position->wall_us = op->event.wall_us;
  if (!batch->result.first_seq)
    batch->result.first_seq = seq;
  batch->result.last_seq = seq;
  return true;
}

static void note_change(struct memory *memory, const struct store_row *row, bool deleted) {
  GROW(memory->changes, memory->change_count, memory->change_capacity);
  memory->changes[memory->change_count++] = (struct memory_change){.revision = row->revision,
                                                                   .deleted = deleted,
                                                                   .name_space = base_strdup(row->name_space),
                                                                   .key = base_strdup(row->key)};
}

static bool apply_row(struct memory *memory, struct store_batch *batch, struct store_op *op, uint64_t revision) {
  bool found, put = op->kind == STORE_OP_PUT;
  size_t at = row_find(memory, op->row.name_space, op->row.key, &found);
  uint64_t current = found ? memory->rows[at]->revision : STORE_REVISION_NONE;
  if (op->expected_revision != STORE_REVISION_ANY && op->expected_revision != current)
    return error_set(&batch->error, ERR_STORE_CONFLICT, NULL);
  op->applied = put || found;
  if (!op->applied)
    return true;
  op->row.revision = op->import_revision ? op->import_revision : revision;
  struct memory_row *row = NULL;
  if (put) {
    row = BASE_NEW(struct memory_row);
    *row = (struct memory_row){.revision = op->row.revision,
                               .length = op->row.length,
                               .name_space = base_strdup(op->row.name_space),
                               .key = base_strdup(op->row.key),
                               .value = base_memdup(op->row.value, op->row.length)};
    memory->size_bytes += op->row.length;
  }
  struct memory_row *before = row_exchange(memory, op->row.name_space, op->row.key, row);
  memory->size_bytes -= before ? before->length : 0;
  GROW(memory->undo, memory->undo_count, memory->undo_capacity);
  memory->undo[memory->undo_count++] = (struct memory_undo){
      .name_space = base_strdup(op->row.name_space), .key = base_strdup(op->row.key), .before = before};
  if (!batch->import)
    note_change(memory, &op->row, !put);
  return true;
}

static enum store_apply memory_batch_apply(void *self, struct store_batch *batch, struct store_position *position) {
  struct memory *memory = self;
  const struct store_position before = *position;
  const size_t undo_before = memory->undo_count, changes_before = memory->change_count;
  const uint64_t size_before = memory->size_bytes, trimmed_before = memory->trimmed;
  bool rows_changed = false, good = true;
  batch->result = (struct store_commit_result){0};
  for (size_t i = 0; i < batch->op_count && good; i++) {
    struct store_op *op = &batch->ops[i];
    if (op->kind == STORE_OP_EVENT) {
      good = apply_event(memory, batch, op, position);
    } else if (op->kind == STORE_OP_TRIM) {
      uint64_t through =
          batch->import || op->trim_revision < position->revision ? op->trim_revision : position->revision;
      memory->trimmed = through > memory->trimmed ? through : memory->trimmed;
    } else {
      good = apply_row(memory, batch, op, before.revision + 1);
      rows_changed = rows_changed || op->applied;
    }
  }
  if (good && memory->size_limit_bytes && memory->size_bytes > memory->size_limit_bytes) {
    error_set(&batch->error, ERR_STORE_FULL, NULL);
    good = false;
  }
  if (!good) {
    *position = before;
    undo_to(memory, undo_before, changes_before, before.seq);
    memory->size_bytes = size_before;
    memory->trimmed = trimmed_before;
    return STORE_APPLY_REFUSED;
  }
  if (batch->import)
    position->revision = batch->import_revision;
  else if (rows_changed)
    position->revision++;
  batch->result.revision = position->revision;
  return STORE_APPLY_OK;
}

static unsigned memory_housekeep(void *self, const struct store_position *position, bool idle) {
  struct memory *memory = self;
  if (!idle || position->revision <= memory->change_history)
    return 0;
  pthread_mutex_lock(&memory->lock);
  if (memory->trimmed < position->revision - memory->change_history)
    memory->trimmed = position->revision - memory->change_history;
  size_t gone = 0;
  while (gone < memory->change_count && memory->changes[gone].revision <= memory->trimmed)
    gone++;
  changes_drop_front(memory, gone);
  pthread_mutex_unlock(&memory->lock);
  return 0;
}

/* ---- reading: everything is copied under the lock, callbacks run without it ---- */

/* Everything that reads takes the lock: there is nothing of a reader's own. */
static void *memory_reader_open(void *self, struct error *err) {
  (void)err;
  return self;
}

static void memory_reader_close(void *reader) {
  (void)reader;
}

static bool memory_get(void *self, const char *name_space, const char *key, struct store_value *value,
                       struct error *err) {
  struct memory *memory = self;
  bool found;
  pthread_mutex_lock(&memory->lock);
  size_t at = row_find(memory, name_space, key, &found);
  if (found) {
    const struct memory_row *row = memory->rows[at];
    *value = (struct store_value){
        .data = base_memdup(row->value, row->length), .length = row->length, .revision = row->revision};
  }
  pthread_mutex_unlock(&memory->lock);
  return found ? true : error_set(err, ERR_NOT_FOUND, NULL);
}

static void row_copy(struct arena *arena, struct store_row *target, const struct memory_row *row) {
  *target = (struct store_row){.name_space = arena_strdup(arena, row->name_space),
                               .key = arena_strdup(arena, row->key),
                               .value = arena_memdup(arena, row->value, row->length),
                               .length = row->length,
                               .revision = row->revision};
}

static bool memory_scan(void *self, const char *name_space, const char *key_prefix, store_row_visit *visit, void *arg,
                        struct error *err) {
  (void)err;
  struct memory *memory = self;
  struct arena *arena = arena_create(0);
  bool found;
  pthread_mutex_lock(&memory->lock);
  size_t from = row_find(memory, name_space ? name_space : "", key_prefix, &found), to = from;
  while (to < memory->row_count && (!name_space || (str_equal(memory->rows[to]->name_space, name_space) &&
                                                    str_starts_with(memory->rows[to]->key, key_prefix))))
    to++;
  struct store_row *rows = arena_alloc(arena, (to - from) * sizeof(*rows) + 1);
  for (size_t i = from; i < to; i++)
    row_copy(arena, &rows[i - from], memory->rows[i]);
  pthread_mutex_unlock(&memory->lock);
  for (size_t i = 0; i < to - from && visit(arg, &rows[i]); i++)
    continue;
  arena_free(&arena);
  return true;
}

static const struct store_event *event_at(struct memory *memory, uint64_t seq) {
  pthread_mutex_lock(&memory->lock); /* events themselves never change once committed */
  const struct store_event *event = memory->events[seq - 1];
  pthread_mutex_unlock(&memory->lock);
  return event;
}

static bool memory_events(void *self, const struct store_event_query *query, store_event_visit *visit, void *arg,
                          struct error *err) {
  (void)err;
  struct memory *memory = self;
  bool by_trace = !str_is_empty(query->trace_id), by_context = !by_trace && !str_is_empty(query->context_id);
  const char *wanted = by_trace ? query->trace_id : query->context_id;
  enum event_index_kind kind = by_trace ? EVENT_INDEX_TRACE : EVENT_INDEX_CONTEXT;
  struct event_index_candidates found = {0};
  if (by_trace || by_context)
    event_index_find(memory->index, kind, event_index_hash(memory->index, kind, wanted, strlen(wanted)), false, &found);
  uint64_t steps = by_trace || by_context ? found.seq_count : query->through_seq - query->after_seq, count = 0;
  for (uint64_t i = 0; i < steps && count < query->limit; i++) {
    uint64_t seq = by_trace || by_context ? found.seqs[i] : query->after_seq + 1 + i;
    if (seq <= query->after_seq || seq > query->through_seq)
      continue;
    const struct store_event *event = event_at(memory, seq);
    if (!store_event_matches(query, event))
      continue;
    count++;
    if (!visit(arg, event))
      break;
  }
  event_index_candidates_free(&found);
  return true;
}

static bool memory_changes(void *self, uint64_t after, uint64_t through, uint64_t limit, store_change_visit *visit,
                           void *arg, uint64_t *reached, struct error *err) {
  (void)err;
  struct memory *memory = self;
  struct arena *arena = arena_create(0);
  struct store_row *rows = NULL;
  bool *deleted = NULL;
  size_t count = 0, capacity = 0;
  *reached = through;
  pthread_mutex_lock(&memory->lock);
  for (size_t i = 0; i < memory->change_count; i++) {
    const struct memory_change *change = &memory->changes[i];
    if (change->revision <= after)
      continue;
    if (change->revision > through)
      break;
    if (count >= limit && change->revision != *reached)
      break;
    *reached = change->revision;
    bool found;
    size_t at = row_find(memory, change->name_space, change->key, &found);
    if (!change->deleted && (!found || memory->rows[at]->revision != change->revision))
      continue;
    if (count == capacity) {
      capacity = capacity ? capacity * 2 : 64;
      rows = base_realloc_array(rows, capacity, sizeof(*rows));
      deleted = base_realloc_array(deleted, capacity, sizeof(*deleted));
    }
    deleted[count] = change->deleted;
    if (change->deleted)
      rows[count] = (struct store_row){.name_space = arena_strdup(arena, change->name_space),
                                       .key = arena_strdup(arena, change->key),
                                       .revision = change->revision};
    else
      row_copy(arena, &rows[count], memory->rows[at]);
    count++;
  }
  if (count < limit)
    *reached = through;
  pthread_mutex_unlock(&memory->lock);
  for (size_t i = 0; i < count; i++)
    visit(arg, &rows[i], deleted[i]);
  base_free(rows);
  base_free(deleted);
  arena_free(&arena);
  return true;
}

static bool memory_trimmed(void *self, uint64_t *revision, struct error *err) {
  (void)err;
  struct memory *memory = self;
  pthread_mutex_lock(&memory->lock);
  *revision = memory->trimmed;
  pthread_mutex_unlock(&memory->lock);
  return true;
}

const struct store_backend store_memory_backend = {
    .name = "memory",
    .accepts = memory_accepts,
    .open = memory_open,
    .close = memory_close,
    .group_begin = memory_group_begin,
    .batch_apply = memory_batch_apply,
    .group_commit = memory_group_commit,
    .group_rollback = memory_group_rollback,
    .housekeep = memory_housekeep,
    .reader_open = memory_reader_open,
    .reader_close = memory_reader_close,
    .get = memory_get,
    .scan = memory_scan,
    .events = memory_events,
    .changes = memory_changes,
    .trimmed = memory_trimmed,
};

/* sqlite_write.c: groups and batches on the writer connection, and the housekeeping that keeps commits fast: sealing
 * the event index, copying the write-ahead log back from idle ticks, trimming the feed's history. Writer thread only.
 */
#include <string.h>

#include "core/store/store_sqlite.h"
#include "sdk/base/check.h"
#include "sdk/base/log.h"

#define SEAL_RETRY_EVENTS 1024 /* after a failed sealing, try again this many events later */

static sqlite3_stmt *statement_of(struct sqlite_store *sqlite, enum sqlite_statement which) {
  return sqlite->statements[which];
}

static bool run(struct sqlite_store *sqlite, enum sqlite_statement which, const char *doing, struct error *err) {
  return sqlite_store_step(sqlite->writer, statement_of(sqlite, which), doing, err);
}

bool sqlite_group_begin(void *self, struct error *err) {
  struct sqlite_store *sqlite = self;
  sqlite->trimmed_next = sqlite->trimmed;
  sqlite->tail_saved_next = sqlite->tail_saved;
  BASE_CHECK(sqlite->blocks.count == 0);
  return run(sqlite, SQLITE_STATEMENT_BEGIN, "begin", err);
}

/* Hashes of the index's tail, in whole rows, with the group that has their last events. */
static bool tail_save(struct sqlite_store *sqlite, struct error *err) {
  uint8_t hashes[EVENT_INDEX_SAVE_EVENTS * EVENT_INDEX_SAVED_BYTES];
  uint64_t last_seq = event_index_last_seq(sqlite->index);
  while (last_seq - sqlite->tail_saved_next >= EVENT_INDEX_SAVE_EVENTS) {
    sqlite3_stmt *add = statement_of(sqlite, SQLITE_STATEMENT_TAIL_ADD);
    uint64_t first_seq = sqlite->tail_saved_next + 1;
    event_index_tail_save(sqlite->index, first_seq, EVENT_INDEX_SAVE_EVENTS, hashes);
    sqlite->tail_saved_next += EVENT_INDEX_SAVE_EVENTS;
    sqlite_store_bind_u64(add, 1, first_seq);
    sqlite_store_bind_u64(add, 2, sqlite->tail_saved_next);
    sqlite3_bind_int64(add, 3, sqlite->wall_us);
    sqlite_store_bind_u64(add, 4, sqlite_store_crc(hashes, sizeof(hashes)));
    sqlite_store_bind_bytes(add, 5, hashes, sizeof(hashes));
    if (!sqlite_store_step(sqlite->writer, add, "store the index's tail", err))
      return false;
  }
  return true;
}

bool sqlite_store_blocks_write(sqlite3 *db, sqlite3_stmt *add, struct event_blocks *blocks, struct error *err) {
  for (size_t i = 0; i < blocks->count; i++) {
    const struct event_block *block = &blocks->list[i];
    sqlite_store_bind_u64(add, 1, block->last_seq);
    sqlite_store_bind_u64(add, 2, block->first_seq);
    sqlite_store_bind_u64(add, 3, sqlite_store_crc(block->heads.data, block->heads.length));
    sqlite_store_bind_bytes(add, 4, block->heads.data, block->heads.length);
    sqlite_store_bind_bytes(add, 5, block->bytes.data, block->bytes.length);
    if (!sqlite_store_step(db, add, "append events", err))
      return false;
  }
  event_blocks_clear(blocks);
  return true;
}

bool sqlite_group_commit(void *self, struct error *err) {
  struct sqlite_store *sqlite = self;
  if (!tail_save(sqlite, err) ||
      !sqlite_store_blocks_write(sqlite->writer, statement_of(sqlite, SQLITE_STATEMENT_BLOCK_ADD), &sqlite->blocks,
                                 err) ||
      !run(sqlite, SQLITE_STATEMENT_COMMIT, "commit", err))
    return false;
  sqlite->trimmed = sqlite->trimmed_next;
  sqlite->tail_saved = sqlite->tail_saved_next;
  return true;
}

void sqlite_group_rollback(void *self, const struct store_position *position) {
  struct sqlite_store *sqlite = self;
  struct error ignored;
  if (!sqlite3_get_autocommit(sqlite->writer)) /* a full disk may have rolled it back already */
    run(sqlite, SQLITE_STATEMENT_ROLLBACK, "roll back", &ignored);
  event_blocks_clear(&sqlite->blocks);
  event_index_truncate(sqlite->index, position->seq);
}

/* ---- applying ---- */

/* The id of one event: of this group, or stored. NULL with batch->error: it cannot be read. Valid until the reader is
 * moved or the statement reset. */
static const uint8_t *event_id_at(struct sqlite_store *sqlite, uint64_t seq, struct error *err) {
  struct event_block_reader reader = {0};
  struct event_block_entry entry = {0};
  const struct event_blocks *blocks = &sqlite->blocks;
  size_t at = blocks->count;
  while (at > 0 && blocks->list[at - 1].first_seq > seq)
    at--;
  if (at > 0) {
    const struct event_block *block = &blocks->list[at - 1];
    event_block_reader_set(&reader, block->first_seq, block->last_seq, block->heads.data, block->heads.length);
  } else {
    sqlite3_stmt *heads = statement_of(sqlite, SQLITE_STATEMENT_BLOCK_HEADS);
    sqlite_store_bind_u64(heads, 1, seq);
    int code = sqlite3_step(heads);
    if (code != SQLITE_ROW) {
      sqlite_store_fail(sqlite->writer, code == SQLITE_DONE ? SQLITE_CORRUPT : code, "read an event id", err);
      return NULL;
    }
    if (!sqlite_store_block_enter(heads, &reader, err))
      return NULL;
  }
  while (event_block_next(&reader, &entry))
    if (entry.event.seq == seq)
      return entry.id;
  error_set(err, ERR_STORE_CORRUPT, NULL);
  return NULL;
}

/* Is there an event with this id? Hints from the index, then the truth. */
static enum store_apply check_duplicate(struct sqlite_store *sqlite, struct store_batch *batch,
                                        const struct store_op *op, uint64_t hash) {
  struct event_index_candidates found;
  enum store_apply outcome = STORE_APPLY_OK;
  event_index_find(sqlite->index, EVENT_INDEX_ID, hash, batch->ids_fresh, &found);
  for (size_t i = 0; i < found.segment_count && outcome == STORE_APPLY_OK; i++)
    if (!sqlite_store_bucket_find(sqlite->writer, statement_of(sqlite, SQLITE_STATEMENT_BUCKET_GET), found.segments[i],
                                  hash, &found, &batch->error))
      outcome = STORE_APPLY_FAILED;
  for (size_t i = 0; i < found.seq_count && outcome == STORE_APPLY_OK; i++) {
    const uint8_t *id = event_id_at(sqlite, found.seqs[i], &batch->error);
    if (!id) {
      outcome = STORE_APPLY_FAILED;
    } else if (memcmp(id, op->event_id, ID_UUID_RAW_BYTES) == 0) {
      error_set(&batch->error, ERR_STORE_DUPLICATE, NULL);
      outcome = STORE_APPLY_REFUSED;
    }
    sqlite3_reset(statement_of(sqlite, SQLITE_STATEMENT_BLOCK_HEADS));
  }
  event_index_candidates_free(&found);
  return outcome;
}

static enum store_apply apply_event(struct sqlite_store *sqlite, struct store_batch *batch, struct store_op *op,
                                    struct store_position *position) {
  struct store_event *event = &op->event;
  struct event_index_hashes hashes =
      event_index_hashes(sqlite->index, op->event_id, event->trace_id, event->context_id);
  enum store_apply outcome = check_duplicate(sqlite, batch, op, hashes.id);
  if (outcome != STORE_APPLY_OK)
    return outcome;
  uint64_t seq = position->seq + 1;
  event_blocks_append(&sqlite->blocks, seq, op->event_id, event, sqlite_store_crc(event->bytes, event->length));
  event_index_append(sqlite->index, seq, &hashes);
  position->seq = seq;
  if (event->wall_us > position->wall_us)
    position->wall_us = event->wall_us;
  sqlite->wall_us = position->wall_us;
  event->seq = seq;
  event->event_id = op->event_id_text;
  if (!batch->result.first_seq)
    batch->result.first_seq = seq;
  batch->result.last_seq = seq;
  return STORE_APPLY_OK;
}

/* The row's revision as it is, STORE_REVISION_NONE when there is no row. */
static bool row_revision(struct sqlite_store *sqlite, const struct store_row *row, uint64_t *revision,
                         struct error *err) {
  sqlite3_stmt *get = statement_of(sqlite, SQLITE_STATEMENT_ROW_REVISION);
  sqlite_store_bind_text(get, 1, row->name_space);
  sqlite_store_bind_text(get, 2, row->key);
  int code = sqlite3_step(get);
  *revision = code == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(get, 0) : STORE_REVISION_NONE;
  sqlite3_reset(get);
  sqlite3_clear_bindings(get);
  return code == SQLITE_ROW || code == SQLITE_DONE || sqlite_store_fail(sqlite->writer, code, "read a revision", err);
}

static bool row_put(struct sqlite_store *sqlite, const struct store_row *row, struct error *err) {
  sqlite3_stmt *put = statement_of(sqlite, SQLITE_STATEMENT_ROW_PUT);
  sqlite_store_bind_text(put, 1, row->name_space);
  sqlite_store_bind_text(put, 2, row->key);
  sqlite_store_bind_u64(put, 3, row->revision);
  sqlite_store_bind_u64(put, 4, sqlite_store_crc(row->value, row->length));
  sqlite_store_bind_bytes(put, 5, row->value, row->length);
  return sqlite_store_step(sqlite->writer, put, "put a row", err);
}

static bool row_delete(struct sqlite_store *sqlite, const struct store_row *row, struct error *err) {
  sqlite3_stmt *remove = statement_of(sqlite, SQLITE_STATEMENT_ROW_DELETE);
  sqlite_store_bind_text(remove, 1, row->name_space);
  sqlite_store_bind_text(remove, 2, row->key);
  return sqlite_store_step(sqlite->writer, remove, "delete a row", err);
}

static bool change_add(struct sqlite_store *sqlite, const struct store_row *row, size_t ordinal, bool deleted,
                       struct error *err) {
  sqlite3_stmt *add = statement_of(sqlite, SQLITE_STATEMENT_CHANGE_ADD);
  sqlite_store_bind_u64(add, 1, row->revision);
  sqlite_store_bind_u64(add, 2, ordinal);
  sqlite3_bind_int(add, 3, deleted);
  sqlite_store_bind_text(add, 4, row->name_space);
  sqlite_store_bind_text(add, 5, row->key);
  return sqlite_store_step(sqlite->writer, add, "note a change", err);
}

static enum store_apply apply_row(struct sqlite_store *sqlite, struct store_batch *batch, size_t ordinal,
                                  uint64_t revision) {
  struct store_op *op = &batch->ops[ordinal];
  bool put = op->kind == STORE_OP_PUT;
  uint64_t current = STORE_REVISION_NONE;
  op->applied = false;
  if ((!put || op->expected_revision != STORE_REVISION_ANY) && !row_revision(sqlite, &op->row, &current, &batch->error))
    return STORE_APPLY_FAILED;
  if (op->expected_revision != STORE_REVISION_ANY && op->expected_revision != current) {
    error_set(&batch->error, ERR_STORE_CONFLICT, NULL);
    return STORE_APPLY_REFUSED;
  }
  op->applied = put || current != STORE_REVISION_NONE;
  if (!op->applied)
    return STORE_APPLY_OK;
  op->row.revision = op->import_revision ? op->import_revision : revision;
  bool good = put ? row_put(sqlite, &op->row, &batch->error) : row_delete(sqlite, &op->row, &batch->error);
  if (good && !batch->import)
    good = change_add(sqlite, &op->row, ordinal, !put, &batch->error);
  return good ? STORE_APPLY_OK : STORE_APPLY_FAILED;
}

static bool history_trim(struct sqlite_store *sqlite, uint64_t through, struct error *err) {
  if (through <= sqlite->trimmed_next)
    return true;
  sqlite3_stmt *trim = statement_of(sqlite, SQLITE_STATEMENT_CHANGE_TRIM);
  sqlite_store_bind_u64(trim, 1, through);
  if (!sqlite_store_step(sqlite->writer, trim, "trim the history", err))
    return false;
  sqlite3_stmt *put = statement_of(sqlite, SQLITE_STATEMENT_META_PUT);
  sqlite_store_bind_text(put, 1, SQLITE_META_TRIMMED);
  sqlite_store_bind_u64(put, 2, through);
  if (!sqlite_store_step(sqlite->writer, put, "trim the history", err))
    return false;
  sqlite->trimmed_next = through;
  return true;
}

static enum store_apply apply_op(struct sqlite_store *sqlite, struct store_batch *batch, size_t ordinal,
                                 uint64_t revision, struct store_position *position) {
  struct store_op *op = &batch->ops[ordinal];
  if (op->kind == STORE_OP_EVENT)
    return apply_event(sqlite, batch, op, position);
  if (op->kind != STORE_OP_TRIM)
    return apply_row(sqlite, batch, ordinal, revision);
  uint64_t through = batch->import || op->trim_revision < position->revision ? op->trim_revision : position->revision;
  return history_trim(sqlite, through, &batch->error) ? STORE_APPLY_OK : STORE_APPLY_FAILED;
}

enum store_apply sqlite_batch_apply(void *self, struct store_batch *batch, struct store_position *position) {
  struct sqlite_store *sqlite = self;
  const struct store_position before = *position;
  const uint64_t trimmed_before = sqlite->trimmed_next;
  const struct event_blocks_mark mark = event_blocks_mark(&sqlite->blocks);
  bool rows_changed = false;
  enum store_apply outcome = STORE_APPLY_OK;
  batch->result = (struct store_commit_result){0};
  if (batch->can_fail_midway && !run(sqlite, SQLITE_STATEMENT_BATCH_BEGIN, "begin a batch", &batch->error))
    return STORE_APPLY_FAILED;
  for (size_t i = 0; i < batch->op_count && outcome == STORE_APPLY_OK; i++) {
    outcome = apply_op(sqlite, batch, i, before.revision + 1, position);
    if (batch->ops[i].kind == STORE_OP_PUT || batch->ops[i].kind == STORE_OP_DELETE)
      rows_changed = rows_changed || batch->ops[i].applied;
  }
  if (outcome == STORE_APPLY_FAILED)
    return outcome; /* the group is rolled back */
  struct error err;
  if (outcome == STORE_APPLY_REFUSED) {
    *position = before;
    sqlite->trimmed_next = trimmed_before;
    event_index_truncate(sqlite->index, before.seq);
    event_blocks_cut(&sqlite->blocks, &mark);
    if (batch->can_fail_midway && !run(sqlite, SQLITE_STATEMENT_BATCH_UNDO, "undo a batch", &err)) {
      batch->error = err;
      return STORE_APPLY_FAILED;
    }
  }
  if (batch->can_fail_midway && !run(sqlite, SQLITE_STATEMENT_BATCH_KEEP, "end a batch", &err)) {
    batch->error = err;
    return STORE_APPLY_FAILED;
  }
  if (outcome == STORE_APPLY_REFUSED)
    return outcome;
  if (batch->import)
    position->revision = batch->import_revision;
  else if (rows_changed)
    position->revision++;
  batch->result.revision = position->revision;
  return STORE_APPLY_OK;
}

/* ---- housekeeping ---- */

static bool sealing_store(struct sqlite_store *sqlite, const struct event_index_sealing *sealing, struct error *err) {
  const struct event_index_segment *segment = &sealing->segment;
  size_t filter_bytes = segment->filter_blocks * EVENT_INDEX_FILTER_BLOCK_BYTES;
  sqlite3_stmt *add = statement_of(sqlite, SQLITE_STATEMENT_SEGMENT_ADD);
  sqlite_store_bind_u64(add, 1, segment->first_seq);
  sqlite_store_bind_u64(add, 2, segment->last_seq);
  sqlite_store_bind_u64(add, 3, sqlite_store_crc(segment->filter, filter_bytes));
  sqlite_store_bind_bytes(add, 4, segment->filter, filter_bytes);
  if (!sqlite_store_step(sqlite->writer, add, "store an index segment", err))
    return false;
  sqlite3_stmt *trim = statement_of(sqlite, SQLITE_STATEMENT_TAIL_TRIM);
  sqlite_store_bind_u64(trim, 1, segment->last_seq);
  if (!sqlite_store_step(sqlite->writer, trim, "drop the stored tail", err))
    return false;
  if (sqlite->tail_saved_next < segment->last_seq)
    sqlite->tail_saved_next = segment->last_seq;
  add = statement_of(sqlite, SQLITE_STATEMENT_BUCKET_ADD);
  for (unsigned i = 0; i < EVENT_INDEX_BUCKETS; i++) {
    sqlite_store_bind_u64(add, 1, segment->first_seq * EVENT_INDEX_BUCKETS + i);
    sqlite_store_bind_u64(add, 2, sqlite_store_crc(sealing->buckets[i], sealing->bucket_bytes[i]));
    sqlite_store_bind_bytes(add, 3, sealing->buckets[i], sealing->bucket_bytes[i]);
    if (!sqlite_store_step(sqlite->writer, add, "store an index bucket", err))
      return false;
  }
  return true;
}

/* Seals the oldest part of the index's tail in a transaction of its own; a failure costs memory only, and is retried.
 */
static bool seal(struct sqlite_store *sqlite, const struct store_position *position) {
  struct event_index_sealing sealing;
  struct error err;
  bool good = event_index_seal(sqlite->index, EVENT_INDEX_SEGMENT_EVENTS, &sealing) && sqlite_group_begin(sqlite, &err);
  if (good) {
    good = sealing_store(sqlite, &sealing, &err) && sqlite_group_commit(sqlite, &err);
    if (good)
      event_index_adopt(sqlite->index, &sealing.segment);
    else
      sqlite_group_rollback(sqlite, position);
  }
  event_index_sealing_free(&sealing);
  return good;
}

static void wal_checkpoint(struct sqlite_store *sqlite) {
  int log_pages = 0, copied_pages = 0;
  int code = sqlite3_wal_checkpoint_v2(sqlite->writer, NULL, SQLITE_CHECKPOINT_PASSIVE, &log_pages, &copied_pages);
  if (code != SQLITE_OK && code != SQLITE_BUSY)
    log_event(LOG_WARN, STORE_ROOM, "the write-ahead log cannot be copied back",
              LOG_TEXT("detail", sqlite3_errmsg(sqlite->writer)));
  bool whole = code == SQLITE_OK && log_pages == copied_pages;
  sqlite->checkpoint_at_pages = whole ? sqlite->wal_pages_max : sqlite->wal_pages + sqlite->wal_pages_max;
  if (whole)
    sqlite->wal_pages = 0;
}

static void history_bound(struct sqlite_store *sqlite, const struct store_position *position) {
  uint64_t kept = position->revision - sqlite->trimmed;
  struct error err;
  if (kept <= sqlite->change_history + sqlite->change_history / 8 || !sqlite_group_begin(sqlite, &err))
    return;
  if (!history_trim(sqlite, position->revision - sqlite->change_history, &err) || !sqlite_group_commit(sqlite, &err))
    sqlite_group_rollback(sqlite, position);
}

unsigned sqlite_housekeep(void *self, const struct store_position *position, bool idle) {
  struct sqlite_store *sqlite = self;
  while (event_index_tail_count(sqlite->index) >= (idle ? EVENT_INDEX_SEGMENT_EVENTS : sqlite->seal_at)) {
    bool sealed = seal(sqlite, position);
    sqlite->seal_at = sealed ? EVENT_INDEX_SEGMENT_EVENTS : event_index_tail_count(sqlite->index) + SEAL_RETRY_EVENTS;
    if (!sealed)
      break;
  }
  if (idle)
    history_bound(sqlite, position);
  if (sqlite->wal_pages == 0 || (!idle && sqlite->wal_pages < sqlite->checkpoint_at_pages))
    return 0;
  wal_checkpoint(sqlite);
  return 1;
}

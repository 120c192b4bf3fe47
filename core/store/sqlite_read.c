/* sqlite_read.c: reading committed state on the read connection. Core thread only. A callback may read again:
 * statements that stay open across a callback are prepared for that one use. What fails its checksum is
 * ERR_STORE_CORRUPT. */
#include <stdlib.h>
#include <string.h>

#include "core/store/store_sqlite.h"
#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

static sqlite3_stmt *prepare(struct sqlite_store *sqlite, const char *sql, struct error *err) {
  sqlite3_stmt *statement = NULL;
  int code = sqlite3_prepare_v3(sqlite->reader, sql, -1, 0, &statement, NULL);
  if (code != SQLITE_OK)
    sqlite_store_fail(sqlite->reader, code, "prepare a read", err);
  return statement;
}

static const char *column_text(sqlite3_stmt *statement, int at) {
  const char *text = (const char *)sqlite3_column_text(statement, at);
  return text ? text : "";
}

static bool checksum_fits(sqlite3_int64 crc, const void *data, size_t length, struct error *err) {
  if (crc == (sqlite3_int64)sqlite_store_crc(data, length))
    return true;
  log_event(LOG_ERROR, STORE_ROOM, "a stored value does not match its checksum");
  return error_set(err, ERR_STORE_CORRUPT, NULL);
}

/* Bytes at column `at` that must match the checksum. */
static bool column_checked(sqlite3_stmt *statement, int crc_at, int at, const void **data, size_t *length,
                           struct error *err) {
  *data = sqlite3_column_blob(statement, at);
  *length = (size_t)sqlite3_column_bytes(statement, at);
  if (!*data)
    *data = "";
  return checksum_fits(sqlite3_column_int64(statement, crc_at), *data, *length, err);
}

bool sqlite_get(void *self, const char *name_space, const char *key, struct store_value *value, struct error *err) {
  struct sqlite_store *sqlite = self;
  sqlite3_stmt *get = sqlite->reader_get;
  sqlite_store_bind_text(get, 1, name_space);
  sqlite_store_bind_text(get, 2, key);
  int code = sqlite3_step(get);
  bool good = code == SQLITE_ROW;
  if (good) {
    const void *data;
    good = column_checked(get, 1, 2, &data, &value->length, err);
    if (good) {
      value->revision = (uint64_t)sqlite3_column_int64(get, 0);
      value->data = base_memdup(data, value->length);
    } else {
      value->length = 0;
    }
  } else if (code == SQLITE_DONE) {
    error_set(err, ERR_NOT_FOUND, NULL);
  } else {
    sqlite_store_fail(sqlite->reader, code, "read a row", err);
  }
  sqlite3_reset(get);
  sqlite3_clear_bindings(get);
  return good;
}

bool sqlite_scan(void *self, const char *name_space, const char *key_prefix, store_row_visit *visit, void *arg,
                 struct error *err) {
  struct sqlite_store *sqlite = self;
  sqlite3_stmt *scan =
      prepare(sqlite,
              name_space ? "SELECT name_space, key, revision, crc, value FROM kv"
                           " WHERE name_space = ?1 AND key >= ?2 ORDER BY name_space, key"
                         : "SELECT name_space, key, revision, crc, value FROM kv ORDER BY name_space, key",
              err);
  if (!scan)
    return false;
  if (name_space) {
    sqlite_store_bind_text(scan, 1, name_space);
    sqlite_store_bind_text(scan, 2, key_prefix);
  }
  bool good = true;
  int code;
  while ((code = sqlite3_step(scan)) == SQLITE_ROW) {
    struct store_row row = {.name_space = column_text(scan, 0),
                            .key = column_text(scan, 1),
                            .revision = (uint64_t)sqlite3_column_int64(scan, 2)};
    if (name_space && !str_starts_with(row.key, key_prefix))
      break;
    good = column_checked(scan, 3, 4, &row.value, &row.length, err);
    if (!good || !visit(arg, &row))
      break;
  }
  if (code != SQLITE_ROW && code != SQLITE_DONE)
    good = sqlite_store_fail(sqlite->reader, code, "scan rows", err);
  sqlite3_finalize(scan);
  return good;
}

/* ---- events ---- */

struct event_reading {
  struct sqlite_store *sqlite;
  const struct store_event_query *query;
  store_event_visit *visit;
  void *arg;
  sqlite3_stmt *blocks;
  struct event_block_reader block; /* of the row that blocks stands on */
  bool open;                       /* it stands on one */
  uint64_t count;
  bool stopped;
};

/* To the next block; it must be there and begin at or before seq. */
static bool block_step(struct event_reading *reading, uint64_t seq, struct error *err) {
  int code = sqlite3_step(reading->blocks);
  reading->open = code == SQLITE_ROW;
  if (code != SQLITE_ROW && code != SQLITE_DONE)
    return sqlite_store_fail(reading->sqlite->reader, code, "read events", err);
  if (reading->open && !sqlite_store_block_enter(reading->blocks, &reading->block, err))
    return false;
  return (reading->open && reading->block.next_seq <= seq) ||
         error_set(err, ERR_STORE_CORRUPT, "The event log has a gap.");
}

/* The block that has seq; the one at hand when it is that, so ascending look-ups read each block once. */
static bool block_seek(struct event_reading *reading, uint64_t seq, struct error *err) {
  if (reading->open && seq >= reading->block.next_seq && seq <= reading->block.last_seq)
    return true;
  sqlite3_reset(reading->blocks);
  sqlite_store_bind_u64(reading->blocks, 1, seq);
  return block_step(reading, seq, err);
}

static bool event_visit(struct event_reading *reading, struct event_block_entry *entry, struct error *err) {
  char event_id[ID_UUID_BYTES];
  struct store_event *event = &entry->event;
  const uint8_t *bytes = sqlite3_column_blob(reading->blocks, 4);
  size_t length = (size_t)sqlite3_column_bytes(reading->blocks, 4);
  if (entry->offset > length || event->length > length - entry->offset)
    return error_set(err, ERR_STORE_CORRUPT, NULL);
  event->bytes = event->length ? bytes + entry->offset : (const uint8_t *)"";
  if (!checksum_fits(entry->crc, event->bytes, event->length, err))
    return false;
  id_uuid_format(entry->id, event_id);
  event->event_id = event_id;
  reading->count++;
  reading->stopped = !reading->visit(reading->arg, event) || reading->count >= reading->query->limit;
  return true;
}

/* Visits the matching events with first <= seq <= last. The log has all of them: a missing one is damage. */
static bool read_range(struct event_reading *reading, uint64_t first, uint64_t last, struct error *err) {
  struct event_block_entry entry;
  if (!block_seek(reading, first, err))
    return false;
  while (!reading->stopped && reading->block.next_seq <= last) {
    if (reading->block.next_seq > reading->block.last_seq) {
      if (!block_step(reading, reading->block.next_seq, err))
        return false;
      continue;
    }
    if (!event_block_next(&reading->block, &entry))
      return error_set(err, ERR_STORE_CORRUPT, NULL);
    if (entry.event.seq >= first && store_event_matches(reading->query, &entry.event) &&
        !event_visit(reading, &entry, err))
      return false;
  }
  return true;
}

static int compare_seqs(const void *a, const void *b) {
  uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

/* Seqs of the candidates in one segment, sorted and visited. */
static bool read_segment(struct event_reading *reading, sqlite3_stmt *bucket, uint64_t first_seq, uint64_t hash,
                         struct error *err) {
  struct event_index_candidates found = {0};
  bool good = sqlite_store_bucket_find(reading->sqlite->reader, bucket, first_seq, hash, &found, err);
  if (found.seq_count)
    qsort(found.seqs, found.seq_count, sizeof(*found.seqs), compare_seqs);
  for (size_t i = 0; i < found.seq_count && good && !reading->stopped; i++)
    if (found.seqs[i] > reading->query->after_seq && found.seqs[i] <= reading->query->through_seq)
      good = read_range(reading, found.seqs[i], found.seqs[i], err);
  event_index_candidates_free(&found);
  return good;
}

static bool read_by_index(struct event_reading *reading, enum event_index_kind kind, const char *wanted,
                          struct error *err) {
  struct sqlite_store *sqlite = reading->sqlite;
  const struct store_event_query *query = reading->query;
  struct event_index_candidates found;
  uint64_t hash = event_index_hash(sqlite->index, kind, wanted, strlen(wanted));
  sqlite3_stmt *bucket = prepare(sqlite, "SELECT crc, entries FROM event_bucket WHERE bucket = ?1", err);
  if (!bucket)
    return false;
  event_index_find(sqlite->index, kind, hash, false, &found);
  bool good = true;
  for (size_t i = 0; i < found.segment_count && good && !reading->stopped; i++) {
    bool later = i + 1 < found.segment_count && found.segments[i + 1] <= query->after_seq;
    if (!later && found.segments[i] <= query->through_seq)
      good = read_segment(reading, bucket, found.segments[i], hash, err);
  }
  for (size_t i = 0; i < found.seq_count && good && !reading->stopped; i++)
    if (found.seqs[i] > query->after_seq && found.seqs[i] <= query->through_seq)
      good = read_range(reading, found.seqs[i], found.seqs[i], err);
  event_index_candidates_free(&found);
  sqlite3_finalize(bucket);
  return good;
}

bool sqlite_events(void *self, const struct store_event_query *query, store_event_visit *visit, void *arg,
                   struct error *err) {
  struct sqlite_store *sqlite = self;
  struct event_reading reading = {.sqlite = sqlite, .query = query, .visit = visit, .arg = arg};
  reading.blocks = prepare(sqlite,
                           "SELECT first_seq, last_seq, crc, heads, bytes FROM event_block WHERE last_seq >= ?1"
                           " ORDER BY last_seq",
                           err);
  if (!reading.blocks)
    return false;
  bool good;
  if (!str_is_empty(query->trace_id))
    good = read_by_index(&reading, EVENT_INDEX_TRACE, query->trace_id, err);
  else if (!str_is_empty(query->context_id))
    good = read_by_index(&reading, EVENT_INDEX_CONTEXT, query->context_id, err);
  else
    good = read_range(&reading, query->after_seq + 1, query->through_seq, err);
  sqlite3_finalize(reading.blocks);
  return good;
}

/* ---- history ---- */

bool sqlite_changes(void *self, uint64_t after, uint64_t through, uint64_t limit, store_change_visit *visit, void *arg,
                    uint64_t *reached, struct error *err) {
  struct sqlite_store *sqlite = self;
  /* A put that was overtaken has a row with another revision, or none: it is passed over. */
  sqlite3_stmt *changes =
      prepare(sqlite,
              "SELECT c.revision, c.deleted, c.name_space, c.key, k.revision, k.crc, k.value FROM kv_change AS c"
              " LEFT JOIN kv AS k ON k.name_space = c.name_space AND k.key = c.key"
              " WHERE c.revision > ?1 AND c.revision <= ?2 ORDER BY c.revision, c.ordinal",
              err);
  if (!changes)
    return false;
  sqlite_store_bind_u64(changes, 1, after);
  sqlite_store_bind_u64(changes, 2, through);
  bool good = true;
  uint64_t looked = 0;
  int code;
  *reached = through;
  while ((code = sqlite3_step(changes)) == SQLITE_ROW) {
    struct store_row row = {.revision = (uint64_t)sqlite3_column_int64(changes, 0),
                            .name_space = column_text(changes, 2),
                            .key = column_text(changes, 3)};
    bool deleted = sqlite3_column_int(changes, 1) != 0;
    if (looked++ >= limit && row.revision != *reached)
      break;
    *reached = row.revision;
    if (!deleted && (uint64_t)sqlite3_column_int64(changes, 4) != row.revision)
      continue;
    if (!deleted && !(good = column_checked(changes, 5, 6, &row.value, &row.length, err)))
      break;
    visit(arg, &row, deleted);
  }
  if (code == SQLITE_DONE)
    *reached = through;
  else if (code != SQLITE_ROW)
    good = sqlite_store_fail(sqlite->reader, code, "read the history", err);
  sqlite3_finalize(changes);
  return good;
}

bool sqlite_trimmed(void *self, uint64_t *revision, struct error *err) {
  struct sqlite_store *sqlite = self;
  return sqlite_store_meta_get_u64(sqlite->reader, SQLITE_META_TRIMMED, revision, err);
}

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

/* Bytes at column `at` that must match the checksum. */
static bool column_checked(sqlite3_stmt *statement, int crc_at, int at, const void **data, size_t *length,
                           struct error *err) {
  *data = sqlite3_column_blob(statement, at);
  *length = (size_t)sqlite3_column_bytes(statement, at);
  if (!*data)
    *data = "";
  if (sqlite3_column_int64(statement, crc_at) == (sqlite3_int64)sqlite_store_crc(*data, *length))
    return true;
  log_event(LOG_ERROR, STORE_ROOM, "a stored value does not match its checksum");
  return error_set(err, ERR_STORE_CORRUPT, NULL);
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
  uint64_t count;
  bool stopped;
};

/* Visits the matching events with first <= seq <= last. The log has all of them: a missing one is damage. */
static bool read_range(struct event_reading *reading, sqlite3_stmt *statement, uint64_t first, uint64_t last,
                       struct error *err) {
  bool good = true;
  int code = SQLITE_ROW;
  sqlite_store_bind_u64(statement, 1, first);
  sqlite_store_bind_u64(statement, 2, last);
  while (!reading->stopped && (code = sqlite3_step(statement)) != SQLITE_DONE) {
    if (code != SQLITE_ROW) {
      good = sqlite_store_fail(reading->sqlite->reader, code, "read events", err);
      break;
    }
    char event_id[ID_UUID_BYTES];
    struct store_event event = {.seq = (uint64_t)sqlite3_column_int64(statement, 0),
                                .event_id = event_id,
                                .wall_us = sqlite3_column_int64(statement, 2),
                                .trace_id = column_text(statement, 3),
                                .context_id = column_text(statement, 4),
                                .project_id = column_text(statement, 5),
                                .family = column_text(statement, 6),
                                .type = column_text(statement, 7)};
    if (event.seq != first++)
      break;
    if (!store_event_matches(reading->query, &event))
      continue;
    const void *id = sqlite3_column_blob(statement, 1);
    if (sqlite3_column_bytes(statement, 1) != STORE_UUID_BYTES) {
      good = error_set(err, ERR_STORE_CORRUPT, NULL);
      break;
    }
    store_uuid_format(id, event_id);
    good = column_checked(statement, 8, 9, &event.bytes, &event.length, err);
    if (!good)
      break;
    reading->count++;
    reading->stopped = !reading->visit(reading->arg, &event) || reading->count >= reading->query->limit;
  }
  if (good && !reading->stopped && (code == SQLITE_ROW || first != last + 1))
    good = error_set(err, ERR_STORE_CORRUPT, "The event log has a gap.");
  sqlite3_reset(statement);
  return good;
}

static int compare_seqs(const void *a, const void *b) {
  uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

/* Seqs of the candidates in one segment, sorted and visited. */
static bool read_segment(struct event_reading *reading, sqlite3_stmt *events, sqlite3_stmt *bucket, uint64_t first_seq,
                         uint64_t hash, struct error *err) {
  struct event_index_candidates found = {0};
  bool good = sqlite_store_bucket_find(reading->sqlite->reader, bucket, first_seq, hash, &found, err);
  if (found.seq_count)
    qsort(found.seqs, found.seq_count, sizeof(*found.seqs), compare_seqs);
  for (size_t i = 0; i < found.seq_count && good && !reading->stopped; i++)
    if (found.seqs[i] > reading->query->after_seq && found.seqs[i] <= reading->query->through_seq)
      good = read_range(reading, events, found.seqs[i], found.seqs[i], err);
  event_index_candidates_free(&found);
  return good;
}

static bool read_by_index(struct event_reading *reading, sqlite3_stmt *events, enum event_index_kind kind,
                          const char *wanted, struct error *err) {
  struct sqlite_store *sqlite = reading->sqlite;
  const struct store_event_query *query = reading->query;
  struct event_index_candidates found;
  uint64_t hash = event_index_hash(sqlite->index, kind, wanted, strlen(wanted));
  sqlite3_stmt *bucket = prepare(sqlite, "SELECT crc, entries FROM event_bucket WHERE bucket = ?1", err);
  if (!bucket)
    return false;
  event_index_find(sqlite->index, kind, hash, &found);
  bool good = true;
  for (size_t i = 0; i < found.segment_count && good && !reading->stopped; i++) {
    bool later = i + 1 < found.segment_count && found.segments[i + 1] <= query->after_seq;
    if (!later && found.segments[i] <= query->through_seq)
      good = read_segment(reading, events, bucket, found.segments[i], hash, err);
  }
  for (size_t i = 0; i < found.seq_count && good && !reading->stopped; i++)
    if (found.seqs[i] > query->after_seq && found.seqs[i] <= query->through_seq)
      good = read_range(reading, events, found.seqs[i], found.seqs[i], err);
  event_index_candidates_free(&found);
  sqlite3_finalize(bucket);
  return good;
}

bool sqlite_events(void *self, const struct store_event_query *query, store_event_visit *visit, void *arg,
                   struct error *err) {
  struct sqlite_store *sqlite = self;
  struct event_reading reading = {.sqlite = sqlite, .query = query, .visit = visit, .arg = arg};
  sqlite3_stmt *events = prepare(sqlite,
                                 "SELECT seq, event_id, wall_us, trace_id, context_id, project_id, family, type, crc,"
                                 " bytes FROM event WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq",
                                 err);
  if (!events)
    return false;
  bool good;
  if (!str_is_empty(query->trace_id))
    good = read_by_index(&reading, events, EVENT_INDEX_TRACE, query->trace_id, err);
  else if (!str_is_empty(query->context_id))
    good = read_by_index(&reading, events, EVENT_INDEX_CONTEXT, query->context_id, err);
  else
    good = read_range(&reading, events, query->after_seq + 1, query->through_seq, err);
  sqlite3_finalize(events);
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

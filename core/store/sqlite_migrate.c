/* sqlite_migrate.c: the schema, as the list of its changes; each is applied in a transaction of its own, so a store
 * that was interrupted while it was brought up to date goes on from where it was (VSL-15). */
#include <string.h>

#include "core/store/store_sqlite.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"

#define CONVERT_BLOCKS 64 /* written at once */

/* One row of version 2 behind the others. Its checksum goes along as it is: what was damaged stays damaged. */
static bool row_to_block(sqlite3_stmt *row, uint64_t seq, struct event_blocks *blocks) {
  const char *texts[EVENT_BLOCK_TEXTS];
  for (int i = 0; i < EVENT_BLOCK_TEXTS; i++)
    if (!(texts[i] = (const char *)sqlite3_column_text(row, 3 + i)))
      return false;
  const void *id = sqlite3_column_blob(row, 1);
  if ((uint64_t)sqlite3_column_int64(row, 0) != seq || sqlite3_column_bytes(row, 1) != ID_UUID_RAW_BYTES)
    return false;
  const struct store_event event = {.trace_id = texts[0],
                                    .context_id = texts[1],
                                    .project_id = texts[2],
                                    .family = texts[3],
                                    .type = texts[4],
                                    .wall_us = sqlite3_column_int64(row, 2),
                                    .bytes = sqlite3_column_blob(row, 9),
                                    .length = (size_t)sqlite3_column_bytes(row, 9)};
  event_blocks_append(blocks, seq, id, &event, (uint32_t)sqlite3_column_int64(row, 8));
  return true;
}

/* Versions 1 and 2 had one row for each event. */
static bool events_to_blocks(sqlite3 *db, struct error *err) {
  sqlite3_stmt *rows = NULL, *add = NULL;
  struct event_blocks blocks = {0};
  uint64_t seq = 0;
  bool good = true;
  int code = sqlite3_prepare_v2(db,
                                "SELECT seq, event_id, wall_us, trace_id, context_id, project_id, family, type, crc,"
                                " bytes FROM event ORDER BY seq",
                                -1, &rows, NULL);
  if (code == SQLITE_OK)
    code = sqlite3_prepare_v2(db, SQLITE_BLOCK_ADD, -1, &add, NULL);
  while (good && (code == SQLITE_OK || code == SQLITE_ROW) && (code = sqlite3_step(rows)) == SQLITE_ROW) {
    good = row_to_block(rows, ++seq, &blocks) || error_set(err, ERR_STORE_CORRUPT, "The event log has a gap.");
    if (good && blocks.count == CONVERT_BLOCKS)
      good = sqlite_store_blocks_write(db, add, &blocks, err);
  }
  if (good && code != SQLITE_DONE)
    good = sqlite_store_fail(db, code, "migrate events", err);
  good = good && sqlite_store_blocks_write(db, add, &blocks, err);
  sqlite3_finalize(rows);
  sqlite3_finalize(add);
  event_blocks_free(&blocks);
  return good && sqlite_store_execute(db, "DROP TABLE event", "migrate", err);
}

/* Schema changes in order; version = place + 1. A shipped entry is never edited.
 *
 * kv keeps its rows apart from their keys: in a WITHOUT ROWID table every look-up that passes a large value (a
 * checkpoint) would read all of it, since SQLite compares whole records there. */
static const struct {
  const char *description;
  const char *sql;
  bool (*convert)(sqlite3 *db, struct error *err); /* after the SQL, in the same transaction; may be NULL */
} migrations[] = {
    {"rows, history, event log, event index",
     "CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;"
     "CREATE TABLE migration (version INTEGER PRIMARY KEY, applied_wall_us INTEGER NOT NULL, description TEXT NOT "
     "NULL);"
     "CREATE TABLE kv (name_space TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, crc INTEGER NOT NULL,"
     " value BLOB NOT NULL, PRIMARY KEY (name_space, key));"
     "CREATE TABLE kv_change (revision INTEGER NOT NULL, ordinal INTEGER NOT NULL, deleted INTEGER NOT NULL,"
     " name_space TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (revision, ordinal)) WITHOUT ROWID;"
     "CREATE TABLE event (seq INTEGER PRIMARY KEY, event_id BLOB NOT NULL, wall_us INTEGER NOT NULL,"
     " trace_id TEXT NOT NULL, context_id TEXT NOT NULL, project_id TEXT NOT NULL, family TEXT NOT NULL,"
     " type TEXT NOT NULL, crc INTEGER NOT NULL, bytes BLOB NOT NULL);"
     "CREATE TABLE event_segment (first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, crc INTEGER NOT NULL,"
     " filter BLOB NOT NULL);"
     "CREATE TABLE event_bucket (bucket INTEGER PRIMARY KEY, crc INTEGER NOT NULL, entries BLOB NOT NULL);",
     NULL},
    {"the tail of the event index",
     "CREATE TABLE event_tail (first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, wall_us INTEGER NOT NULL,"
     " crc INTEGER NOT NULL, hashes BLOB NOT NULL);",
     NULL},
    {"events in blocks",
     "CREATE TABLE event_block (last_seq INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL, crc INTEGER NOT NULL,"
     " heads BLOB NOT NULL, bytes BLOB NOT NULL)",
     events_to_blocks},
};
const uint64_t sqlite_store_schema_version = sizeof(migrations) / sizeof(migrations[0]);

uint64_t store_schema_version(void) {
  return sqlite_store_schema_version;
}

static bool migrate_step(sqlite3 *db, size_t version, struct error *err) {
  sqlite3_stmt *note = NULL;
  char numbers[96];
  snprintf(numbers, sizeof(numbers), "PRAGMA application_id = %d; PRAGMA user_version = %zu",
           SQLITE_STORE_APPLICATION_ID, version);
  if (!sqlite_store_execute(db, "BEGIN IMMEDIATE", "migrate", err))
    return false;
  bool good = sqlite_store_execute(db, migrations[version - 1].sql, "migrate", err) &&
              (!migrations[version - 1].convert || migrations[version - 1].convert(db, err)) &&
              sqlite_store_execute(db, numbers, "migrate", err);
  if (good) {
    int code = sqlite3_prepare_v2(db, "INSERT INTO migration VALUES (?1, ?2, ?3)", -1, &note, NULL);
    good = code == SQLITE_OK || sqlite_store_fail(db, code, "migrate", err);
  }
  if (good) {
    sqlite_store_bind_u64(note, 1, version);
    sqlite3_bind_int64(note, 2, clock_wall_us());
    sqlite_store_bind_text(note, 3, migrations[version - 1].description);
    good = sqlite_store_step(db, note, "migrate", err);
  }
  sqlite3_finalize(note);
  if (good && sqlite_store_execute(db, "COMMIT", "migrate", err))
    return true;
  if (!sqlite3_get_autocommit(db))
    sqlite_store_execute(db, "ROLLBACK", "migrate", NULL);
  return false;
}

bool sqlite_store_migrate(sqlite3 *db, uint64_t version, struct error *err) {
  while (version < sqlite_store_schema_version) {
    if (!migrate_step(db, (size_t)++version, err))
      return false;
    log_event(LOG_INFO, STORE_ROOM, "schema migrated", LOG_INT("version", version));
  }
  return true;
}

/* store_sqlite.h: shared by the sqlite_*.c files only. One connection writes (writer thread), one reads (core thread).
 *
 * sqlite_backend.c  lock file, opening, integrity check, loading
 * sqlite_migrate.c  schema and migrations
 * sqlite_write.c    groups, batches, housekeeping
 * sqlite_read.c     rows, events, history */
#ifndef GATEHOUSE_CORE_STORE_SQLITE_H
#define GATEHOUSE_CORE_STORE_SQLITE_H

#include <sqlite3.h>

#include "core/store/event_block.h"
#include "core/store/store_internal.h"

#define SQLITE_STORE_APPLICATION_ID 0x47545653 /* "GTVS" */
#define SQLITE_WAL_BYTES_MAX (4 << 20)         /* then the log is copied back and recycled even while busy */
#define SQLITE_PAGE_BYTES 16384                /* of a new database: a block of events is some pages, not dozens */
#define SQLITE_META_SALT "event_index_salt"
#define SQLITE_META_TRIMMED "trimmed_revision"

#define SQLITE_BLOCK_ADD "INSERT INTO event_block (last_seq, first_seq, crc, heads, bytes) VALUES (?1, ?2, ?3, ?4, ?5)"

/* Statements of the writer, prepared once. */
#define SQLITE_STORE_STATEMENTS(X)                                                                                     \
  X(BEGIN, "BEGIN IMMEDIATE")                                                                                          \
  X(COMMIT, "COMMIT")                                                                                                  \
  X(ROLLBACK, "ROLLBACK")                                                                                              \
  X(BATCH_BEGIN, "SAVEPOINT batch")                                                                                    \
  X(BATCH_KEEP, "RELEASE batch")                                                                                       \
  X(BATCH_UNDO, "ROLLBACK TO batch")                                                                                   \
  X(ROW_REVISION, "SELECT revision FROM kv WHERE name_space = ?1 AND key = ?2")                                        \
  X(ROW_PUT, "INSERT INTO kv (name_space, key, revision, crc, value) VALUES (?1, ?2, ?3, ?4, ?5)"                      \
             " ON CONFLICT (name_space, key) DO UPDATE SET revision = ?3, crc = ?4, value = ?5")                       \
  X(ROW_DELETE, "DELETE FROM kv WHERE name_space = ?1 AND key = ?2")                                                   \
  X(CHANGE_ADD, "INSERT INTO kv_change (revision, ordinal, deleted, name_space, key) VALUES (?1, ?2, ?3, ?4, ?5)")     \
  X(CHANGE_TRIM, "DELETE FROM kv_change WHERE revision <= ?1")                                                         \
  X(META_PUT, "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")                                             \
  X(BLOCK_ADD, SQLITE_BLOCK_ADD)                                                                                       \
  X(BLOCK_HEADS, "SELECT first_seq, last_seq, crc, heads FROM event_block WHERE last_seq >= ?1 ORDER BY last_seq")     \
  X(BUCKET_GET, "SELECT crc, entries FROM event_bucket WHERE bucket = ?1")                                             \
  X(BUCKET_ADD, "INSERT INTO event_bucket (bucket, crc, entries) VALUES (?1, ?2, ?3)")                                 \
  X(TAIL_ADD,                                                                                                          \
    "INSERT OR REPLACE INTO event_tail (first_seq, last_seq, wall_us, crc, hashes) VALUES (?1, ?2, ?3, ?4, ?5)")       \
  X(TAIL_TRIM, "DELETE FROM event_tail WHERE last_seq <= ?1")                                                          \
  X(SEGMENT_ADD, "INSERT INTO event_segment (first_seq, last_seq, crc, filter) VALUES (?1, ?2, ?3, ?4)")

enum sqlite_statement {
#define X(name, sql) SQLITE_STATEMENT_##name,
  SQLITE_STORE_STATEMENTS(X)
#undef X
      SQLITE_STATEMENT_COUNT
};

struct sqlite_store {
  sqlite3 *writer, *reader;
  sqlite3_stmt *statements[SQLITE_STATEMENT_COUNT];
  sqlite3_stmt *reader_get;
  char *path, *vfs; /* vfs NULL: the default one */
  int lock_fd;
  struct event_index *index;
  uint64_t change_history;
  /* Writer thread. */
  struct event_blocks blocks; /* of the group, not yet written */
  uint64_t trimmed;           /* as committed */
  uint64_t trimmed_next;
  uint64_t tail_saved; /* last seq whose hashes are in event_tail or a segment, as committed */
  uint64_t tail_saved_next;
  int64_t wall_us; /* highest of any event that was applied */
  int wal_pages, wal_pages_max, checkpoint_at_pages;
  size_t seal_at;
};

/* Maps a result code of db to our error, logs the details; returns false. */
bool sqlite_store_fail(sqlite3 *db, int code, const char *doing, struct error *err);
bool sqlite_store_execute(sqlite3 *db, const char *sql, const char *doing, struct error *err);
extern const uint64_t sqlite_store_schema_version;
bool sqlite_store_migrate(sqlite3 *db, uint64_t version, struct error *err); /* from version to the newest */
/* Stores the blocks, through a statement of SQLITE_BLOCK_ADD, and clears them. */
bool sqlite_store_blocks_write(sqlite3 *db, sqlite3_stmt *add, struct event_blocks *blocks, struct error *err);
uint32_t sqlite_store_crc(const void *data, size_t length);
/* Runs a statement that gives no rows; resets it. */
bool sqlite_store_step(sqlite3 *db, sqlite3_stmt *statement, const char *doing, struct error *err);
void sqlite_store_bind_text(sqlite3_stmt *statement, int at, const char *text);
void sqlite_store_bind_bytes(sqlite3_stmt *statement, int at, const void *data, size_t length);
void sqlite_store_bind_u64(sqlite3_stmt *statement, int at, uint64_t value);
bool sqlite_store_meta_get_u64(sqlite3 *db, const char *name, uint64_t *value, struct error *err); /* absent: 0 */
/* The heads of the block that the statement stands on, columns as in BLOCK_HEADS. */
bool sqlite_store_block_enter(sqlite3_stmt *statement, struct event_block_reader *reader, struct error *err);
/* Reads one bucket through a statement like BUCKET_GET and adds what it has for hash. */
bool sqlite_store_bucket_find(sqlite3 *db, sqlite3_stmt *statement, uint64_t first_seq, uint64_t hash,
                              struct event_index_candidates *candidates, struct error *err);

bool sqlite_group_begin(void *self, struct error *err);
enum store_apply sqlite_batch_apply(void *self, struct store_batch *batch, struct store_position *position);
bool sqlite_group_commit(void *self, struct error *err);
void sqlite_group_rollback(void *self, const struct store_position *position);
unsigned sqlite_housekeep(void *self, const struct store_position *position, bool idle);

bool sqlite_get(void *self, const char *name_space, const char *key, struct store_value *value, struct error *err);
bool sqlite_scan(void *self, const char *name_space, const char *key_prefix, store_row_visit *visit, void *arg,
                 struct error *err);
bool sqlite_events(void *self, const struct store_event_query *query, store_event_visit *visit, void *arg,
                   struct error *err);
bool sqlite_changes(void *self, uint64_t after, uint64_t through, uint64_t limit, store_change_visit *visit, void *arg,
                    uint64_t *reached, struct error *err);
bool sqlite_trimmed(void *self, uint64_t *revision, struct error *err);

#endif

/* sqlite_backend.c: opening a SQLite store: the lock, the file, the integrity check, and what has to be in
 * memory (position, event index).
 *
 * "<path>.lock" is held with flock for as long as the store is open; once the schema is there it holds a marker line.
 * With the marker, a database that is missing or empty is damage and refused: nothing is ever recreated silently. To
 * start over on purpose, remove both files. */
#include <fcntl.h>
#include <libdeflate.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <errno.h>

#include "core/store/store_sqlite.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/id.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define MARKER "gatehouse store\n"
#define BUSY_TIMEOUT_MS 2000 /* another program that reads the file may hold it for a moment */

/* ---- helpers shared with the other files ---- */

bool sqlite_store_fail(sqlite3 *db, int code, const char *doing, struct error *err) {
  int system_error = db ? sqlite3_system_errno(db) : 0;
  enum error_code mapped = ERR_STORE_FAILED;
  switch (code & 0xff) {
  case SQLITE_FULL:
    mapped = ERR_STORE_FULL;
    break;
  case SQLITE_CORRUPT:
  case SQLITE_NOTADB:
  case SQLITE_CONSTRAINT: /* our own statements never violate one on sound data */
  case SQLITE_MISMATCH:
    mapped = ERR_STORE_CORRUPT;
    break;
  case SQLITE_BUSY:
  case SQLITE_LOCKED:
    mapped = ERR_STORE_LOCKED;
    break;
  case SQLITE_IOERR:
    if (code == SQLITE_IOERR_CORRUPTFS)
      mapped = ERR_STORE_CORRUPT;
    else if (system_error == ENOSPC || system_error == EDQUOT)
      mapped = ERR_STORE_FULL;
    break;
  default:
    break;
  }
  log_event(LOG_DEBUG, STORE_ROOM, "sqlite refused", LOG_TEXT("doing", doing),
            LOG_TEXT("detail", db ? sqlite3_errmsg(db) : sqlite3_errstr(code)), LOG_INT("sqlite", code),
            LOG_INT("errno", system_error));
  return error_set(err, mapped, NULL);
}

uint32_t sqlite_store_crc(const void *data, size_t length) {
  return libdeflate_crc32(0, data, length);
}

bool sqlite_store_step(sqlite3 *db, sqlite3_stmt *statement, const char *doing, struct error *err) {
  int code = sqlite3_step(statement);
  bool good = code == SQLITE_DONE || code == SQLITE_ROW || sqlite_store_fail(db, code, doing, err);
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  return good;
}

/* Binding fails only when memory runs out or for a place that does not exist. The bytes outlive the step. */
void sqlite_store_bind_text(sqlite3_stmt *statement, int at, const char *text) {
  BASE_CHECK(sqlite3_bind_text64(statement, at, text, strlen(text), SQLITE_STATIC, SQLITE_UTF8) == SQLITE_OK);
}

void sqlite_store_bind_bytes(sqlite3_stmt *statement, int at, const void *data, size_t length) {
  BASE_CHECK(sqlite3_bind_blob64(statement, at, length ? data : "", length, SQLITE_STATIC) == SQLITE_OK);
}

void sqlite_store_bind_u64(sqlite3_stmt *statement, int at, uint64_t value) {
  BASE_CHECK(sqlite3_bind_int64(statement, at, value > INT64_MAX ? INT64_MAX : (sqlite3_int64)value) == SQLITE_OK);
}

bool sqlite_store_block_enter(sqlite3_stmt *statement, struct event_block_reader *reader, struct error *err) {
  const void *heads = sqlite3_column_blob(statement, 3);
  size_t length = (size_t)sqlite3_column_bytes(statement, 3);
  uint64_t first = (uint64_t)sqlite3_column_int64(statement, 0), last = (uint64_t)sqlite3_column_int64(statement, 1);
  if (first == 0 || first > last ||
      sqlite3_column_int64(statement, 2) != (sqlite3_int64)sqlite_store_crc(heads ? heads : "", length))
    return error_set(err, ERR_STORE_CORRUPT, NULL);
  event_block_reader_set(reader, first, last, heads, length);
  return true;
}

bool sqlite_store_bucket_find(sqlite3 *db, sqlite3_stmt *statement, uint64_t first_seq, uint64_t hash,
                              struct event_index_candidates *candidates, struct error *err) {
  sqlite_store_bind_u64(statement, 1, first_seq * EVENT_INDEX_BUCKETS + event_index_bucket(hash));
  int code = sqlite3_step(statement);
  bool good = code == SQLITE_ROW;
  if (good) {
    const void *entries = sqlite3_column_blob(statement, 1);
    size_t length = (size_t)sqlite3_column_bytes(statement, 1);
    good = sqlite3_column_int64(statement, 0) == (sqlite3_int64)sqlite_store_crc(entries ? entries : "", length);
    if (good)
      event_index_bucket_find(entries, length, first_seq, hash, candidates);
    else
      error_set(err, ERR_STORE_CORRUPT, NULL);
  } else {
    sqlite_store_fail(db, code == SQLITE_DONE ? SQLITE_CORRUPT : code, "read the event index", err);
  }
  sqlite3_reset(statement);
  return good;
}

/* One row, one number; 0 when there is none or it is NULL. */
static bool query_u64(sqlite3 *db, const char *sql, const char *parameter, uint64_t *value, struct error *err) {
  sqlite3_stmt *statement = NULL;
  int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
  *value = 0;
  if (code == SQLITE_OK) {
    if (parameter)
      sqlite_store_bind_text(statement, 1, parameter);
    code = sqlite3_step(statement);
  }
  if (code == SQLITE_ROW)
    *value = (uint64_t)sqlite3_column_int64(statement, 0);
  bool good = code == SQLITE_ROW || code == SQLITE_DONE || sqlite_store_fail(db, code, "look up a number", err);
  sqlite3_finalize(statement);
  return good;
}

bool sqlite_store_meta_get_u64(sqlite3 *db, const char *name, uint64_t *value, struct error *err) {
  return query_u64(db, "SELECT value FROM meta WHERE name = ?1", name, value, err);
}

bool sqlite_store_execute(sqlite3 *db, const char *sql, const char *doing, struct error *err) {
  int code = sqlite3_exec(db, sql, NULL, NULL, NULL);
  return code == SQLITE_OK || sqlite_store_fail(db, code, doing, err);
}

/* ---- files ---- */

static bool sqlite_accepts(const struct store_options *options, struct error *err) {
  if (str_is_empty(options->path) || str_starts_with(options->path, "file:") || options->path[0] == ':')
    return error_set(err, ERR_ARGUMENT_INVALID, "The store needs the path of a file.");
  return true;
}

static bool lock_take(struct sqlite_store *sqlite, const char *path, bool *marked, struct error *err) {
  char *lock_path = base_asprintf("%s.lock", path), marker[sizeof(MARKER)] = "";
  sqlite->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  int failure = errno;
  base_free(lock_path);
  if (sqlite->lock_fd < 0) {
    log_event(LOG_ERROR, STORE_ROOM, "the lock file cannot be opened", LOG_TEXT("path", path),
              LOG_TEXT("detail", strerrordesc_np(failure)));
    return error_set(err, failure == ENOSPC || failure == EDQUOT ? ERR_STORE_FULL : ERR_STORE_FAILED, NULL);
  }
  if (flock(sqlite->lock_fd, LOCK_EX | LOCK_NB) != 0)
    return error_set(err, errno == EWOULDBLOCK ? ERR_STORE_LOCKED : ERR_STORE_FAILED, NULL);
  *marked = pread(sqlite->lock_fd, marker, strlen(MARKER), 0) == (ssize_t)strlen(MARKER) && str_equal(marker, MARKER);
  return true;
}

static bool lock_mark(struct sqlite_store *sqlite, struct error *err) {
  if (pwrite(sqlite->lock_fd, MARKER, strlen(MARKER), 0) == (ssize_t)strlen(MARKER) && fsync(sqlite->lock_fd) == 0)
    return true;
  return error_set(err, errno == ENOSPC || errno == EDQUOT ? ERR_STORE_FULL : ERR_STORE_FAILED, NULL);
}

/* A private regular file is there afterwards. Closed before SQLite opens it: closing drops POSIX locks. */
static bool file_prepare(const char *path, bool marked, uint64_t *size_bytes, struct error *err) {
  int flags = O_RDWR | O_CLOEXEC | (marked ? 0 : O_CREAT);
  int fd = open(path, flags, 0600);
  if (fd < 0 && marked && errno == ENOENT)
    return error_set(err, ERR_STORE_CORRUPT, "The store's database is missing.");
  struct stat status;
  bool good = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && fchmod(fd, 0600) == 0;
  if (!good)
    log_event(LOG_ERROR, STORE_ROOM, "the database cannot be opened", LOG_TEXT("path", path),
              LOG_TEXT("detail", strerrordesc_np(errno)));
  if (fd >= 0)
    close(fd);
  if (!good)
    return error_set(err, ERR_STORE_FAILED, NULL);
  *size_bytes = (uint64_t)status.st_size;
  if (marked && status.st_size == 0)
    return error_set(err, ERR_STORE_CORRUPT, "The store's database is empty.");
  return true;
}

/* The names of new files survive power loss only when their folder is synced; SQLite does so for its log. */
static bool folder_sync(const char *path, struct error *err) {
  const char *slash = strrchr(path, '/');
  char *folder = slash ? base_strndup(path, (size_t)(slash - path) + 1) : base_strdup(".");
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  base_free(folder);
  bool good = fd >= 0 && fsync(fd) == 0;
  if (fd >= 0)
    close(fd);
  return good || error_set(err, ERR_STORE_FAILED, NULL);
}

/* ---- connections and schema ---- */

static bool connection_open(const struct sqlite_store *sqlite, sqlite3 **db, struct error *err) {
  int code = sqlite3_open_v2(sqlite->path, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE,
                             sqlite->vfs);
  if (code != SQLITE_OK)
    return sqlite_store_fail(*db, code, "open", err);
  sqlite3_extended_result_codes(*db, 1);
  sqlite3_busy_timeout(*db, BUSY_TIMEOUT_MS);
  sqlite3_db_config(*db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  return sqlite_store_execute(
      *db, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY", "set up", err);
}

static bool schema_identify(sqlite3 *db, bool marked, uint64_t *version, struct error *err) {
  uint64_t application, objects;
  if (!query_u64(db, "PRAGMA application_id", NULL, &application, err) ||
      !query_u64(db, "PRAGMA user_version", NULL, version, err) ||
      !query_u64(db, "SELECT count(*) FROM sqlite_schema", NULL, &objects, err))
    return false;
  bool fresh = objects == 0 && *version == 0 && application == 0;
  if (fresh ? marked : application != SQLITE_STORE_APPLICATION_ID)
    return error_set(err, ERR_STORE_CORRUPT, "The file is not a store of this program.");
  if (*version > sqlite_store_schema_version)
    return error_set(err, ERR_STORE_VERSION, "The store was written by a newer version.");
  return true;
}

static bool integrity_check(sqlite3 *db, struct error *err) {
  sqlite3_stmt *check = NULL;
  int code = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &check, NULL);
  if (code == SQLITE_OK)
    code = sqlite3_step(check);
  const char *verdict = code == SQLITE_ROW ? (const char *)sqlite3_column_text(check, 0) : NULL;
  bool good = str_equal(verdict, "ok");
  if (verdict && !good) {
    log_event(LOG_ERROR, STORE_ROOM, "the database is damaged", LOG_TEXT("detail", verdict));
    error_set(err, ERR_STORE_CORRUPT, NULL);
  } else if (!good) {
    sqlite_store_fail(db, code, "check", err);
  }
  sqlite3_finalize(check);
  return good;
}

/* ---- what has to be in memory ---- */

static bool salt_load(struct sqlite_store *sqlite, struct error *err) {
  uint8_t salt[EVENT_INDEX_SALT_BYTES];
  sqlite3_stmt *get = NULL;
  int code = sqlite3_prepare_v2(sqlite->writer, "SELECT value FROM meta WHERE name = ?1", -1, &get, NULL);
  if (code == SQLITE_OK) {
    sqlite_store_bind_text(get, 1, SQLITE_META_SALT);
    code = sqlite3_step(get);
  }
  bool found = code == SQLITE_ROW && sqlite3_column_bytes(get, 0) == (int)sizeof(salt);
  if (found)
    memcpy(salt, sqlite3_column_blob(get, 0), sizeof(salt));
  sqlite3_finalize(get);
  if (!found && code == SQLITE_ROW)
    return error_set(err, ERR_STORE_CORRUPT, NULL);
  if (!found && code != SQLITE_DONE)
    return sqlite_store_fail(sqlite->writer, code, "read the salt", err);
  if (!found) {
    id_random_bytes(salt, sizeof(salt));
    sqlite3_stmt *put = sqlite->statements[SQLITE_STATEMENT_META_PUT];
    sqlite_store_bind_text(put, 1, SQLITE_META_SALT);
    sqlite_store_bind_bytes(put, 2, salt, sizeof(salt));
    if (!sqlite_store_step(sqlite->writer, put, "store the salt", err))
      return false;
  }
  sqlite->index = event_index_create(salt);
  return true;
}

/* Segments of the event index. *sound: false when they do not fit together; they are derived and can be built anew. */
static bool segments_load(struct sqlite_store *sqlite, bool *sound, struct error *err) {
  sqlite3_stmt *get = NULL;
  int code = sqlite3_prepare_v2(
      sqlite->writer, "SELECT first_seq, last_seq, crc, filter FROM event_segment ORDER BY first_seq", -1, &get, NULL);
  *sound = true;
  while (code == SQLITE_OK || code == SQLITE_ROW) {
    if ((code = sqlite3_step(get)) != SQLITE_ROW)
      break;
    const void *filter = sqlite3_column_blob(get, 3);
    size_t length = (size_t)sqlite3_column_bytes(get, 3);
    struct event_index_segment segment = {.first_seq = (uint64_t)sqlite3_column_int64(get, 0),
                                          .last_seq = (uint64_t)sqlite3_column_int64(get, 1),
                                          .filter_blocks = length / EVENT_INDEX_FILTER_BLOCK_BYTES};
    *sound = length > 0 && length % EVENT_INDEX_FILTER_BLOCK_BYTES == 0 && segment.last_seq >= segment.first_seq &&
             segment.first_seq == event_index_sealed_seq(sqlite->index) + 1 &&
             sqlite3_column_int64(get, 2) == (sqlite3_int64)sqlite_store_crc(filter, length);
    if (!*sound)
      break;
    segment.filter = base_memdup(filter, length);
    event_index_adopt(sqlite->index, &segment);
  }
  sqlite3_finalize(get);
  return code == SQLITE_DONE || code == SQLITE_ROW ||
         sqlite_store_fail(sqlite->writer, code, "load the event index", err);
}

/* Stored hashes of the tail, as far as they follow on one another. */
static bool saved_tail_load(struct sqlite_store *sqlite, struct store_position *position, struct error *err) {
  sqlite3_stmt *get = NULL;
  int code = sqlite3_prepare_v2(sqlite->writer,
                                "SELECT first_seq, last_seq, wall_us, crc, hashes FROM event_tail ORDER BY first_seq",
                                -1, &get, NULL);
  while (code == SQLITE_OK || code == SQLITE_ROW) {
    if ((code = sqlite3_step(get)) != SQLITE_ROW)
      break;
    const void *hashes = sqlite3_column_blob(get, 4);
    size_t length = (size_t)sqlite3_column_bytes(get, 4), count = length / EVENT_INDEX_SAVED_BYTES;
    uint64_t first_seq = (uint64_t)sqlite3_column_int64(get, 0);
    int64_t wall_us = sqlite3_column_int64(get, 2);
    if (length == 0 || length % EVENT_INDEX_SAVED_BYTES != 0 || first_seq != event_index_last_seq(sqlite->index) + 1 ||
        (uint64_t)sqlite3_column_int64(get, 1) != first_seq + count - 1 ||
        sqlite3_column_int64(get, 3) != (sqlite3_int64)sqlite_store_crc(hashes, length)) {
      log_event(LOG_WARN, STORE_ROOM, "the stored tail of the event index is of no use; the log is read");
      break;
    }
    event_index_tail_load(sqlite->index, hashes, count);
    if (wall_us > position->wall_us)
      position->wall_us = wall_us;
  }
  sqlite3_finalize(get);
  return code == SQLITE_DONE || code == SQLITE_ROW ||
         sqlite_store_fail(sqlite->writer, code, "load the index's tail", err);
}

/* Continues the index and the position with one block. False: it does not follow what was there, or is damaged. */
static bool tail_block(struct sqlite_store *sqlite, uint64_t known, struct event_block_reader *reader,
                       struct store_position *position) {
  struct event_block_entry entry;
  struct event_index_hashes hashes = {0};
  bool follows = reader->next_seq == position->seq + 1;
  if (!follows && (position->seq >= known || reader->next_seq > position->seq)) /* the first may begin before */
    return false;
  while (reader->next_seq <= reader->last_seq) {
    if (!event_block_next(reader, &entry))
      return false;
    const struct store_event *event = &entry.event;
    if (event->seq > known) {
      struct event_index_hashes before = hashes;
      bool same = entry.same_trace_and_context && before.id;
      hashes = event_index_hashes(sqlite->index, entry.id, same ? "" : event->trace_id, same ? "" : event->context_id);
      if (same)
        hashes.trace = before.trace, hashes.context = before.context;
      event_index_append(sqlite->index, event->seq, &hashes);
    }
    position->seq = event->seq;
    if (event->wall_us > position->wall_us)
      position->wall_us = event->wall_us;
  }
  return true;
}

/* Events after what is stored of the index, and where the log stands. */
static bool tail_load(struct sqlite_store *sqlite, struct store_position *position, struct error *err) {
  sqlite3_stmt *heads = sqlite->statements[SQLITE_STATEMENT_BLOCK_HEADS];
  uint64_t known = event_index_last_seq(sqlite->index);
  struct event_block_reader reader;
  bool good = true;
  int code;
  sqlite->tail_saved = known;
  position->seq = known ? known - 1 : 0; /* the last known event tells its time and that it exists */
  sqlite_store_bind_u64(heads, 1, position->seq + 1);
  while (good && (code = sqlite3_step(heads)) == SQLITE_ROW)
    good = sqlite_store_block_enter(heads, &reader, NULL) && tail_block(sqlite, known, &reader, position);
  if (good && code != SQLITE_DONE)
    good = sqlite_store_fail(sqlite->writer, code, "load the log's tail", err);
  else if (!good || position->seq < known)
    good = error_set(err, ERR_STORE_CORRUPT, "The event log has a gap.");
  sqlite3_reset(heads);
  sqlite->wall_us = position->wall_us;
  return good;
}

static bool index_load(struct sqlite_store *sqlite, struct store_position *position, struct error *err) {
  bool sound;
  if (!salt_load(sqlite, err) || !segments_load(sqlite, &sound, err))
    return false;
  if (!sound) {
    log_event(LOG_WARN, STORE_ROOM, "the event index is damaged; it is built anew from the log");
    event_index_free(&sqlite->index);
    if (!sqlite_store_execute(sqlite->writer,
                              "BEGIN IMMEDIATE; DELETE FROM event_segment; DELETE FROM event_bucket; COMMIT",
                              "rebuild the event index", err) ||
        !salt_load(sqlite, err))
      return false;
  }
  return saved_tail_load(sqlite, position, err) && tail_load(sqlite, position, err);
}

/* The tables whose structure was found sound also have every event. */
static bool log_whole(sqlite3 *db, const struct store_position *position, struct error *err) {
  uint64_t count;
  return query_u64(db, "SELECT sum(last_seq - first_seq + 1) FROM event_block", NULL, &count, err) &&
         (count == position->seq || error_set(err, ERR_STORE_CORRUPT, "The event log has a gap."));
}

static bool position_load(struct sqlite_store *sqlite, struct store_position *position, struct error *err) {
  uint64_t changed, kept;
  if (!query_u64(sqlite->writer, "SELECT max(revision) FROM kv_change", NULL, &changed, err) ||
      !sqlite_store_meta_get_u64(sqlite->writer, SQLITE_META_TRIMMED, &kept, err))
    return false;
  sqlite->trimmed = kept;
  *position = (struct store_position){.revision = changed > kept ? changed : kept};
  return index_load(sqlite, position, err);
}

static bool statements_prepare(struct sqlite_store *sqlite, struct error *err) {
  static const char *const sql[SQLITE_STATEMENT_COUNT] = {
#define X(name, text) [SQLITE_STATEMENT_##name] = text,
      SQLITE_STORE_STATEMENTS(X)
#undef X
  };
  for (size_t i = 0; i < SQLITE_STATEMENT_COUNT; i++) {
    int code = sqlite3_prepare_v3(sqlite->writer, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &sqlite->statements[i], NULL);
    if (code != SQLITE_OK)
      return sqlite_store_fail(sqlite->writer, code, "prepare a statement", err);
  }
  return true;
}

static int wal_grew(void *arg, sqlite3 *db, const char *name, int pages) {
  (void)db, (void)name;
  struct sqlite_store *sqlite = arg;
  sqlite->wal_pages = pages;
  return SQLITE_OK;
}

/* Page size: what the database was made with. Limits that count pages follow from it. */
static bool pages_prepare(struct sqlite_store *sqlite, uint64_t size_limit_bytes, struct error *err) {
  uint64_t page_bytes;
  char limit[64];
  if (!query_u64(sqlite->writer, "PRAGMA page_size", NULL, &page_bytes, err))
    return false;
  sqlite->wal_pages_max = sqlite->checkpoint_at_pages = (int)(SQLITE_WAL_BYTES_MAX / page_bytes);
  if (!size_limit_bytes)
    return true;
  snprintf(limit, sizeof(limit), "PRAGMA max_page_count = %llu",
           (unsigned long long)(size_limit_bytes / page_bytes + 1));
  return sqlite_store_execute(sqlite->writer, limit, "limit the size", err);
}

static bool writer_prepare(struct sqlite_store *sqlite, const struct store_options *options, bool marked, bool check,
                           struct error *err) {
  uint64_t version;
  sqlite3 *db;
  char page_size[48];
  snprintf(page_size, sizeof(page_size), "PRAGMA page_size = %d", SQLITE_PAGE_BYTES);
  if (!connection_open(sqlite, &sqlite->writer, err))
    return false;
  db = sqlite->writer;
  if (!schema_identify(db, marked, &version, err) || !sqlite_store_execute(db, page_size, "set the page size", err) ||
      !sqlite_store_execute(db, "PRAGMA journal_mode = WAL", "use a log", err) ||
      !sqlite_store_execute(
          db, options->durability == STORE_DURABLE ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = OFF",
          "set the durability", err) ||
      !sqlite_store_migrate(db, version, err))
    return false;
  if (check && !integrity_check(db, err))
    return false;
  sqlite3_wal_hook(db, wal_grew, sqlite); /* in place of the automatic copying back */
  return pages_prepare(sqlite, options->size_limit_bytes, err) && statements_prepare(sqlite, err);
}

static bool reader_prepare(struct sqlite_store *sqlite, struct error *err) {
  if (!connection_open(sqlite, &sqlite->reader, err) ||
      !sqlite_store_execute(sqlite->reader, "PRAGMA query_only = ON; PRAGMA wal_autocheckpoint = 0", "set up", err))
    return false;
  int code =
      sqlite3_prepare_v3(sqlite->reader, "SELECT revision, crc, value FROM kv WHERE name_space = ?1 AND key = ?2", -1,
                         SQLITE_PREPARE_PERSISTENT, &sqlite->reader_get, NULL);
  return code == SQLITE_OK || sqlite_store_fail(sqlite->reader, code, "prepare a read", err);
}

static void sqlite_close(void *self) {
  struct sqlite_store *sqlite = self;
  for (size_t i = 0; i < SQLITE_STATEMENT_COUNT; i++)
    sqlite3_finalize(sqlite->statements[i]);
  sqlite3_finalize(sqlite->reader_get);
  BASE_CHECK(sqlite3_close(sqlite->reader) == SQLITE_OK);
  BASE_CHECK(sqlite3_close(sqlite->writer) == SQLITE_OK);
  event_index_free(&sqlite->index);
  event_blocks_free(&sqlite->blocks);
  if (sqlite->lock_fd >= 0)
    close(sqlite->lock_fd);
  base_free(sqlite->path);
  base_free(sqlite->vfs);
  base_free(sqlite);
}

/* A handle with a read connection of its own and the index of the store, which has a lock. */
static void *sqlite_reader_open(void *self, struct error *err) {
  const struct sqlite_store *store = self;
  struct sqlite_store *sqlite = BASE_NEW(struct sqlite_store);
  sqlite->lock_fd = -1;
  sqlite->path = store->path;
  sqlite->vfs = store->vfs;
  bool good = reader_prepare(sqlite, err);
  sqlite->index = store->index;
  sqlite->path = sqlite->vfs = NULL; /* the store's */
  if (good)
    return sqlite;
  sqlite->index = NULL;
  sqlite_close(sqlite);
  return NULL;
}

static void sqlite_reader_close(void *reader) {
  struct sqlite_store *sqlite = reader;
  sqlite->index = NULL;
  sqlite_close(sqlite);
}

static void *sqlite_open(const struct store_options *options, struct store_position *position, struct error *err) {
  struct sqlite_store *sqlite = BASE_NEW(struct sqlite_store);
  bool marked = false;
  uint64_t file_bytes = 0;
  sqlite->lock_fd = -1;
  sqlite->path = base_strdup(options->path);
  sqlite->vfs = options->sqlite_vfs ? base_strdup(options->sqlite_vfs) : NULL;
  sqlite->change_history = options->change_history ? options->change_history : 100000;
  sqlite->seal_at = EVENT_INDEX_SEGMENT_EVENTS;
  bool good = lock_take(sqlite, options->path, &marked, err) && file_prepare(options->path, marked, &file_bytes, err);
  bool check = file_bytes <= (options->check_limit_bytes ? options->check_limit_bytes : 16u << 20);
  if (good && writer_prepare(sqlite, options, marked, check, err) && position_load(sqlite, position, err) &&
      (!check || log_whole(sqlite->writer, position, err)) && reader_prepare(sqlite, err) &&
      (marked || (folder_sync(options->path, err) && lock_mark(sqlite, err))))
    return sqlite;
  sqlite_close(sqlite);
  return NULL;
}

const struct store_backend store_sqlite_backend = {
    .name = "sqlite",
    .accepts = sqlite_accepts,
    .open = sqlite_open,
    .close = sqlite_close,
    .group_begin = sqlite_group_begin,
    .batch_apply = sqlite_batch_apply,
    .group_commit = sqlite_group_commit,
    .group_rollback = sqlite_group_rollback,
    .housekeep = sqlite_housekeep,
    .reader_open = sqlite_reader_open,
    .reader_close = sqlite_reader_close,
    .get = sqlite_get,
    .scan = sqlite_scan,
    .events = sqlite_events,
    .changes = sqlite_changes,
    .trimmed = sqlite_trimmed,
};

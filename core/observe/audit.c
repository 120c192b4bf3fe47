/* audit.c: the audit chain: writing, recovery, durability (format: chain.c).
 *
 * A line is handed to the kernel by write(2) on the core thread, so it survives the end of this process; a thread of
 * its own makes what was written durable by fdatasync at most once a second, so no caller waits for a disk. What is
 * durable is then anchored in the store ("observe"/"audit": sequence and hash of a line), which a file that ends before
 * its anchor contradicts: lines cut off its end show too. A write that fails is taken back and retried with the next
 * line; lines wait for that up to a bound, what exceeds it is counted and said in the chain. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/observe/observe_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/io.h"
#include "sdk/base/json.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define AUDIT_FILE "audit.jsonl"
#define ANCHOR_NAMESPACE "observe"
#define ANCHOR_KEY "audit"
#define TEXT_MAX_BYTES 512
#define DETAILS_MAX_BYTES 16384
#define WAITING_MAX_BYTES (1u << 20)
#define SYNC_INTERVAL_S 1

/* A place in the chain. */
struct mark {
  uint64_t sequence;
  char hash[OBSERVE_HASH_HEX + 1];
};

struct observe_audit_log {
  struct store *store; /* may be NULL: no anchor */
  int fd;
  struct mark last;     /* of the chain, written or waiting */
  struct mark anchored; /* in the store */
  struct buf line;      /* scratch */
  struct buf waiting;   /* lines that could not be written */
  uint64_t file_bytes;
  uint64_t dropped;
  bool failing; /* the last write failed: say so once */

  pthread_t thread;
  pthread_mutex_t lock; /* guards the rest */
  pthread_cond_t wake;
  bool dirty;
  bool stopping;
  struct mark written; /* goes with dirty */
  struct mark synced;
};

/* ---- making it durable ---- */

static void *sync_run(void *arg) {
  struct observe_audit_log *log = arg;
  pthread_mutex_lock(&log->lock);
  for (;;) {
    while (!log->dirty && !log->stopping)
      pthread_cond_wait(&log->wake, &log->lock);
    if (!log->dirty)
      break;
    struct mark target = log->written;
    log->dirty = false;
    pthread_mutex_unlock(&log->lock);
    bool good = fdatasync(log->fd) == 0;
    if (!good)
      log_event(LOG_ERROR, "observe", "the audit log cannot be made durable", LOG_INT("errno", errno));
    pthread_mutex_lock(&log->lock);
    if (good)
      log->synced = target;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += SYNC_INTERVAL_S;
    while (!log->stopping && pthread_cond_timedwait(&log->wake, &log->lock, &until) != ETIMEDOUT)
      continue;
  }
  pthread_mutex_unlock(&log->lock);
  return NULL;
}

static void sync_start(struct observe_audit_log *log) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_mutex_init(&log->lock, NULL);
  pthread_cond_init(&log->wake, &attributes);
  pthread_condattr_destroy(&attributes);
  BASE_CHECK(pthread_create(&log->thread, NULL, sync_run, log) == 0);
}

/* Puts the durable end of the chain into the store when it moved on. */
static void anchor_put(struct observe_audit_log *log, const struct mark *synced) {
  struct buf value = {0};
  if (!log->store || synced->sequence <= log->anchored.sequence)
    return;
  buf_printf(&value, "{\"sequence\":%" PRIu64 ",\"hash\":\"%s\"}", synced->sequence, synced->hash);
  struct store_batch *batch = store_batch_create();
  store_batch_put(batch, ANCHOR_NAMESPACE, ANCHOR_KEY, value.data, value.length, STORE_REVISION_ANY);
  store_commit(log->store, &batch, NULL, NULL);
  log->anchored = *synced;
  buf_free(&value);
}

static bool anchor_get(struct store *store, struct mark *anchor, struct error *err) {
  struct store_value value = {0};
  struct error missing = {0};
  const char *token;
  size_t length;
  bool good = true;
  if (!store)
    return true;
  if (!store_get(store, ANCHOR_NAMESPACE, ANCHOR_KEY, &value, &missing)) {
    if (error_is(&missing, ERR_NOT_FOUND))
      return true;
    if (err)
      *err = missing;
    return false;
  }
  char digits[24] = "";
  if (json_check(value.data, value.length, JSON_DEPTH_MAX, NULL) &&
      json_member(value.data, value.length, "sequence", &token, &length) && length < sizeof(digits))
    memcpy(digits, token, length);
  if (!str_parse_u64(digits, &anchor->sequence) || !json_member(value.data, value.length, "hash", &token, &length) ||
      length != OBSERVE_HASH_HEX + 2)
    good = error_set(err, ERR_STORE_CORRUPT, "The anchor of the audit log is damaged.");
  else
    memcpy(anchor->hash, token + 1, OBSERVE_HASH_HEX);
  store_value_free(&value);
  return good;
}

/* ---- writing ---- */

static void written_tell(struct observe_audit_log *log) {
  struct mark synced;
  pthread_mutex_lock(&log->lock);
  log->written = log->last;
  log->dirty = true;
  synced = log->synced;
  pthread_cond_signal(&log->wake);
  pthread_mutex_unlock(&log->lock);
  anchor_put(log, &synced);
}

static void waiting_write(struct observe_audit_log *log) {
  if (io_write_all(log->fd, log->waiting.data, log->waiting.length)) {
    log->file_bytes += log->waiting.length;
    buf_clear(&log->waiting);
    log->failing = false;
    written_tell(log);
    return;
  }
  if (!log->failing)
    log_event(LOG_ERROR, "observe", "the audit log cannot be written; lines wait", LOG_INT("errno", errno));
  log->failing = true;
  if (ftruncate(log->fd, (off_t)log->file_bytes) != 0)
    log_event(LOG_ERROR, "observe", "a torn line stays in the audit log", LOG_INT("errno", errno));
}

static void text_append(struct buf *line, const char *key, const char *text) {
  if (!text)
    text = "";
  buf_printf(line, ",\"%s\":", key);
  buf_append_json_string(line, text, strnlen(text, TEXT_MAX_BYTES));
}

/* Details are foreign: an object or nothing, on one line. */
static void details_append(struct buf *line, const struct observe_audit *audit) {
  size_t length =
      audit->details_length ? audit->details_length : (audit->details_json ? strlen(audit->details_json) : 0);
  if (!audit->details_json || !length)
    return;
  struct json_cursor cursor;
  if (length > DETAILS_MAX_BYTES || !json_check(audit->details_json, length, JSON_DEPTH_MAX / 2, NULL) ||
      !json_walk(audit->details_json, length, '{', &cursor)) {
    buf_append_text(line, ",\"details_refused\":true");
    return;
  }
  buf_append_text(line, ",\"details\":");
  size_t begin = line->length;
  buf_append(line, audit->details_json, length);
  for (size_t i = begin; i < line->length; i++) /* between tokens only: inside strings there are none */
    if ((unsigned char)line->data[i] < 0x20)
      line->data[i] = ' ';
}

static void line_add(struct observe_audit_log *log, const struct observe_audit *audit) {
  struct buf *line = &log->line;
  char at[CLOCK_RFC3339_BYTES];
  struct mark next = {.sequence = log->last.sequence + 1};
  clock_format_rfc3339(clock_wall_us(), at);
  buf_clear(line);
  buf_printf(line, "{\"sequence\":%" PRIu64 ",\"at\":\"%s\"", next.sequence, at);
  text_append(line, "action", audit->action);
  text_append(line, "actor", audit->actor);
  text_append(line, "target", audit->target);
  text_append(line, "outcome", audit->outcome);
  if (!str_is_empty(audit->trace_id))
    text_append(line, "trace_id", audit->trace_id);
  details_append(line, audit);
  buf_printf(line, ",\"previous\":\"%s\"", log->last.hash);
  observe_chain_hash(line->data, line->length, next.hash);
  buf_printf(line, ",\"hash\":\"%s\"}\n", next.hash);
  buf_append(&log->waiting, line->data, line->length);
  log->last = next;
}

void observe_audit_write(struct observe_audit_log *log, const struct observe_audit *audit) {
  if (log->waiting.length > WAITING_MAX_BYTES) {
    waiting_write(log);
    if (log->failing) {
      log->dropped++;
      return;
    }
  }
  if (log->dropped) {
    char details[48];
    snprintf(details, sizeof(details), "{\"dropped\":%" PRIu64 "}", log->dropped);
    log->dropped = 0;
    line_add(log, &(struct observe_audit){
                      .action = "audit.lines_dropped", .actor = "core", .outcome = "failed", .details_json = details});
  }
  line_add(log, audit);
  waiting_write(log);
}

/* ---- life ---- */

/* What the file and the anchor say together about the end of the chain. */
static bool recover(struct observe_audit_log *log, const char *path, struct observe_chain *chain, struct error *err) {
  struct error found = {0};
  bool exists = observe_chain_read(path, chain, &found);
  if (!exists && !error_is(&found, ERR_NOT_FOUND)) {
    if (err)
      *err = found;
    return false;
  }
  if (!anchor_get(log->store, &log->anchored, err))
    return false;
  memset(log->last.hash, '0', OBSERVE_HASH_HEX);
  if (chain->lines) {
    log->last.sequence = chain->last_sequence;
    str_copy(log->last.hash, sizeof(log->last.hash), chain->last_hash);
    if (chain->last_sequence < log->anchored.sequence ||
        (chain->last_sequence == log->anchored.sequence && !str_equal(chain->last_hash, log->anchored.hash)))
      return error_set(err, ERR_STORE_CORRUPT, "The audit log was altered: it ends before line %" PRIu64 ".",
                       log->anchored.sequence);
  } else if (log->anchored.sequence) { /* the file was put aside: the chain goes on in a new one */
    log->last = log->anchored;
    log_event(LOG_WARN, "observe", "the audit log is gone or empty; the chain goes on in a new file",
              LOG_INT("sequence", log->anchored.sequence));
  }
  log->file_bytes = chain->good_bytes;
  return true;
}

struct observe_audit_log *observe_audit_open(const char *state_dir, struct store *store, struct error *err) {
  struct observe_audit_log *log = BASE_NEW(struct observe_audit_log);
  struct observe_chain chain;
  char *path = base_asprintf("%s/" AUDIT_FILE, state_dir);
  log->store = store;
  log->fd = -1;
  if (!recover(log, path, &chain, err))
    goto fail;
  log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (log->fd < 0 || (chain.torn_bytes && ftruncate(log->fd, (off_t)chain.good_bytes) != 0)) {
    error_set(err, ERR_IO, "The audit log cannot be opened for writing.");
    goto fail;
  }
  base_free(path);
  sync_start(log);
  if (chain.torn_bytes) {
    char details[48];
    snprintf(details, sizeof(details), "{\"torn_bytes\":%" PRIu64 "}", chain.torn_bytes);
    observe_audit_write(log,
                        &(struct observe_audit){
                            .action = "audit.recovered", .actor = "core", .outcome = "done", .details_json = details});
  }
  return log;
fail:
  base_free(path);
  if (log->fd >= 0)
    close(log->fd);
  base_free(log);
  return NULL;
}

void observe_audit_close(struct observe_audit_log **log_pointer) {
  struct observe_audit_log *log = BASE_TAKE(*log_pointer);
  if (!log)
    return;
  if (log->waiting.length)
    waiting_write(log);
  pthread_mutex_lock(&log->lock);
  log->stopping = true;
  pthread_cond_signal(&log->wake);
  pthread_mutex_unlock(&log->lock);
  pthread_join(log->thread, NULL);
  anchor_put(log, &log->synced);
  pthread_cond_destroy(&log->wake);
  pthread_mutex_destroy(&log->lock);
  close(log->fd);
  buf_free(&log->line);
  buf_free(&log->waiting);
  base_free(log);
}

/* store_sqlite_test.c: what only a store on disk can do wrong: kill -9, a second opener, damage, a full or failing
 * disk, other programs, the sealed event index. VSL-2, VSL-5, VSL-7, VSL-10, VSL-15, LIF-12. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/store/store_sqlite_test_helper.h"

START_TEST(everything_is_there_after_reopening) {
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  struct store *store = test_open(&options);
  fill(store, 50);
  store_close(&store);
  store = test_open(&options);
  ck_assert_uint_eq(store_revision(store), 50);
  ck_assert_uint_eq(store_last_seq(store), 50);
  ck_assert_uint_eq(test_events(store, (struct store_event_query){.context_id = "context-0"}).count, 16);
  ck_assert_uint_eq(test_put(store, "new", "1", STORE_REVISION_NONE, NULL).revision, 51);
  struct stat status;
  ck_assert_int_eq(stat(scratch.path, &status), 0);
  ck_assert_int_eq(status.st_mode & 0777, 0600);
  store_close(&store);
  scratch_close(&scratch);
}
END_TEST

START_TEST(a_second_opener_is_refused) {
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  struct store *store = test_open(&options);
  expect_open(&options, "store.locked");
  store_close(&store);
  expect_open(&options, NULL);
  scratch_close(&scratch);
}
END_TEST

START_TEST(a_database_held_by_another_program_fails_commits_but_not_reads) {
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  struct store *store = test_open(&options);
  sqlite3 *other;
  test_put(store, "a", "1", STORE_REVISION_ANY, NULL);
  ck_assert_int_eq(sqlite3_open(scratch.path, &other), SQLITE_OK);
  ck_assert_int_eq(sqlite3_busy_timeout(other, 20000), SQLITE_OK); /* our own work in a pause may be under way */
  ck_assert_int_eq(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
  test_put(store, "a", "2", STORE_REVISION_ANY, "store.locked");
  test_expect(store, "a", "1");
  ck_assert_int_eq(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(other);
  test_put(store, "a", "3", STORE_REVISION_ANY, NULL);
  store_close(&store);
  scratch_close(&scratch);
}
END_TEST

static void overwrite(const struct scratch *scratch, off_t at, size_t length) {
  char garbage[8192];
  memset(garbage, 0x5a, sizeof(garbage));
  int fd = open(scratch->path, O_WRONLY);
  ck_assert_int_ge(fd, 0);
  ck_assert_int_eq(pwrite(fd, garbage, length, at), (ssize_t)length);
  close(fd);
}

static void damage_header(const struct scratch *scratch) {
  overwrite(scratch, 0, 100);
}
static void damage_middle(const struct scratch *scratch) {
  struct stat status;
  ck_assert_int_eq(stat(scratch->path, &status), 0);
  overwrite(scratch, status.st_size / 2 / 4096 * 4096, 8192);
}
static void damage_cut(const struct scratch *scratch) {
  ck_assert_int_eq(truncate(scratch->path, 8192), 0);
}
static void damage_empty(const struct scratch *scratch) {
  ck_assert_int_eq(truncate(scratch->path, 0), 0);
}
static void damage_missing(const struct scratch *scratch) {
  ck_assert_int_eq(unlink(scratch->path), 0);
}
static void damage_foreign(const struct scratch *scratch) {
  outside(scratch, "PRAGMA application_id = 1");
}
static void damage_newer(const struct scratch *scratch) {
  outside(scratch, "PRAGMA user_version = 99");
}
static void damage_gap(const struct scratch *scratch) {
  outside(scratch, "DELETE FROM event_block WHERE first_seq = 1");
}

START_TEST(damage_is_told_and_never_papered_over) {
  static const struct {
    void (*damage)(const struct scratch *);
    const char *code;
  } table[] = {
      {damage_header, "store.corrupt"}, {damage_middle, "store.corrupt"},  {damage_cut, "store.corrupt"},
      {damage_empty, "store.corrupt"},  {damage_missing, "store.corrupt"}, {damage_foreign, "store.corrupt"},
      {damage_newer, "store.version"},  {damage_gap, "store.corrupt"},
  };
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options("sqlite", &scratch);
    struct store *store = test_open(&options);
    fill(store, 500);
    fill(store, 500); /* acknowledged apart: at least two blocks */
    store_close(&store);
    table[i].damage(&scratch);
    expect_open(&options, table[i].code);
    expect_open(&options, table[i].code); /* and it stays so */
    scratch_close(&scratch);
  }
}
END_TEST

START_TEST(changed_rows_fail_their_checksum_when_read) {
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  struct store *store = test_open(&options);
  fill(store, 10);
  store_close(&store);
  outside(&scratch, "UPDATE kv SET value = x'00' WHERE key = 'key-0003'");
  store = test_open(&options);
  struct store_value value;
  struct seen seen = {0};
  struct error err = {0};
  ck_assert(!store_get(store, "tools", "key-0003", &value, &err));
  ck_assert_str_eq(err.code, "store.corrupt");
  ck_assert(!store_scan(store, "tools", NULL, seen_row, &seen, &err));
  ck_assert(store_get(store, "tools", "key-0004", &value, &err));
  store_value_free(&value);
  store_close(&store);
  scratch_close(&scratch);
}
END_TEST

/* ---- the sealed event index ---- */

#define MANY 70000u
static void numbered_uuid(unsigned n, char target[ID_UUID_BYTES]) {
  snprintf(target, ID_UUID_BYTES, "%08x-0000-4000-8000-%012x", n * 2654435761u, n);
}

static void fill_many(struct store *store) {
  char id[ID_UUID_BYTES];
  for (unsigned n = 1; n <= MANY;) {
    struct store_batch *batch = store_batch_create();
    for (unsigned end = n + 500; n < end; n++) {
      numbered_uuid(n, id);
      test_event_add(batch, n, id);
    }
    store_commit(store, &batch, NULL, NULL);
    while (store_queue_full(store))
      usleep(100);
    store_dispatch(store);
  }
  test_commit(store, store_batch_create(), NULL);
}

static void expect_many(struct store *store) {
  char id[ID_UUID_BYTES];
  static const unsigned known[] = {1, 2, 32767, 32768, 32769, 65536, 65537, MANY};
  ck_assert_uint_eq(store_last_seq(store), MANY);
  ck_assert_uint_eq(test_events(store, (struct store_event_query){.trace_id = "trace-3"}).count, MANY / 7);
  ck_assert_uint_eq(test_events(store, (struct store_event_query){.context_id = "context-0", .after_seq = 40000}).count,
                    MANY / 3 - 40000 / 3);
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
    struct store_batch *batch = store_batch_create();
    numbered_uuid(known[i], id);
    test_event_add(batch, 1, id);
    test_commit(store, batch, "store.duplicate");
  }
}

/* Ids that are said to be fresh: the newest events know them all the same, sealed ones are not asked. */
static void expect_fresh_ids(struct store *store) {
  static const struct {
    unsigned number;
    const char *code;
  } table[] = {{MANY, "store.duplicate"}, {65537, "store.duplicate"}, {MANY + 1, NULL}, {MANY + 1, "store.duplicate"}};
  char id[ID_UUID_BYTES];
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    struct store_batch *batch = store_batch_create();
    numbered_uuid(table[i].number, id);
    test_event_add(batch, 1, id);
    store_batch_ids_fresh(batch);
    test_commit(store, batch, table[i].code);
  }
}

START_TEST(ids_and_traces_are_found_in_sealed_segments_and_after_damage_to_them) {
  static const char *const damages[] = {NULL, "UPDATE event_segment SET filter = x'00'",
                                        "DELETE FROM event_segment WHERE first_seq = 1",
                                        "UPDATE event_segment SET last_seq = 0 WHERE first_seq > 1"};
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  struct store *store = test_open(&options);
  fill_many(store);
  expect_many(store);
  store_close(&store);
  for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
    if (damages[i])
      outside(&scratch, damages[i]);
    store = test_open(&options);
    expect_many(store);
    store_close(&store);
  }
  outside(&scratch, "UPDATE event_bucket SET entries = x'00'");
  store = test_open(&options);
  struct seen seen = {0};
  struct error err = {0};
  ck_assert(!store_events_read(store, &(struct store_event_query){.trace_id = "trace-3"}, seen_event, &seen, &err));
  ck_assert_str_eq(err.code, "store.corrupt");
  expect_fresh_ids(store);
  store_close(&store);
  scratch_close(&scratch);
}
END_TEST

/* ---- the stored tail of the event index ---- */

#define TAIL 5000u

static void expect_tail(const struct store_options *options) {
  static const unsigned known[] = {1, 1024, 1025, 4096, 4097, TAIL};
  char id[ID_UUID_BYTES];
  struct store *store = test_open(options);
  ck_assert_uint_eq(store_last_seq(store), TAIL);
  ck_assert_uint_eq(test_events(store, (struct store_event_query){.trace_id = "trace-3"}).count, (TAIL + 4) / 7);
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
    struct store_batch *batch = store_batch_create();
    numbered_uuid(known[i], id);
    test_event_add(batch, 1, id);
    test_commit(store, batch, "store.duplicate");
  }
  store_close(&store);
}

START_TEST(a_tail_is_found_again_whatever_became_of_its_stored_hashes) {
  static const char *const damages[] = {NULL,
                                        "DELETE FROM event_tail WHERE first_seq = 1025",
                                        "UPDATE event_tail SET hashes = x'00' WHERE first_seq = 2049",
                                        "UPDATE event_tail SET crc = crc + 1 WHERE first_seq = 1",
                                        "UPDATE event_tail SET last_seq = 9999 WHERE first_seq = 3073",
                                        "DELETE FROM event_tail"};
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  struct store *store = test_open(&options);
  char id[ID_UUID_BYTES];
  for (unsigned n = 1; n <= TAIL; n++) { /* groups that end anywhere in a row */
    struct store_batch *batch = store_batch_create();
    numbered_uuid(n, id);
    test_event_add(batch, n, id);
    store_commit(store, &batch, NULL, NULL);
    if (n % 700 == 0)
      test_commit(store, store_batch_create(), NULL);
  }
  test_commit(store, store_batch_create(), NULL);
  store_close(&store);
  for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
    if (damages[i])
      outside(&scratch, damages[i]);
    expect_tail(&options);
    expect_tail(&options); /* and what the opening before may have written */
  }
  scratch_close(&scratch);
}
END_TEST

START_TEST(times_go_on_behind_an_event_whose_row_only_the_stored_tail_knows) {
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  struct store *store = test_open(&options);
  const int64_t future_us = INT64_C(4000000000000000);
  for (unsigned n = 1; n <= 3000; n++) {
    struct store_batch *batch = store_batch_create();
    test_event_add(batch, n == 10 ? (uint64_t)future_us : n, NULL);
    store_commit(store, &batch, NULL, NULL);
  }
  test_commit(store, store_batch_create(), NULL);
  store_close(&store);
  store = test_open(&options);
  ck_assert_int_gt(store_event_time_next(store), future_us);
  store_close(&store);
  scratch_close(&scratch);
}
END_TEST

START_TEST(a_gap_that_opening_does_not_come_by_is_told_when_it_is_read) {
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  struct store *store = test_open(&options);
  fill(store, 499);
  fill(store, 1); /* a block of its own */
  fill(store, 1500);
  fill(store, 1000);
  store_close(&store);
  outside(&scratch, "DELETE FROM event_block WHERE last_seq = 500");
  expect_open(&options, "store.corrupt"); /* the file is small: all of it is looked at */
  options.check_limit_bytes = 1;
  store = test_open(&options);
  struct seen seen = {0};
  struct error err = {0};
  ck_assert(!store_events_read(store, &(struct store_event_query){0}, seen_event, &seen, &err));
  ck_assert_str_eq(err.code, "store.corrupt");
  ck_assert_uint_eq(seen.count, 499);
  ck_assert_uint_eq(test_events(store, (struct store_event_query){.after_seq = 500}).count, 2500);
  store_close(&store);
  outside(&scratch, "DELETE FROM event_block WHERE last_seq > 2000");
  expect_open(&options, "store.corrupt");
  scratch_close(&scratch);
}
END_TEST

/* ---- a disk that fails: a VFS that passes through until it is told not to ---- */

static int fail_writes, fail_syncs; /* read by the writer thread */
static sqlite3_vfs shim, *real_vfs;
/* The unix VFS has one method table for the database and one for the log; they share xWrite and xSync. */
static struct {
  const sqlite3_io_methods *real;
  sqlite3_io_methods failing;
} shims[4];
static size_t shim_count;

static int shim_write(sqlite3_file *file, const void *data, int amount, sqlite3_int64 at) {
  return __atomic_load_n(&fail_writes, __ATOMIC_RELAXED) ? SQLITE_FULL : shims[0].real->xWrite(file, data, amount, at);
}
static int shim_sync(sqlite3_file *file, int flags) {
  return __atomic_load_n(&fail_syncs, __ATOMIC_RELAXED) ? SQLITE_IOERR_FSYNC : shims[0].real->xSync(file, flags);
}
/* SQLite opens files on one thread at a time here: both connections are opened by store_open, the log by its first use.
 */
static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags) {
  (void)vfs;
  int code = real_vfs->xOpen(real_vfs, name, file, flags, out_flags);
  if (code != SQLITE_OK || !file->pMethods)
    return code;
  size_t at = 0;
  while (at < shim_count && shims[at].real != file->pMethods)
    at++;
  if (at == shim_count) {
    ck_assert_uint_lt(at, sizeof(shims) / sizeof(shims[0]));
    shims[at].real = file->pMethods;
    shims[at].failing = *file->pMethods;
    shims[at].failing.xWrite = shim_write;
    shims[at].failing.xSync = shim_sync;
    shim_count++;
  }
  file->pMethods = &shims[at].failing;
  return code;
}

START_TEST(a_failing_disk_fails_the_waiting_commits_and_later_ones_go_on) {
  static const struct {
    int *fault;
    const char *code;
  } table[] = {{&fail_writes, "store.full"}, {&fail_syncs, "store.failed"}};
  real_vfs = sqlite3_vfs_find(NULL);
  shim = *real_vfs;
  shim.zName = "failing";
  shim.xOpen = shim_open;
  sqlite3_vfs_register(&shim, 0);
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  options.sqlite_vfs = "failing";
  struct store *store = test_open(&options);
  uint64_t revision = 0;
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    test_put(store, "a", "before", STORE_REVISION_ANY, NULL);
    revision++;
    __atomic_store_n(table[i].fault, 1, __ATOMIC_RELAXED);
    struct store_batch *batch = store_batch_create();
    test_event_add(batch, 1, "0b5e8f0e-3f5f-4c55-9d0a-6a3c1a2b4c5d");
    store_batch_put(batch, "tools", "a", "lost", 4, STORE_REVISION_ANY);
    test_commit(store, batch, table[i].code);
    test_expect(store, "a", "before");
    __atomic_store_n(table[i].fault, 0, __ATOMIC_RELAXED);
    ck_assert_uint_eq(test_put(store, "a", "after", STORE_REVISION_ANY, NULL).revision, ++revision);
    ck_assert_uint_eq(test_events(store, (struct store_event_query){0}).count, 0);
  }
  struct store_metrics metrics;
  store_metrics_get(store, &metrics);
  ck_assert_uint_eq(metrics.commits_failed, 2);
  store_close(&store);
  store = test_open(&options);
  test_expect(store, "a", "after");
  store_close(&store);
  scratch_close(&scratch);
}
END_TEST

START_TEST(history_is_bounded_from_idle_ticks) {
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  options.change_history = 10;
  options.idle_ms = 5;
  struct store *store = test_open(&options);
  fill(store, 100);
  struct store_feed_options feed_options = {.kind = STORE_FEED_ROWS, .after = 80};
  struct error err = {0};
  for (unsigned tries = 0; tries < 20000 && !error_is_set(&err); tries++) {
    struct store_feed *feed = store_feed_subscribe(store, &feed_options, NULL, NULL, &err);
    store_feed_unsubscribe(&feed);
    usleep(1000);
  }
  ck_assert_str_eq(err.code, "store.revision.gone");
  struct store_metrics metrics = {0};
  for (unsigned tries = 0; tries < 20000 && !metrics.checkpoints; tries++, usleep(1000))
    store_metrics_get(store, &metrics);
  ck_assert_uint_gt(metrics.checkpoints, 0);
  store_close(&store);
  scratch_close(&scratch);
}
END_TEST

/* ---- kill -9 ---- */

static int acknowledge_fd;

static void acknowledge(void *arg, const struct store_commit_result *result, const struct error *err) {
  (void)result;
  unsigned number = (unsigned)(uintptr_t)arg;
  if (err || write(acknowledge_fd, &number, sizeof(number)) != (ssize_t)sizeof(number))
    _exit(3);
}

/* Commits batches of one row and two events, telling each acknowledged number; until killed. */
static void commit_until_killed(const struct store_options *options, unsigned first, int fd) {
  struct error err;
  struct store *store = store_open(options, &err);
  acknowledge_fd = fd;
  for (unsigned n = first; store; n++) {
    char key[16], id[ID_UUID_BYTES];
    struct store_batch *batch = store_batch_create();
    snprintf(key, sizeof(key), "%u", n);
    numbered_uuid(2 * n, id);
    test_event_add(batch, n, id);
    store_batch_put(batch, "tools", key, key, strlen(key), STORE_REVISION_NONE);
    numbered_uuid(2 * n + 1, id);
    test_event_add(batch, n, id);
    store_commit(store, &batch, acknowledge, (void *)(uintptr_t)n);
    store_dispatch(store);
    while (store_queue_full(store))
      usleep(50);
  }
  _exit(4);
}

static unsigned drain_numbers(int fd, unsigned last) {
  unsigned number;
  while (read(fd, &number, sizeof(number)) == (ssize_t)sizeof(number)) {
    ck_assert_uint_eq(number, last + 1);
    last = number;
  }
  return last;
}

START_TEST(kill_nine_loses_nothing_acknowledged_and_halves_nothing) {
  struct scratch scratch;
  scratch_open(&scratch);
  struct store_options options = test_options("sqlite", &scratch);
  options.queue_limit_bytes = 32 << 10;
  unsigned stored = 0, killed_with_work = 0;
  for (unsigned round = 0; round < 25; round++) {
    int fds[2];
    ck_assert_int_eq(pipe(fds), 0);
    fcntl(fds[1], F_SETPIPE_SZ, 1 << 20);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
      close(fds[0]);
      commit_until_killed(&options, stored + 1, fds[1]);
    }
    close(fds[1]);
    struct pollfd first = {.fd = fds[0], .events = POLLIN};
    if (round % 2) /* it has begun, however long that took */
      ck_assert_int_eq(poll(&first, 1, 20000), 1);
    usleep((useconds_t)(2000 + id_random_u64() % 40000));
    kill(child, SIGKILL);
    unsigned acknowledged = drain_numbers(fds[0], stored);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFSIGNALED(status), "the child ended by itself: %d", WEXITSTATUS(status));
    close(fds[0]);
    killed_with_work += acknowledged > stored;
    struct store *store = test_open(&options);
    ck_assert_uint_ge(store_revision(store), acknowledged);
    ck_assert_uint_eq(store_last_seq(store), 2 * store_revision(store)); /* whole batches only */
    for (unsigned n = stored + 1; n <= store_revision(store); n++) {
      char key[16];
      snprintf(key, sizeof(key), "%u", n);
      test_expect(store, key, key);
    }
    ck_assert_uint_eq(test_events(store, (struct store_event_query){0}).count, 2 * store_revision(store));
    stored = (unsigned)store_revision(store);
    store_close(&store);
  }
  ck_assert_uint_gt(killed_with_work, 0);
  scratch_close(&scratch);
}
END_TEST

TEST_MAIN("store.sqlite", everything_is_there_after_reopening, a_second_opener_is_refused,
          a_database_held_by_another_program_fails_commits_but_not_reads, damage_is_told_and_never_papered_over,
          changed_rows_fail_their_checksum_when_read,

          ids_and_traces_are_found_in_sealed_segments_and_after_damage_to_them,
          a_tail_is_found_again_whatever_became_of_its_stored_hashes,
          times_go_on_behind_an_event_whose_row_only_the_stored_tail_knows,
          a_gap_that_opening_does_not_come_by_is_told_when_it_is_read,
          a_failing_disk_fails_the_waiting_commits_and_later_ones_go_on, history_is_bounded_from_idle_ticks,
          kill_nine_loses_nothing_acknowledged_and_halves_nothing)

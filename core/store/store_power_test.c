/* store_power_test.c: what was acknowledged outlives a loss of power (LIF-12, VSL-5).
 *
 * kill -9 never loses what a process has written; a loss of power does. So a VFS beneath SQLite notes every write,
 * truncation and sync in order while a store works. Then the power is cut at many moments: of each file everything up
 * to its last sync is there, of what came later any part, in sectors, as the disk got to it. The store that opens on
 * such a disk must have every batch that was acknowledged before the cut, whole, and no part of another. The same cuts
 * through a store that does not sync must lose something: else nothing would be proven. */
#include <pthread.h>

#include "core/store/store_sqlite_test_helper.h"
#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"

enum { BATCHES = 160, CUTS = 150, SECTOR_BYTES = 512, FILES = 2 };
static const char *const suffixes[FILES] = {"", "-wal"};

/* ---- the journal ---- */

enum act { ACT_WRITE, ACT_TRUNCATE, ACT_SYNC };

struct operation {
  enum act act;
  unsigned file;
  uint64_t at; /* of a write, or the size of a truncation */
  size_t length;
  uint8_t *data;
};

static struct {
  pthread_mutex_t lock;
  struct operation *operations;
  size_t count, capacity;
  size_t acknowledged[BATCHES + 1]; /* operations noted when batch i was acknowledged */
} journal = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void journal_note(enum act act, unsigned file, uint64_t at, const void *data, size_t length) {
  pthread_mutex_lock(&journal.lock);
  if (journal.count == journal.capacity) {
    journal.capacity = journal.capacity ? journal.capacity * 2 : 1024;
    journal.operations = base_realloc_array(journal.operations, journal.capacity, sizeof(*journal.operations));
  }
  journal.operations[journal.count++] =
      (struct operation){act, file, at, length, length ? base_memdup(data, length) : NULL};
  pthread_mutex_unlock(&journal.lock);
}

static size_t journal_length(void) {
  pthread_mutex_lock(&journal.lock);
  size_t count = journal.count;
  pthread_mutex_unlock(&journal.lock);
  return count;
}

static void journal_clear(void) {
  for (size_t i = 0; i < journal.count; i++)
    base_free(journal.operations[i].data);
  base_free(journal.operations);
  journal.operations = NULL;
  journal.count = journal.capacity = 0;
}

/* ---- the VFS that notes ---- */

static sqlite3_vfs noting, *beneath;
/* The unix VFS has one table of methods for the database and one for the log. */
static struct {
  const sqlite3_io_methods *real;
  sqlite3_io_methods methods;
} tables[FILES];

static int note_write(unsigned file, sqlite3_file *handle, const void *data, int amount, sqlite3_int64 at) {
  journal_note(ACT_WRITE, file, (uint64_t)at, data, (size_t)amount);
  return tables[file].real->xWrite(handle, data, amount, at);
}
static int note_truncate(unsigned file, sqlite3_file *handle, sqlite3_int64 size) {
  journal_note(ACT_TRUNCATE, file, (uint64_t)size, NULL, 0);
  return tables[file].real->xTruncate(handle, size);
}
static int note_sync(unsigned file, sqlite3_file *handle, int flags) {
  int code = tables[file].real->xSync(handle, flags);
  journal_note(ACT_SYNC, file, 0, NULL, 0);
  return code;
}
#define NOTING(file)                                                                                                   \
  static int write_##file(sqlite3_file *handle, const void *data, int amount, sqlite3_int64 at) {                      \
    return note_write(file, handle, data, amount, at);                                                                 \
  }                                                                                                                    \
  static int truncate_##file(sqlite3_file *handle, sqlite3_int64 size) {                                               \
    return note_truncate(file, handle, size);                                                                          \
  }                                                                                                                    \
  static int sync_##file(sqlite3_file *handle, int flags) {                                                            \
    return note_sync(file, handle, flags);                                                                             \
  }
NOTING(0)
NOTING(1)

static int noting_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *handle, int flags, int *out_flags) {
  (void)vfs;
  int code = beneath->xOpen(beneath, name, handle, flags, out_flags);
  unsigned file = flags & SQLITE_OPEN_WAL ? 1 : 0;
  if (code != SQLITE_OK || !(flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)))
    return code;
  if (!tables[file].real) {
    tables[file].real = handle->pMethods;
    tables[file].methods = *handle->pMethods;
    tables[file].methods.xWrite = file ? write_1 : write_0;
    tables[file].methods.xTruncate = file ? truncate_1 : truncate_0;
    tables[file].methods.xSync = file ? sync_1 : sync_0;
  }
  ck_assert_ptr_eq(tables[file].real, handle->pMethods);
  handle->pMethods = &tables[file].methods;
  return code;
}

static void noting_register(void) {
  beneath = sqlite3_vfs_find(NULL);
  noting = *beneath;
  noting.zName = "noting";
  noting.xOpen = noting_open;
  sqlite3_vfs_register(&noting, 0);
}

/* ---- the disk after a cut ---- */

static uint32_t chance; /* xorshift: the same cuts each time; the seed is printed when one fails */

static uint32_t chance_next(void) {
  chance ^= chance << 13;
  chance ^= chance >> 17;
  chance ^= chance << 5;
  return chance;
}

static void image_size(struct buf *image, size_t size) {
  if (size > image->length)
    memset(buf_reserve(image, size - image->length), 0, size - image->length);
  image->length = size;
}

static void image_put(struct buf *image, uint64_t at, const void *data, size_t length) {
  if (image->length < at + length)
    image_size(image, at + length);
  memcpy(image->data + at, data, length);
}

static void apply_whole(struct buf *image, const struct operation *operation) {
  if (operation->act == ACT_WRITE)
    image_put(image, operation->at, operation->data, operation->length);
  else if (operation->act == ACT_TRUNCATE)
    image_size(image, operation->at);
}

/* Any part of it: each sector that it touches, or none; a truncation, or not. */
static void apply_part(struct buf *image, const struct operation *operation) {
  if (operation->act == ACT_TRUNCATE && chance_next() & 1)
    image_size(image, operation->at);
  for (size_t done = 0; operation->act == ACT_WRITE && done < operation->length;) {
    size_t to_boundary = SECTOR_BYTES - (operation->at + done) % SECTOR_BYTES;
    size_t piece = operation->length - done < to_boundary ? operation->length - done : to_boundary;
    if (chance_next() & 1)
      image_put(image, operation->at + done, operation->data + done, piece);
    done += piece;
  }
}

/* What each file has when the power goes before operation `cut`. */
static void disk_after(size_t cut, struct buf images[static FILES]) {
  for (unsigned file = 0; file < FILES; file++) {
    size_t synced = 0;
    for (size_t i = 0; i < cut; i++)
      if (journal.operations[i].file == file && journal.operations[i].act == ACT_SYNC)
        synced = i;
    buf_clear(&images[file]);
    for (size_t i = 0; i < cut; i++)
      if (journal.operations[i].file == file)
        (i < synced ? apply_whole : apply_part)(&images[file], &journal.operations[i]);
  }
}

static void disk_write(const struct scratch *scratch, const struct buf images[static FILES]) {
  char path[128];
  FILE *out;
  for (unsigned file = 0; file < FILES; file++) {
    snprintf(path, sizeof(path), "%s%s", scratch->path, suffixes[file]);
    ck_assert_ptr_nonnull(out = fopen(path, "w"));
    ck_assert_uint_eq(fwrite(images[file].data, 1, images[file].length, out), images[file].length);
    fclose(out);
  }
  snprintf(path, sizeof(path), "%s-shm", scratch->path);
  unlink(path); /* memory */
}

/* ---- the work, and what is left of it ---- */

static void batch_commit(struct store *store, unsigned number) {
  char key[16], value[900];
  struct store_batch *batch = store_batch_create();
  snprintf(key, sizeof(key), "key-%04u", number);
  memset(value, 'a' + (int)(number % 26), sizeof(value));
  store_batch_put(batch, "tools", key, value, sizeof(value), STORE_REVISION_NONE);
  test_event_add(batch, number, NULL);
  test_commit(store, batch, NULL);
}

/* The log is copied back in a pause, by a thread that this machine may keep from it. */
static void pause_until_copied(struct store *store) {
  struct store_metrics metrics;
  store_metrics_get(store, &metrics);
  uint64_t before = metrics.checkpoints;
  for (unsigned tries = 0; tries < 5000 && metrics.checkpoints == before; tries++) {
    usleep(1000);
    store_metrics_get(store, &metrics);
  }
}

static void work(const struct scratch *scratch, enum store_durability durability) {
  struct store_options options = test_options("sqlite", scratch);
  options.sqlite_vfs = "noting";
  options.durability = durability;
  options.idle_ms = 2; /* the log is copied back in the pauses */
  struct store *store = test_open(&options);
  journal.acknowledged[0] = journal_length();
  for (unsigned i = 1; i <= BATCHES; i++) {
    batch_commit(store, i);
    journal.acknowledged[i] = journal_length();
    if (i % 16 == 0)
      pause_until_copied(store);
  }
  store_close(&store);
}

/* How many of the batches are there; each whole, none without those before it. 0 also when the store does not open. */
static unsigned batches_left(const struct scratch *scratch, struct error *err) {
  const struct store_options options = test_options("sqlite", scratch);
  struct store *store = store_open(&options, err);
  unsigned left = 0;
  if (!store)
    return 0;
  for (char key[16]; left < BATCHES; left++) {
    struct store_value value = {0};
    snprintf(key, sizeof(key), "key-%04u", left + 1);
    bool there = store_get(store, "tools", key, &value, err);
    store_value_free(&value);
    if (!there)
      break;
  }
  *err = (struct error){0};
  uint64_t events = test_events(store, (struct store_event_query){0}).count;
  store_close(&store);
  ck_assert_uint_eq(events, left);
  return left;
}

static size_t syncs_of(unsigned file) {
  size_t count = 0;
  for (size_t i = journal.acknowledged[0]; i < journal.count; i++)
    count += journal.operations[i].file == file && journal.operations[i].act == ACT_SYNC;
  return count;
}

/* Cuts that lost something acknowledged. */
static unsigned cuts_that_lose(enum store_durability durability, bool fails) {
  struct scratch scratch;
  struct buf images[FILES] = {0};
  unsigned losses = 0;
  scratch_open(&scratch);
  work(&scratch, durability);
  size_t first = journal.acknowledged[0], last = journal.count;
  ck_assert_uint_ge(syncs_of(1), fails ? BATCHES : 0); /* each was synced by itself … */
  ck_assert_uint_ge(syncs_of(0), fails ? 2 : 0);       /* … and the log was copied back meanwhile */
  for (unsigned i = 0; i < CUTS; i++) {
    size_t cut = first + chance_next() % (last - first);
    unsigned promised = 0;
    struct error err = {0};
    uint32_t seed = chance;
    while (promised < BATCHES && journal.acknowledged[promised + 1] <= cut)
      promised++;
    disk_after(cut, images);
    disk_write(&scratch, images);
    unsigned left = batches_left(&scratch, &err);
    bool lost = left < promised || error_is_set(&err);
    ck_assert_msg(!fails || !lost, "cut at operation %zu (seed %u): %u of %u acknowledged batches; %s", cut, seed, left,
                  promised, err.code);
    losses += lost;
  }
  for (unsigned file = 0; file < FILES; file++)
    buf_free(&images[file]);
  journal_clear();
  scratch_close(&scratch);
  return losses;
}

START_TEST(a_loss_of_power_loses_nothing_that_was_acknowledged) {
  noting_register();
  chance = 2463534242u;
  ck_assert_uint_eq(cuts_that_lose(STORE_DURABLE, true), 0);
}
END_TEST

START_TEST(a_store_that_does_not_sync_loses_what_it_acknowledged) {
  noting_register();
  chance = 2463534242u;
  ck_assert_uint_gt(cuts_that_lose(STORE_EPHEMERAL, false), 0);
}
END_TEST

TEST_MAIN("store.power", a_loss_of_power_loses_nothing_that_was_acknowledged,
          a_store_that_does_not_sync_loses_what_it_acknowledged)

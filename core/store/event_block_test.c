/* event_block_test.c: blocks of events: written, cut back, read, damaged; and the format before them. VSL-8, VSL-10,
 * VSL-15. */
#include <libdeflate.h>

#include "core/store/event_block.h"
#include "core/store/store_sqlite_test_helper.h"
#include "sdk/base/alloc.h"

static void append(struct event_blocks *blocks, uint64_t seq, const char *trace_id, size_t length) {
  const uint8_t id[ID_UUID_RAW_BYTES] = {(uint8_t)seq, (uint8_t)(seq >> 8)};
  char *bytes = base_alloc(length + 1);
  memset(bytes, 'a' + (int)(seq % 26), length);
  const struct store_event event = {.trace_id = trace_id,
                                    .context_id = "context",
                                    .project_id = "",
                                    .family = seq % 2 ? "odd" : "even",
                                    .type = "type",
                                    .wall_us = -(int64_t)seq,
                                    .bytes = bytes,
                                    .length = length};
  event_blocks_append(blocks, seq, id, &event, (uint32_t)seq * 3);
  base_free(bytes);
}

/* Everything from first to last is there as append() wrote it; returns how many blocks it lies in. */
static size_t expect_events(const struct event_blocks *blocks, uint64_t first, uint64_t last, size_t length) {
  uint64_t seq = first;
  for (size_t i = 0; i < blocks->count; i++) {
    const struct event_block *block = &blocks->list[i];
    struct event_block_reader reader;
    struct event_block_entry entry;
    ck_assert_uint_eq(block->first_seq, seq);
    event_block_reader_set(&reader, block->first_seq, block->last_seq, block->heads.data, block->heads.length);
    for (; event_block_next(&reader, &entry); seq++) {
      ck_assert_uint_eq(entry.event.seq, seq);
      ck_assert_uint_eq(entry.id[0] | (unsigned)entry.id[1] << 8, seq);
      ck_assert_uint_eq(entry.crc, (uint32_t)seq * 3);
      ck_assert_int_eq(entry.event.wall_us, -(int64_t)seq);
      ck_assert_str_eq(entry.event.trace_id, seq % 3 ? "same" : "other");
      ck_assert_str_eq(entry.event.context_id, "context");
      ck_assert_str_eq(entry.event.project_id, "");
      ck_assert_str_eq(entry.event.family, seq % 2 ? "odd" : "even");
      ck_assert_uint_eq(entry.event.length, length);
      ck_assert_uint_le(entry.offset + length, block->bytes.length);
      for (size_t k = 0; k < length; k++)
        ck_assert_int_eq(block->bytes.data[entry.offset + k], 'a' + (int)(seq % 26));
    }
    ck_assert_uint_eq(seq, block->last_seq + 1);
  }
  ck_assert_uint_eq(seq, last + 1);
  return blocks->count;
}

START_TEST(what_is_appended_is_read_again_from_one_block_or_many) {
  static const struct {
    unsigned count, length;
    bool many;
  } table[] = {{1, 0, false}, {10, 5, false}, {1000, 300, true}, {5000, 0, true}, {3, 100000, true}};
  struct event_blocks blocks = {0};
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    for (unsigned seq = 7; seq < 7 + table[i].count; seq++)
      append(&blocks, seq, seq % 3 ? "same" : "other", table[i].length);
    size_t in = expect_events(&blocks, 7, 6 + table[i].count, table[i].length);
    ck_assert_int_eq(in > 1, table[i].many);
    event_blocks_clear(&blocks);
  }
  event_blocks_free(&blocks);
}
END_TEST

START_TEST(a_cut_forgets_what_came_after_the_mark) {
  struct event_blocks blocks = {0};
  for (unsigned kept = 0; kept < 700; kept += 137) {
    for (unsigned seq = 1; seq <= kept; seq++)
      append(&blocks, seq, seq % 3 ? "same" : "other", 300);
    struct event_blocks_mark mark = event_blocks_mark(&blocks);
    for (unsigned seq = kept + 1; seq < kept + 900; seq++)
      append(&blocks, seq, "a trace that goes away", 300);
    event_blocks_cut(&blocks, &mark);
    for (unsigned seq = kept + 1; seq <= 1000; seq++)
      append(&blocks, seq, seq % 3 ? "same" : "other", 300);
    expect_events(&blocks, 1, 1000, 300);
    event_blocks_clear(&blocks);
  }
  event_blocks_free(&blocks);
}
END_TEST

START_TEST(heads_that_are_cut_short_end_in_a_refusal) {
  struct event_blocks blocks = {0};
  for (unsigned seq = 1; seq <= 5; seq++)
    append(&blocks, seq, "same", 10);
  const struct event_block *block = &blocks.list[0];
  for (size_t length = 0; length < block->heads.length; length++) {
    char *heads = base_memdup(block->heads.data, length); /* its end is watched by the sanitizer */
    struct event_block_reader reader;
    struct event_block_entry entry;
    event_block_reader_set(&reader, 1, 5, heads, length);
    unsigned count = 0;
    while (event_block_next(&reader, &entry))
      count++;
    ck_assert_uint_lt(count, 5);
    base_free(heads);
  }
  event_blocks_free(&blocks);
}
END_TEST

/* Ten events, the seventh in a block of its own. */
START_TEST(changed_events_are_told_and_those_before_them_are_read) {
  static const struct {
    const char *change;
    unsigned readable; /* 0: told at open */
  } table[] = {
      {"bytes = x'00'", 6},
      {"bytes = substr(bytes, 1, length(bytes) - 1) || x'00'", 6},
      {"bytes = x''", 6},
      {"crc = crc + 1", 0},
      {"heads = substr(heads, 1, length(heads) - 1) || x'01'", 0},
      {"heads = x''", 0},
      {"first_seq = 8", 0},
      {"first_seq = 0", 0},
  };
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options("sqlite", &scratch);
    struct store *store = test_open(&options);
    fill(store, 6);
    fill(store, 1);
    fill(store, 3);
    store_close(&store);
    char sql[160];
    snprintf(sql, sizeof(sql), "UPDATE event_block SET %s WHERE last_seq = 7", table[i].change);
    outside(&scratch, sql);
    if (!table[i].readable) {
      expect_open(&options, "store.corrupt");
    } else {
      struct seen seen = {0};
      struct error err = {0};
      store = test_open(&options);
      ck_assert(!store_events_read(store, &(struct store_event_query){0}, seen_event, &seen, &err));
      ck_assert_str_eq(err.code, "store.corrupt");
      ck_assert_uint_eq(seen.count, table[i].readable);
      store_close(&store);
    }
    scratch_close(&scratch);
  }
}
END_TEST

/* Version 2 had a row for each event: the store is put back to it, from what it says itself. */
static bool to_version_two(void *arg, const struct store_event *event) {
  sqlite3_stmt *add = arg;
  uint8_t id[ID_UUID_RAW_BYTES];
  ck_assert(id_uuid_parse(event->event_id, strlen(event->event_id), id));
  sqlite3_bind_int64(add, 1, (sqlite3_int64)event->seq);
  sqlite3_bind_blob(add, 2, id, sizeof(id), SQLITE_TRANSIENT);
  sqlite3_bind_int64(add, 3, event->wall_us);
  const char *const texts[] = {event->trace_id, event->context_id, event->project_id, event->family, event->type};
  for (int i = 0; i < 5; i++)
    sqlite3_bind_text(add, 4 + i, texts[i], -1, SQLITE_TRANSIENT);
  sqlite3_bind_int64(add, 9, (sqlite3_int64)libdeflate_crc32(0, event->bytes, event->length));
  sqlite3_bind_blob(add, 10, event->length ? event->bytes : "", (int)event->length, SQLITE_TRANSIENT);
  ck_assert_int_eq(sqlite3_step(add), SQLITE_DONE);
  sqlite3_reset(add);
  return true;
}

static void make_version_two(const struct scratch *scratch, const struct store_options *options, const char *damage) {
  sqlite3 *db;
  sqlite3_stmt *add;
  struct error err = {0};
  outside(scratch, "CREATE TABLE event (seq INTEGER PRIMARY KEY, event_id BLOB NOT NULL, wall_us INTEGER NOT NULL,"
                   " trace_id TEXT NOT NULL, context_id TEXT NOT NULL, project_id TEXT NOT NULL, family TEXT NOT NULL,"
                   " type TEXT NOT NULL, crc INTEGER NOT NULL, bytes BLOB NOT NULL)");
  struct store *store = test_open(options);
  ck_assert_int_eq(sqlite3_open(scratch->path, &db), SQLITE_OK);
  ck_assert_int_eq(sqlite3_exec(db, "BEGIN", NULL, NULL, NULL), SQLITE_OK);
  ck_assert_int_eq(sqlite3_prepare_v2(db, "INSERT INTO event VALUES (?,?,?,?,?,?,?,?,?,?)", -1, &add, NULL), SQLITE_OK);
  ck_assert(store_events_read(store, &(struct store_event_query){0}, to_version_two, add, &err));
  sqlite3_finalize(add);
  ck_assert_int_eq(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
  store_close(&store);
  outside(scratch, "DROP TABLE event_block; DELETE FROM migration WHERE version > 2; PRAGMA user_version = 2");
  if (damage)
    outside(scratch, damage);
}

START_TEST(a_store_of_version_two_is_brought_up_to_date) {
  static const struct {
    const char *damage, *code;
  } table[] = {{NULL, NULL},
               {"DELETE FROM event WHERE seq = 500", "store.corrupt"},
               {"UPDATE event SET event_id = x'00' WHERE seq = 500", "store.corrupt"}};
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    struct scratch scratch;
    scratch_open(&scratch);
    struct store_options options = test_options("sqlite", &scratch);
    struct store *store = test_open(&options);
    fill(store, 1000);
    store_close(&store);
    make_version_two(&scratch, &options, table[i].damage);
    expect_open(&options, table[i].code);
    if (!table[i].code) {
      store = test_open(&options);
      ck_assert_uint_eq(store_last_seq(store), 1000);
      ck_assert_uint_eq(test_events(store, (struct store_event_query){0}).count, 1000);
      ck_assert_uint_eq(test_events(store, (struct store_event_query){.context_id = "context-0"}).count, 333);
      store_close(&store);
    }
    scratch_close(&scratch);
  }
}
END_TEST

TEST_MAIN("event_block", what_is_appended_is_read_again_from_one_block_or_many, a_cut_forgets_what_came_after_the_mark,
          heads_that_are_cut_short_end_in_a_refusal, changed_events_are_told_and_those_before_them_are_read,
          a_store_of_version_two_is_brought_up_to_date)

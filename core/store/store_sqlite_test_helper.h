/* store_sqlite_test_helper.h: a store on disk, filled, and changed behind its back. */
#ifndef GATEHOUSE_CORE_STORE_SQLITE_TEST_HELPER_H
#define GATEHOUSE_CORE_STORE_SQLITE_TEST_HELPER_H

#include <sqlite3.h>

#include "core/store/store_test_helper.h"

static inline void expect_open(const struct store_options *options, const char *code) {
  struct error err = {0};
  struct store *store = store_open(options, &err);
  ck_assert_str_eq(err.code, code ? code : "");
  ck_assert_int_eq(store != NULL, code == NULL);
  store_close(&store);
}

static inline void outside(const struct scratch *scratch, const char *sql) {
  sqlite3 *db;
  ck_assert_int_eq(sqlite3_open(scratch->path, &db), SQLITE_OK);
  ck_assert_msg(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(db));
  sqlite3_close(db);
}

static inline void fill(struct store *store, unsigned count) {
  for (unsigned i = 1; i <= count; i++) {
    char key[16], value[200];
    struct store_batch *batch = store_batch_create();
    snprintf(key, sizeof(key), "key-%04u", i);
    memset(value, 'a' + (int)(i % 26), sizeof(value) - 1);
    value[sizeof(value) - 1] = 0;
    store_batch_put(batch, "tools", key, value, strlen(value), STORE_REVISION_ANY);
    test_event_add(batch, i, NULL);
    store_commit(store, &batch, NULL, NULL);
  }
  test_commit(store, store_batch_create(), NULL);
}

#endif

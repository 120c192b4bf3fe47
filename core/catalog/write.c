/* write.c: the queue of writes: one at a time, each checked against what the one before left. A write without changes
 * takes an empty batch through the store all the same, so that its end is never told from inside its beginning. */
#include "core/catalog/catalog_internal.h"

static void write_start(struct catalog *catalog);

static void write_stored(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct catalog_write *write = arg;
  struct catalog *catalog = write->catalog;
  struct error conflict = {0};
  if (catalog) {
    if (err && error_is(err, ERR_STORE_CONFLICT)) {
      error_set(&conflict, ERR_CATALOG_CONFLICT, NULL);
      err = &conflict;
    }
    write->steps->finish(write, result ? result->revision : 0, err);
    catalog->writing = NULL;
    write_start(catalog);
  }
  write->steps->free(write);
}

static void write_start(struct catalog *catalog) {
  struct catalog_write *write = TAILQ_FIRST(&catalog->writes);
  if (!write || catalog->writing)
    return;
  TAILQ_REMOVE(&catalog->writes, write, entry);
  catalog->writing = write;
  struct store_batch *batch = store_batch_create();
  write->steps->check(write, batch);
  store_commit(catalog->store, &batch, write_stored, write);
}

void catalog_write_queue(struct catalog *catalog, const struct catalog_write_steps *steps,
                         struct catalog_write *write) {
  write->catalog = catalog;
  write->steps = steps;
  TAILQ_INSERT_TAIL(&catalog->writes, write, entry);
  write_start(catalog);
}

void catalog_writes_abandon(struct catalog *catalog) {
  struct error err = {0};
  struct catalog_write *write = catalog->writing;
  error_set(&err, ERR_UNAVAILABLE, NULL);
  if (write) {
    write->steps->finish(write, 0, &err);
    write->catalog = NULL; /* freed when the store answers */
    catalog->writing = NULL;
  }
  while ((write = TAILQ_FIRST(&catalog->writes))) {
    TAILQ_REMOVE(&catalog->writes, write, entry);
    write->steps->finish(write, 0, &err);
    write->steps->free(write);
  }
}

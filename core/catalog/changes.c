/* changes.c: the change stream (SPI-11): the last changes in a ring, and those who are told of new ones. */
#include "core/catalog/catalog_internal.h"

#define WATCH_MAGIC 0x43575443u

static struct catalog_change *change_at(struct catalog *catalog, uint64_t number) {
  return &catalog->changes[number % CATALOG_CHANGES_KEPT];
}

void catalog_change_note(struct catalog *catalog, uint64_t revision, enum catalog_kind kind, const char *id,
                         bool deleted) {
  struct catalog_change *change = change_at(catalog, catalog->change_count);
  if (catalog->change_count >= CATALOG_CHANGES_KEPT)
    catalog->changes_floor = change->revision; /* the one that is overwritten */
  *change = (struct catalog_change){.revision = revision, .kind = kind, .deleted = deleted};
  str_copy(change->id, sizeof(change->id), id);
  catalog->change_count++;
}

static void watch_tell(struct catalog *catalog, uint64_t revision, const struct catalog_change *change) {
  struct catalog_watch *watch;
  for (watch = LIST_FIRST(&catalog->watches); watch; watch = catalog->watch_next) {
    catalog->watch_next = LIST_NEXT(watch, entry); /* kept right by catalog_watch_stop */
    if (change)
      watch->visit(watch->arg, revision, change->kind, change->id, change->deleted);
    else
      watch->visit(watch->arg, revision, CATALOG_KIND_NONE, NULL, false);
  }
  catalog->watch_next = NULL;
}

void catalog_changes_announce(struct catalog *catalog, uint64_t revision, uint64_t from_count) {
  uint64_t end = catalog->change_count;
  if (end - from_count > CATALOG_CHANGES_KEPT) /* more at once than the ring holds: still told, by records */
    from_count = end - CATALOG_CHANGES_KEPT;
  for (uint64_t number = from_count; number < end; number++) {
    struct catalog_change change = *change_at(catalog, number);
    watch_tell(catalog, revision, &change);
  }
  watch_tell(catalog, revision, NULL);
}

struct catalog_watch *catalog_watch_start(struct catalog *catalog, catalog_change_visit *visit, void *arg) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  struct catalog_watch *watch = BASE_NEW(struct catalog_watch);
  watch->magic = WATCH_MAGIC;
  watch->catalog = catalog;
  watch->visit = visit;
  watch->arg = arg;
  LIST_INSERT_HEAD(&catalog->watches, watch, entry);
  return watch;
}

void catalog_watch_stop(struct catalog_watch **watch) {
  struct catalog_watch *gone = *watch;
  if (!gone)
    return;
  BASE_CHECK_MAGIC(gone, WATCH_MAGIC);
  *watch = NULL;
  if (gone->catalog) {
    if (gone->catalog->watch_next == gone)
      gone->catalog->watch_next = LIST_NEXT(gone, entry);
    LIST_REMOVE(gone, entry);
  }
  gone->magic = 0;
  base_free(gone);
}

/* Whether a later change of the ring concerns the same record. */
static bool is_superseded(struct catalog *catalog, uint64_t number) {
  const struct catalog_change *change = change_at(catalog, number);
  const struct catalog_entry *entry = catalog_entry_find(catalog, change->id);
  return change->deleted ? false : !entry || entry->record.revision > change->revision;
}

bool catalog_changes_since(struct catalog *catalog, uint64_t after_revision, catalog_change_visit *visit, void *arg,
                           struct error *err) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  uint64_t end = catalog->change_count, begin = end > CATALOG_CHANGES_KEPT ? end - CATALOG_CHANGES_KEPT : 0;
  if (after_revision < catalog->changes_floor || after_revision > catalog->revision)
    return error_set(err, ERR_CATALOG_REVISION_GONE, NULL);
  for (uint64_t number = begin; number < end; number++) {
    struct catalog_change change = *change_at(catalog, number);
    if (change.revision > after_revision && !is_superseded(catalog, number))
      visit(arg, change.revision, change.kind, change.id, change.deleted);
  }
  visit(arg, catalog->revision, CATALOG_KIND_NONE, NULL, false);
  return true;
}

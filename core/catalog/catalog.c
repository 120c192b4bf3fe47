/* catalog.c: opening (everything comes from the store), closing, export. */
#include <stdlib.h>
#include <string.h>

#include "core/catalog/catalog_internal.h"

uint64_t catalog_revision(const struct catalog *catalog) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  return catalog->revision;
}

size_t catalog_record_count(const struct catalog *catalog) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  return HASH_COUNT(catalog->entries);
}

/* ---- loading ---- */

struct load {
  struct catalog *catalog;
  struct error *err;
  bool failed;
};

static bool row_damaged(struct load *load, const struct store_row *row) {
  log_event(LOG_ERROR, CATALOG_ROOM, "a stored row cannot be understood", LOG_TEXT("namespace", row->name_space),
            LOG_TEXT("key", row->key));
  load->failed = true;
  return error_set(load->err, ERR_STORE_CORRUPT, NULL);
}

static bool load_document(void *arg, const struct store_row *row) {
  struct load *load = arg;
  struct catalog *catalog = load->catalog;
  struct store_value id = {0}, sealed = {0};
  char *kind = NULL, *name = NULL;
  struct catalog_document *document = catalog_document_parse(row->value, row->length, false, &kind, &name, NULL);
  bool good = document && str_equal(document->key, row->key) &&
              store_get(catalog->store, CATALOG_SPACE_IDS, row->key, &id, NULL) && id.length == ID_UUID_BYTES - 1;
  base_free(kind);
  base_free(name);
  if (good) {
    str_copy(document->id, sizeof(document->id), id.data);
    document->revision = row->revision;
    catalog_id_seen(catalog, document->id);
    if (store_get(catalog->store, CATALOG_SPACE_SECRETS, document->id, &sealed, NULL))
      buf_append(&document->sealed, sealed.data, sealed.length);
    catalog_document_put(catalog, BASE_TAKE(document));
  }
  catalog_document_free(&document);
  store_value_free(&id);
  store_value_free(&sealed);
  return good || row_damaged(load, row);
}

static bool load_discovered(void *arg, const struct store_row *row) {
  struct load *load = arg;
  struct catalog_entry *entry = catalog_discovered_load(load->catalog, row);
  if (!entry)
    return row_damaged(load, row);
  catalog_id_seen(load->catalog, entry->id);
  catalog_entry_put(load->catalog, entry);
  return true;
}

static bool load_all(struct catalog *catalog, struct error *err) {
  struct load load = {.catalog = catalog, .err = err};
  return store_scan(catalog->store, CATALOG_SPACE_DOCUMENTS, NULL, load_document, &load, err) && !load.failed &&
         store_scan(catalog->store, CATALOG_SPACE_DISCOVERED, NULL, load_discovered, &load, err) && !load.failed;
}

struct catalog *catalog_open(const struct catalog_options *options, struct error *err) {
  struct catalog *catalog = BASE_NEW(struct catalog);
  catalog->magic = CATALOG_MAGIC;
  catalog->store = options->store;
  catalog->policy = options->policy;
  catalog->secrets = options->secrets;
  TAILQ_INIT(&catalog->writes);
  LIST_INIT(&catalog->watches);
  if (!load_all(catalog, err)) {
    catalog_close(&catalog);
    return NULL;
  }
  catalog->change_count = 0; /* what was loaded is no change */
  catalog->revision = catalog->changes_floor = store_revision(catalog->store);
  return catalog;
}

void catalog_close(struct catalog **catalog) {
  struct catalog *gone = *catalog;
  struct catalog_document *document, *next;
  struct catalog_entry *entry, *next_entry;
  struct catalog_watch *watch;
  if (!gone)
    return;
  BASE_CHECK_MAGIC(gone, CATALOG_MAGIC);
  *catalog = NULL;
  catalog_writes_abandon(gone);
  catalog_views_forget(gone);
  HASH_ITER(hh, gone->entries, entry, next_entry)
  catalog_entry_drop(gone, entry);
  HASH_ITER(hh, gone->documents, document, next) {
    HASH_DEL(gone->documents, document);
    catalog_document_free(&document);
  }
  LIST_FOREACH(watch, &gone->watches, entry)
  watch->catalog = NULL; /* still to be stopped */
  gone->magic = 0;
  base_free(gone);
}

/* ---- export ---- */

static int document_compare(const void *a, const void *b) {
  const struct catalog_document *x = *(const struct catalog_document *const *)a,
                                *y = *(const struct catalog_document *const *)b;
  if (x->kind != y->kind)
    return x->kind > y->kind ? 1 : -1;
  return strcmp(x->metadata->name, y->metadata->name);
}

bool catalog_export(struct catalog *catalog, char **kinds, size_t kind_count, catalog_export_visit *visit, void *arg,
                    struct error *err) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  for (size_t i = 0; i < kind_count; i++)
    if (catalog_document_kind_find(kinds[i]) == CATALOG_DOCUMENT_KIND_COUNT)
      return error_set(err, ERR_ARGUMENT_INVALID, "The kind \"%.40s\" is not known.", kinds[i]);
  const struct catalog_document **documents =
      base_calloc(HASH_COUNT(catalog->documents) + 1, sizeof(struct catalog_document *));
  struct catalog_document *document, *next;
  size_t count = 0;
  HASH_ITER(hh, catalog->documents, document, next) {
    bool wanted = kind_count == 0;
    for (size_t i = 0; i < kind_count; i++)
      wanted |= str_equal(kinds[i], catalog_document_kinds[document->kind].name);
    if (wanted)
      documents[count++] = document;
  }
  qsort(documents, count, sizeof(struct catalog_document *), document_compare);
  for (size_t i = 0; i < count; i++)
    visit(arg, documents[i]->text, strlen(documents[i]->text));
  base_free(documents);
  return true;
}

/* view.c: what each server shows, under which names. Made when first asked for after a change, then shared by all
 * callers: who may see which of it is decided at each read. */
#include <stdlib.h>
#include <string.h>

#include "core/catalog/catalog_internal.h"

#define SHOWN_NAME_MAX_BYTES 4096

struct catalog_view_item *catalog_view_find(const struct catalog_view *view, enum catalog_kind kind, const char *name) {
  struct catalog_view_item *item = NULL;
  if ((unsigned)kind < CATALOG_KIND_LIMIT)
    HASH_FIND(by_name, view->kinds[kind].names, name, strlen(name), item);
  return item;
}

struct catalog_view_item *catalog_view_find_id(const struct catalog_view *view, const char *id) {
  struct catalog_view_item *item = NULL;
  HASH_FIND(by_id, view->ids, id, strlen(id), item);
  return item;
}

/* Declared ones first, then by age: the order in which names are given. */
static int naming_compare(const void *a, const void *b) {
  const struct catalog_entry *x = *(const struct catalog_entry *const *)a, *y = *(const struct catalog_entry *const *)b;
  if (x->discovered != y->discovered)
    return x->discovered ? 1 : -1;
  return strcmp(x->id, y->id);
}

static int shown_compare(const void *a, const void *b) {
  const struct catalog_view_item *x = *(const struct catalog_view_item *const *)a,
                                 *y = *(const struct catalog_view_item *const *)b;
  int order = strcmp(x->name, y->name);
  return order ? order : strcmp(x->entry->id, y->entry->id);
}

/* The verbatim name, or with the gateway's before it until nobody else has it. False: it would be too long. */
static bool name_give(const struct catalog_view *view, struct catalog_view_item *item) {
  const struct catalog_record *record = &item->entry->record;
  item->name = record->name;
  while (catalog_view_find(view, record->kind, item->name)) {
    char *longer = base_asprintf("%s-%s", item->entry->document->metadata->name, item->name);
    base_free(item->owned_name);
    item->name = item->owned_name = longer;
    if (strlen(longer) > SHOWN_NAME_MAX_BYTES)
      return false;
  }
  return true;
}

static void view_fill(struct catalog_view *view, const struct catalog_entry **entries, size_t count) {
  view->items = base_calloc(count + 1, sizeof(*view->items));
  view->count = count;
  qsort(entries, count, sizeof(*entries), naming_compare);
  for (size_t i = 0; i < count; i++)
    view->kinds[entries[i]->record.kind].count++;
  for (size_t kind = 0; kind < CATALOG_KIND_LIMIT; kind++) {
    view->kinds[kind].sorted = base_calloc(view->kinds[kind].count + 1, sizeof(*view->kinds[kind].sorted));
    view->kinds[kind].count = 0;
  }
  for (size_t i = 0; i < count; i++) {
    struct catalog_view_item *item = &view->items[i];
    enum catalog_kind kind = entries[i]->record.kind;
    item->entry = entries[i];
    if (!name_give(view, item)) {
      log_event(LOG_WARN, CATALOG_ROOM, "a record is left out: no name is free", LOG_TEXT("record", item->entry->id));
      continue;
    }
    HASH_ADD_KEYPTR(by_name, view->kinds[kind].names, item->name, strlen(item->name), item);
    HASH_ADD_KEYPTR(by_id, view->ids, item->entry->id, strlen(item->entry->id), item);
    view->kinds[kind].sorted[view->kinds[kind].count++] = item;
  }
  for (size_t kind = 0; kind < CATALOG_KIND_LIMIT; kind++)
    qsort(view->kinds[kind].sorted, view->kinds[kind].count, sizeof(*view->kinds[kind].sorted), shown_compare);
}

/* Marks what a server document names, by the names of the default server. */
static void names_mark(const struct catalog_view *all, enum catalog_kind kind, char *const *names, size_t count) {
  for (size_t i = 0; i < count; i++) {
    struct catalog_view_item *item = catalog_view_find(all, kind, names[i]);
    if (item)
      ((struct catalog_entry *)(uintptr_t)item->entry)->mark = true;
  }
}

static bool gateway_is_listed(const Core__Admin__V1__ServerSpec *spec, const struct catalog_entry *entry) {
  if (!entry->record.gateway)
    return false;
  for (size_t i = 0; i < spec->n_gateways; i++)
    if (str_equal(spec->gateways[i], entry->document->metadata->name))
      return true;
  return false;
}

static struct catalog_view *view_make(struct catalog *catalog, const struct catalog_entry *server) {
  const Core__Admin__V1__ServerSpec *spec = server ? catalog_server_spec(server->document) : NULL;
  const struct catalog_entry **entries = base_calloc(HASH_COUNT(catalog->entries) + 1, sizeof(struct catalog_entry *));
  struct catalog_view *view = BASE_NEW(struct catalog_view);
  struct catalog_entry *entry, *next;
  size_t count = 0;
  if (spec) {
    const struct catalog_view *all = catalog_view_get(catalog, NULL);
    HASH_ITER(hh, catalog->entries, entry, next)
    entry->mark = entry == server || gateway_is_listed(spec, entry);
    names_mark(all, CATALOG_KIND_TOOL, spec->tools, spec->n_tools);
    names_mark(all, CATALOG_KIND_RESOURCE, spec->resources, spec->n_resources);
    names_mark(all, CATALOG_KIND_PROMPT, spec->prompts, spec->n_prompts);
  }
  HASH_ITER(hh, catalog->entries, entry, next)
  if (entry->record.enabled && (!spec || entry->mark))
    entries[count++] = entry;
  view_fill(view, entries, count);
  base_free(entries);
  str_copy(view->server_id, sizeof(view->server_id), server ? server->id : "");
  HASH_ADD_STR(catalog->views, server_id, view);
  return view;
}

struct catalog_view *catalog_view_get(struct catalog *catalog, const struct catalog_entry *server) {
  const char *id = server ? server->id : "";
  struct catalog_view *view = NULL;
  HASH_FIND_STR(catalog->views, id, view);
  return view ? view : view_make(catalog, server);
}

void catalog_views_forget(struct catalog *catalog) {
  struct catalog_view *view, *next;
  HASH_ITER(hh, catalog->views, view, next) {
    HASH_DEL(catalog->views, view);
    HASH_CLEAR(by_id, view->ids);
    for (size_t kind = 0; kind < CATALOG_KIND_LIMIT; kind++) {
      HASH_CLEAR(by_name, view->kinds[kind].names);
      base_free(view->kinds[kind].sorted);
    }
    for (size_t i = 0; i < view->count; i++)
      base_free(view->items[i].owned_name);
    base_free(view->items);
    base_free(view);
  }
}

/* discovered.c: records of what upstreams offer, kept in step with them. A row is one line of JSON ({"kind", "name"}),
 * then the definition as it came. */
#include <string.h>

#include "core/catalog/catalog_internal.h"
#include "sdk/base/json.h"

#define NAME_MAX_BYTES 128
#define URI_MAX_BYTES 2048

struct offer {
  UT_hash_handle hh; /* by key */
  char *key;         /* "<kind> <name>" */
  enum catalog_kind kind;
  char *name, *definition;
  size_t length;
  struct catalog_entry *entry; /* the record that it has already; NULL: none */
  char id[ID_UUID_BYTES];
  bool changed;
};

struct discovery {
  struct catalog_write base; /* first */
  catalog_discovered_done *done;
  void *arg;
  char *gateway_id;
  struct offer *offers;
  uint32_t created, updated, deleted;
  struct error err;
};

/* ---- rows ---- */

static void row_write(const struct offer *offer, struct buf *row) {
  buf_printf(row, "{\"kind\":%d,\"name\":", (int)offer->kind);
  buf_append_json_string(row, offer->name, strlen(offer->name));
  buf_append_text(row, "}\n");
  buf_append(row, offer->definition, offer->length);
}

struct catalog_entry *catalog_discovered_load(struct catalog *catalog, const struct store_row *row) {
  const char *value = row->value, *line = value ? memchr(value, '\n', row->length) : NULL;
  const char *slash = strchr(row->key, '/');
  struct catalog_span kind, name;
  char gateway_id[ID_UUID_BYTES];
  if (!line || !slash || (size_t)(slash - row->key) != ID_UUID_BYTES - 1 || strlen(slash + 1) != ID_UUID_BYTES - 1)
    return NULL;
  size_t head = (size_t)(line - value);
  memcpy(gateway_id, row->key, ID_UUID_BYTES - 1);
  gateway_id[ID_UUID_BYTES - 1] = '\0';
  const struct catalog_entry *gateway = catalog_entry_find(catalog, gateway_id);
  if (!gateway || !gateway->record.gateway || !json_check(value, head, 2, NULL) ||
      !json_member(value, head, "kind", &kind.data, &kind.length) || kind.length != 1 || *kind.data < '1' ||
      *kind.data > '3' || !json_member(value, head, "name", &name.data, &name.length))
    return NULL;
  char *text = json_string_decode(name.data, name.length);
  size_t length = row->length - head - 1;
  enum catalog_kind record_kind = (enum catalog_kind)(*kind.data - '0');
  struct catalog_entry *entry = NULL;
  if (text && catalog_definition_read(record_kind, text, line + 1, length, NULL))
    entry = catalog_entry_discovered(gateway->document, slash + 1, row->revision, record_kind, text, line + 1, length);
  base_free(text);
  return entry;
}

/* ---- what is offered ---- */

static bool name_is_sound(enum catalog_kind kind, const char *name) {
  size_t length = strlen(name);
  for (const char *at = name; *at; at++)
    if ((unsigned char)*at < 0x20 || *at == 0x7f)
      return false;
  return length > 0 && length <= (kind == CATALOG_KIND_RESOURCE ? URI_MAX_BYTES : NAME_MAX_BYTES) &&
         str_is_utf8(name, length);
}

static void offer_add(struct discovery *discovery, const struct catalog_discovered *item) {
  struct error err = {0};
  struct offer *offer = NULL;
  char *key = base_asprintf("%d %s", (int)item->kind, item->original_name);
  HASH_FIND_STR(discovery->offers, key, offer);
  bool ok = true;
  if (item->kind != CATALOG_KIND_TOOL && item->kind != CATALOG_KIND_RESOURCE && item->kind != CATALOG_KIND_PROMPT)
    ok = error_set(&err, ERR_CATALOG_INVALID, "upstreams have no records of this kind");
  else if (!name_is_sound(item->kind, item->original_name))
    ok = error_set(&err, ERR_CATALOG_INVALID, "the name is empty, too long, or has control characters");
  else if (offer)
    ok = error_set(&err, ERR_CATALOG_INVALID, "the name was offered before");
  else if (HASH_COUNT(discovery->offers) >= CATALOG_GATEWAY_RECORDS_MAX)
    ok = error_set(&err, ERR_CATALOG_INVALID, "too many records");
  else
    ok = catalog_definition_read(item->kind, item->original_name, item->definition_json, item->definition_length, &err);
  if (!ok) {
    log_event(LOG_WARN, CATALOG_ROOM, "an upstream's record is left out", LOG_TEXT("gateway", discovery->gateway_id),
              LOG_TEXT("reason", err.message));
    base_free(key);
    return;
  }
  offer = BASE_NEW(struct offer);
  offer->key = key;
  offer->kind = item->kind;
  offer->name = base_strdup(item->original_name);
  offer->definition = base_memdup(item->definition_json, item->definition_length);
  offer->length = item->definition_length;
  HASH_ADD_KEYPTR(hh, discovery->offers, offer->key, strlen(offer->key), offer);
}

static void discovery_free(struct catalog_write *write) {
  struct discovery *discovery = (struct discovery *)(void *)write;
  struct offer *offer, *next;
  HASH_ITER(hh, discovery->offers, offer, next) {
    HASH_DEL(discovery->offers, offer);
    base_free(offer->key);
    base_free(offer->name);
    base_free(offer->definition);
    base_free(offer);
  }
  base_free(discovery->gateway_id);
  base_free(discovery);
}

/* ---- the write ---- */

static char *row_key(const struct discovery *discovery, const char *id) {
  return base_asprintf("%s/%s", discovery->gateway_id, id);
}

/* Joins records to offers; those without one go (mark). */
static void records_match(struct discovery *discovery, struct store_batch *batch) {
  struct catalog_entry *entry, *next;
  HASH_ITER(hh, discovery->base.catalog->entries, entry, next) {
    struct offer *offer = NULL;
    entry->mark = false;
    if (!entry->discovered || !str_equal(entry->record.gateway_id, discovery->gateway_id))
      continue;
    char *key = base_asprintf("%d %s", (int)entry->record.kind, entry->original_name);
    HASH_FIND_STR(discovery->offers, key, offer);
    base_free(key);
    if (offer) {
      offer->entry = entry;
      continue;
    }
    key = row_key(discovery, entry->id);
    store_batch_delete(batch, CATALOG_SPACE_DISCOVERED, key, STORE_REVISION_ANY);
    base_free(key);
    discovery->deleted++;
  }
}

static void discovery_check(struct catalog_write *write, struct store_batch *batch) {
  struct discovery *discovery = (struct discovery *)(void *)write;
  const struct catalog_entry *gateway = catalog_entry_find(write->catalog, discovery->gateway_id);
  struct offer *offer, *next;
  if (!gateway || gateway->record.kind != CATALOG_KIND_GATEWAY) {
    error_set(&discovery->err, ERR_CATALOG_NOT_FOUND, NULL);
    return;
  }
  records_match(discovery, batch);
  HASH_ITER(hh, discovery->offers, offer, next) {
    const struct catalog_entry *entry = offer->entry;
    struct buf row = {0};
    offer->changed =
        !entry || entry->source_length != offer->length || memcmp(entry->source, offer->definition, offer->length) != 0;
    if (!offer->changed)
      continue;
    *(entry ? &discovery->updated : &discovery->created) += 1;
    if (entry)
      str_copy(offer->id, sizeof(offer->id), entry->id);
    else
      catalog_id_make(write->catalog, offer->id);
    char *key = row_key(discovery, offer->id);
    row_write(offer, &row);
    store_batch_put(batch, CATALOG_SPACE_DISCOVERED, key, row.data, row.length,
                    entry ? STORE_REVISION_ANY : STORE_REVISION_NONE);
    base_free(key);
    buf_free(&row);
  }
  write->changes = discovery->created + discovery->updated + discovery->deleted > 0;
}

static void memory_follow(struct discovery *discovery, uint64_t revision) {
  struct catalog *catalog = discovery->base.catalog;
  const struct catalog_document *gateway = catalog_entry_find(catalog, discovery->gateway_id)->document;
  uint64_t from_count = catalog->change_count;
  struct catalog_entry *entry, *next_entry;
  struct offer *offer, *next;
  catalog_views_forget(catalog);
  catalog->revision = revision;
  HASH_ITER(hh, discovery->offers, offer, next)
  if (offer->entry)
    offer->entry->mark = true;
  HASH_ITER(hh, catalog->entries, entry, next_entry) {
    if (!entry->discovered || entry->document != gateway || entry->mark)
      continue;
    catalog_change_note(catalog, revision, entry->record.kind, entry->id, true);
    catalog_entry_drop(catalog, entry);
  }
  HASH_ITER(hh, discovery->offers, offer, next) {
    if (!offer->changed)
      continue;
    if (offer->entry)
      catalog_entry_drop(catalog, offer->entry);
    catalog_entry_put(catalog, catalog_entry_discovered(gateway, offer->id, revision, offer->kind, offer->name,
                                                        offer->definition, offer->length));
  }
  catalog_changes_announce(catalog, revision, from_count);
}

static void discovery_finish(struct catalog_write *write, uint64_t revision, const struct error *err) {
  struct discovery *discovery = (struct discovery *)(void *)write;
  if (!err && write->changes)
    memory_follow(discovery, revision);
  if (!err && error_is_set(&discovery->err))
    err = &discovery->err;
  if (err)
    discovery->done(discovery->arg, 0, 0, 0, err);
  else
    discovery->done(discovery->arg, discovery->created, discovery->updated, discovery->deleted, NULL);
}

static const struct catalog_write_steps discovery_steps = {
    .check = discovery_check, .finish = discovery_finish, .free = discovery_free};

void catalog_discovered_apply(struct catalog *catalog, const char *gateway_id, const struct catalog_discovered *items,
                              size_t count, catalog_discovered_done *done, void *arg) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  struct discovery *discovery = BASE_NEW(struct discovery);
  discovery->done = done;
  discovery->arg = arg;
  discovery->gateway_id = base_strdup(gateway_id);
  for (size_t i = 0; i < count; i++)
    offer_add(discovery, &items[i]);
  catalog_write_queue(catalog, &discovery_steps, &discovery->base);
}

/* state.c: documents and their records in memory, in the policy, and in batches for the store. What is put or dropped
 * here is stored already; every change is noted for the change stream. */
#include <string.h>

#include "core/catalog/catalog_internal.h"

struct catalog_document *catalog_document_find(const struct catalog *catalog, enum catalog_document_kind kind,
                                               const char *name) {
  struct catalog_document *document = NULL;
  char *key = base_asprintf("%s/%s", catalog_document_kinds[kind].name, name);
  HASH_FIND_STR(catalog->documents, key, document);
  base_free(key);
  return document;
}

struct catalog_entry *catalog_entry_find(const struct catalog *catalog, const char *id) {
  struct catalog_entry *entry = NULL;
  HASH_FIND_STR(catalog->entries, id, entry);
  return entry;
}

void catalog_entry_put(struct catalog *catalog, struct catalog_entry *entry) {
  HASH_ADD_STR(catalog->entries, id, entry);
  catalog_change_note(catalog, entry->record.revision, entry->record.kind, entry->id, false);
}

void catalog_entry_drop(struct catalog *catalog, struct catalog_entry *entry) {
  HASH_DEL(catalog->entries, entry);
  catalog_entry_free(&entry);
}

/* ---- policy ---- */

static bool user_put(void *arg, const struct policy_user *user, struct error *err) {
  return policy_user_put(arg, user, err);
}

static bool role_put(void *arg, const struct policy_role *role, struct error *err) {
  return policy_role_put(arg, role, err);
}

static void policy_forget(struct catalog *catalog, const struct catalog_document *document) {
  const char *name = document->metadata->name;
  if (document->kind == CATALOG_DOCUMENT_Team)
    policy_team_delete(catalog->policy, name);
  else if (document->kind == CATALOG_DOCUMENT_Role)
    policy_role_delete(catalog->policy, name);
  else if (document->kind == CATALOG_DOCUMENT_User)
    policy_user_delete(catalog->policy, name);
}

static void policy_follow(struct catalog *catalog, const struct catalog_document *document) {
  struct error err = {0};
  bool ok = true;
  if (document->kind == CATALOG_DOCUMENT_Team)
    ok = policy_team_put(catalog->policy, document->metadata->name, &err);
  else if (document->kind == CATALOG_DOCUMENT_Role)
    ok = catalog_policy_role(document, role_put, catalog->policy, &err);
  else if (document->kind == CATALOG_DOCUMENT_User && !document->metadata->disabled)
    ok = catalog_policy_user(document, user_put, catalog->policy, &err);
  else
    policy_forget(catalog, document); /* a disabled user is none */
  if (ok)
    return;
  log_error_value(LOG_ERROR, CATALOG_ROOM, "a stored document is not acceptable; nothing is granted by it", &err);
  policy_forget(catalog, document);
}

/* ---- put and drop ---- */

static void gateway_records_inherit(struct catalog *catalog, const struct catalog_document *old,
                                    const struct catalog_document *document) {
  struct catalog_entry *entry, *next;
  HASH_ITER(hh, catalog->entries, entry, next) {
    if (!entry->discovered || entry->document != old)
      continue;
    catalog_entry_inherit(entry, document);
    catalog_change_note(catalog, document->revision, entry->record.kind, entry->id, false);
  }
}

void catalog_document_put(struct catalog *catalog, struct catalog_document *document) {
  struct catalog_document *old = NULL;
  struct catalog_entry *entry = catalog_entry_find(catalog, document->id);
  HASH_FIND_STR(catalog->documents, document->key, old);
  catalog_views_forget(catalog);
  if (entry)
    catalog_entry_drop(catalog, entry);
  if (old)
    HASH_DEL(catalog->documents, old);
  HASH_ADD_KEYPTR(hh, catalog->documents, document->key, strlen(document->key), document);
  if (old && document->kind == CATALOG_DOCUMENT_Gateway)
    gateway_records_inherit(catalog, old, document);
  if (catalog_document_kinds[document->kind].record_kind != CATALOG_KIND_NONE)
    catalog_entry_put(catalog, catalog_entry_declared(document));
  else
    policy_follow(catalog, document);
  catalog_document_free(&old);
}

void catalog_document_drop(struct catalog *catalog, struct catalog_document *document) {
  struct catalog_entry *entry, *next;
  catalog_views_forget(catalog);
  HASH_ITER(hh, catalog->entries, entry, next) {
    if (entry->document != document)
      continue;
    catalog_change_note(catalog, catalog->revision, entry->record.kind, entry->id, true);
    catalog_entry_drop(catalog, entry);
  }
  policy_forget(catalog, document);
  HASH_DEL(catalog->documents, document);
  catalog_document_free(&document);
}

/* ---- batches ---- */

void catalog_batch_put(struct store_batch *batch, const struct catalog_document *document,
                       const struct catalog_document *old) {
  store_batch_put(batch, CATALOG_SPACE_DOCUMENTS, document->key, document->text, strlen(document->text),
                  old ? old->revision : STORE_REVISION_NONE);
  if (!old)
    store_batch_put(batch, CATALOG_SPACE_IDS, document->key, document->id, strlen(document->id), STORE_REVISION_ANY);
  if (document->sealed.length)
    store_batch_put(batch, CATALOG_SPACE_SECRETS, document->id, document->sealed.data, document->sealed.length,
                    STORE_REVISION_ANY);
  else if (old && old->sealed.length)
    store_batch_delete(batch, CATALOG_SPACE_SECRETS, document->id, STORE_REVISION_ANY);
}

void catalog_batch_delete(struct catalog *catalog, struct store_batch *batch, const struct catalog_document *document) {
  struct catalog_entry *entry, *next;
  store_batch_delete(batch, CATALOG_SPACE_DOCUMENTS, document->key, document->revision);
  store_batch_delete(batch, CATALOG_SPACE_IDS, document->key, STORE_REVISION_ANY);
  store_batch_delete(batch, CATALOG_SPACE_SECRETS, document->id, STORE_REVISION_ANY);
  HASH_ITER(hh, catalog->entries, entry, next) {
    if (!entry->discovered || entry->document != document)
      continue;
    char *key = base_asprintf("%s/%s", document->id, entry->id);
    store_batch_delete(batch, CATALOG_SPACE_DISCOVERED, key, STORE_REVISION_ANY);
    base_free(key);
  }
}

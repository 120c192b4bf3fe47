/* apply.c: declares and deletes documents. A request is parsed when it comes, and when its turn is there checked
 * against the state that it would lead to: names, references, credentials. Everything of it is stored in one batch, or
 * nothing. */
#include <string.h>

#include "core/catalog/catalog_internal.h"
#include "sdk/base/arena.h"
#include "sdk/base/secret.h"

/* One document of a request, or one that goes. */
struct item {
  UT_hash_handle hh; /* by key, the request's next state */
  const char *key;
  char *kind, *name;
  struct catalog_document *document; /* NULL: to be deleted, or refused by the parser */
  struct catalog_document *old;      /* what is there now; NULL: nothing */
  bool deletion;
  struct error err;
  Core__Admin__V1__ApplyAction action;
  char **changed;
  size_t changed_count;
  char *owned_key;
};

struct apply {
  struct catalog_write base; /* first */
  catalog_apply_done *done;
  catalog_write_done *delete_done; /* instead of done: catalog_delete */
  void *arg;
  bool dry_run, prune, refused;
  struct item **items;
  size_t count, capacity;
  struct item *keys;
};

static struct item *item_add(struct apply *apply) {
  if (apply->count == apply->capacity) {
    apply->capacity = apply->capacity ? 2 * apply->capacity : 16;
    apply->items = base_realloc_array(apply->items, apply->capacity, sizeof(*apply->items));
  }
  return apply->items[apply->count++] = BASE_NEW(struct item);
}

static void apply_free(struct catalog_write *write) {
  struct apply *apply = (struct apply *)(void *)write;
  HASH_CLEAR(hh, apply->keys);
  for (size_t i = 0; i < apply->count; i++) {
    struct item *item = apply->items[i];
    for (size_t k = 0; k < item->changed_count; k++)
      base_free(item->changed[k]);
    base_free(item->changed);
    catalog_document_free(&item->document);
    base_free(item->owned_key);
    base_free(item->kind);
    base_free(item->name);
    base_free(item);
  }
  base_free(apply->items);
  base_free(apply);
}

/* ---- the next state ---- */

static const struct item *item_find(const struct apply *apply, const char *key) {
  struct item *item = NULL;
  HASH_FIND_STR(apply->keys, key, item);
  return item;
}

static bool next_exists(const struct apply *apply, enum catalog_document_kind kind, const char *name) {
  struct catalog *catalog = apply->base.catalog;
  char *key = base_asprintf("%s/%s", catalog_document_kinds[kind].name, name);
  const struct item *item = item_find(apply, key);
  struct catalog_document *document = NULL;
  HASH_FIND_STR(catalog->documents, key, document);
  base_free(key);
  if (item)
    return !item->deletion;
  if (document)
    return true;
  return kind == CATALOG_DOCUMENT_Role && policy_role_exists(catalog->policy, name); /* a built-in one */
}

/* Names of other documents in a document. */
typedef void reference_visit(void *arg, enum catalog_document_kind kind, const char *name, const char *field);

static void references_visit(const struct catalog_document *document, reference_visit *visit, void *arg) {
  const Core__Admin__V1__UserSpec *user = catalog_user_spec(document);
  const Core__Admin__V1__ServerSpec *server = catalog_server_spec(document);
  if (*document->metadata->team)
    visit(arg, CATALOG_DOCUMENT_Team, document->metadata->team, "metadata.team");
  for (size_t i = 0; user && i < user->n_teams; i++)
    visit(arg, CATALOG_DOCUMENT_Team, user->teams[i], "spec.teams");
  for (size_t i = 0; user && i < user->n_roles; i++)
    visit(arg, CATALOG_DOCUMENT_Role, user->roles[i], "spec.roles");
  for (size_t i = 0; user && i < user->n_team_roles; i++) {
    visit(arg, CATALOG_DOCUMENT_Team, user->team_roles[i]->team, "spec.teamRoles");
    visit(arg, CATALOG_DOCUMENT_Role, user->team_roles[i]->role, "spec.teamRoles");
  }
  for (size_t i = 0; server && i < server->n_gateways; i++)
    visit(arg, CATALOG_DOCUMENT_Gateway, server->gateways[i], "spec.gateways");
}

struct reference_check {
  const struct apply *apply;
  struct item *item; /* the document's item; NULL: it stays as it is */
  const struct catalog_document *from;
};

static void reference_check(void *arg, enum catalog_document_kind kind, const char *name, const char *field) {
  struct reference_check *check = arg;
  if (next_exists(check->apply, kind, name))
    return;
  if (check->item) {
    if (!error_is_set(&check->item->err))
      error_set(&check->item->err, ERR_CATALOG_REFERENCE, "%s: there is no %s \"%.80s\"", field,
                catalog_document_kinds[kind].name, name);
    return;
  }
  char *key = base_asprintf("%s/%s", catalog_document_kinds[kind].name, name);
  struct item *gone = (struct item *)(uintptr_t)item_find(check->apply, key);
  if (gone && gone->deletion)
    error_set(&gone->err, ERR_CATALOG_IN_USE, "%.100s needs it (%s)", check->from->key, field);
  base_free(key);
}

static void references_check(struct apply *apply) {
  struct catalog_document *document, *next;
  bool deletions = false;
  for (size_t i = 0; i < apply->count; i++) {
    struct item *item = apply->items[i];
    struct reference_check check = {.apply = apply, .item = item, .from = item->document};
    deletions |= item->deletion;
    if (item->document && !error_is_set(&item->err))
      references_visit(item->document, reference_check, &check);
  }
  if (!deletions)
    return;
  HASH_ITER(hh, apply->base.catalog->documents, document, next) {
    struct reference_check check = {.apply = apply, .from = document};
    if (!item_find(apply, document->key))
      references_visit(document, reference_check, &check);
  }
}

/* Two resources of one URI would be one record under two names. */
static void uris_check(struct apply *apply) {
  struct catalog_document *other, *next;
  for (size_t i = 0; i < apply->count; i++) {
    struct item *item = apply->items[i];
    const Core__Admin__V1__ResourceSpec *spec =
        item->document && !error_is_set(&item->err) ? catalog_resource_spec(item->document) : NULL;
    bool taken = false;
    for (size_t k = 0; spec && k < i && !taken; k++) {
      const struct catalog_document *earlier = apply->items[k]->document;
      taken = earlier && catalog_resource_spec(earlier) && str_equal(catalog_resource_spec(earlier)->uri, spec->uri);
    }
    if (spec)
      HASH_ITER(hh, apply->base.catalog->documents, other, next)
    taken |= catalog_resource_spec(other) && !item_find(apply, other->key) &&
             str_equal(catalog_resource_spec(other)->uri, spec->uri);
    if (taken)
      error_set(&item->err, ERR_CATALOG_INVALID, "spec.uri: another resource has it");
  }
}

/* ---- checking ---- */

static void items_key(struct apply *apply) {
  for (size_t i = 0; i < apply->count; i++) {
    struct item *item = apply->items[i];
    if (error_is_set(&item->err))
      continue;
    item->key = item->document ? item->document->key : item->owned_key;
    HASH_FIND_STR(apply->base.catalog->documents, item->key, item->old);
    if (item->deletion && !item->old)
      error_set(&item->err, ERR_CATALOG_NOT_FOUND, NULL);
    else if (item_find(apply, item->key))
      error_set(&item->err, ERR_CATALOG_INVALID, "the document is twice in the request");
    else
      HASH_ADD_KEYPTR(hh, apply->keys, item->key, strlen(item->key), item);
  }
}

/* Documents of the applied kinds that the request does not have go. */
static void items_prune(struct apply *apply) {
  bool kinds[CATALOG_DOCUMENT_KIND_COUNT] = {0};
  struct catalog_document *document, *next;
  for (size_t i = 0; i < apply->count; i++)
    if (apply->items[i]->document)
      kinds[apply->items[i]->document->kind] = true;
  HASH_ITER(hh, apply->base.catalog->documents, document, next) {
    if (!kinds[document->kind] || item_find(apply, document->key))
      continue;
    struct item *item = item_add(apply);
    item->deletion = true;
    item->old = document;
    item->kind = base_strdup(catalog_document_kinds[document->kind].name);
    item->name = base_strdup(document->metadata->name);
    item->key = document->key;
    HASH_ADD_KEYPTR(hh, apply->keys, item->key, strlen(item->key), item);
  }
}

static void changed_add(void *arg, const char *path) {
  struct item *item = arg;
  item->changed = base_realloc_array(item->changed, item->changed_count + 1, sizeof(*item->changed));
  item->changed[item->changed_count++] = base_strdup(path);
}

/* What becomes of one document that nothing speaks against; prepares it for the batch. */
static void item_decide(struct apply *apply, struct item *item) {
  struct catalog *catalog = apply->base.catalog;
  if (item->deletion) {
    item->action = CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_DELETED;
    return;
  }
  if (!catalog_credential_merge(catalog->secrets, item->document, item->old, &item->err))
    return;
  if (item->old) {
    str_copy(item->document->id, sizeof(item->document->id), item->old->id);
    catalog_document_diff(item->old->text, item->document->text, changed_add, item);
    if (!catalog_credential_equal(catalog->secrets, item->document, item->old))
      changed_add(item, item->document->kind == CATALOG_DOCUMENT_Gateway ? "spec.credential" : "spec.rest.credential");
  } else {
    catalog_id_make(catalog, item->document->id);
  }
  item->action = !item->old                ? CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_CREATED
                 : item->changed_count > 0 ? CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_UPDATED
                                           : CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_UNCHANGED;
  catalog_credential_seal(catalog->secrets, item->document, &item->err);
}

static bool item_changes(const struct item *item) {
  return item->action != CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_UNCHANGED;
}

static void apply_check(struct catalog_write *write, struct store_batch *batch) {
  struct apply *apply = (struct apply *)(void *)write;
  items_key(apply);
  if (apply->prune)
    items_prune(apply);
  references_check(apply);
  uris_check(apply);
  for (size_t i = 0; i < apply->count; i++) {
    struct item *item = apply->items[i];
    if (!error_is_set(&item->err))
      item_decide(apply, item);
    if (error_is_set(&item->err))
      item->action = CORE__ADMIN__V1__APPLY_ACTION__APPLY_ACTION_REFUSED;
    apply->refused |= error_is_set(&item->err);
  }
  if (apply->refused || apply->dry_run)
    return;
  for (size_t i = 0; i < apply->count; i++) {
    const struct item *item = apply->items[i];
    if (!item_changes(item))
      continue;
    write->changes = true;
    if (item->deletion)
      catalog_batch_delete(write->catalog, batch, item->old);
    else
      catalog_batch_put(batch, item->document, item->old);
  }
}

/* ---- finishing ---- */

static void memory_follow(struct apply *apply, uint64_t revision) {
  struct catalog *catalog = apply->base.catalog;
  uint64_t from_count = catalog->change_count;
  HASH_CLEAR(hh, apply->keys); /* keys are the documents' */
  catalog->revision = revision;
  for (size_t i = 0; i < apply->count; i++) {
    struct item *item = apply->items[i];
    if (!item_changes(item))
      continue;
    if (item->deletion) {
      catalog_document_drop(catalog, BASE_TAKE(item->old));
    } else {
      item->document->revision = revision;
      item->old = NULL;
      catalog_document_put(catalog, BASE_TAKE(item->document));
    }
  }
  catalog_changes_announce(catalog, revision, from_count);
}

static Core__Common__V1__ErrorEnvelope *envelope_make(struct arena *arena, const struct error *err) {
  Core__Common__V1__ErrorEnvelope *envelope = arena_alloc(arena, sizeof(*envelope));
  core__common__v1__error_envelope__init(envelope);
  envelope->category = (Core__Common__V1__ErrorCategory)err->category;
  envelope->code = arena_strdup(arena, err->code);
  envelope->message = arena_strdup(arena, err->message);
  envelope->origin = (Core__Common__V1__ErrorOrigin)err->origin;
  envelope->retryable = err->retryable;
  return envelope;
}

static void response_send(struct apply *apply) {
  struct arena *arena = arena_create(0);
  Core__Admin__V1__ApplyResponse response = CORE__ADMIN__V1__APPLY_RESPONSE__INIT;
  response.outcomes = arena_alloc(arena, (apply->count + 1) * sizeof(*response.outcomes));
  for (size_t i = 0; i < apply->count; i++) {
    const struct item *item = apply->items[i];
    Core__Admin__V1__ApplyOutcome *outcome = arena_alloc(arena, sizeof(*outcome));
    core__admin__v1__apply_outcome__init(outcome);
    outcome->kind = item->kind ? item->kind : outcome->kind;
    outcome->name = item->name ? item->name : outcome->name;
    outcome->action = item->action;
    outcome->error = error_is_set(&item->err) ? envelope_make(arena, &item->err) : NULL;
    outcome->n_changed_fields = item->changed_count;
    outcome->changed_fields = item->changed;
    outcome->document_index = (uint32_t)i;
    response.outcomes[response.n_outcomes++] = outcome;
  }
  response.applied = !apply->refused && !apply->dry_run;
  response.revision = apply->base.catalog->revision;
  apply->done(apply->arg, &response, NULL);
  arena_free(&arena);
}

static void apply_finish(struct catalog_write *write, uint64_t revision, const struct error *err) {
  struct apply *apply = (struct apply *)(void *)write;
  if (!err && write->changes)
    memory_follow(apply, revision);
  if (apply->delete_done) {
    const struct error *why = err ? err : apply->refused ? &apply->items[0]->err : NULL;
    apply->delete_done(apply->arg, write->catalog->revision, why);
  } else if (err) {
    apply->done(apply->arg, NULL, err);
  } else {
    response_send(apply);
  }
}

static const struct catalog_write_steps apply_steps = {
    .check = apply_check, .finish = apply_finish, .free = apply_free};

void catalog_apply(struct catalog *catalog, const Core__Admin__V1__ApplyRequest *request, catalog_apply_done *done,
                   void *arg) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  struct apply *apply = BASE_NEW(struct apply);
  apply->done = done;
  apply->arg = arg;
  apply->dry_run = request->dry_run;
  apply->prune = request->prune;
  for (size_t i = 0; i < request->n_documents; i++) {
    const ProtobufCBinaryData *json = &request->documents[i]->document_json;
    struct item *item = item_add(apply);
    if (i >= CATALOG_REQUEST_DOCUMENTS_MAX)
      error_set(&item->err, ERR_ARGUMENT_TOO_LARGE, "more than %u documents at once", CATALOG_REQUEST_DOCUMENTS_MAX);
    else
      item->document = catalog_document_parse(json->len ? (const char *)json->data : "", json->len, true, &item->kind,
                                              &item->name, &item->err);
  }
  catalog_write_queue(catalog, &apply_steps, &apply->base);
}

void catalog_delete(struct catalog *catalog, const char *kind, const char *name, catalog_write_done *done, void *arg) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  struct apply *apply = BASE_NEW(struct apply);
  struct item *item = item_add(apply);
  apply->delete_done = done;
  apply->arg = arg;
  item->deletion = true;
  item->owned_key = base_asprintf("%s/%s", kind, name);
  if (catalog_document_kind_find(kind) == CATALOG_DOCUMENT_KIND_COUNT)
    error_set(&item->err, ERR_ARGUMENT_INVALID, "The kind \"%.40s\" is not known.", kind);
  catalog_write_queue(catalog, &apply_steps, &apply->base);
}

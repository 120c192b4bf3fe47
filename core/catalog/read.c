/* read.c: find, list and cursors: visibility first, then permission (SPI-5). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/catalog/catalog_internal.h"

#define CURSOR_MAX_BYTES 16384

static const char *const read_permissions[CATALOG_KIND_LIMIT] = {
    [CATALOG_KIND_TOOL] = "tools.read",         [CATALOG_KIND_RESOURCE] = "resources.read",
    [CATALOG_KIND_PROMPT] = "prompts.read",     [CATALOG_KIND_AGENT] = "agents.read",
    [CATALOG_KIND_SERVER] = "servers.read",     [CATALOG_KIND_GATEWAY] = "gateways.read",
    [CATALOG_KIND_PROVIDER] = "models.read",    [CATALOG_KIND_MODEL] = "models.read",
    [CATALOG_KIND_ROOT] = "admin.system_config"};

static struct policy_record_facts facts_of(const struct catalog_record *record) {
  return (struct policy_record_facts){
      .visibility = record->visibility, .team_id = record->team_id, .owner_email = record->owner_email};
}

static bool access_check(const struct policy_context *context, const struct catalog_record *record,
                         const char *permission, struct error *err) {
  struct policy_record_facts facts = record ? facts_of(record) : (struct policy_record_facts){0};
  return policy_check_access(context, record ? &facts : NULL, permission, err);
}

/* An enabled server by id or name. */
static const struct catalog_entry *server_find(struct catalog *catalog, const char *server_id) {
  const struct catalog_view *all = catalog_view_get(catalog, NULL);
  const struct catalog_view_item *item = catalog_view_find_id(all, server_id);
  if (!item || item->entry->record.kind != CATALOG_KIND_SERVER)
    item = catalog_view_find(all, CATALOG_KIND_SERVER, server_id);
  return item ? item->entry : NULL;
}

/* The view that a caller asks for, kept inside what its context is limited to. NULL: ERR_CATALOG_NOT_FOUND. */
static struct catalog_view *view_effective(struct catalog *catalog, const struct policy_context *context,
                                           const char *server_id, struct error *err) {
  const char *limit = context->scope.server_id;
  bool limited = !str_is_empty(limit);
  const char *wanted = str_is_empty(server_id) ? limit : server_id;
  if (str_is_empty(wanted))
    return catalog_view_get(catalog, NULL);
  const struct catalog_entry *server = server_find(catalog, wanted);
  if (server && limited && wanted != limit && server_find(catalog, limit) != server)
    server = NULL;
  if (!access_check(context, server ? &server->record : NULL, NULL, err))
    return NULL;
  return catalog_view_get(catalog, server);
}

const struct catalog_record *catalog_find(struct catalog *catalog, const struct policy_context *context,
                                          enum catalog_kind kind, const char *id, const char *name,
                                          const char *server_id, const char *permission, struct error *err) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  const struct catalog_view *view = view_effective(catalog, context, server_id, err);
  const struct catalog_view_item *item = NULL;
  if (!view)
    return NULL;
  if (!str_is_empty(id))
    item = catalog_view_find_id(view, id);
  else if (!str_is_empty(name))
    item = catalog_view_find(view, kind, name);
  const struct catalog_record *record = item && item->entry->record.kind == kind ? &item->entry->record : NULL;
  return access_check(context, record, permission, err) ? record : NULL;
}

const struct catalog_record *catalog_record_by_id(struct catalog *catalog, const char *record_id) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  struct catalog_entry *entry = record_id ? catalog_entry_find(catalog, record_id) : NULL;
  return entry ? &entry->record : NULL;
}

void catalog_gateways(struct catalog *catalog, catalog_visit *visit, void *arg) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  const struct catalog_view *view = catalog_view_get(catalog, NULL);
  for (size_t i = 0; i < view->kinds[CATALOG_KIND_GATEWAY].count; i++) {
    const struct catalog_view_item *item = view->kinds[CATALOG_KIND_GATEWAY].sorted[i];
    visit(arg, &item->entry->record, item->name);
  }
}

/* ---- cursors: base64url of "1 <kind> <server id or -> <record id> <shown name>": the last record of the page ---- */

static char *cursor_make(const struct catalog_view *view, enum catalog_kind kind,
                         const struct catalog_view_item *last) {
  char *text =
      base_asprintf("1 %d %s %s %s", (int)kind, *view->server_id ? view->server_id : "-", last->entry->id, last->name);
  char *cursor = str_base64url_encode((const uint8_t *)text, strlen(text));
  base_free(text);
  return cursor;
}

struct cursor {
  char *text; /* owned */
  const char *id, *name;
};

/* Strict: what cursor_make did not make for this view and kind is refused. */
static bool cursor_read(const struct catalog_view *view, enum catalog_kind kind, const char *encoded,
                        struct cursor *cursor, struct error *err) {
  size_t length = 0, encoded_length = strlen(encoded);
  uint8_t *decoded = encoded_length <= CURSOR_MAX_BYTES ? str_base64url_decode(encoded, encoded_length, &length) : NULL;
  char *head = base_asprintf("1 %d %s ", (int)kind, *view->server_id ? view->server_id : "-");
  size_t head_length = strlen(head), id_length = ID_UUID_BYTES - 1;
  bool good = decoded && length > head_length + id_length + 1 && !memchr(decoded, '\0', length) &&
              str_is_utf8((const char *)decoded, length) && memcmp(decoded, head, head_length) == 0 &&
              decoded[head_length + id_length] == ' ';
  base_free(head);
  if (good) {
    cursor->text = base_strndup((const char *)decoded, length);
    cursor->text[head_length + id_length] = '\0';
    cursor->id = cursor->text + head_length;
    cursor->name = cursor->id + id_length + 1;
    good = strspn(cursor->id, "0123456789abcdef-") == id_length;
  }
  base_free(decoded);
  return good || error_set(err, ERR_CATALOG_CURSOR, NULL);
}

/* The first place behind the cursor. */
static size_t position_find(const struct catalog_view *view, enum catalog_kind kind, const struct cursor *cursor) {
  size_t low = 0, high = view->kinds[kind].count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct catalog_view_item *item = view->kinds[kind].sorted[middle];
    int order = strcmp(item->name, cursor->name);
    if ((order ? order : strcmp(item->entry->id, cursor->id)) <= 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static char *page_visit(const struct catalog_view *view, const struct policy_context *context, enum catalog_kind kind,
                        size_t at, uint32_t page_size, catalog_visit *visit, void *arg) {
  const struct catalog_view_item *last = NULL;
  for (; at < view->kinds[kind].count; at++) {
    const struct catalog_view_item *item = view->kinds[kind].sorted[at];
    if (!access_check(context, &item->entry->record, read_permissions[kind], NULL))
      continue;
    if (page_size == 0)
      return cursor_make(view, kind, last);
    page_size--;
    last = item;
    visit(arg, &item->entry->record, item->name);
  }
  return NULL;
}

bool catalog_list(struct catalog *catalog, const struct policy_context *context, enum catalog_kind kind,
                  const char *server_id, uint32_t page_size, const char *cursor_text, catalog_visit *visit, void *arg,
                  char **next_cursor, struct error *err) {
  BASE_CHECK_MAGIC(catalog, CATALOG_MAGIC);
  struct cursor cursor = {0};
  *next_cursor = NULL;
  if ((unsigned)kind >= CATALOG_KIND_LIMIT || !read_permissions[kind])
    return error_set(err, ERR_ARGUMENT_INVALID, "unknown kind of records");
  struct catalog_view *view = view_effective(catalog, context, server_id, err);
  if (!view)
    return false;
  if (!policy_may(context, read_permissions[kind], NULL))
    return error_set(err, ERR_AUTH_PERMISSION_DENIED, NULL);
  bool ok = str_is_empty(cursor_text) || cursor_read(view, kind, cursor_text, &cursor, err);
  if (ok) {
    page_size = page_size == 0 ? CATALOG_PAGE_DEFAULT : page_size > CATALOG_PAGE_MAX ? CATALOG_PAGE_MAX : page_size;
    size_t at = cursor.text ? position_find(view, kind, &cursor) : 0;
    *next_cursor = page_visit(view, context, kind, at, page_size, visit, arg);
  }
  base_free(cursor.text);
  return ok;
}

bool catalog_result_check(const struct catalog_schema *output_schema, const void *structured_json, size_t length,
                          struct error *err) {
  if (length == 0)
    return error_set(err, ERR_INVOKE_RESULT, "the tool has an output schema, and its result no structured content");
  return catalog_schema_check_result(output_schema, structured_json, length, err);
}

bool catalog_arguments_check(const struct catalog_record *record, const char *arguments_json, size_t length,
                             struct error *err) {
  return catalog_schema_check(record->input_schema, arguments_json, length, err);
}

bool catalog_json_check(const char *schema_json, size_t schema_length, const char *json, size_t length,
                        struct error *err) {
  struct catalog_schema *schema = catalog_schema_compile(schema_json, schema_length, err);
  bool ok = schema && catalog_schema_check(schema, json, length, err);
  catalog_schema_free(&schema);
  return ok;
}

/* catalog_internal.h: what the files of core/catalog share.
 *
 * document.c    documents: JSON to messages and back          kinds.def   the table of kinds
 * validate.c    what a document may say; validate_http.c: URLs, headers, egress
 * credential.c  credentials: taken out, sealed, opened for a call
 * apply.c       requests checked as a whole; plan.c: the state that they would lead to; commit.c: memory follows the
 * store write.c       the queue of writes record.c      records made of documents and discoveries     definition.c
 * their MCP form discovered.c  what upstreams offer view.c        what each server shows, under which names     read.c
 * find, list, cursors schema.c      JSON Schema compiled; schema_check.c: applied; pattern.c: its regular expressions
 * changes.c     the change stream
 *
 * Ownership: the catalog owns documents (by key) and entries (by id). A declared entry borrows texts of its document, a
 * discovered one of its gateway's document; both are replaced together. */
#ifndef GATEHOUSE_CORE_CATALOG_INTERNAL_H
#define GATEHOUSE_CORE_CATALOG_INTERNAL_H

#include <sys/queue.h>

#include "core/catalog/catalog.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/id.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#include <uthash.h>
#pragma GCC diagnostic pop

#define CATALOG_MAGIC 0x43415447u
#define CATALOG_ROOM "catalog"

#define CATALOG_SPACE_DOCUMENTS "catalog.documents"   /* "<Kind>/<name>" -> document without credential */
#define CATALOG_SPACE_IDS "catalog.ids"               /* "<Kind>/<name>" -> record id */
#define CATALOG_SPACE_SECRETS "catalog.secrets"       /* "<record id>" -> sealed credential */
#define CATALOG_SPACE_DISCOVERED "catalog.discovered" /* "<gateway id>/<record id>" -> one line of JSON, definition */

#define CATALOG_DOCUMENT_MAX_BYTES (1u << 20)
#define CATALOG_REQUEST_DOCUMENTS_MAX 10000u
#define CATALOG_JSON_MAX_BYTES (256u << 10) /* a schema, a definition */
#define CATALOG_TIMEOUT_DEFAULT_MS 60000u
#define CATALOG_TIMEOUT_MAX_MS 600000u
#define CATALOG_GATEWAY_RECORDS_MAX 5000u
#define CATALOG_CHANGES_KEPT 8192u
#define CATALOG_PAGE_DEFAULT 100u
#define CATALOG_PAGE_MAX 1000u

struct catalog_span {
  const char *data;
  size_t length;
};

/* ---- documents ---- */

/* Rows of kinds.def. */
enum catalog_document_kind {
#define CATALOG_DOCUMENT_KIND(name, record, spec, validate) CATALOG_DOCUMENT_##name,
#include "core/catalog/kinds.def"
#undef CATALOG_DOCUMENT_KIND
  CATALOG_DOCUMENT_KIND_COUNT
};

struct catalog_document;
struct catalog_document_kind_row {
  const char *name;
  enum catalog_kind record_kind; /* NONE: the policy's */
  const ProtobufCMessageDescriptor *spec;
  bool (*validate)(const struct catalog_document *document, struct error *err);
};
extern const struct catalog_document_kind_row catalog_document_kinds[CATALOG_DOCUMENT_KIND_COUNT];
/* The row of a name; CATALOG_DOCUMENT_KIND_COUNT: unknown. */
enum catalog_document_kind catalog_document_kind_find(const char *name);

struct catalog_document {
  UT_hash_handle hh;
  char *key; /* "Tool/world_time" */
  enum catalog_document_kind kind;
  char id[ID_UUID_BYTES]; /* of its record; "" while it is not known */
  uint64_t revision;
  Core__Admin__V1__Metadata *metadata;
  ProtobufCMessage *spec;    /* credential values blanked; use the accessors below */
  char *text;                /* the whole document, without credential values: what is stored and exported */
  struct secret *credential; /* the credential as a packed message, only until it is sealed */
  struct buf sealed;         /* the credential sealed for id; empty: none */
};

/* Strict: unknown members, wrong types and anything its kind does not allow are errors (ERR_JSON_*, ERR_ARGUMENT_*,
 * ERR_CATALOG_INVALID, ERR_UNSUPPORTED). *kind and *name (owned) are told as far as they could be read, also on
 * failure. validated: false skips the rules, for what the store holds already. */
struct catalog_document *catalog_document_parse(const char *json, size_t length, bool validated, char **kind,
                                                char **name, struct error *err);
void catalog_document_free(struct catalog_document **document);
/* Paths such as "spec.rest.url" in which two documents differ, without credentials; visit gets them in order. */
typedef void catalog_path_visit(void *arg, const char *path);
void catalog_document_diff(const char *old_text, const char *new_text, catalog_path_visit *visit, void *arg);

const Core__Admin__V1__ToolSpec *catalog_tool_spec(const struct catalog_document *document);
const Core__Admin__V1__GatewaySpec *catalog_gateway_spec(const struct catalog_document *document);
const Core__Admin__V1__ServerSpec *catalog_server_spec(const struct catalog_document *document);
const Core__Admin__V1__ResourceSpec *catalog_resource_spec(const struct catalog_document *document);
const Core__Admin__V1__PromptSpec *catalog_prompt_spec(const struct catalog_document *document);
const Core__Admin__V1__UserSpec *catalog_user_spec(const struct catalog_document *document);
const Core__Admin__V1__RoleSpec *catalog_role_spec(const struct catalog_document *document);
enum policy_visibility catalog_document_visibility(const struct catalog_document *document);

/* Runs visit with the policy's view of a User or Role document. */
bool catalog_policy_user(const struct catalog_document *document,
                         bool (*visit)(void *arg, const struct policy_user *user, struct error *err), void *arg,
                         struct error *err);
bool catalog_policy_role(const struct catalog_document *document,
                         bool (*visit)(void *arg, const struct policy_role *role, struct error *err), void *arg,
                         struct error *err);

/* ---- rules ---- */

#define CATALOG_DOCUMENT_KIND(name, record, spec, validate)                                                            \
  bool validate(const struct catalog_document *document, struct error *err);
#include "core/catalog/kinds.def"
#undef CATALOG_DOCUMENT_KIND
/* A field is not as it has to be: sets ERR_CATALOG_INVALID, answers false. */
bool catalog_refuse(struct error *err, const char *field, const char *why);
bool catalog_validate_metadata(const struct catalog_document *document, struct error *err);
bool catalog_name_is_valid(const char *name); /* the rule of tool names */

/* An absolute http(s) URL, host and port spelled out, nothing secret in it. placeholder: told each {name} of path and
 * query, NULL: none is allowed. */
typedef bool catalog_placeholder_visit(void *arg, const char *name, size_t length, struct error *err);
bool catalog_url_check(const char *url, catalog_placeholder_visit *placeholder, void *arg, struct error *err);
bool catalog_egress_check(const Core__Common__V1__EgressPolicy *egress, struct error *err);
enum catalog_header_use {
  CATALOG_HEADER_STATIC,     /* sent always: no credentials */
  CATALOG_HEADER_MAPPED,     /* filled from arguments */
  CATALOG_HEADER_CREDENTIAL, /* holds one */
};
bool catalog_header_check(const char *name, const char *value, enum catalog_header_use use, struct error *err);
bool catalog_credential_check(const Core__Admin__V1__Credential *credential, struct error *err);

/* ---- credentials ---- */

Core__Admin__V1__Credential *catalog_credential_of(const struct catalog_document *document);
/* Moves the values from the spec into document->credential. */
void catalog_credential_take(struct catalog_document *document);
/* Fills empty values from what old has stored (old may be NULL). Error: ERR_CATALOG_INVALID (nothing stored). */
bool catalog_credential_merge(const struct secrets *secrets, struct catalog_document *document,
                              const struct catalog_document *old, struct error *err);
/* Whether both hold the same credential, or none. */
bool catalog_credential_equal(const struct secrets *secrets, const struct catalog_document *document,
                              const struct catalog_document *old);
/* Seals document->credential for document->id and forgets the plain form. */
bool catalog_credential_seal(const struct secrets *secrets, struct catalog_document *document, struct error *err);

/* ---- schemas ---- */

struct catalog_schema;
/* ERR_CATALOG_INVALID says what is wrong. */
struct catalog_schema *catalog_schema_compile(const char *json, size_t length, struct error *err);
void catalog_schema_free(struct catalog_schema **schema); /* when nobody holds it any more */
/* The JSON text against the schema (NULL: only that it is an object). ERR_INVOKE_ARGUMENTS, ERR_ARGUMENT_TOO_LARGE. */
bool catalog_schema_check(const struct catalog_schema *schema, const char *json, size_t length, struct error *err);
/* The same for a result, which may be any JSON value: ERR_INVOKE_RESULT. */
bool catalog_schema_check_result(const struct catalog_schema *schema, const char *json, size_t length,
                                 struct error *err);
/* Whether the schema's root names the property. */
bool catalog_schema_has_property(const struct catalog_schema *schema, const char *name, size_t length);

/* ---- records ---- */

struct catalog_entry {
  struct catalog_record record; /* first: handed out */
  UT_hash_handle hh;            /* by record.id */
  char id[ID_UUID_BYTES];
  const struct catalog_document *document; /* its own, or its gateway's */
  bool discovered;
  bool mark; /* free for the use of one function */
  struct catalog_schema *schema, *output;
  char *source; /* discovered: the definition as it was offered */
  size_t source_length;
  char *name, *original_name, *title, *description, *definition, *output_schema; /* owned where not borrowed */
};

struct catalog_entry *catalog_entry_declared(const struct catalog_document *document);
/* Takes a definition that catalog_definition_read accepted. */
struct catalog_entry *catalog_entry_discovered(const struct catalog_document *gateway, const char *id,
                                               uint64_t revision, enum catalog_kind kind, const char *original_name,
                                               const char *definition, size_t length);
/* Takes over what a changed gateway document says. */
void catalog_entry_inherit(struct catalog_entry *entry, const struct catalog_document *gateway);
void catalog_entry_free(struct catalog_entry **entry);
/* The record of a row of "catalog.discovered"; NULL: damaged. */
struct catalog_entry *catalog_discovered_load(struct catalog *catalog, const struct store_row *row);
/* A new id, greater than all before. */
void catalog_id_make(struct catalog *catalog, char target[static ID_UUID_BYTES]);
void catalog_id_seen(struct catalog *catalog, const char *id);

/* Builds the definition of a declared record. */
void catalog_definition_build(const struct catalog_document *document, struct buf *target);
/* Whether an upstream's definition is one JSON object whose only name (URI) is the given one. */
bool catalog_definition_read(enum catalog_kind kind, const char *name, const char *definition, size_t length,
                             struct error *err);
void catalog_definition_rename(enum catalog_kind kind, const char *definition, size_t length, const char *name,
                               struct buf *target);

/* ---- views ---- */

struct catalog_view_item {
  UT_hash_handle by_name, by_id;
  const struct catalog_entry *entry;
  const char *name; /* shown; "" when it had to be left out */
  char *owned_name;
};
#define CATALOG_KIND_LIMIT (CATALOG_KIND_ROOT + 1)
struct catalog_view {
  UT_hash_handle hh;
  char server_id[ID_UUID_BYTES]; /* "": the default one */
  struct catalog_view_item *items;
  size_t count;
  struct catalog_view_item *ids;
  struct {
    struct catalog_view_item *names;   /* by shown name */
    struct catalog_view_item **sorted; /* by shown name, then id */
    size_t count;
  } kinds[CATALOG_KIND_LIMIT];
};
/* server NULL: the default one. Valid until the next change of the catalog. */
struct catalog_view *catalog_view_get(struct catalog *catalog, const struct catalog_entry *server);
struct catalog_view_item *catalog_view_find(const struct catalog_view *view, enum catalog_kind kind, const char *name);
struct catalog_view_item *catalog_view_find_id(const struct catalog_view *view, const char *id);
void catalog_views_forget(struct catalog *catalog);

/* ---- the catalog ---- */

struct catalog_change {
  uint64_t revision;
  enum catalog_kind kind;
  bool deleted;
  char id[ID_UUID_BYTES];
};

struct catalog_watch {
  uint32_t magic;
  LIST_ENTRY(catalog_watch) entry;
  struct catalog *catalog;
  catalog_change_visit *visit;
  void *arg;
};

struct catalog_write;
/* What one kind of write does. */
struct catalog_write_steps {
  /* Checks against the present state and fills the batch, possibly with nothing. */
  void (*check)(struct catalog_write *write, struct store_batch *batch);
  /* Applies to memory what is stored (unless err) and tells the caller. revision: of the rows. */
  void (*finish)(struct catalog_write *write, uint64_t revision, const struct error *err);
  void (*free)(struct catalog_write *write);
};
/* First member of each write. */
struct catalog_write {
  TAILQ_ENTRY(catalog_write) entry;
  struct catalog *catalog; /* NULL: closed meanwhile */
  const struct catalog_write_steps *steps;
  bool changes; /* set by check when the batch is not empty */
};
void catalog_write_queue(struct catalog *catalog, const struct catalog_write_steps *steps, struct catalog_write *write);
void catalog_writes_abandon(struct catalog *catalog);

struct catalog {
  uint32_t magic;
  struct store *store;
  struct policy *policy;
  struct secrets *secrets;
  struct catalog_document *documents; /* by key */
  struct catalog_entry *entries;      /* by id */
  struct catalog_view *views;         /* by server id; forgotten at each change */
  uint64_t revision;
  uint64_t id_last_ms;
  uint32_t id_sequence;

  TAILQ_HEAD(, catalog_write) writes; /* waiting */
  struct catalog_write *writing;      /* in the store */

  struct catalog_change changes[CATALOG_CHANGES_KEPT]; /* ring */
  uint64_t change_count;                               /* ever; the last CATALOG_CHANGES_KEPT are kept */
  uint64_t changes_floor;                              /* every change after this revision is kept */
  LIST_HEAD(, catalog_watch) watches;
  struct catalog_watch *watch_next; /* while announcing */
};

struct catalog_document *catalog_document_find(const struct catalog *catalog, enum catalog_document_kind kind,
                                               const char *name);
struct catalog_entry *catalog_entry_find(const struct catalog *catalog, const char *id);
void catalog_entry_put(struct catalog *catalog, struct catalog_entry *entry);
void catalog_entry_drop(struct catalog *catalog, struct catalog_entry *entry);
/* Puts a stored document in the place of its older form: into memory, records and policy. */
void catalog_document_put(struct catalog *catalog, struct catalog_document *document);
void catalog_document_drop(struct catalog *catalog, struct catalog_document *document);

/* Between catalog_changes_begin and _end: note each; watches are told at the end. */
void catalog_change_note(struct catalog *catalog, uint64_t revision, enum catalog_kind kind, const char *id,
                         bool deleted);
void catalog_changes_announce(struct catalog *catalog, uint64_t revision, uint64_t from_count);

/* Batches. */
void catalog_batch_put(struct store_batch *batch, const struct catalog_document *document,
                       const struct catalog_document *old);
void catalog_batch_delete(struct catalog *catalog, struct store_batch *batch, const struct catalog_document *document);

#endif

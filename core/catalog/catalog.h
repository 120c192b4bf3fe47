/* catalog.h: the records of the gateway (SPI-5 to SPI-7, SPI-11) and the document engine behind `gatehouse apply`.
 *
 * Documents (core.admin.v1: kind, metadata, spec) are the truth that operators declare; records are what callers list
 * and invoke. A document of kind Tool makes one record; a Gateway document makes a gateway record, and what its
 * upstream offers becomes records of their own (catalog_discovered_apply). User, Team and Role documents go to the
 * policy room by the same road.
 *
 * One thread: the core thread. Writes are asynchronous and taken one after another: each is checked against what the
 * one before left, stored in one batch, then applied to memory and announced. Reads see what is stored.
 *
 * Names: what clients see is verbatim. Two records of one kind that a server would show under one name are told apart
 * by the gateway's name and "-" before the name of the later one (ids grow with time). A record that an operator
 * declared keeps its name whatever an upstream offers; what an upstream offers later takes no name that is in use.
 *
 * Pointers to records are valid until control returns to the loop. */
#ifndef GATEHOUSE_CORE_CATALOG_H
#define GATEHOUSE_CORE_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/policy/policy.h"
#include "core/secrets/secrets.h"
#include "core/store/store.h"
#include "sdk/base/buf.h"
#include "sdk/base/error.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"
#include "wire/pbc/core/admin/v1/resources.pb-c.h"
#include "wire/pbc/core/common/v1/common.pb-c.h"

struct catalog;

/* Kinds, numbered as core.common.v1.EntityKind. */
enum catalog_kind {
  CATALOG_KIND_NONE = 0,
  CATALOG_KIND_TOOL = 1,
  CATALOG_KIND_RESOURCE = 2,
  CATALOG_KIND_PROMPT = 3,
  CATALOG_KIND_AGENT = 4,
  CATALOG_KIND_SERVER = 5,
  CATALOG_KIND_GATEWAY = 6,
  CATALOG_KIND_PROVIDER = 7,
  CATALOG_KIND_MODEL = 8,
  CATALOG_KIND_ROOT = 9,
};

/* A record. Texts are never NULL. Borrowed; see the head of the file. */
struct catalog_record {
  enum catalog_kind kind;
  const char *id;   /* stable, opaque */
  const char *name; /* verbatim name (resources: the URI) */
  const char *title;
  const char *description;
  const char *team_id;
  const char *owner_email;
  enum policy_visibility visibility;
  bool enabled;
  uint64_t revision;
  const char *owner_family;    /* family of the module that carries out its calls: "rest-grpc", "mcp"; "" for none */
  const char *gateway_id;      /* record id of the gateway it comes from; "" for none */
  const char *original_name;   /* its name at the upstream; "" when its own */
  const char *definition_json; /* the protocol's own form, byte for byte (for MCP: Tool, Resource, Prompt) */
  size_t definition_length;
  const struct catalog_schema *input_schema;  /* compiled; NULL: any object */
  const char *output_schema_json;             /* "" for none */
  const struct catalog_schema *output_schema; /* compiled; NULL: results are not checked */
  bool repeatable; /* an operator says that twice is as once (readOnlyHint, idempotentHint); upstreams are not believed
                    */
  uint32_t timeout_ms;                           /* of one call; never 0 */
  uint32_t rate_limit_per_minute;                /* 0: none */
  const Core__Admin__V1__RestSpec *rest;         /* REST tools, without credential values; else NULL */
  const Core__Admin__V1__GatewaySpec *gateway;   /* gateway records and records of a gateway; else NULL */
  const Core__Admin__V1__ResourceSpec *resource; /* resources with content of their own; else NULL */
  const Core__Admin__V1__PromptSpec *prompt;     /* prompts with messages of their own; else NULL */
};

/* All borrowed, and longer lived than the catalog. */
struct catalog_options {
  struct store *store;
  struct policy *policy;
  struct secrets *secrets;
};

/* Loads everything from the store and puts users, teams and roles into the policy (blocks; start-up only). Errors:
 * ERR_STORE_*; ERR_STORE_CORRUPT for a row that cannot be understood. */
struct catalog *catalog_open(const struct catalog_options *options, struct error *err);
/* NULL-safe, nulls. Writes that have not ended are told ERR_UNAVAILABLE; one that the store has already may still be
 * stored. The store may be closed before or after. */
void catalog_close(struct catalog **catalog);

/* Of the store when the catalog changed last, or when it was opened: what its readers compare, no count of changes. */
uint64_t catalog_revision(const struct catalog *catalog);
size_t catalog_record_count(const struct catalog *catalog);

/* ---- reads: visibility first, then permission (SPI-5) ---- */

/* One record by id, or by kind and name within the effective server (server_id: id or name of a server record; NULL or
 * "": the server that the context is limited to, else the default one, which holds every enabled record; a context that
 * is limited to a server finds nothing in another one). Visible to the caller, or ERR_CATALOG_NOT_FOUND as if it
 * did not exist; permission (NULL: none) lacking: ERR_AUTH_PERMISSION_DENIED. A server that is not visible is
 * ERR_CATALOG_NOT_FOUND too. */
const struct catalog_record *catalog_find(struct catalog *catalog, const struct policy_context *context,
                                          enum catalog_kind kind, const char *id, const char *name,
                                          const char *server_id, const char *permission, struct error *err);

/* A record by id without any check: for the core's own use. NULL: none. */
const struct catalog_record *catalog_record_by_id(struct catalog *catalog, const char *record_id);

/* Visits the records of a kind that the caller may see and read, in name order, after the cursor (NULL or "": from the
 * start), page_size at most (0: 100, at most 1000). shown_name: the name within that server. *next_cursor (caller frees
 * with base_free) is NULL at the end. Cursors are opaque, bound to kind and server, survive changes of the catalog.
 * Errors: ERR_CATALOG_CURSOR, ERR_CATALOG_NOT_FOUND (server), ERR_AUTH_PERMISSION_DENIED (<kind>s.read). */
typedef void catalog_visit(void *arg, const struct catalog_record *record, const char *shown_name);
bool catalog_list(struct catalog *catalog, const struct policy_context *context, enum catalog_kind kind,
                  const char *server_id, uint32_t page_size, const char *cursor, catalog_visit *visit, void *arg,
                  char **next_cursor, struct error *err);

/* Appends the record's definition under the name that it is shown by: the bytes as they are, only the name replaced. */
void catalog_definition_write(const struct catalog_record *record, const char *shown_name, struct buf *target);

/* All enabled gateways, for discovery. */
void catalog_gateways(struct catalog *catalog, catalog_visit *visit, void *arg);

/* The headers that one call to this record's upstream needs: its static headers and its credential, opened for this
 * call. Appended to *headers (array and texts from base_alloc; wiped and freed by catalog_headers_free). */
struct catalog_headers {
  size_t count;
  struct {
    char *name;
    char *value;
  } * items;
};
bool catalog_call_headers(struct catalog *catalog, const struct catalog_record *record, struct catalog_headers *headers,
                          struct error *err);
void catalog_headers_free(struct catalog_headers *headers);

/* Arguments against the record's input schema: one JSON object. ERR_INVOKE_ARGUMENTS names the place and the rule (JSON
 * Schema 2020-12: type, properties, patternProperties, propertyNames, required, dependentRequired,
 * additionalProperties, prefixItems, items, contains, enum, const, bounds, pattern, allOf/anyOf/oneOf/not,
 * if/then/else, local $ref; other keywords are annotations). A schema that would cost too much for these arguments
 * refuses them. */
bool catalog_arguments_check(const struct catalog_record *record, const char *arguments_json, size_t length,
                             struct error *err);

/* Any JSON object against any schema, once. ERR_INVOKE_ARGUMENTS as above, which says nothing of values;
 * ERR_CATALOG_INVALID: the schema cannot be compiled. */
bool catalog_json_check(const char *schema_json, size_t schema_length, const char *json, size_t length,
                        struct error *err);
/* The structured content of a result (length 0: none) against the output schema that its record had when the call
 * began. ERR_INVOKE_RESULT names the place and the rule. */
bool catalog_result_check(const struct catalog_schema *output_schema, const void *structured_json, size_t length,
                          struct error *err);
/* For a call that outlives its record's state. */
const struct catalog_schema *catalog_schema_hold(const struct catalog_schema *schema); /* NULL-safe */
void catalog_schema_release(const struct catalog_schema **schema);                     /* NULL-safe, nulls */

/* ---- writes ---- */

/* Carries out an ApplyRequest whole or not at all; done is called once on the core thread, never from inside this
 * function, and must not close the catalog. The request is not needed after the call. response is valid during done;
 * it is NULL when err says that the store failed.
 *
 * A credential with empty values keeps the values that are stored; where there are none the document is refused. */
typedef void catalog_apply_done(void *arg, const Core__Admin__V1__ApplyResponse *response, const struct error *err);
void catalog_apply(struct catalog *catalog, const Core__Admin__V1__ApplyRequest *request, catalog_apply_done *done,
                   void *arg);

/* Documents as JSON, one call per document, in an order that applies cleanly; credentials with empty values, so that
 * applying them again here changes nothing. kinds: NULL or none: all. False: ERR_ARGUMENT_INVALID, a kind that is not
 * known, and nothing was visited. */
typedef void catalog_export_visit(void *arg, const char *document_json, size_t length);
bool catalog_export(struct catalog *catalog, char **kinds, size_t kind_count, catalog_export_visit *visit, void *arg,
                    struct error *err);

/* Deletes one document and what depends on it alone (a gateway's records). Errors in done: ERR_ARGUMENT_INVALID (kind),
 * ERR_CATALOG_NOT_FOUND, ERR_CATALOG_IN_USE (another document names it), ERR_STORE_*. */
typedef void catalog_write_done(void *arg, uint64_t revision, const struct error *err);
void catalog_delete(struct catalog *catalog, const char *kind, const char *name, catalog_write_done *done, void *arg);

/* What an upstream offers now: creates, changes and deletes the records of this gateway so that they match. They
 * inherit visibility, team and owner of the gateway document. Unchanged content writes nothing. Definitions that break
 * the limits (name 1–128 bytes, URI 2048, size 256 KiB, depth 64, 5000 records a gateway, the name in the definition)
 * are left out and logged; one whose schema cannot be compiled is kept and its arguments are not checked. Error in
 * done: ERR_CATALOG_NOT_FOUND (gateway), ERR_STORE_*. */
struct catalog_discovered {
  enum catalog_kind kind;
  const char *original_name;
  const char *definition_json;
  size_t definition_length;
};
typedef void catalog_discovered_done(void *arg, uint32_t created, uint32_t updated, uint32_t deleted,
                                     const struct error *err);
void catalog_discovered_apply(struct catalog *catalog, const char *gateway_id, const struct catalog_discovered *items,
                              size_t count, catalog_discovered_done *done, void *arg);

/* ---- change stream (SPI-11) ---- */

/* Called on the core thread after each stored change: once per record, then once with record_id NULL: the revision is
 * complete. */
typedef void catalog_change_visit(void *arg, uint64_t revision, enum catalog_kind kind, const char *record_id,
                                  bool deleted);
struct catalog_watch;
struct catalog_watch *catalog_watch_start(struct catalog *catalog, catalog_change_visit *visit, void *arg);
void catalog_watch_stop(struct catalog_watch **watch);
/* Replays the changes after a revision to visit (latest state of each record). False: ERR_CATALOG_REVISION_GONE. */
bool catalog_changes_since(struct catalog *catalog, uint64_t after_revision, catalog_change_visit *visit, void *arg,
                           struct error *err);

#endif

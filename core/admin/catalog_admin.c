/* catalog_admin.c: CatalogAdminService: documents in, documents out. */
#include <string.h>

#include "core/admin/admin_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"

/* A write that is answered when it is stored. */
struct write {
  struct admin *admin;
  struct core_rpc_call *call;
  char target[128];
};

static struct write *write_create(const struct admin_call *call, const char *kind, const char *name) {
  struct write *write = BASE_NEW(struct write);
  write->admin = call->admin;
  write->call = call->call;
  if (kind) {
    str_copy(write->target, sizeof(write->target), kind);
    size_t used = strlen(write->target);
    if (used + 1 < sizeof(write->target)) {
      write->target[used] = '/';
      str_copy(write->target + used + 1, sizeof(write->target) - used - 1, name);
    }
  }
  return write;
}

static void applied(void *arg, const Core__Admin__V1__ApplyResponse *response, const struct error *err) {
  struct write *write = arg;
  if (err) {
    admin_audit(write->admin, "catalog.applied", "", err);
    core_rpc_call_fail(write->call, err);
  } else {
    if (response->applied)
      admin_audit(write->admin, "catalog.applied", "", NULL);
    core_rpc_call_reply_message(write->call, &response->base);
  }
  base_free(write);
}

void admin_apply(const struct admin_call *call) {
  catalog_apply(call->admin->options.catalog, (const void *)call->request, applied, write_create(call, NULL, NULL));
}

static void deleted(void *arg, uint64_t revision, const struct error *err) {
  struct write *write = arg;
  admin_audit(write->admin, "catalog.deleted", write->target, err);
  if (err) {
    core_rpc_call_fail(write->call, err);
  } else {
    Core__Admin__V1__DeleteResponse response = CORE__ADMIN__V1__DELETE_RESPONSE__INIT;
    response.revision = revision;
    core_rpc_call_reply_message(write->call, &response.base);
  }
  base_free(write);
}

void admin_delete(const struct admin_call *call) {
  const Core__Admin__V1__DeleteRequest *request = (const void *)call->request;
  catalog_delete(call->admin->options.catalog, request->kind, request->name, deleted,
                 write_create(call, request->kind, request->name));
}

static void refreshed(void *arg, uint32_t created, uint32_t updated, uint32_t deleted_count, const struct error *err) {
  struct write *write = arg;
  if (err) {
    core_rpc_call_fail(write->call, err);
  } else {
    Core__Admin__V1__RefreshGatewayResponse response = CORE__ADMIN__V1__REFRESH_GATEWAY_RESPONSE__INIT;
    response.created = created;
    response.updated = updated;
    response.deleted = deleted_count;
    core_rpc_call_reply_message(write->call, &response.base);
  }
  base_free(write);
}

void admin_refresh_gateway(const struct admin_call *call) {
  const Core__Admin__V1__RefreshGatewayRequest *request = (const void *)call->request;
  dispatch_refresh_gateways(call->admin->options.dispatch, admin_text_or_null(request->name), refreshed,
                            write_create(call, NULL, NULL));
}

/* ---- Export: the documents are gathered at once, and sent as the client reads ---- */

struct export_stream {
  struct core_rpc_call *call;
  size_t count, capacity, sent;
  struct export_document {
    char *json;
    size_t length;
  } * documents;
};

static void export_gather(void *arg, const char *document_json, size_t length) {
  struct export_stream *stream = arg;
  if (stream->count == stream->capacity) {
    stream->capacity = stream->capacity ? 2 * stream->capacity : 64;
    stream->documents = base_realloc_array(stream->documents, stream->capacity, sizeof(*stream->documents));
  }
  stream->documents[stream->count++] = (struct export_document){base_memdup(document_json, length), length};
}

static void export_continue(struct core_rpc_call *call, void *user) {
  struct export_stream *stream = user;
  while (stream->sent < stream->count) {
    Core__Admin__V1__Document document = CORE__ADMIN__V1__DOCUMENT__INIT;
    document.document_json.data = (uint8_t *)stream->documents[stream->sent].json;
    document.document_json.len = stream->documents[stream->sent].length;
    if (!core_rpc_call_send_message(call, &document.base))
      return; /* on_writable or on_cancel follows */
    stream->sent++;
  }
  core_rpc_call_finish(call);
}

static void export_cancelled(struct core_rpc_call *call, void *user) {
  (void)user;
  core_rpc_call_finish(call);
}

static void export_freed(void *user) {
  struct export_stream *stream = user;
  for (size_t i = 0; i < stream->count; i++)
    base_free(stream->documents[i].json);
  base_free(stream->documents);
  base_free(stream);
}

void admin_export(const struct admin_call *call) {
  static const struct core_rpc_call_events events = {
      .on_cancel = export_cancelled, .on_writable = export_continue, .on_free = export_freed};
  const Core__Admin__V1__ExportRequest *request = (const void *)call->request;
  struct export_stream *stream = BASE_NEW(struct export_stream);
  stream->call = call->call;
  struct error err = {0};
  core_rpc_call_events_set(call->call, &events, stream);
  if (catalog_export(call->admin->options.catalog, request->kinds, request->n_kinds, export_gather, stream, &err))
    export_continue(call->call, stream);
  else
    core_rpc_call_fail(call->call, &err);
}

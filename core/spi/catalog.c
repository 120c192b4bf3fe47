/* catalog.c: CatalogService but Watch: translation only; catalog and dispatch decide. */
#include <string.h>

#include "core/spi/spi_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/arena.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/spi/catalog/v1/catalog.pb-c.h"

/* A record as a module may know it; texts stay the catalog's, the definition is written into the arena under its shown
 * name. */
static void record_fill(const struct spi_call *call, const struct catalog_record *record, const char *shown_name,
                        struct arena *arena, Core__Spi__Catalog__V1__Record *out) {
  struct buf definition = {0};
  core__spi__catalog__v1__record__init(out);
  Core__Common__V1__RecordReference *reference = arena_alloc(arena, sizeof(*reference));
  core__common__v1__record_reference__init(reference);
  reference->kind = (Core__Common__V1__EntityKind)record->kind;
  reference->id = spi_text(record->id);
  reference->name = spi_text(shown_name);
  out->reference = reference;
  out->title = spi_text(record->title);
  out->description = spi_text(record->description);
  out->visibility = (Core__Common__V1__Visibility)record->visibility;
  out->team_id = spi_text(record->team_id);
  if (str_equal(shown_name, record->name)) {
    out->definition_json.data = (uint8_t *)(uintptr_t)record->definition_json;
    out->definition_json.len = record->definition_length;
  } else {
    catalog_definition_write(record, shown_name, &definition);
    out->definition_json.data = arena_memdup(arena, definition.data, definition.length);
    out->definition_json.len = definition.length;
    buf_free(&definition);
  }
  out->owner_family = spi_text(record->owner_family);
  out->gateway_id = spi_text(record->gateway_id);
  out->revision = record->revision;
  out->plan_eligible =
      str_equal(record->owner_family, lifecycle_instance_family(call->instance)) && !record->output_schema;
}

struct list_state {
  const struct spi_call *call;
  struct arena *arena;
  size_t count, capacity;
  Core__Spi__Catalog__V1__Record **records;
};

static void list_visit(void *arg, const struct catalog_record *record, const char *shown_name) {
  struct list_state *state = arg;
  if (state->count == state->capacity) {
    state->capacity = state->capacity ? 2 * state->capacity : 64;
    state->records = base_realloc_array(state->records, state->capacity, sizeof(*state->records));
  }
  state->records[state->count] = arena_alloc(state->arena, sizeof(**state->records));
  record_fill(state->call, record, shown_name, state->arena, state->records[state->count++]);
}

void spi_catalog_list(const struct spi_call *call) {
  const Core__Spi__Catalog__V1__ListRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  struct error err = {0};
  char *next_cursor = NULL;
  if (!context)
    return;
  struct list_state state = {.call = call, .arena = arena_create(0)};
  if (catalog_list(call->spi->options.catalog, context, (enum catalog_kind)request->kind, request->server_id,
                   request->page_size, request->cursor, list_visit, &state, &next_cursor, &err)) {
    Core__Spi__Catalog__V1__ListResponse response = CORE__SPI__CATALOG__V1__LIST_RESPONSE__INIT;
    Core__Common__V1__Lease lease;
    spi_lease_fill(call->spi, context, &lease);
    response.n_records = state.count;
    response.records = state.records;
    response.next_cursor = spi_text(next_cursor);
    response.lease = &lease;
    core_rpc_call_reply_message(call->call, &response.base);
  } else {
    core_rpc_call_fail(call->call, &err);
  }
  base_free(next_cursor);
  base_free(state.records);
  arena_free(&state.arena);
}

void spi_catalog_get(const struct spi_call *call) {
  const Core__Spi__Catalog__V1__GetRequest *request = (const void *)call->request;
  const struct policy_context *context = spi_caller_or_fail(call, request->caller);
  static const char *const read_permissions[] = {
      [CATALOG_KIND_TOOL] = "tools.read",     [CATALOG_KIND_RESOURCE] = "resources.read",
      [CATALOG_KIND_PROMPT] = "prompts.read", [CATALOG_KIND_AGENT] = "agents.read",
      [CATALOG_KIND_SERVER] = "servers.read", [CATALOG_KIND_GATEWAY] = "gateways.read",
      [CATALOG_KIND_MODEL] = "models.read",
  };
  struct error err = {0};
  if (!context)
    return;
  size_t kind = request->target ? (size_t)request->target->kind : 0;
  if (kind >= sizeof(read_permissions) / sizeof(read_permissions[0]) || !read_permissions[kind]) {
    core_rpc_call_fail_code(call->call, ERR_ARGUMENT_INVALID);
    return;
  }
  const struct catalog_record *record =
      catalog_find(call->spi->options.catalog, context, (enum catalog_kind)kind, spi_text_or_null(request->target->id),
                   spi_text_or_null(request->target->name), request->server_id, read_permissions[kind], &err);
  if (!record) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  Core__Spi__Catalog__V1__GetResponse response = CORE__SPI__CATALOG__V1__GET_RESPONSE__INIT;
  Core__Spi__Catalog__V1__Record out;
  Core__Common__V1__Lease lease;
  struct arena *arena = arena_create(0);
  const char *asked = request->target->name;
  record_fill(call, record, str_is_empty(asked) ? record->name : asked, arena, &out);
  spi_lease_fill(call->spi, context, &lease);
  response.record = &out;
  response.lease = &lease;
  core_rpc_call_reply_message(call->call, &response.base);
  arena_free(&arena);
}

/* ---- Invoke ---- */

/* Who asks, for dispatch. These two answer the error themselves. */
static bool dispatch_caller_fill(const struct spi_call *call, const Core__Common__V1__CallerContext *reference,
                                 struct dispatch_caller *caller) {
  *caller = (struct dispatch_caller){.module_id = lifecycle_instance_module_id(call->instance),
                                     .family = lifecycle_instance_family(call->instance),
                                     .context = spi_caller_or_fail(call, reference)};
  return caller->context != NULL;
}

static bool invocation_caller(const struct spi_call *call, const Core__Common__V1__InvocationEnvelope *invocation,
                              struct dispatch_caller *caller) {
  if (invocation)
    return dispatch_caller_fill(call, invocation->caller, caller);
  core_rpc_call_fail_code(call->call, ERR_ARGUMENT_MISSING);
  return false;
}

/* One Invoke of a module under way: joins the SPI stream and the invocation; lives as long as the call. */
struct invoke_stream {
  struct core_rpc_call *call;             /* NULL: ended towards the module */
  struct dispatch_invocation *invocation; /* NULL: done */
  void *waiting;                          /* the item that found no room; nothing is read behind it */
  size_t waiting_length;
};

static bool invoke_item(void *arg, const void *item_bytes, size_t length) {
  struct invoke_stream *stream = arg;
  if (!core_rpc_call_send(stream->call, item_bytes, length) && !core_rpc_call_is_cancelled(stream->call)) {
    stream->waiting = base_memdup(item_bytes, length);
    stream->waiting_length = length;
    return false;
  }
  return core_rpc_call_is_writable(stream->call); /* of a cancelled one nothing more is read; on_cancel ends it */
}

static void invoke_result(void *arg, const void *item_bytes, size_t length) {
  struct invoke_stream *stream = arg;
  stream->invocation = NULL;
  core_rpc_call_finish_with(BASE_TAKE(stream->call), item_bytes, length);
}

static void invoke_failed(void *arg, const struct error *err) {
  struct invoke_stream *stream = arg;
  stream->invocation = NULL;
  core_rpc_call_fail(BASE_TAKE(stream->call), err);
}

static void invoke_writable(struct core_rpc_call *call, void *user) {
  struct invoke_stream *stream = user;
  if (!stream->invocation || (stream->waiting && !core_rpc_call_send(call, stream->waiting, stream->waiting_length)))
    return; /* on_writable or on_cancel follows */
  base_free(BASE_TAKE(stream->waiting));
  if (core_rpc_call_is_writable(call))
    dispatch_invocation_resume(stream->invocation);
}

static void invoke_cancelled(struct core_rpc_call *call, void *user) {
  struct invoke_stream *stream = user;
  if (stream->invocation)
    dispatch_invocation_cancel(BASE_TAKE(stream->invocation));
  if (stream->call) {
    stream->call = NULL;
    core_rpc_call_finish(call);
  }
}

static void invoke_freed(void *user) {
  struct invoke_stream *stream = user;
  base_free(stream->waiting);
  base_free(stream);
}

void spi_catalog_invoke(const struct spi_call *call) {
  static const struct core_rpc_call_events events = {
      .on_cancel = invoke_cancelled, .on_writable = invoke_writable, .on_free = invoke_freed};
  static const struct dispatch_sink sink = {
      .on_item = invoke_item, .on_result = invoke_result, .on_failed = invoke_failed};
  const Core__Spi__Catalog__V1__InvokeRequest *request = (const void *)call->request;
  struct error err = {0};
  struct dispatch_caller caller;
  if (!invocation_caller(call, request->invocation, &caller))
    return;
  struct invoke_stream *stream = BASE_NEW(struct invoke_stream);
  stream->call = call->call;
  core_rpc_call_events_set(call->call, &events, stream);
  stream->invocation = dispatch_invoke(call->spi->options.dispatch, &caller, request->invocation,
                                       core_rpc_call_remaining_ms(call->call), &sink, stream, &err);
  if (!stream->invocation) {
    stream->call = NULL;
    core_rpc_call_fail(call->call, &err);
  }
}

static void answered(void *arg, const struct error *err) {
  Core__Common__V1__AnswerRequestResponse response = CORE__COMMON__V1__ANSWER_REQUEST_RESPONSE__INIT;
  if (err)
    core_rpc_call_fail(arg, err);
  else
    core_rpc_call_reply_message(arg, &response.base);
}

void spi_catalog_answer_request(const struct spi_call *call) {
  const Core__Common__V1__AnswerRequestRequest *request = (const void *)call->request;
  struct dispatch_caller caller;
  struct error err = {0};
  if (!dispatch_caller_fill(call, request->caller, &caller))
    return;
  if (!dispatch_answer(call->spi->options.dispatch, &caller, request, answered, call->call, &err))
    core_rpc_call_fail(call->call, &err);
}

/* ---- the fast path ---- */

static void prepared(void *arg, const Core__Spi__Catalog__V1__PrepareInvokeResponse *response) {
  core_rpc_call_reply_message(arg, &response->base);
}

void spi_catalog_prepare_invoke(const struct spi_call *call) {
  const Core__Spi__Catalog__V1__PrepareInvokeRequest *request = (const void *)call->request;
  struct error err = {0};
  struct dispatch_caller caller;
  if (!invocation_caller(call, request->invocation, &caller))
    return;
  /* The deadline of this call is not the invocation's: the plan outlives it. */
  if (!dispatch_prepare(call->spi->options.dispatch, &caller, request->invocation, INT64_MAX, prepared, call->call,
                        &err))
    core_rpc_call_fail(call->call, &err);
}

void spi_catalog_report_invoke(const struct spi_call *call) {
  const Core__Spi__Catalog__V1__ReportInvokeRequest *request = (const void *)call->request;
  const struct dispatch_caller caller = {.module_id = lifecycle_instance_module_id(call->instance),
                                         .family = lifecycle_instance_family(call->instance)};
  Core__Spi__Catalog__V1__ReportInvokeResponse response = CORE__SPI__CATALOG__V1__REPORT_INVOKE_RESPONSE__INIT;
  response.unknown_plan_ids = base_calloc(request->n_reports + 1, sizeof(char *));
  for (size_t i = 0; i < request->n_reports; i++)
    if (!dispatch_report(call->spi->options.dispatch, &caller, request->reports[i]))
      response.unknown_plan_ids[response.n_unknown_plan_ids++] = request->reports[i]->plan_id;
  core_rpc_call_reply_message(call->call, &response.base);
  base_free(response.unknown_plan_ids);
}

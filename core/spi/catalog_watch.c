/* catalog_watch.c: CatalogService.Watch: changes of records and revocations of contexts, pushed to the modules that
 * watch (SPI-11, BND-6). A watcher that does not keep up is not fed from a growing queue: it gets a snapshot marker
 * when it reads again. */
#include <string.h>

#include "core/spi/spi_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/str.h"
#include "wire/pbc/core/spi/catalog/v1/catalog.pb-c.h"

struct spi_watcher {
  LIST_ENTRY(spi_watcher) entry;
  struct spi *spi;
  struct core_rpc_call *call;
  char module_id[32];
  uint32_t kinds; /* bits; 0: all */
  bool behind;    /* something was dropped: a snapshot marker is due */
};

static void event_send(struct spi_watcher *watcher, Core__Spi__Catalog__V1__WatchEvent *event) {
  if (!watcher->behind && !core_rpc_call_send_message(watcher->call, &event->base))
    watcher->behind = true;
}

static void snapshot_send(struct spi_watcher *watcher) {
  Core__Spi__Catalog__V1__WatchEvent event = CORE__SPI__CATALOG__V1__WATCH_EVENT__INIT;
  Core__Spi__Catalog__V1__SnapshotMarker snapshot = CORE__SPI__CATALOG__V1__SNAPSHOT_MARKER__INIT;
  event.revision = catalog_revision(watcher->spi->options.catalog);
  event.event_case = CORE__SPI__CATALOG__V1__WATCH_EVENT__EVENT_SNAPSHOT;
  event.snapshot = &snapshot;
  watcher->behind = false;
  event_send(watcher, &event);
}

static void change_send(void *arg, uint64_t revision, enum catalog_kind kind, const char *record_id, bool deleted) {
  struct spi_watcher *watcher = arg;
  Core__Spi__Catalog__V1__WatchEvent event = CORE__SPI__CATALOG__V1__WATCH_EVENT__INIT;
  Core__Spi__Catalog__V1__RecordChanged record = CORE__SPI__CATALOG__V1__RECORD_CHANGED__INIT;
  if (!record_id || (watcher->kinds && !(watcher->kinds & (1u << kind))))
    return;
  record.kind = (Core__Common__V1__EntityKind)kind;
  record.record_id = spi_text(record_id);
  record.deleted = deleted;
  event.revision = revision;
  event.event_case = CORE__SPI__CATALOG__V1__WATCH_EVENT__EVENT_RECORD;
  event.record = &record;
  event_send(watcher, &event);
}

static void on_change(void *arg, uint64_t revision, enum catalog_kind kind, const char *record_id, bool deleted) {
  struct spi *spi = arg;
  struct spi_watcher *watcher;
  LIST_FOREACH(watcher, &spi->watchers, entry)
  change_send(watcher, revision, kind, record_id, deleted);
}

static void on_revoked(void *arg, const char *module_id, const char *const *references, size_t count) {
  struct spi *spi = arg;
  struct spi_watcher *watcher;
  Core__Spi__Catalog__V1__WatchEvent event = CORE__SPI__CATALOG__V1__WATCH_EVENT__INIT;
  Core__Spi__Catalog__V1__ContextsRevoked revoked = CORE__SPI__CATALOG__V1__CONTEXTS_REVOKED__INIT;
  revoked.n_references = count;
  revoked.references = (char **)(uintptr_t)references;
  event.revision = catalog_revision(spi->options.catalog);
  event.event_case = CORE__SPI__CATALOG__V1__WATCH_EVENT__EVENT_REVOKED;
  event.revoked = &revoked;
  LIST_FOREACH(watcher, &spi->watchers, entry)
  if (str_equal(watcher->module_id, module_id))
    event_send(watcher, &event);
}

/* ---- the stream ---- */

static void watch_writable(struct core_rpc_call *call, void *user) {
  struct spi_watcher *watcher = user;
  (void)call;
  if (watcher->behind)
    snapshot_send(watcher);
}

static void watch_cancelled(struct core_rpc_call *call, void *user) {
  struct spi_watcher *watcher = user;
  LIST_REMOVE(watcher, entry);
  core_rpc_call_finish(call);
}

/* The core leaves: whoever watches asks the next one, and does not keep this one from ending. */
static void watch_drained(struct core_rpc_call *call, void *user) {
  struct spi_watcher *watcher = user;
  LIST_REMOVE(watcher, entry);
  core_rpc_call_fail_code(call, ERR_UNAVAILABLE);
}

static void watch_freed(void *user) {
  base_free(user);
}

void spi_catalog_watch(const struct spi_call *call) {
  static const struct core_rpc_call_events events = {
      .on_cancel = watch_cancelled, .on_writable = watch_writable, .on_drain = watch_drained, .on_free = watch_freed};
  const Core__Spi__Catalog__V1__WatchRequest *request = (const void *)call->request;
  struct error err = {0};
  struct spi_watcher *watcher = BASE_NEW(struct spi_watcher);
  watcher->spi = call->spi;
  watcher->call = call->call;
  str_copy(watcher->module_id, sizeof(watcher->module_id), lifecycle_instance_module_id(call->instance));
  for (size_t i = 0; i < request->n_kinds; i++)
    if (request->kinds[i] > 0 && request->kinds[i] < 32)
      watcher->kinds |= 1u << request->kinds[i];
  core_rpc_call_events_set(call->call, &events, watcher);
  LIST_INSERT_HEAD(&call->spi->watchers, watcher, entry);
  if (request->after_revision == 0 ||
      !catalog_changes_since(call->spi->options.catalog, request->after_revision, change_send, watcher, &err))
    snapshot_send(watcher);
}

void spi_watchers_start(struct spi *spi) {
  spi->catalog_watch = catalog_watch_start(spi->options.catalog, on_change, spi);
  policy_listen(spi->options.policy, on_revoked, spi);
}

void spi_watchers_stop(struct spi *spi) {
  catalog_watch_stop(&spi->catalog_watch);
  policy_listen(spi->options.policy, NULL, NULL);
}

/* spi_internal.h: what the files of core/spi share. Core thread only. */
#ifndef GATEHOUSE_CORE_SPI_INTERNAL_H
#define GATEHOUSE_CORE_SPI_INTERNAL_H

#include <protobuf-c/protobuf-c.h>
#include <sys/queue.h>

#include "core/rpc/core_rpc_pbc.h"
#include "core/spi/spi.h"
#include "sdk/base/arena.h"
#include "wire/pbc/core/common/v1/common.pb-c.h"

#define SPI_MAGIC 0x53504943u

struct spi_watcher;
LIST_HEAD(spi_watcher_list, spi_watcher);

struct spi {
  uint32_t magic;
  struct spi_options options;
  struct arena *arena; /* of the request that is handled now */
  struct spi_watcher_list watchers;
  struct catalog_watch *catalog_watch;
};

/* One call that passed the allow-list. request is unpacked and freed after the handler returns. Borrowed for the
 * handler. */
struct spi_call {
  struct spi *spi;
  struct core_rpc_call *call;
  const struct lifecycle_instance *instance;
  const ProtobufCMessage *request;
};
typedef void spi_handler(const struct spi_call *call);

/* Every handler of the table. */
spi_handler spi_auth_resolve_caller, spi_auth_check_permission, spi_auth_check_catalog_access,
    spi_auth_validate_session_binding, spi_catalog_list, spi_catalog_get, spi_catalog_invoke,
    spi_catalog_prepare_invoke, spi_catalog_report_invoke, spi_catalog_answer_request, spi_catalog_watch,
    spi_plugin_describe_hooks, spi_session_create, spi_session_get, spi_session_validate_owner,
    spi_session_append_event, spi_session_replay_events, spi_session_delete, spi_session_touch, spi_config_get,
    spi_config_watch, spi_observability_emit_logs, spi_observability_publish_metrics, spi_observability_emit_audit,
    spi_observability_get_metrics, spi_psg_get_node, spi_psg_put_node, spi_psg_delete_node, spi_psg_get_edges,
    spi_psg_add_edge, spi_psg_remove_edge, spi_psg_query, spi_psg_traverse, spi_psg_emit_event, spi_psg_get_state_hash;

/* The caller of a request (SPI-3): by its reference, bound to the module. A full context is looked up by the reference
 * in it and must agree with what is kept. NULL: ERR_AUTH_CONTEXT_EXPIRED, or ERR_ARGUMENT_MISSING. */
const struct policy_context *spi_caller(const struct spi_call *call, const Core__Common__V1__CallerContext *caller,
                                        struct error *err);
/* The same, answering the error itself. */
const struct policy_context *spi_caller_or_fail(const struct spi_call *call,
                                                const Core__Common__V1__CallerContext *caller);

/* How long an answer made now may be kept: the context's rest, at most SPI_LEASE_MS, at the present revision. */
#define SPI_LEASE_MS 60000
void spi_lease_fill(const struct spi *spi, const struct policy_context *context, Core__Common__V1__Lease *lease);

/* NULL for "". */
static inline const char *spi_text_or_null(const char *text) {
  return text && text[0] ? text : NULL;
}
/* protobuf-c structs hold char *; what is packed is only read. */
static inline char *spi_text(const char *text) {
  return (char *)(uintptr_t)(text ? text : "");
}

/* catalog_watch.c */
void spi_watchers_start(struct spi *spi);
void spi_watchers_stop(struct spi *spi);

#endif

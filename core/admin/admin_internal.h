/* admin_internal.h: what the files of core/admin share. Core thread only. */
#ifndef GATEHOUSE_CORE_ADMIN_INTERNAL_H
#define GATEHOUSE_CORE_ADMIN_INTERNAL_H

#include <protobuf-c/protobuf-c.h>

#include "core/admin/admin.h"
#include "core/rpc/core_rpc_pbc.h"
#include "sdk/base/arena.h"

#define ADMIN_MAGIC 0x41444d49u

struct admin {
  uint32_t magic;
  struct admin_options options;
  struct arena *arena; /* of the request that is handled now */
};

/* One call of an operator. Everything is borrowed for the time of the handler. */
struct admin_call {
  struct admin *admin;
  struct core_rpc_call *call;
  const ProtobufCMessage *request;
};
typedef void admin_handler(const struct admin_call *call);

admin_handler admin_get_status, admin_get_metrics, admin_apply, admin_export, admin_delete, admin_refresh_gateway,
    admin_create_token, admin_list_tokens, admin_revoke_token, admin_describe_module, admin_restart_module,
    admin_drain_module, admin_stop_module, admin_start_module, admin_release_module, admin_upgrade_module,
    admin_configure_module, admin_rollback_module, admin_upgrade_core, admin_rollback_core, admin_read_events,
    admin_query_nodes, admin_get_state_hash;

/* An operator's deed, for the audit chain. */
void admin_audit(struct admin *admin, const char *action, const char *target, const struct error *err);

/* A deed that is answered once it is written down. */
struct admin_write {
  struct admin *admin;
  struct core_rpc_call *call;
  char target[128];
};
struct admin_write *admin_write_begin(const struct admin_call *call, const char *target); /* base_free */
/* It ended so, which is audited. True: its reply is to be sent; false: the call was answered with the error. */
bool admin_write_done(const struct admin_write *write, const char *action, const struct error *err);

static inline const char *admin_text_or_null(const char *text) {
  return text && text[0] ? text : NULL;
}
/* protobuf-c structs hold char *; what is packed is only read. */
static inline char *admin_text(const char *text) {
  return (char *)(uintptr_t)(text ? text : "");
}

#endif

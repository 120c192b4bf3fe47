/* core_admin.c: UpgradeModule and RollbackModule of the core itself. They are answered when the program was looked at
 * and the supervisor has agreed: then this core is about to end, and finishes this answer first. */
#include "core/admin/admin_internal.h"
#include "sdk/base/alloc.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"

#define WHO "an operator" /* the socket is the operator's: nobody is named on it */
#define TARGET "core"

struct order {
  struct admin *admin;
  struct core_rpc_call *call;
  const char *action;
  void (*reply)(struct order *order);
};

static void upgrade_reply(struct order *order) {
  Core__Admin__V1__UpgradeModuleResponse response = CORE__ADMIN__V1__UPGRADE_MODULE_RESPONSE__INIT;
  response.generation = lifecycle_core_generation(order->admin->options.lifecycle);
  core_rpc_call_reply_message(order->call, &response.base);
}

static void rollback_reply(struct order *order) {
  Core__Admin__V1__RollbackModuleResponse response = CORE__ADMIN__V1__ROLLBACK_MODULE_RESPONSE__INIT;
  response.generation = lifecycle_core_generation(order->admin->options.lifecycle);
  core_rpc_call_reply_message(order->call, &response.base);
}

/* The order itself goes on. */
static void on_cancel(struct core_rpc_call *call, void *user) {
  struct order *order = user;
  lifecycle_core_done_forget(order->admin->options.lifecycle, order);
  admin_audit(order->admin, order->action, TARGET, NULL);
  core_rpc_call_fail_code(call, ERR_CANCELLED);
  base_free(order);
}

static void taken(void *arg, const struct error *err) {
  struct order *order = arg;
  admin_audit(order->admin, order->action, TARGET, err);
  if (err)
    core_rpc_call_fail(order->call, err);
  else
    order->reply(order);
  base_free(order);
}

static struct order *order_create(const struct admin_call *call, const char *action,
                                  void (*reply)(struct order *order)) {
  static const struct core_rpc_call_events events = {.on_cancel = on_cancel};
  struct order *order = BASE_NEW(struct order);
  *order = (struct order){.admin = call->admin, .call = call->call, .action = action, .reply = reply};
  core_rpc_call_events_set(call->call, &events, order);
  return order;
}

void admin_upgrade_core(const struct admin_call *call) {
  const Core__Admin__V1__UpgradeModuleRequest *request = (const void *)call->request;
  struct order *order = order_create(call, "module.upgrade_begun", upgrade_reply);
  struct error err = {0};
  if (!request->version[0] == !request->path[0]) {
    error_set(&err, ERR_ARGUMENT_INVALID, "either the path of the program or its version");
    taken(order, &err);
    return;
  }
  lifecycle_core_upgrade(call->admin->options.lifecycle, request->path, request->version, request->probation_ms,
                         request->no_rollback, WHO, taken, order);
}

void admin_rollback_core(const struct admin_call *call) {
  lifecycle_core_rollback(call->admin->options.lifecycle, WHO, taken,
                          order_create(call, "module.rollback_begun", rollback_reply));
}

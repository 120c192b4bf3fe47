/* invocation.c: calls that the core asks the module to carry out: Invoke, with requests back to the caller and their
 * answers in the middle of it, and Discover. An invocation lives from its request until the module finishes it, also
 * when the core has given it up before. */
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"
#include "sdk/module/module_internal.h"
#include "sdk/wire/wire.h"

#define INVOCATION_MAGIC 0x494e564fu
#define DISCOVERY_MAGIC 0x44495343u
#define REQUEST_BLOCK_BYTES 1536 /* what a plan takes decoded, above twice its length */

/* A request back to the caller that waits for its answer; in the invocation's arena. */
struct ask {
  LIST_ENTRY(ask) entry;
  char id[24];
  module_answered *answered;
  void *arg;
};

struct module_invocation {
  uint32_t magic;
  TAILQ_ENTRY(module_invocation) entry;
  struct module *module;
  struct rpc_server_call *call;
  int64_t began_us;
  core_module_v1_InvokeRequest request;
  struct arena *arena; /* holds the request, and this */
  LIST_HEAD(, ask) asks;
  uint64_t asked; /* so many, ever */
  void (*on_cancel)(struct module_invocation *, void *);
  void *arg;
};

struct module_discovery {
  uint32_t magic;
  struct module *module;
  struct rpc_server_call *call;
  core_module_v1_DiscoverRequest request;
  struct arena *arena; /* holds the request, and this */
  void (*on_cancel)(struct module_discovery *, void *);
  void *arg;
};

/* A plan carries credentials. */
static void plan_wipe(core_common_v1_InvocationPlan *plan) {
  for (pb_size_t i = 0; i < plan->headers_count; i++)
    if (plan->headers[i].value)
      explicit_bzero(plan->headers[i].value, strlen(plan->headers[i].value));
}

/* ---- Invoke ---- */

static void invocation_cancelled(void *arg, struct rpc_server_call *call) {
  struct module_invocation *invocation = arg;
  (void)call;
  if (invocation->on_cancel)
    invocation->on_cancel(invocation, invocation->arg);
}

void module_invocation_begin(struct module *module, struct rpc_server_call *call, const uint8_t *message,
                             size_t length) {
  struct error err = {0};
  if (!module->definition->invoke) {
    error_set(&err, ERR_UNSUPPORTED, "this module carries out no calls");
    rpc_server_call_fail(call, &err);
    return;
  }
  struct arena *arena = arena_create(REQUEST_BLOCK_BYTES + 2 * length);
  struct module_invocation *invocation = arena_alloc(arena, sizeof(*invocation));
  if (!rpc_message_decode(message, length, core_module_v1_InvokeRequest_fields, &invocation->request, arena, &err) ||
      (!invocation->request.plan && !error_set(&err, ERR_ARGUMENT_MISSING, "the plan is missing"))) {
    arena_free(&arena);
    rpc_server_call_fail(call, &err);
    return;
  }
  invocation->arena = arena;
  invocation->magic = INVOCATION_MAGIC;
  invocation->module = module;
  invocation->call = call;
  invocation->began_us = clock_monotonic_us();
  TAILQ_INSERT_TAIL(&module->invocations, invocation, entry);
  module->invocation_count++;
  module->invocations_total++;
  rpc_server_call_handle(call, &(struct rpc_server_call_handler){.on_cancelled = invocation_cancelled}, invocation);
  module->definition->invoke(module, invocation);
}

const core_module_v1_InvokeRequest *module_invocation_request(const struct module_invocation *invocation) {
  BASE_CHECK_MAGIC(invocation, INVOCATION_MAGIC);
  return &invocation->request;
}

struct module *module_invocation_module(const struct module_invocation *invocation) {
  BASE_CHECK_MAGIC(invocation, INVOCATION_MAGIC);
  return invocation->module;
}

int64_t module_invocation_remaining_ms(const struct module_invocation *invocation) {
  BASE_CHECK_MAGIC(invocation, INVOCATION_MAGIC);
  return rpc_server_call_remaining_ms(invocation->call);
}

bool module_invocation_send(struct module_invocation *invocation, const core_common_v1_InvokeItem *item) {
  BASE_CHECK_MAGIC(invocation, INVOCATION_MAGIC);
  return rpc_server_call_send_message(invocation->call, core_common_v1_InvokeItem_fields, item) != RPC_SEND_REFUSED;
}

bool module_invocation_send_result(struct module_invocation *invocation, const struct module_result *result) {
  BASE_CHECK_MAGIC(invocation, INVOCATION_MAGIC);
  struct buf message = {0};
  module_result_encode(result, &message);
  enum rpc_send_result sent = rpc_server_call_send(invocation->call, (const uint8_t *)message.data, message.length);
  buf_free(&message);
  return sent != RPC_SEND_REFUSED;
}

void module_invocation_finish(struct module_invocation *invocation, const struct error *err) {
  BASE_CHECK_MAGIC(invocation, INVOCATION_MAGIC);
  struct module *module = invocation->module;
  if (err && error_is_set(err)) {
    module->invocation_errors++;
    rpc_server_call_fail(invocation->call, err);
  } else {
    rpc_server_call_finish(invocation->call, NULL);
  }
  module_latency_note(module, clock_monotonic_us() - invocation->began_us);
  TAILQ_REMOVE(&module->invocations, invocation, entry);
  module->invocation_count--;
  plan_wipe(invocation->request.plan);
  struct arena *arena = invocation->arena;
  invocation->magic = 0;
  arena_free(&arena);
  module_drain_advance(module);
}

void module_invocation_handle(struct module_invocation *invocation,
                              void (*on_cancel)(struct module_invocation *, void *), void *arg) {
  BASE_CHECK_MAGIC(invocation, INVOCATION_MAGIC);
  invocation->on_cancel = on_cancel;
  invocation->arg = arg;
}

/* ---- requests back to the caller, and AnswerRequest ---- */

bool module_invocation_ask(struct module_invocation *invocation, const char *method, const char *params_json,
                           module_answered *answered, void *arg) {
  BASE_CHECK_MAGIC(invocation, INVOCATION_MAGIC);
  struct ask *ask = arena_alloc(invocation->arena, sizeof(*ask));
  *ask = (struct ask){.answered = answered, .arg = arg};
  snprintf(ask->id, sizeof(ask->id), "%llu", (unsigned long long)++invocation->asked);
  core_common_v1_CallerRequest request = {
      .request_id = ask->id, .method = (char *)(uintptr_t)method, .params_json = (char *)(uintptr_t)params_json};
  const core_common_v1_InvokeItem item = {.which_item = core_common_v1_InvokeItem_request_tag,
                                          .item.request = &request};
  if (!module_invocation_send(invocation, &item))
    return false;
  LIST_INSERT_HEAD(&invocation->asks, ask, entry);
  return true;
}

static struct ask *ask_find(const struct module *module, const core_common_v1_AnswerRequestRequest *answer,
                            struct module_invocation **found) {
  struct module_invocation *invocation;
  struct ask *ask;
  if (!answer->execution_id || !answer->request_id)
    return NULL;
  TAILQ_FOREACH(invocation, &module->invocations, entry) {
    if (!str_equal(invocation->request.plan->execution_id, answer->execution_id))
      continue;
    LIST_FOREACH(ask, &invocation->asks, entry)
    if (str_equal(ask->id, answer->request_id)) {
      *found = invocation;
      return ask;
    }
  }
  return NULL;
}

void module_answer_handle(struct module *module, struct rpc_server_call *call, const uint8_t *message, size_t length) {
  struct error err = {0};
  core_common_v1_AnswerRequestRequest request = {0};
  struct module_invocation *invocation;
  if (!wire_decode(core_common_v1_AnswerRequestRequest_fields, &request, message, length, &err)) {
    rpc_server_call_fail(call, &err);
    return;
  }
  struct ask *ask = ask_find(module, &request, &invocation);
  if (ask) {
    core_common_v1_AnswerRequestResponse response = {0};
    rpc_server_call_reply_message(call, core_common_v1_AnswerRequestResponse_fields, &response);
    LIST_REMOVE(ask, entry);
    ask->answered(invocation, &request, ask->arg); /* the invocation may be gone after this */
  } else {
    error_set(&err, ERR_INVOKE_REQUEST_UNKNOWN, NULL);
    rpc_server_call_fail(call, &err);
  }
  wire_release(core_common_v1_AnswerRequestRequest_fields, &request);
}

/* ---- Discover ---- */

static void discovery_cancelled(void *arg, struct rpc_server_call *call) {
  struct module_discovery *discovery = arg;
  (void)call;
  if (discovery->on_cancel)
    discovery->on_cancel(discovery, discovery->arg);
}

void module_discovery_begin(struct module *module, struct rpc_server_call *call, const uint8_t *message,
                            size_t length) {
  struct error err = {0};
  if (!module->definition->discover) {
    error_set(&err, ERR_UNSUPPORTED, "this module discovers no upstreams");
    rpc_server_call_fail(call, &err);
    return;
  }
  struct arena *arena = arena_create(REQUEST_BLOCK_BYTES + 2 * length);
  struct module_discovery *discovery = arena_alloc(arena, sizeof(*discovery));
  if (!rpc_message_decode(message, length, core_module_v1_DiscoverRequest_fields, &discovery->request, arena, &err) ||
      (!discovery->request.plan && !error_set(&err, ERR_ARGUMENT_MISSING, "the plan is missing"))) {
    arena_free(&arena);
    rpc_server_call_fail(call, &err);
    return;
  }
  discovery->arena = arena;
  discovery->magic = DISCOVERY_MAGIC;
  discovery->module = module;
  discovery->call = call;
  rpc_server_call_handle(call, &(struct rpc_server_call_handler){.on_cancelled = discovery_cancelled}, discovery);
  module->definition->discover(module, discovery);
}

const core_module_v1_DiscoverRequest *module_discovery_request(const struct module_discovery *discovery) {
  BASE_CHECK_MAGIC(discovery, DISCOVERY_MAGIC);
  return &discovery->request;
}

struct module *module_discovery_module(const struct module_discovery *discovery) {
  BASE_CHECK_MAGIC(discovery, DISCOVERY_MAGIC);
  return discovery->module;
}

bool module_discovery_send(struct module_discovery *discovery, const core_module_v1_DiscoverItem *item) {
  BASE_CHECK_MAGIC(discovery, DISCOVERY_MAGIC);
  return rpc_server_call_send_message(discovery->call, core_module_v1_DiscoverItem_fields, item) != RPC_SEND_REFUSED;
}

void module_discovery_finish(struct module_discovery *discovery, const struct error *err) {
  BASE_CHECK_MAGIC(discovery, DISCOVERY_MAGIC);
  if (err && error_is_set(err))
    rpc_server_call_fail(discovery->call, err);
  else
    rpc_server_call_finish(discovery->call, NULL);
  struct arena *arena = discovery->arena;
  plan_wipe(discovery->request.plan);
  discovery->magic = 0;
  arena_free(&arena);
}

void module_discovery_handle(struct module_discovery *discovery, void (*on_cancel)(struct module_discovery *, void *),
                             void *arg) {
  BASE_CHECK_MAGIC(discovery, DISCOVERY_MAGIC);
  discovery->on_cancel = on_cancel;
  discovery->arg = arg;
}

/* psg.c: StateGraphService, as far as it is built: translation only; psg decides. A caller, where a request names one,
 * must be alive; reading the graph takes admin.dashboard, writing it admin.system_config; without a caller the module
 * itself asks. */
#include <string.h>

#include "core/spi/spi_internal.h"
#include "sdk/base/alloc.h"
#include "wire/pbc/core/spi/psg/v1/psg.pb-c.h"

/* May this go on? Answers the error itself. */
static bool allowed(const struct spi_call *call, const Core__Common__V1__CallerContext *caller,
                    const char *permission) {
  if (!caller)
    return true;
  const struct policy_context *context = spi_caller_or_fail(call, caller);
  if (!context)
    return false;
  if (!policy_may(context, permission, NULL)) {
    core_rpc_call_fail_code(call->call, ERR_AUTH_PERMISSION_DENIED);
    return false;
  }
  return true;
}

#define READ "admin.dashboard"
#define WRITE "admin.system_config"

void spi_psg_get_node(const struct spi_call *call) {
  const Core__Spi__Psg__V1__GetNodeRequest *request = (const void *)call->request;
  Core__Spi__Psg__V1__GetNodeResponse response = CORE__SPI__PSG__V1__GET_NODE_RESPONSE__INIT;
  Core__Spi__Psg__V1__Node node = CORE__SPI__PSG__V1__NODE__INIT;
  struct error err = {0};
  if (!allowed(call, request->caller, READ))
    return;
  if (!psg_wait(call->spi->options.psg, &err)) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  const char *object = psg_node_get(call->spi->options.psg, request->type, request->id, &node.revision);
  if (!object) {
    core_rpc_call_fail_code(call->call, ERR_PSG_NODE_NOT_FOUND);
    return;
  }
  node.type = request->type;
  node.id = request->id;
  node.object_json.data = (uint8_t *)(uintptr_t)object;
  node.object_json.len = strlen(object);
  response.node = &node;
  core_rpc_call_reply_message(call->call, &response.base);
}

/* ---- writes: answered when durable ---- */

static void put_done(void *arg, uint64_t revision, const char *event_id, const struct error *err) {
  Core__Spi__Psg__V1__PutNodeResponse response = CORE__SPI__PSG__V1__PUT_NODE_RESPONSE__INIT;
  if (err) {
    core_rpc_call_fail(arg, err);
    return;
  }
  response.revision = revision;
  response.event_id = spi_text(event_id);
  core_rpc_call_reply_message(arg, &response.base);
}

#define EVENT_DONE(name, type, init)                                                                                   \
  static void name(void *arg, uint64_t revision, const char *event_id, const struct error *err) {                      \
    type response = init;                                                                                              \
    (void)revision;                                                                                                    \
    if (err) {                                                                                                         \
      core_rpc_call_fail(arg, err);                                                                                    \
      return;                                                                                                          \
    }                                                                                                                  \
    response.event_id = spi_text(event_id);                                                                            \
    core_rpc_call_reply_message(arg, &response.base);                                                                  \
  }
EVENT_DONE(delete_done, Core__Spi__Psg__V1__DeleteNodeResponse, CORE__SPI__PSG__V1__DELETE_NODE_RESPONSE__INIT)
EVENT_DONE(add_edge_done, Core__Spi__Psg__V1__AddEdgeResponse, CORE__SPI__PSG__V1__ADD_EDGE_RESPONSE__INIT)
EVENT_DONE(remove_edge_done, Core__Spi__Psg__V1__RemoveEdgeResponse, CORE__SPI__PSG__V1__REMOVE_EDGE_RESPONSE__INIT)
#undef EVENT_DONE

void spi_psg_put_node(const struct spi_call *call) {
  const Core__Spi__Psg__V1__PutNodeRequest *request = (const void *)call->request;
  if (!allowed(call, request->caller, WRITE))
    return;
  if (!request->node)
    core_rpc_call_fail_code(call->call, ERR_ARGUMENT_MISSING);
  else
    psg_node_put(call->spi->options.psg, request->node->type, request->node->id, request->node->object_json.data,
                 request->node->object_json.len, request->node->revision, lifecycle_instance_name(call->instance),
                 put_done, call->call);
}

void spi_psg_delete_node(const struct spi_call *call) {
  const Core__Spi__Psg__V1__DeleteNodeRequest *request = (const void *)call->request;
  if (allowed(call, request->caller, WRITE))
    psg_node_delete(call->spi->options.psg, request->type, request->id, lifecycle_instance_name(call->instance),
                    delete_done, call->call);
}

void spi_psg_add_edge(const struct spi_call *call) {
  const Core__Spi__Psg__V1__AddEdgeRequest *request = (const void *)call->request;
  if (!allowed(call, request->caller, WRITE))
    return;
  if (!request->edge)
    core_rpc_call_fail_code(call->call, ERR_ARGUMENT_MISSING);
  else
    psg_edge_add(call->spi->options.psg, request->edge->type, request->edge->from_id, request->edge->to_id,
                 lifecycle_instance_name(call->instance), add_edge_done, call->call);
}

void spi_psg_remove_edge(const struct spi_call *call) {
  const Core__Spi__Psg__V1__RemoveEdgeRequest *request = (const void *)call->request;
  if (!allowed(call, request->caller, WRITE))
    return;
  if (!request->edge)
    core_rpc_call_fail_code(call->call, ERR_ARGUMENT_MISSING);
  else
    psg_edge_remove(call->spi->options.psg, request->edge->type, request->edge->from_id, request->edge->to_id,
                    lifecycle_instance_name(call->instance), remove_edge_done, call->call);
}

static void emit_done(void *arg, uint64_t sequence, const struct error *err) {
  Core__Spi__Psg__V1__EmitEventResponse response = CORE__SPI__PSG__V1__EMIT_EVENT_RESPONSE__INIT;
  if (err) {
    core_rpc_call_fail(arg, err);
    return;
  }
  response.sequence = sequence;
  core_rpc_call_reply_message(arg, &response.base);
}

void spi_psg_emit_event(const struct spi_call *call) {
  const Core__Spi__Psg__V1__EmitEventRequest *request = (const void *)call->request;
  psg_event_emit(call->spi->options.psg, request->event_json.data, request->event_json.len, request->trace_id,
                 request->context_id, emit_done, call->call);
}

/* ---- reads ---- */

static void reply_or_fail(const struct spi_call *call, ProtobufCMessage *response, const struct error *err) {
  if (!response) {
    core_rpc_call_fail(call->call, err);
    return;
  }
  core_rpc_call_reply_message(call->call, response);
  protobuf_c_message_free_unpacked(response, NULL);
}

void spi_psg_get_edges(const struct spi_call *call) {
  const Core__Spi__Psg__V1__GetEdgesRequest *request = (const void *)call->request;
  struct error err = {0};
  if (allowed(call, request->caller, READ))
    reply_or_fail(call, (ProtobufCMessage *)psg_edges(call->spi->options.psg, request, &err), &err);
}

void spi_psg_query(const struct spi_call *call) {
  const Core__Spi__Psg__V1__QueryRequest *request = (const void *)call->request;
  struct error err = {0};
  if (allowed(call, request->caller, READ))
    reply_or_fail(call, (ProtobufCMessage *)psg_query(call->spi->options.psg, request, &err), &err);
}

void spi_psg_traverse(const struct spi_call *call) {
  const Core__Spi__Psg__V1__TraverseRequest *request = (const void *)call->request;
  struct error err = {0};
  if (allowed(call, request->caller, READ))
    reply_or_fail(call, (ProtobufCMessage *)psg_traverse(call->spi->options.psg, request, &err), &err);
}

void spi_psg_get_state_hash(const struct spi_call *call) {
  Core__Spi__Psg__V1__GetStateHashResponse response = CORE__SPI__PSG__V1__GET_STATE_HASH_RESPONSE__INIT;
  struct error err = {0};
  char hash[65];
  if (!psg_state_hash(call->spi->options.psg, hash, &err)) {
    core_rpc_call_fail(call->call, &err);
    return;
  }
  response.state_hash = hash;
  response.node_count = psg_node_count(call->spi->options.psg);
  response.edge_count = psg_edge_count(call->spi->options.psg);
  response.graph_id = spi_text(psg_graph_id(call->spi->options.psg));
  core_rpc_call_reply_message(call->call, &response.base);
}

/* psg.h: the Protocol State Graph, first form (stategraph.md 2.2, 6.1–6.3): nodes and edges in memory, derived from the
 * event log; every change is a schema-valid event in the store.
 *
 * One thread: the core thread. Events are appended in batches: what happens within a few milliseconds is one store
 * batch (EVT-14: strictly increasing timestamps). Events that callers wait for are acknowledged when durable. Appending
 * an event is not itself a graph change (EVT-15). The conservation law holds at all times: the sums of node_delta and
 * edge_delta over all GraphUpdateEvents equal node_count and edge_count (PSG-12). */
#ifndef GATEHOUSE_CORE_PSG_H
#define GATEHOUSE_CORE_PSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/rpc/core_rpc.h"
#include "core/store/store.h"
#include "sdk/base/error.h"
#include "wire/pbc/core/spi/psg/v1/psg.pb-c.h"

struct psg;

struct psg_options {
  struct core_rpc_loop *loop; /* for the flush timer; NULL (tests): flush by psg_flush only */
  struct store *store;
  uint32_t flush_ms;          /* events wait at most so long for company; 0: 5 */
  uint32_t execution_history; /* ended executions kept as nodes; older ones are deleted from the graph (their events
                                 stay); 0: 4096 */
  void (*wake)(void *arg);    /* with loop: the graph is loaded on a thread of its own, which calls this when it is done
                                 (answer by psg_wait on the core thread). NULL: psg_open loads it itself */
  void *wake_arg;
};

/* Loads the graph: last checkpoint and the events after it. A new store gets its graph_id and genesis nodes. With a
 * wake, that goes on after it returns; transitions of modules are kept until then, every other function here waits. */
struct psg *psg_open(const struct psg_options *options, struct error *err);
/* Waits until the graph is loaded. False: it takes longer than a caller should wait (ERR_UNAVAILABLE), or, now and ever
 * after, the log does not come out (ERR_STORE_*): then nothing may be carried out, as it could not be recorded. Without
 * a load under way it costs nothing. */
bool psg_wait(struct psg *psg, struct error *err);
void psg_close(struct psg **psg); /* flushes, writes a checkpoint */
void psg_flush(struct psg *psg);

const char *psg_graph_id(struct psg *psg);
uint64_t psg_node_count(struct psg *psg);
uint64_t psg_edge_count(struct psg *psg);
/* False as psg_wait. */
bool psg_state_hash(struct psg *psg, char hash_hex[static 65], struct error *err);

/* ---- modules (LIF-1): one ExtensionNode per module id, one StageNode per lifecycle phase of an instance ---- */

/* A lifecycle transition of a module instance: PipelineStageEvent, GraphUpdateEvents. States are the lifecycle's names;
 * cause is for operators. Also for "core" and "supervisor". */
struct psg_module_transition {
  const char *module_id;
  const char *protocol_family;
  const char *module_version;
  uint64_t generation;
  const char *from_state;
  const char *to_state;
  const char *cause;
};
void psg_module_transition_record(struct psg *psg, const struct psg_module_transition *transition);

/* ---- executions (SPI-9, AEL-3): a RuntimeExecutionEvent at start and end, a SpanNode in the graph ---- */

enum psg_execution_status { PSG_EXECUTION_COMPLETED, PSG_EXECUTION_FAILED, PSG_EXECUTION_CANCELLED };

struct psg_execution_start {
  const char *executor_kind; /* "tool", "agent", "llm", "external" */
  const char *record_id;
  const char *record_name;
  const char *module_id;    /* who asked */
  const char *owner_family; /* who carries it out */
  const char *subject;      /* e-mail of the caller, or "" */
  const char *trace_id;     /* 32 hex digits of the request's trace, or "" */
  const char *request_id;
};
/* Writes the new execution id (UUID v4) and starts recording; never fails. After psg_wait was true it never blocks. */
void psg_execution_begin(struct psg *psg, const struct psg_execution_start *start, char execution_id[static 37]);
/* One that was refused before it began: an event of its own, and nothing in the graph. Nothing while the graph cannot
 * be had. */
void psg_execution_denied(struct psg *psg, const struct psg_execution_start *start, const char *error_code);
/* duration in microseconds; error_code: stable code, or NULL. Unknown ids are ignored (the core was restarted
 * meanwhile: see psg_open, which closes what was running as failed with "core.restarted"). */
void psg_execution_end(struct psg *psg, const char *execution_id, enum psg_execution_status status,
                       uint64_t duration_us, const char *error_code, uint64_t result_bytes);

/* ---- events ---- */

/* Checks an event against its family's schema and the observability invariants and appends it; done when durable.
 * ERR_PSG_EVENT_INVALID names the field (EVT-1 to EVT-4, EVT-11). */
typedef void psg_event_done(void *arg, uint64_t sequence, const struct error *err);
void psg_event_emit(struct psg *psg, const void *event_json, size_t length, const char *trace_id,
                    const char *context_id, psg_event_done *done, void *arg);
/* Only the check: for tests and the conformance kit. */
bool psg_event_check(const void *event_json, size_t length, struct error *err);

/* ---- generic graph (PSG-1): parents, transitions, terminal immutability, ids enforced (6.2) ---- */

const char *psg_node_get(struct psg *psg, const char *type, const char *id,
                         uint64_t *revision); /* JSON; NULL: none; borrowed */
/* done NULL: fire and forget. Errors: ERR_PSG_*. */
typedef void psg_write_done(void *arg, uint64_t revision, const char *event_id, const struct error *err);
void psg_node_put(struct psg *psg, const char *type, const char *id, const void *object_json, size_t length,
                  uint64_t expected_revision, const char *source_module, psg_write_done *done, void *arg);
void psg_node_delete(struct psg *psg, const char *type, const char *id, const char *source_module, psg_write_done *done,
                     void *arg);
void psg_edge_add(struct psg *psg, const char *type, const char *from_id, const char *to_id, const char *source_module,
                  psg_write_done *done, void *arg);
void psg_edge_remove(struct psg *psg, const char *type, const char *from_id, const char *to_id,
                     const char *source_module, psg_write_done *done, void *arg);
/* Fills a response (members from malloc; free with core__spi__psg__v1__…__free_unpacked). */
Core__Spi__Psg__V1__QueryResponse *psg_query(struct psg *psg, const Core__Spi__Psg__V1__QueryRequest *request,
                                             struct error *err);
Core__Spi__Psg__V1__TraverseResponse *psg_traverse(struct psg *psg, const Core__Spi__Psg__V1__TraverseRequest *request,
                                                   struct error *err);
Core__Spi__Psg__V1__GetEdgesResponse *psg_edges(struct psg *psg, const Core__Spi__Psg__V1__GetEdgesRequest *request,
                                                struct error *err);

#endif

/* dispatch_internal.h: what the files of core/dispatch share. Core thread only. */
#ifndef GATEHOUSE_CORE_DISPATCH_INTERNAL_H
#define GATEHOUSE_CORE_DISPATCH_INTERNAL_H

#include <sys/queue.h>
#include <uthash.h>

#include "core/dispatch/dispatch.h"
#include "sdk/base/id.h"

#define DISPATCH_MAGIC 0x44495350u
#define DISPATCH_INVOCATION_MAGIC 0x44494e56u

/* A plan that a module carries out itself; closed by its report, or abandoned. */
struct dispatch_plan {
  char plan_id[ID_UUID_BYTES]; /* also the execution id */
  char module_id[32], family[32];
  char record_id[64];
  char trace_id[33];
  int64_t began_us;
  int64_t expires_us;
  struct lifecycle_witness witness; /* of the module's work */
  UT_hash_handle hash;
  TAILQ_ENTRY(dispatch_plan) entry; /* in the order of their making */
};

/* An admitted invocation: waits for its owner (hold.c), or is under way there (dispatch.c). */
struct dispatch_invocation {
  uint32_t magic;
  LIST_ENTRY(dispatch_invocation) entry;
  UT_hash_handle hash; /* by execution id, when it can be answered */
  struct dispatch *dispatch;
  struct dispatch_sink sink;
  void *arg;
  char execution_id[ID_UUID_BYTES];
  char module_id[32], family[32];             /* who asks; whose protocol it is */
  char owner_id[LIFECYCLE_MODULE_ID_BYTES];   /* the module that carries it out; "" before */
  const struct policy_context *context;       /* held */
  const struct catalog_schema *output_schema; /* held; NULL: the result is not checked */
  uint8_t *request;                           /* packed, until the owner said something; NULL after that */
  size_t request_length;
  struct core_rpc_client_call *call;     /* NULL: it waits */
  TAILQ_ENTRY(dispatch_invocation) held; /* while it waits */
  struct core_rpc_timer *hold_timer;     /* while it waits */
  int64_t held_us;                       /* since when */
  struct lifecycle_witness witness;      /* of the owner's work, until its result is there */
  int64_t began_us, deadline_us;
  uint64_t result_bytes;
  TAILQ_ENTRY(dispatch_invocation) by_result; /* while has_result: the module's stream is still open */
  int64_t result_us;
  bool answerable, has_result, cancelled;
  bool has_credential; /* the request holds one: it is wiped */
  bool repeatable;     /* the record says that to carry it out twice is as once */
  bool again;          /* it was sent a second time */
  bool paused;         /* the consumer is congested: the next item is not asked for */
  bool broken;         /* the module did not keep to the protocol */
};

struct dispatch_refresh;
LIST_HEAD(dispatch_invocation_list, dispatch_invocation);
TAILQ_HEAD(dispatch_plan_list, dispatch_plan);

struct dispatch {
  uint32_t magic;
  struct dispatch_options options;
  struct dispatch_invocation_list invocations;
  struct dispatch_invocation *by_execution;   /* those that can be answered */
  TAILQ_HEAD(, dispatch_invocation) answered; /* by result_us: their module's stream is still open */
  struct core_rpc_timer *answered_timer;      /* while that list is not empty, and once more */
  TAILQ_HEAD(, dispatch_invocation) held;     /* those that wait, in the order of their coming */
  uint32_t held_count;
  struct dispatch_denials *denials; /* of this minute, by caller */
  uint32_t denials_lines;           /* written in it */
  struct core_rpc_timer *denials_timer;
  struct dispatch_plan *plans;
  struct dispatch_plan_list plan_order;
  struct core_rpc_timer *plan_timer;
  struct dispatch_refresh *refresh;
};

/* admission.c: every check before anything is carried out. What came of it: */
struct dispatch_admission {
  const struct catalog_record *record; /* when refused: NULL, unless the caller sees it */
  const void *arguments_json;          /* borrowed from the envelope, or "{}" */
  size_t arguments_length;
  uint32_t deadline_ms;
  char trace_id[33];
};
/* path: as in dispatch_execution_end. False: refused with *err, and that is on record. */
bool dispatch_admit(struct dispatch *dispatch, const struct dispatch_caller *caller,
                    const Core__Common__V1__InvocationEnvelope *envelope, int64_t remaining_ms, const char *path,
                    struct dispatch_admission *admission, struct error *err);
/* What the trace says of it. Borrows. */
struct psg_execution_start dispatch_execution_describe(const struct dispatch_caller *caller,
                                                       const Core__Common__V1__InvocationEnvelope *envelope,
                                                       const struct dispatch_admission *admission);
/* Begins the trace of an admitted invocation. */
void dispatch_execution_begin(struct dispatch *dispatch, const struct dispatch_caller *caller,
                              const Core__Common__V1__InvocationEnvelope *envelope,
                              const struct dispatch_admission *admission, char execution_id[static ID_UUID_BYTES]);
/* Ends it: graph and metrics. path: "invoke" or "plan". */
void dispatch_execution_end(struct dispatch *dispatch, const char *execution_id, const char *family, const char *path,
                            enum psg_execution_status status, int64_t began_us, const char *error_code,
                            uint64_t result_bytes);

/* denied.c: what a refused one leaves: counts, and within bounds an audit line and an event. */
void dispatch_denied(struct dispatch *dispatch, const struct dispatch_caller *caller,
                     const Core__Common__V1__InvocationEnvelope *envelope, const struct dispatch_admission *admission,
                     const char *path, const struct error *err);
void dispatch_denials_free(struct dispatch *dispatch); /* says what was passed over */

/* dispatch.c: sends the request to a serving module of its family. False: there is none (*err says why), and it is
 * where it was. */
bool dispatch_invocation_send(struct dispatch_invocation *invocation, struct error *err);
/* The end of one that is not under way. */
void dispatch_invocation_fail(struct dispatch_invocation *invocation, const struct error *err);

/* hold.c */
/* False: it does not wait, as its owner does not come back soon, or too many wait. */
bool dispatch_hold(struct dispatch_invocation *invocation);
/* It waits no longer; outcome: for the metric. */
void dispatch_hold_end(struct dispatch_invocation *invocation, const char *outcome);
/* Some module serves again. */
void dispatch_held_go(struct dispatch *dispatch);

/* plan.c: the packed plan for a record (base_alloc; holds a credential: wipe with secret_wipe before base_free). wrap:
 * the message that it becomes field 1 of, with what else that message holds. */
struct dispatch_plan_parts {
  Core__Common__V1__InvocationPlan plan;
  Core__Common__V1__RestPlan rest;
  Core__Common__V1__McpPlan mcp;
  Core__Common__V1__Lease lease;
  Core__Common__V1__Header *headers;
  Core__Common__V1__Header **header_pointers;
  struct catalog_headers call_headers;
};
bool dispatch_plan_fill(struct dispatch *dispatch, const struct catalog_record *record, const char *plan_id,
                        const void *arguments_json, size_t arguments_length, uint32_t deadline_ms,
                        Core__Common__V1__TraceContext *trace, struct dispatch_plan_parts *parts, struct error *err);
void dispatch_plan_release(struct dispatch_plan_parts *parts);
void dispatch_plans_free(struct dispatch *dispatch);

/* item.c: what the core must know of an InvokeItem, read from its bytes without unpacking. */
enum dispatch_item_kind {
  DISPATCH_ITEM_MALFORMED = -1,
  DISPATCH_ITEM_NONE = 0,
  DISPATCH_ITEM_RESULT = 6, /* other values are the field numbers of InvokeItem */
};
struct dispatch_item {
  enum dispatch_item_kind kind;
  bool is_error;
  const uint8_t *structured; /* of a result: its structured content, in the item's bytes; NULL: none */
  size_t structured_length;
};
struct dispatch_item dispatch_item_read(const uint8_t *data, size_t length);

/* refresh.c */
struct dispatch_refresh *dispatch_refresh_create(struct dispatch *dispatch);
void dispatch_refresh_free(struct dispatch_refresh **refresh);
void dispatch_refresh_soon(struct dispatch_refresh *refresh); /* what is due is looked at now */

#endif

/* dispatch.h: the one path that every invocation takes (SPI-8 to SPI-10): find (visibility, permission), schema of the
 * arguments, rate limit, pre-hooks, plan, carry out (by the module that owns the record's protocol, or by the asking
 * module with the plan), post-hooks, trace, metrics. One thread: the core thread. */
#ifndef GATEHOUSE_CORE_DISPATCH_H
#define GATEHOUSE_CORE_DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/catalog/catalog.h"
#include "core/lifecycle/lifecycle.h"
#include "core/observe/observe.h"
#include "core/policy/policy.h"
#include "core/psg/psg.h"
#include "sdk/base/error.h"
#include "wire/pbc/core/common/v1/common.pb-c.h"
#include "wire/pbc/core/spi/catalog/v1/catalog.pb-c.h"

struct dispatch;
struct dispatch_invocation;

struct dispatch_options {
  struct core_rpc_loop *loop;
  struct catalog *catalog;
  struct policy *policy;
  struct psg *psg;
  struct observe *observe;
  struct lifecycle *lifecycle;
  uint32_t deadline_default_ms; /* 0: 60000 */
  uint32_t depth_max;           /* of delegation; 0: 8 */
  uint32_t hold_ms;             /* so long an invocation waits for a module that comes back at once; 0: not at all */
  uint32_t hold_max;            /* invocations that wait at once; 0: 1024 */
  uint32_t plan_ttl_ms;         /* an unreported plan is audited as abandoned after its deadline and this; 0: 5000 */
};
struct dispatch *dispatch_create(const struct dispatch_options *options);
void dispatch_free(struct dispatch **dispatch);

/* Who asks: an SPI instance and its resolved caller. Borrowed for the call of dispatch_invoke only. */
struct dispatch_caller {
  const char *module_id;
  const char *family;
  const struct policy_context *context;
};

/* What comes of an invocation. on_item takes one item at a time (serialized InvokeItem bytes are handed through
 * unparsed where possible); false: the consumer is congested and took the item; dispatch_invocation_resume will follow.
 * It ends with exactly one of on_result, with the item that holds the result, and on_failed; never inside
 * dispatch_invoke; the handle is dead to the consumer then. */
struct dispatch_sink {
  bool (*on_item)(void *arg, const void *item_bytes, size_t length);
  void (*on_result)(void *arg, const void *item_bytes, size_t length);
  void (*on_failed)(void *arg, const struct error *err);
};

/* Starts. NULL: refused at once with *err (on_failed is then not called). deadline from the envelope and remaining_ms
 * of the SPI call, the smaller. When the module that carries it out is between two lives it waits (hold.c): what was
 * decided stands, and it goes on, or is refused as it would have been at once. */
struct dispatch_invocation *dispatch_invoke(struct dispatch *dispatch, const struct dispatch_caller *caller,
                                            const Core__Common__V1__InvocationEnvelope *envelope, int64_t remaining_ms,
                                            const struct dispatch_sink *sink, void *arg, struct error *err);
void dispatch_invocation_resume(struct dispatch_invocation *invocation);
void dispatch_invocation_cancel(struct dispatch_invocation *invocation); /* no callback comes any more */
/* The caller's answer to a CallerRequest. False: it goes nowhere; ERR_INVOKE_REQUEST_UNKNOWN when no invocation of this
 * caller and module has that id. Else done is called once with NULL, or with why the owner did not take it, which is
 * ERR_INVOKE_REQUEST_UNKNOWN when it asked no such question. */
typedef void dispatch_answered(void *arg, const struct error *err);
bool dispatch_answer(struct dispatch *dispatch, const struct dispatch_caller *caller,
                     const Core__Common__V1__AnswerRequestRequest *answer, dispatch_answered *done, void *arg,
                     struct error *err);

/* The fast path (SPI-10): calls prepared, before it returns, with a plan or with the reason why there is none; the
 * response is borrowed. False: refused with *err, and prepared is not called. */
typedef void dispatch_prepared(void *arg, const Core__Spi__Catalog__V1__PrepareInvokeResponse *response);
bool dispatch_prepare(struct dispatch *dispatch, const struct dispatch_caller *caller,
                      const Core__Common__V1__InvocationEnvelope *envelope, int64_t remaining_ms,
                      dispatch_prepared *prepared, void *arg, struct error *err);
/* Closes one plan of that module. False: unknown. */
bool dispatch_report(struct dispatch *dispatch, const struct dispatch_caller *caller,
                     const Core__Spi__Catalog__V1__PlanReport *report);

/* A module became able to carry out calls: what waited for it goes on now. */
void dispatch_serving_tell(struct dispatch *dispatch);

/* Looks at what a gateway's upstream offers and applies it to the catalog; at start, by interval and on demand.
 * gateway_name NULL: all. done may be NULL. */
typedef void dispatch_refresh_done(void *arg, uint32_t created, uint32_t updated, uint32_t deleted,
                                   const struct error *err);
void dispatch_refresh_gateways(struct dispatch *dispatch, const char *gateway_name, dispatch_refresh_done *done,
                               void *arg);

#endif

/* module.h: a protocol module in about a hundred lines of C (BND-1, DSC-*, LIF-*, TRN-*).
 *
 * A module describes itself in one `struct module_definition` and calls module_main() from main(). This room then does
 * what every module must do alike: command line (--describe, --help, --version), process hardening, logs, the runtime
 * socket with ModuleRuntime and grpc.health.v1, the phases, the SPI channel with its secret and its reconnection, the
 * proof of the deny path (canary), readiness by conditions, drain, listeners passed in by name, systemd notification.
 * The module writes its protocol.
 *
 * One thread, one libevent loop: every callback comes from it. Life:
 *   create → (core attaches) initialize → attached → [ready] → … detached/attached any number of times … → drain →
 * destroy While no core is attached module_is_attached() is false: the module refuses new work in its protocol's form
 * (LIF-6), keeps its connections, and goes on by itself when a core attaches again (initialize is then called again,
 * with a new configuration perhaps). Exit codes: 0 asked to end, 100 usage, 111 environment (docs/writing-a-module.md).
 *
 * Environment, as the supervisor sets it (by hand the same works): GATEHOUSE_RUN, GATEHOUSE_MODULE_ID,
 * GATEHOUSE_GENERATION, GATEHOUSE_RUNTIME_SOCKET, GATEHOUSE_SPI_SOCKET, GATEHOUSE_LOG_LEVEL, GATEHOUSE_LIMIT_…,
 * LISTEN_FDS, LISTEN_FDNAMES, NOTIFY_SOCKET. */
#ifndef GATEHOUSE_MODULE_H
#define GATEHOUSE_MODULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/error.h"
#include "sdk/rpc/rpc.h"
#include "wire/nano/core/common/v1/common.pb.h"
#include "wire/nano/core/module/v1/module.pb.h"
#include "wire/nano/core/spi/catalog/v1/catalog.pb.h"

struct event_base;
struct module;
struct module_invocation;
struct module_discovery;

/* One declared capability (DSC-3, DSC-4): a false one must answer UNSUPPORTED, a true one must work. */
struct module_capability {
  const char *name;
  bool supported;
};

/* Parity for one plugin hook. */
struct module_hook {
  const char *hook;
  core_module_v1_HookParity parity;
};

/* What a module is and does. Static; texts are kept by pointer. Callbacks that are NULL are left out. */
struct module_definition {
  const char *module_id;       /* its usual id; the environment may give it another */
  const char *protocol_family; /* "mcp", "rest-grpc", … */
  const char *version;         /* semantic version */
  const char *summary;         /* one line for --help */
  const struct module_capability *capabilities;
  size_t capability_count;
  const struct module_hook *hooks;
  size_t hook_count;
  const char *const *spi_families; /* SPI families it needs, ended by NULL */
  const char *config_schema_json;  /* JSON Schema of its configuration; NULL: takes none */

  /* Before anything else; makes the module's own state. Errors end the process with 111. */
  bool (*create)(struct module *module, struct error *err);
  /* A core attached and handed over a configuration: check and take it, or refuse it with an error and change nothing.
   * May come again after a loss of the core. */
  bool (*initialize)(struct module *module, const core_module_v1_InitializeRequest *request, struct error *err);
  /* The SPI can be called (true), or no longer (false). The first true is the moment to warm up and to serve listeners;
   * call module_warm_set(true) when done. */
  void (*attached)(struct module *module, bool attached);
  /* Stop accepting, refuse new work, finish what is in flight; call module_drained() when nothing is left. After
   * deadline_ms the process ends anyway. NULL: waits until in_flight is 0. */
  void (*drain)(struct module *module, uint32_t deadline_ms);
  /* Protocol requests in flight, for drain and stats. */
  uint32_t (*in_flight)(struct module *module);
  /* Fills the numbers beyond in_flight; `stats->stats` may point to memory that lives until the next call. */
  void (*stats)(struct module *module, core_module_v1_ModuleStats *stats);
  /* Carry out one approved call: see module_invocation_*. NULL: ModuleRuntime.Invoke answers UNSUPPORTED. */
  void (*invoke)(struct module *module, struct module_invocation *invocation);
  /* Look at what an upstream offers: see module_discovery_*. NULL: UNSUPPORTED. */
  void (*discover)(struct module *module, struct module_discovery *discovery);
  /* A change that the core announced: drop what was cached (BND-6). Leases are the module's to keep. */
  void (*changed)(struct module *module, const core_spi_catalog_v1_WatchEvent *event);
  /* Last of all; frees the module's own state. */
  void (*destroy)(struct module *module);
};

/* Runs the module until it is asked to end; returns the exit code. */
int module_main(int argc, char **argv, const struct module_definition *definition);

/* ---- what a module may use ---- */

struct event_base *module_event_base(const struct module *module);
void *module_state(const struct module *module); /* the module's own pointer, set in create */
void module_state_set(struct module *module, void *state);
const char *module_id(const struct module *module);
uint64_t module_generation(const struct module *module);
bool module_is_attached(const struct module *module);
/* Whether the core of the last Initialize keeps to InvocationEnvelope.may_have_begun (LIF-12). If not, no call that
 * another core may have begun is asked for again. */
bool module_core_knows_may_have_begun(const struct module *module);
bool module_is_draining(const struct module *module);
/* It drains because another process of this module takes over on the same listeners: what comes on open connections is
 * served, not refused (LIF-9). */
bool module_is_handing_over(const struct module *module);
/* Accounts for a request that took so long, in microseconds, for the core's comparison of versions. Invocations are
 * accounted for by themselves. */
void module_latency_note(struct module *module, int64_t took_us);

/* Declares warm-up done, or undone; a message for operators when not. Part of readiness (LIF-3). */
void module_warm_set(struct module *module, bool warm, const char *message);
/* Serves, but not fully: shown to operators with the reason; NULL: fully again. */
void module_degraded_set(struct module *module, const char *reason);
/* Says that nothing is in flight any more, after drain began. */
void module_drained(struct module *module);
/* Protocol correctness cannot be kept by this version: not ready from now on, and the core is asked to go back to the
 * one before (LIF-11). Where there is none it stays not ready, and operators see why. */
void module_rollback_request(struct module *module, const char *reason);
/* Protocol correctness cannot be kept: ends the process with 111 after logging why (LIF-11). */
void module_fail(struct module *module, const char *reason);

/* A listening socket passed in under this name: the descriptor becomes the caller's. -1: none (any more). Several
 * sockets of one name are taken one after the other. */
int module_listener_take(struct module *module, const char *name);
/* Tells readiness whether the module listens where it should. Without a call there is no such condition. */
void module_listening_set(struct module *module, bool listening, const char *message);

/* Puts the operator's limits for public requests (GATEHOUSE_LIMIT_* in the environment) over what options hold. */
struct http_server_options;
void module_http_limits(struct http_server_options *options);

/* ---- calling the core ---- */

/* SPI_<FAMILY>_<METHOD>: every unary method of the SPI, from spi_methods.def. */
enum module_spi_method {
#define SPI_METHOD(name, path, request, response) SPI_##name,
#include "sdk/module/spi_methods.def"
#undef SPI_METHOD
  SPI_METHOD_COUNT
};

/* The channel, for streams (CatalogService.Invoke, Watch, …). Ask for it at each use: a new core may bring a new one.
 * Calls fail at once while no core is attached. */
struct rpc_channel *module_spi(const struct module *module);

/* Calls a unary SPI method with nanopb structs (the request is encoded before this returns). The callback gets the
 * decoded reply or NULL and a status; exactly once unless cancelled. deadline_ms 0: 10 s. While no core is attached the
 * call ends with UNAVAILABLE. The handle can be cancelled with rpc_call_cancel until the callback begins. */
struct rpc_call *module_spi_call(struct module *module, enum module_spi_method method, const void *request,
                                 uint32_t deadline_ms, rpc_unary_message_callback *callback, void *arg);

/* ---- calls from the core: Invoke ---- */

/* The approved call; valid until module_invocation_finish. The plan's headers hold a credential: never log them. */
const core_module_v1_InvokeRequest *module_invocation_request(const struct module_invocation *invocation);
struct module *module_invocation_module(const struct module_invocation *invocation);
int64_t module_invocation_remaining_ms(const struct module_invocation *invocation); /* INT64_MAX: no deadline */
/* Sends one item (progress, log, partial content, a request back, or the result). False: it was not taken, because the
 * core gave the call up or has not read far more than a stream may queue; then finish it with an error. */
bool module_invocation_send(struct module_invocation *invocation, const core_common_v1_InvokeItem *item);
/* The same for a result of texts whose lengths are known; they are copied. */
struct module_result {
  const char *content_json; /* JSON array of content blocks */
  size_t content_bytes;
  const char *structured_json;
  size_t structured_bytes; /* 0: none */
  bool is_error;
  uint32_t upstream_status;
  uint64_t upstream_duration_us;
};
bool module_invocation_send_result(struct module_invocation *invocation, const struct module_result *result);
/* Ends it: NULL after a result was sent, else the error. The handle is void afterwards. Must be called once, also after
 * on_cancel. */
void module_invocation_finish(struct module_invocation *invocation, const struct error *err);
/* on_cancel: the core gave the call up. */
void module_invocation_handle(struct module_invocation *invocation,
                              void (*on_cancel)(struct module_invocation *, void *), void *arg);
/* The caller's answer: its result or its error, valid during the callback, which may finish the invocation. */
typedef void module_answered(struct module_invocation *invocation, const core_common_v1_AnswerRequestRequest *answer,
                             void *arg);
/* Asks the caller back in the middle of the call: method as in CallerRequest, such as "elicitation/create";
 * params_json, a JSON object, copied. Several may wait at once, and each is answered at most once: not at all when the
 * invocation ends before, so its deadline bounds the wait. False: as for module_invocation_send, and nobody is asked.
 */
bool module_invocation_ask(struct module_invocation *invocation, const char *method, const char *params_json,
                           module_answered *answered, void *arg);

/* ---- calls from the core: Discover ---- */

const core_module_v1_DiscoverRequest *module_discovery_request(const struct module_discovery *discovery);
struct module *module_discovery_module(const struct module_discovery *discovery);
bool module_discovery_send(struct module_discovery *discovery, const core_module_v1_DiscoverItem *item);
void module_discovery_finish(struct module_discovery *discovery, const struct error *err);
/* The core gave it up; finish must still be called. */
void module_discovery_handle(struct module_discovery *discovery, void (*on_cancel)(struct module_discovery *, void *),
                             void *arg);

#endif

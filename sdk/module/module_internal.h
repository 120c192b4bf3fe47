/* module_internal.h: what the files of sdk/module share. One struct module per process, one thread. */
#ifndef GATEHOUSE_MODULE_INTERNAL_H
#define GATEHOUSE_MODULE_INTERNAL_H

#include <event2/event.h>
#include <sys/queue.h>

#include "sdk/base/buf.h"
#include "sdk/base/latency.h"
#include "sdk/base/watchdog.h"
#include "sdk/module/module.h"

/* result.c: appends the InvokeItem that carries the result, encoded. */
void module_result_encode(const struct module_result *result, struct buf *out);

#define MODULE_MAGIC 0x4d4f444cu
#define MODULE_SPI_VERSION "1"
#define MODULE_SECRET_METADATA "gatehouse-channel-secret"

#define MODULE_HANG_DEFAULT_MS 5000 /* as modules[].hang_ms of the configuration */

/* Exit codes, as docs/writing-a-module.md lists them. */
enum module_exit { MODULE_EXIT_OK = 0, MODULE_EXIT_USAGE = 100, MODULE_EXIT_ENVIRONMENT = 111 };

/* A listening socket passed in. */
struct module_listener {
  int fd; /* -1: taken */
  char *name;
};

/* Where the deny path stands (LIF-3). */
enum module_canary { MODULE_CANARY_UNKNOWN, MODULE_CANARY_ASKING, MODULE_CANARY_PROVEN, MODULE_CANARY_BROKEN };

TAILQ_HEAD(module_invocation_list, module_invocation);

struct module {
  uint32_t magic;
  const struct module_definition *definition;
  void *state;
  struct event_base *base;
  struct watchdog_loop *loop; /* NULL: not watched */
  char *id;
  uint64_t generation;
  char *runtime_socket;
  char *notify_socket;
  uint32_t stop_grace_ms; /* from SIGTERM to its end */ /* NULL: none */

  struct module_listener *listeners;
  size_t listener_count;

  struct rpc_server *server;
  struct rpc_health *health;
  struct rpc_channel *spi; /* never NULL between start and finish */
  char *spi_socket;
  uint32_t spi_in_flight_max;
  struct rpc_call *canary_call;
  struct rpc_call *watch_call;
  struct event *retry_timer; /* canary or watch again */
  struct event *alive_timer; /* signs of life for the service manager */
  struct event *turn_timer;  /* feeds the loop's watchdog */
  struct event *drain_timer;
  struct event *exit_timer;
  struct event *signal_term, *signal_int;
  char *canary_credential;
  uint64_t watch_revision;
  unsigned retries; /* of canary or watch since one of them answered */

  bool initialized;    /* a core handed over a configuration and we took it */
  bool connected;      /* the SPI channel is up */
  bool attached;       /* initialized, connected, deny path proven; told to the module */
  bool announced;      /* READY=1 was sent */
  bool announce_waits; /* it found no room, and is sent again soon */
  bool core_knows_may_have_begun;
  bool warm;
  bool draining;
  bool handing_over;
  bool drained;
  bool leaving; /* told by a signal: ends when drained */
  bool listening, listening_known;
  enum module_canary canary;
  char *warm_message, *listening_message, *degraded_reason, *canary_message, *rollback_reason;

  struct rpc_server_call *drain_call; /* Drain waits for its answer */
  struct module_invocation_list invocations;
  uint32_t invocation_count;
  uint64_t invocations_total, invocation_errors;
  uint64_t latency_counts[LATENCY_BUCKETS];
  size_t latency_used; /* buckets up to the last that holds something */
  uint64_t latency_sum_us;
  struct module_publisher *publisher; /* NULL: publishes nothing */
  int exit_code;
};

/* listeners.c: takes LISTEN_FDS over; removes the variables from the environment. */
void module_listeners_adopt(struct module *module);
void module_listeners_close(struct module *module);

/* describe.c: the descriptor in a message (pointers into the definition and one allocation, freed by
 * module_descriptor_free). */
core_module_v1_ModuleDescriptor *module_descriptor_make(const struct module_definition *definition,
                                                        const char *module_id);
void module_descriptor_free(core_module_v1_ModuleDescriptor **descriptor);
/* Prints it as proto3 JSON on stdout; false: it could not be written. */
bool module_descriptor_print(const struct module_definition *definition);

/* runtime.c: the ModuleRuntime service. */
bool module_runtime_start(struct module *module, struct error *err);
void module_runtime_stop(struct module *module);
void module_drain_begin(struct module *module, uint32_t deadline_ms, const char *reason);
uint32_t module_in_flight(struct module *module);
/* Something ended: a module without a drain of its own may be done with draining. */
void module_drain_advance(struct module *module);

/* attach.c: the SPI channel, the canary, the watch, readiness. */
void module_attach_open(struct module *module, const char *spi_socket);
void module_attach_initialize(struct module *module, const core_module_v1_InitializeRequest *request);
void module_attach_close(struct module *module);
void module_readiness_update(struct module *module);
/* Fills at most MODULE_CONDITIONS_MAX conditions (texts borrowed); returns their number; *ready: all met. */
#define MODULE_CONDITIONS_MAX 8
size_t module_readiness_conditions(struct module *module, core_module_v1_ReadinessCondition *conditions, bool *ready);

/* runtime.c: what GetStats answers; what it points to lives until the next call. */
core_module_v1_ModuleStats module_stats_collect(struct module *module);

/* publish.c: the same as metrics. Started once, when the module first attaches. */
void module_publish_start(struct module *module);
void module_publish_now(struct module *module); /* does nothing while it cannot */
void module_publish_stop(struct module *module);

/* invocation.c: Invoke, AnswerRequest and Discover. */
void module_invocation_begin(struct module *module, struct rpc_server_call *call, const uint8_t *message,
                             size_t length);
void module_discovery_begin(struct module *module, struct rpc_server_call *call, const uint8_t *message, size_t length);
void module_answer_handle(struct module *module, struct rpc_server_call *call, const uint8_t *message, size_t length);

/* limits.c: back-off and message size of the SPI channel as configured (TRN-6); zero: the channel's own defaults. */
void module_spi_limits(struct rpc_channel_options *options);

/* notify.c: sd_notify's datagram; does nothing without NOTIFY_SOCKET. False: there is no room for it at the moment. */
bool module_notify(struct module *module, const char *text);

/* module_main.c: ends the loop with this exit code, soon. */
void module_exit_soon(struct module *module, int exit_code);

#endif

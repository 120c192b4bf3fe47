/* lifecycle.h: which modules exist, in which phase they are, and what happens next (LIF-*, DSC-*, SPI-1, SPI-17,
 * TRN-4).
 *
 * A module is discovered by its runtime socket appearing below <run>/modules, whoever started it. The room dials it,
 * asks for its descriptor, checks it, initializes it (with a fresh channel secret and canary), watches its health until
 * it is ready, and keeps watching. With a supervisor it also hears of spawns and exits through the control channel and
 * orders restarts; without one the same states run over modules that attach by themselves.
 *
 * One thread: the core thread (the control channel and the folder are watched on the I/O thread and posted over). Every
 * transition goes to the state graph with its cause. */
#ifndef GATEHOUSE_CORE_LIFECYCLE_H
#define GATEHOUSE_CORE_LIFECYCLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/lifecycle/deaths.h"
#include "core/lifecycle/probe.h"
#include "core/lifecycle/verdict.h"
#include "core/observe/observe.h"
#include "core/policy/policy.h"
#include "core/psg/psg.h"
#include "core/rpc/core_rpc.h"
#include "sdk/base/error.h"
#include "wire/pbc/core/admin/v1/admin.pb-c.h"

struct lifecycle;
struct lifecycle_instance;

#define LIFECYCLE_MODULE_ID_BYTES 32 /* with its NUL */

/* States of an instance; the table of transitions is transitions.def. */
enum lifecycle_state {
#define LIFECYCLE_STATE(name, text) LIFECYCLE_##name,
#include "core/lifecycle/states.def"
#undef LIFECYCLE_STATE
  LIFECYCLE_STATE_COUNT
};
const char *lifecycle_state_name(enum lifecycle_state state);

/* Phases as bits, for the SPI's allow-list. */
enum lifecycle_phase {
  LIFECYCLE_PHASE_INITIALIZING = 1, /* initialized, not ready yet: may prove its deny path, read its configuration */
  LIFECYCLE_PHASE_SERVING = 2,      /* ready or degraded; also warming, once its deny path is proven */
  LIFECYCLE_PHASE_DRAINING = 4,
};

/* Configuration of one module, from gatehouse.yaml. Texts are borrowed for the life of the room. */
struct lifecycle_module_config {
  const char *module_id;
  const char *config_json; /* object; "{}" when there is none */
  size_t config_length;
  uint32_t start_timeout_ms; /* 0: 10000 */
  uint32_t drain_timeout_ms;
  struct lifecycle_intensity intensity;
  uint32_t quarantine_retry_ms; /* until a held module that had been ready is tried again; 0: never */
  struct lifecycle_probe_config startup, liveness, readiness;
  const char *binary;                 /* as configured; NULL: unknown */
  const char *fallback;               /* a program for when it cannot hold and there is none before it; "": none */
  uint32_t probation_ms;              /* of an upgrade */
  struct lifecycle_criteria criteria; /* what a candidate is judged by */
};

struct lifecycle_options {
  struct core_rpc_loop *loop;
  struct store *store;     /* remembers what is quarantined, programs and configurations; NULL (tests): nothing does */
  struct secrets *secrets; /* seals configurations there; NULL (tests): they are not kept there */
  struct policy *policy;
  struct psg *psg;
  struct observe *observe;
  const char *run_dir;
  const char *versions_dir; /* of programs by version; NULL or "": none */
  const char *log_level;
  int control_fd; /* the supervisor's channel; -1: none */
  int watch_fd;   /* an inotify descriptor to use, -1: none. It stays the caller's */
  uint32_t in_flight_max;
  uint32_t backoff_first_ms, backoff_max_ms;   /* before a module whose connection was lost is dialled again */
  uint32_t watchdog_ms;                        /* the supervisor's watchdog over this process; 0: none */
  const char *core_binary;                     /* as configured; NULL: unknown */
  uint32_t core_probation_ms, core_modules_ms; /* of a new program of the core; see core.upgrade.… */
  uint64_t store_schema;                       /* of the store; 0: it does not outlive this process */
  const struct lifecycle_module_config *modules;
  size_t module_count;
  void (*on_shutdown)(void *arg); /* the supervisor is gone: drain and leave (LIF-13) */
  /* gatehouse.yaml says something else: lifecycle_reconfigure is to be called with what it says. */
  void (*on_reconfigured)(void *arg);
  /* An instance became able (or unable) to carry out calls. */
  void (*on_serving)(void *arg, const struct lifecycle_instance *instance, bool serving);
  void *arg;
};

/* Makes the SPI sockets' folder and the listeners core/spi/<module>.sock for the configured modules (others are made
 * when their runtime socket appears), starts watching. */
struct lifecycle *lifecycle_start(const struct lifecycle_options *options, struct error *err);
/* Tells the supervisor, when there is one, that the core serves: once, after every socket listens. startup in
 * milliseconds. */
void lifecycle_ready_tell(struct lifecycle *lifecycle, uint32_t startup_ms);
/* The core is told to end: from now on no module is watched any more, which would keep it waiting; what modules carry
 * out is finished. On the core thread, before the loop is stopped. */
void lifecycle_leave(struct lifecycle *lifecycle);
/* Ends the watching and every connection to a module; nothing is killed here. NULL-safe. */
void lifecycle_stop(struct lifecycle *lifecycle);
/* Once stopped, and after the loop was freed: no task that was posted names it any more. Nulls; NULL-safe. */
void lifecycle_free(struct lifecycle **lifecycle);

/* Identity of an SPI call (TRN-4): the peer's socket names the module, the metadata "gatehouse-channel-secret" must be
 * the one of the living generation, compared in constant time. NULL: ERR_AUTH_CHANNEL, and an audit event was written.
 */
struct lifecycle_instance *lifecycle_authenticate(struct lifecycle *lifecycle, struct core_rpc_call *call,
                                                  struct error *err);

/* The id of its process: the module's, or "<module>@2" of its second one (LIF-9). What is bound to one process (caller
 * contexts, plans, watches) is bound to this. lifecycle_instance_name: the module's id, for records and labels. */
const char *lifecycle_instance_name(const struct lifecycle_instance *instance);
const char *lifecycle_instance_module_id(const struct lifecycle_instance *instance);
const char *lifecycle_instance_family(const struct lifecycle_instance *instance);
uint64_t lifecycle_instance_generation(const struct lifecycle_instance *instance);
enum lifecycle_phase lifecycle_instance_phase(const struct lifecycle_instance *instance);
bool lifecycle_instance_is_granted(const struct lifecycle_instance *instance, const char *spi_family);
const char *lifecycle_instance_config(const struct lifecycle_instance *instance, size_t *length, uint64_t *revision);

/* The channel to a serving instance of that protocol family: the preferred module's where it is one of them (NULL: no
 * preference), else each in turn. owner_id gets the id of the module that was chosen; may be NULL. NULL:
 * ERR_INVOKE_OWNER_UNAVAILABLE. Valid until control returns to the loop; calls started on it end as lost when
 * the instance dies, but those that it had answered. */
struct core_rpc_channel *lifecycle_family_channel(struct lifecycle *lifecycle, const char *protocol_family,
                                                  const char *preferred_id, char owner_id[LIFECYCLE_MODULE_ID_BYTES],
                                                  struct error *err);
/* Nobody serves the family, but a module that could is between two lives: its process is gone and is started again
 * within so many milliseconds, or its newest instance is on its way through the phases. Not one that is held down,
 * ordered to stay away, degraded, or that lately never gets ready. on_serving tells when it is back. */
bool lifecycle_family_returns(const struct lifecycle *lifecycle, const char *protocol_family, uint32_t within_ms);
/* The channel to that module while it lives, serving or draining. NULL: ERR_INVOKE_OWNER_UNAVAILABLE. */
struct core_rpc_channel *lifecycle_module_channel(struct lifecycle *lifecycle, const char *module_id,
                                                  struct error *err);

/* What the core sees of a module's work, for the verdict on a new version (LIF-9): a call to it, or a plan that it
 * carries out, for as long as that is under way. Lives in what the caller keeps of the call, which ends before the room
 * does; one that is zero is not under way, and ending it does nothing. */
struct lifecycle_witness {
  TAILQ_ENTRY(lifecycle_witness) entry;
  struct lifecycle_module *module;
  int64_t began_us;
};
enum lifecycle_outcome {
  LIFECYCLE_OUTCOME_SERVED, /* also with an error that is not its own fault */
  LIFECYCLE_OUTCOME_FAILED, /* by its own fault, or not in time */
  LIFECYCLE_OUTCOME_NONE,   /* nobody waited for it any more */
};
/* process_id: as lifecycle_family_channel and lifecycle_instance_module_id give it. */
void lifecycle_witness_begin(struct lifecycle *lifecycle, const char *process_id, struct lifecycle_witness *witness);
void lifecycle_witness_end(struct lifecycle_witness *witness, enum lifecycle_outcome outcome);

/* Orders of operators (LIF-5). An orderly end is Drain with a deadline, then SIGTERM (without a supervisor:
 * Shutdown), then SIGKILL; each next only when the one before did not help. */
enum lifecycle_order {
  LIFECYCLE_ORDER_DRAIN,   /* finish what is in flight, take nothing new, stay */
  LIFECYCLE_ORDER_STOP,    /* drain, end, and stay down until started */
  LIFECYCLE_ORDER_RESTART, /* drain, end, and come back */
  LIFECYCLE_ORDER_START,   /* what was stopped, drained, or waits for its restart */
  LIFECYCLE_ORDER_COUNT
};
/* drain_deadline in milliseconds, 0: as configured. *generation: the one that ends or drains, 0: none. Errors:
 * ERR_MODULE_UNKNOWN, ERR_MODULE_PHASE (not in this state), ERR_UNSUPPORTED (without a supervisor), ERR_UNAVAILABLE
 * (the supervisor takes no orders now). */
bool lifecycle_order(struct lifecycle *lifecycle, enum lifecycle_order order, const char *module_id,
                     uint32_t drain_deadline_ms, uint64_t *generation, struct error *err);

/* Lets a module go from its quarantine (LIF-8). False, and done is not called: ERR_MODULE_UNKNOWN, ERR_MODULE_PHASE.
 * Else done is called on the core thread when that is written down: err NULL: it comes back, also under a later core;
 * ERR_STORE_*: it stays held; as for orders: it is let go, and does not start now. */
typedef void lifecycle_done(void *arg, const struct error *err);
bool lifecycle_release(struct lifecycle *lifecycle, const char *module_id, lifecycle_done *done, void *arg,
                       struct error *err);

/* Upgrades (LIF-9): starts that program as a candidate beside the module's current process, with the same
 * configuration; it takes over when it has held for probation_ms (0: as configured), and goes by itself when it does
 * not. Returns when it is under way. The program by its path, or, where that is "", by its version, which it must then
 * say of itself. *generation: of the process that serves now. who: for the history. Errors: ERR_MODULE_UNKNOWN,
 * ERR_MODULE_PHASE (not ready, or an upgrade is under way), ERR_ARGUMENT_INVALID (no such program),
 * ERR_MODULE_VERSION_UNKNOWN, ERR_MODULE_VERSION_AMBIGUOUS, ERR_UNSUPPORTED (without a supervisor), ERR_UNAVAILABLE
 * (the supervisor takes no orders now). */
bool lifecycle_upgrade(struct lifecycle *lifecycle, const char *module_id, const char *program, const char *version,
                       uint32_t probation_ms, const char *who, uint64_t *generation, struct error *err);
/* The same for another configuration of the same program (SPI-15): a JSON object, which is checked against the schema
 * that the module declares, and then by the module itself; length 0: what gatehouse.yaml says. *revision: its number in
 * the history. Errors as above; ERR_MODULE_CONFIG: it is not valid, or the one in force. */
bool lifecycle_configure(struct lifecycle *lifecycle, const char *module_id, const char *json, size_t length,
                         uint32_t probation_ms, const char *who, uint64_t *generation, uint64_t *revision,
                         struct error *err);
/* What gatehouse.yaml says of the modules now, of which only the configurations are taken: one that changed takes the
 * same road; of a module that does not serve it counts at once. Texts are borrowed for the life of the room. */
void lifecycle_reconfigure(struct lifecycle *lifecycle, const struct lifecycle_module_config *modules, size_t count);
/* Ends an upgrade that is under way, or goes back to the program and the configuration before, which have proven
 * themselves: they take over as soon as they are ready (LIF-10). Errors as above; ERR_MODULE_PHASE also when there is
 * none before. */
bool lifecycle_rollback(struct lifecycle *lifecycle, const char *module_id, const char *who, uint64_t *generation,
                        struct error *err);

/* The core's own program (LIF-9, LIF-10, LIF-12; core_upgrade.c): the supervisor starts another one in the place of
 * this process, on the same store and sockets. done is called once, at once or later: without an error when the
 * supervisor has agreed and this core is about to be told to end. probation_ms 0: as configured. no_rollback: a program
 * that changes the schema of the store is taken. The program by its path, or, where that is "", by its version, which
 * it must then say of itself. Errors: ERR_MODULE_VERSION_UNKNOWN, ERR_MODULE_VERSION_AMBIGUOUS, ERR_MODULE_PHASE (not
 * now, or for a rollback: there is none before), ERR_ARGUMENT_INVALID, ERR_MODULE_PROGRAM (it cannot be the core's),
 * ERR_CORE_SCHEMA, ERR_UNSUPPORTED (without a supervisor), ERR_UNAVAILABLE, ERR_STORE_*. */
typedef void lifecycle_core_done(void *arg, const struct error *err);
void lifecycle_core_upgrade(struct lifecycle *lifecycle, const char *program, const char *version,
                            uint32_t probation_ms, bool no_rollback, const char *who, lifecycle_core_done *done,
                            void *arg);
/* Goes back to the program before. On probation: the supervisor is told that this core cannot stay. */
void lifecycle_core_rollback(struct lifecycle *lifecycle, const char *who, lifecycle_core_done *done, void *arg);
/* Whoever gave that argument with an order does not wait for done any more: it is not called. */
void lifecycle_core_done_forget(struct lifecycle *lifecycle, const void *arg);
uint64_t lifecycle_core_generation(const struct lifecycle *lifecycle);

/* For StatusService and ModuleAdminService: members are from malloc, free with the generated free_unpacked functions.
 */
void lifecycle_status_fill(struct lifecycle *lifecycle, Core__Admin__V1__GetStatusResponse *response);
Core__Admin__V1__DescribeModuleResponse *lifecycle_describe(struct lifecycle *lifecycle, const char *module_id,
                                                            struct error *err);

#endif

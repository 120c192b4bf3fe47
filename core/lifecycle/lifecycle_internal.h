/* lifecycle_internal.h: what the files of core/lifecycle share. Everything lives on the core thread, except where
 * discovery.c and control_link.c say that the I/O thread reads. */
#ifndef GATEHOUSE_CORE_LIFECYCLE_INTERNAL_H
#define GATEHOUSE_CORE_LIFECYCLE_INTERNAL_H

#include <sys/queue.h>
#include <sys/types.h>

#include "core/lifecycle/deaths.h"
#include "core/lifecycle/known.h"
#include "core/lifecycle/lifecycle.h"
#include "core/lifecycle/probe.h"
#include "sdk/base/id.h"
#include "sdk/base/secret.h"
#include "sdk/control/control.h"
#include "wire/pbc/core/module/v1/module.pb-c.h"

#define LIFECYCLE_MAGIC 0x4c494645u
#define LIFECYCLE_INSTANCE_MAGIC 0x4c494e53u
#define LIFECYCLE_HISTORY_MAX 64
#define LIFECYCLE_LAST_WORDS_MAX 16
#define LIFECYCLE_REASON_BYTES 256
#define LIFECYCLE_SPI_VERSION "1"
#define LIFECYCLE_DEATHS_SHOWN 8

enum lifecycle_event {
#define LIFECYCLE_EVENT(name, text) LIFECYCLE_ON_##name,
#include "core/lifecycle/events.def"
#undef LIFECYCLE_EVENT
  LIFECYCLE_EVENT_COUNT
};

struct lifecycle_transition {
  int64_t at_ms;
  uint64_t generation;
  enum lifecycle_state from, to;
  char cause[LIFECYCLE_REASON_BYTES];
};

/* A listener that the supervisor handed to the module. */
struct lifecycle_listener {
  char name[64], address[112];
  uint32_t port;
};

/* Why a module is kept down. A hold outlives the instance; a quarantine outlives the gateway (LIF-8). */
enum lifecycle_hold {
  LIFECYCLE_HOLD_NONE,
  LIFECYCLE_HOLD_DISABLED,    /* by the configuration */
  LIFECYCLE_HOLD_STOPPED,     /* by an operator */
  LIFECYCLE_HOLD_QUARANTINED, /* by the core: it keeps failing */
};

/* A death that nobody ordered, as operators see it. */
struct lifecycle_death {
  int64_t at_ms; /* wall clock */
  uint64_t generation;
  enum lifecycle_death_cause cause;
  uint64_t ready_ms; /* 0: it never was */
  bool was_ready;
  char detail[LIFECYCLE_REASON_BYTES];
  char *words[LIFECYCLE_LAST_WORDS_MAX];
  size_t word_count;
};

/* What follows when a module has finished what it does (LIF-5). */
enum lifecycle_plan { LIFECYCLE_PLAN_NONE, LIFECYCLE_PLAN_STAY, LIFECYCLE_PLAN_STOP, LIFECYCLE_PLAN_RESTART };

/* Calls to an instance: at most one of each is under way. */
enum lifecycle_call {
  LIFECYCLE_CALL_STEP,   /* the attach step, or the question for readiness */
  LIFECYCLE_CALL_HEALTH, /* the health stream */
  LIFECYCLE_CALL_LIVENESS,
  LIFECYCLE_CALL_DRAIN,
  LIFECYCLE_CALL_STATS,
  LIFECYCLE_CALL_COUNT
};

/* One running process of a module. */
struct lifecycle_instance {
  uint32_t magic;
  struct lifecycle_module *module;
  uint64_t generation;
  enum lifecycle_state state;
  char reason[LIFECYCLE_REASON_BYTES];
  int64_t discovered_us;
  struct core_rpc_channel *channel; /* NULL: no longer reachable */
  struct core_rpc_client_call *calls[LIFECYCLE_CALL_COUNT];
  struct core_rpc_timer *start_timer, *readiness_timer, *liveness_timer, *drain_timer;
  struct lifecycle_probe readiness_probe, liveness_probe;
  int64_t liveness_asked_us;
  uint32_t in_flight; /* what it said last while draining */
  bool drained;
  bool handing_over;             /* while it drains it serves what comes on open connections */
  struct secret *channel_secret; /* NULL: no SPI call is accepted */
  Core__Module__V1__ModuleDescriptor *descriptor;
  Core__Module__V1__Readiness *readiness;
  unsigned granted;    /* bits of families.def */
  bool serving;        /* told to on_serving */
  bool healthy;        /* what health said last */
  bool health_changed; /* while a step was under way: its answer is older */
};

/* What confines a process, as the supervisor says. */
#define LIFECYCLE_PROTECTIONS_MAX 20
struct lifecycle_protection {
  char name[24], why[112];
  unsigned state; /* supervisor.control.v1.ProtectionState */
};
struct lifecycle_protections {
  struct lifecycle_protection items[LIFECYCLE_PROTECTIONS_MAX];
  size_t count;
};

/* What a process is to its module, as ProcessRole in control.proto. */
enum lifecycle_role { LIFECYCLE_CURRENT, LIFECYCLE_CANDIDATE, LIFECYCLE_RETIRED };

/* What is under way with a module's programs; upgrade.c has the order. */
enum lifecycle_upgrade_phase {
  LIFECYCLE_UPGRADE_NONE,
  LIFECYCLE_UPGRADE_STARTING,     /* the candidate is staged, started, and taken through its phases */
  LIFECYCLE_UPGRADE_PROBATION,    /* both serve */
  LIFECYCLE_UPGRADE_ROLLING_BACK, /* the candidate is on its way out */
  LIFECYCLE_UPGRADE_RETIRING,     /* the candidate took over; the old one is on its way out */
};

/* A quarantine, and what comes after it: quarantine.c. */
struct lifecycle_quarantine {
  uint64_t pause_ms;            /* before the trial start; 0: it never had been ready, and an operator decides */
  int64_t trial_at_ms;          /* wall clock */
  bool on_trial;                /* started again; the next death has it held again */
  struct core_rpc_timer *timer; /* to the trial, or of the trial */
};

#define LIFECYCLE_CHANGES_MAX 32

/* What a process of a module runs, and with what. */
struct lifecycle_edition {
  char program[LIFECYCLE_PROGRAM_BYTES]; /* "": as configured */
  char version[LIFECYCLE_VERSION_BYTES]; /* that it says of itself; "": it was not heard yet */
  uint64_t config;                       /* revision of its configuration; 0: of a module that gatehouse.yaml does not
                                            name, which has none */
};

/* A configuration that a module has, had, or is to have. Never changed: another one has another revision. */
struct lifecycle_config {
  STAILQ_ENTRY(lifecycle_config) entry;
  uint64_t revision;
  enum { LIFECYCLE_CONFIG_WRITING, LIFECYCLE_CONFIG_WRITTEN, LIFECYCLE_CONFIG_LOST } stored;
  char *json;
  size_t length;
};

/* The programs and configurations of a module, and the change that is under way. One per module; its processes share
 * it. */
struct lifecycle_versions {
  struct lifecycle *lifecycle;
  const char *name;                        /* the module's id, or "core", of which there are no processes here */
  struct lifecycle_module *first, *second; /* second: NULL before the first upgrade */
  struct lifecycle_quarantine quarantine;  /* of whichever is the current one */
  struct lifecycle_edition current;        /* what the current process runs, and is restarted with */
  struct lifecycle_edition previous;
  bool has_previous;
  char configured[LIFECYCLE_PROGRAM_BYTES];      /* program that gatehouse.yaml named when that was decided, */
  uint64_t file_config;                          /* and revision of what it said as configuration */
  char configured_file[LIFECYCLE_PROGRAM_BYTES]; /* where the configured program lies; "": not known */
  STAILQ_HEAD(, lifecycle_config) configs;
  uint64_t config_last;                                                 /* highest revision */
  Core__Admin__V1__ModuleVersionChange *changes[LIFECYCLE_CHANGES_MAX]; /* newest first */
  size_t change_count;
  Core__Admin__V1__CoreUpgrade *core_upgrade; /* of the core, while it is replaced; NULL: it is not */

  enum lifecycle_upgrade_phase phase;
  unsigned decisions_writing;         /* until they are on disk nobody is told that the probation is over */
  struct lifecycle_module *candidate; /* while a phase is under way: the process that came, or is to go back */
  bool proven;                        /* it was current once: it takes over as soon as it is ready */
  bool emergency;                     /* the old one is given up already */
  char who[64];
  char wanted_version[LIFECYCLE_VERSION_BYTES]; /* that the candidate must say of itself; "": any */
  bool file_waits; /* gatehouse.yaml changed meanwhile; it is looked at when this change is over */
  uint32_t probation_ms;
  int64_t deadline_us; /* of the phase */
  int64_t end_due_us;  /* until then the supervisor is to tell how the candidate ended; 0: it has not */
  uint64_t stage_sequence;
  struct core_rpc_timer *timer;
  struct lifecycle_sample begin[2], now[2]; /* of the old one and the candidate */
  uint64_t sampled[2];                      /* generations whose first word begin has */
};

/* Tells a socket file from another at the same path; zeros: there is none. */
struct lifecycle_socket {
  ino_t inode;
  int64_t changed_ns;
};

struct lifecycle_module {
  STAILQ_ENTRY(lifecycle_module) entry;
  struct lifecycle *lifecycle;
  char *id;   /* of the process: the module's, or with "@2" of its second one */
  char *name; /* the module's id */
  struct lifecycle_versions *versions;
  enum lifecycle_role role;
  struct lifecycle_edition edition;
  uint32_t starts;                       /* in this boot of the supervisor */
  struct lifecycle_module_config config; /* borrowed texts; zero when the module is not configured */
  bool configured;
  struct core_rpc_listener *spi_listener, *spi_http_listener;
  char *runtime_path, *spi_path;
  struct lifecycle_socket dialled;     /* where the newest instance was; zeros: the one that is there counts as new */
  struct lifecycle_instance *instance; /* the newest; NULL: none yet */
  struct core_rpc_timer *retry_timer;
  unsigned redials;                     /* since a connection held */
  struct core_rpc_timer *process_timer; /* a process that is neither ready nor refused in time is killed */
  unsigned attach_waits;                /* until the process behind a new socket is known and listens, */
  struct lifecycle_socket attach_last;  /* of this socket */
  uint64_t generation_last;

  /* What the supervisor says; zero without one. */
  bool supervised;
  uint64_t process_generation;
  int32_t pid;
  int64_t spawned_us;
  char version[64], family[32];
  uid_t uid;
  struct lifecycle_listener listeners[8];
  size_t listener_count;
  struct lifecycle_protections protections;

  uint32_t restarts;
  char last_exit[96];
  int64_t last_exit_at_ms;
  char fault[LIFECYCLE_REASON_BYTES]; /* what was wrong with the newest process, with its code; "" once it is ready */
  uint64_t fault_generation;          /* that process; its exit, which follows, is no news then */
  bool restart_waits;
  int64_t restart_due_us; /* while that; monotonic */
  bool stays_down;        /* the supervisor leaves it down: by its policy, or as ordered */
  enum lifecycle_hold hold;
  char hold_reason[LIFECYCLE_REASON_BYTES];
  enum lifecycle_plan plan;    /* of the drain under way */
  uint64_t ordered_generation; /* its end was ordered: no death to account for */
  uint64_t doomed_generation;  /* its end was the core's decision, because of doom */
  enum lifecycle_death_cause doom;
  uint64_t adopted_generation; /* the core before saw it ready, this one did not yet; 0: none */
  uint64_t ready_generation;   /* the newest that became ready, */
  int64_t ready_us;            /* and when; monotonic */
  struct lifecycle_deaths deaths;
  struct lifecycle_death recent[LIFECYCLE_DEATHS_SHOWN]; /* a ring */
  size_t recent_count;
  char *last_words[LIFECYCLE_LAST_WORDS_MAX];
  size_t last_word_count;
  struct lifecycle_transition history[LIFECYCLE_HISTORY_MAX]; /* a ring */
  size_t history_count;
  struct lifecycle_tally seen;               /* of its work, by the core, */
  TAILQ_HEAD(, lifecycle_witness) witnesses; /* and what is under way, in the order of beginning */
};

/* How far this core is with the order to be replaced, or with its own probation; core_upgrade.c has the order. */
enum lifecycle_core_step {
  LIFECYCLE_CORE_IDLE,
  LIFECYCLE_CORE_DESCRIBING, /* the supervisor asks the program what it is */
  LIFECYCLE_CORE_WRITING,    /* what the next core has to know is being stored */
  LIFECYCLE_CORE_ORDERED,    /* the supervisor was told */
  LIFECYCLE_CORE_LEAVING,    /* it has agreed: it tells this core to end */
  LIFECYCLE_CORE_PROBATION,  /* this core is the new one */
};

struct lifecycle_core {
  struct lifecycle_versions *versions;
  char program[LIFECYCLE_PROGRAM_BYTES]; /* of this core, as the supervisor says; "": as configured */
  char boot_id[ID_UUID_BYTES];           /* of the supervisor */
  enum lifecycle_core_step step;
  bool asked;        /* whether it can stay */
  bool modules_back; /* every module that was ready before has been */
  int64_t modules_deadline_us;
  uint64_t sequence; /* of the order whose answer is awaited */
  bool no_rollback;
  uint32_t probation_ms;
  lifecycle_core_done *done; /* who waits for the order to be taken; NULL: nobody */
  void *done_arg;
  struct core_rpc_timer *timer;
};

/* Conditions of alerts, as AlertCondition in control.proto. */
enum lifecycle_alert_condition {
  LIFECYCLE_ALERT_QUARANTINED = supervisor_control_v1_AlertCondition_ALERT_CONDITION_QUARANTINED,
  LIFECYCLE_ALERT_RELEASED = supervisor_control_v1_AlertCondition_ALERT_CONDITION_RELEASED,
  LIFECYCLE_ALERT_ROLLED_BACK = supervisor_control_v1_AlertCondition_ALERT_CONDITION_ROLLED_BACK,
  LIFECYCLE_ALERT_FALLBACK = supervisor_control_v1_AlertCondition_ALERT_CONDITION_FALLBACK,
  LIFECYCLE_ALERT_DEGRADED = supervisor_control_v1_AlertCondition_ALERT_CONDITION_DEGRADED,
  LIFECYCLE_ALERT_RECOVERED = supervisor_control_v1_AlertCondition_ALERT_CONDITION_RECOVERED,
};

#define LIFECYCLE_ALERTS_KEPT_MAX 16
struct lifecycle_alerts {
  supervisor_control_v1_RaiseAlert kept[LIFECYCLE_ALERTS_KEPT_MAX]; /* not sent yet, oldest first */
  size_t kept_count;
  struct core_rpc_timer *timer; /* to the next attempt */
  uint64_t failed, lost;        /* of the supervisor's newest report */
  uint32_t waiting;
  char problem[LIFECYCLE_REASON_BYTES];
};

STAILQ_HEAD(lifecycle_module_list, lifecycle_module);

struct lifecycle_discovery;
struct lifecycle_control;

struct lifecycle {
  uint32_t magic;
  struct lifecycle_options options;
  struct lifecycle_module_list modules;
  struct lifecycle_discovery *discovery;
  struct lifecycle_control *control; /* NULL: no supervisor */
  struct lifecycle_core core;
  struct lifecycle_alerts alerts;
  char *run_dir;
  int64_t started_us;
  int32_t supervisor_pid;
  char supervisor_version[32];
  unsigned turn; /* of lifecycle_family_channel */
  uint32_t core_starts;
  uint64_t core_generation;
  struct lifecycle_protections core_protections, supervisor_protections;
  char core_last_exit[96];
  int64_t core_last_exit_at_ms;
  bool stopping;
};

/* lifecycle.c */
struct lifecycle_module *lifecycle_module_find(struct lifecycle *lifecycle, const char *module_id);
/* Finds or makes it, with its SPI listener. NULL: the id is no valid name, or the listener failed. */
struct lifecycle_module *lifecycle_module_ensure(struct lifecycle *lifecycle, const char *module_id);
/* The second process of a module, made when it is not there. NULL: no such module, or the listener failed. */
struct lifecycle_module *lifecycle_module_second(struct lifecycle *lifecycle, const char *module_id,
                                                 const char *process_id);
/* The current process of the module that operators name; NULL: no such module. */
struct lifecycle_module *lifecycle_module_named(struct lifecycle *lifecycle, const char *module_id);
struct lifecycle_module *lifecycle_module_current(const struct lifecycle_versions *versions);
/* The other one; NULL: there is none. */
struct lifecycle_module *lifecycle_module_other(const struct lifecycle_module *module);
bool lifecycle_module_is_alive(const struct lifecycle_module *module);
/* The supervisor named the user that the module runs as: its SPI sockets become that user's (TRN-4). */
void lifecycle_module_owner_set(struct lifecycle_module *module, uid_t uid, gid_t gid);

/* Its process lives and must be ready, anew, within its start timeout; else it is condemned. */
void lifecycle_module_process_watch(struct lifecycle_module *module);

/* Of a module: the time within which it must be ready, in milliseconds; what was wrong, kept for the status. */
uint32_t lifecycle_module_start_timeout_ms(const struct lifecycle_module *module);
void lifecycle_module_fault(struct lifecycle_module *module, uint64_t generation, enum error_code code,
                            const char *format, ...) __attribute__((format(printf, 4, 5)));

/* machine.c: carries an event out: the new state, history, graph, metrics, on_serving. False: forbidden. */
bool lifecycle_instance_event(struct lifecycle_instance *instance, enum lifecycle_event event, const char *cause);
bool lifecycle_transition_lookup(enum lifecycle_state from, enum lifecycle_event event, enum lifecycle_state *to);

/* alerts.c: name: the module's id, or "core". Nothing without a supervisor. */
void lifecycle_alert(struct lifecycle *lifecycle, enum lifecycle_alert_condition condition, const char *name,
                     uint64_t generation, const char *reason);
void lifecycle_alerts_report(struct lifecycle *lifecycle, const supervisor_control_v1_AlertReport *report);
/* What is to be said in the status. False: nothing. */
bool lifecycle_alerts_warning(const struct lifecycle *lifecycle, char *target, size_t target_bytes);

/* instance.c */
void lifecycle_instance_attach(struct lifecycle_module *module);
/* For news of a process that never showed its socket: makes an instance in that state which cannot be reached. */
void lifecycle_instance_imagine(struct lifecycle_module *module, enum lifecycle_state state);
/* Calls the instance. done runs only while it can be reached and this call is the one it waits for. */
typedef void lifecycle_answer(struct lifecycle_instance *instance, const struct core_rpc_result *result);
void lifecycle_instance_call(struct lifecycle_instance *instance, enum lifecycle_call slot, const char *method,
                             const void *data, size_t length, int64_t timeout_ms, lifecycle_answer *done);
/* Asks for its readiness now, unless that is under way. */
void lifecycle_instance_readiness_ask(struct lifecycle_instance *instance);
/* Its connection or its answers are gone while the process may live: ends it, and dials again later. */
void lifecycle_instance_lose(struct lifecycle_instance *instance, const char *cause);
/* It is not dialled again by itself; a new socket of it is. */
void lifecycle_redial_cancel(struct lifecycle_module *module);
/* Ends it: event, connection and secret gone. The struct stays as the module's newest. */
void lifecycle_instance_end(struct lifecycle_instance *instance, enum lifecycle_event event, const char *cause);
void lifecycle_instance_free(struct lifecycle_instance **instance);

/* witness.c: how many calls to the module, or of it, are without an answer for LIFECYCLE_STALL_US. */
uint64_t lifecycle_witness_stalled(const struct lifecycle_module *module);

/* probes.c: liveness, from the moment an instance is ready (LIF-4). */
void lifecycle_liveness_begin(struct lifecycle_instance *instance);

/* account.c: deaths that nobody ordered, and what follows from them (LIF-7, LIF-8). */
void lifecycle_account_ready(struct lifecycle_module *module, uint64_t generation);
/* The core before this one saw that generation ready, so many milliseconds ago; 0: it did not. */
void lifecycle_account_adopt(struct lifecycle_module *module, uint64_t generation, uint64_t ready_ms);
/* detail: what happened, with its code. Words are those in module->last_words. Writes the text for the history: what
 * kind of death it was and the detail. */
void lifecycle_account_death(struct lifecycle_module *module, uint64_t generation, enum lifecycle_death_cause cause,
                             const char *detail, char text[static LIFECYCLE_REASON_BYTES]);
/* What follows from that death: nothing, or the quarantine. Once the history has it. */
void lifecycle_account_judge(struct lifecycle_module *module, const char *text);
/* Ends a process because of what it does or does not do; its death counts with this cause. trace: it writes where it
 * hangs, if it can. Without a supervisor nothing can be ended. */
void lifecycle_account_condemn(struct lifecycle_module *module, uint64_t generation, enum lifecycle_death_cause cause,
                               bool trace);

/* quarantine.c */
void lifecycle_quarantine_begin(struct lifecycle_module *module, const char *reason);
/* An operator ends it. */
void lifecycle_quarantine_end(struct lifecycle_module *module);
/* Only takes the row away; done (may be NULL) when the store has done so, without one at once. */
void lifecycle_quarantine_forget(const struct lifecycle_module *module, store_done *done, void *arg);
/* Only lets it go. */
void lifecycle_quarantine_lift(struct lifecycle_module *module);
/* Another process of the module is the one that is to be held. */
void lifecycle_quarantine_move(struct lifecycle_module *from, struct lifecycle_module *to);
/* The module is ready: if it is on trial, that now has an end. */
void lifecycle_quarantine_ready(struct lifecycle_module *module);
/* For operators; NULL: it is neither held nor on trial. */
Core__Admin__V1__ModuleQuarantine *lifecycle_quarantine_message(const struct lifecycle_module *module);
/* At the start of the room: what was held when the last core ended. */
bool lifecycle_quarantine_restore(struct lifecycle *lifecycle, struct error *err);
/* The supervisor says that it holds the module: finds out what for. */
void lifecycle_hold_adopt(struct lifecycle_module *module, bool held, const char *reason);
void lifecycle_hold_set(struct lifecycle_module *module, enum lifecycle_hold hold, const char *reason);

/* upgrade.c (LIF-9, LIF-10) */
/* A process that is not the current one has ended, whatever for. */
void lifecycle_upgrade_ended(struct lifecycle_module *module, const char *text);
/* The supervisor answered an order. */
void lifecycle_upgrade_accepted(struct lifecycle *lifecycle, uint64_t sequence);
void lifecycle_upgrade_refused(struct lifecycle *lifecycle, uint64_t sequence, unsigned reason);
/* The supervisor has told of every process: what was under way when the last core, or the last supervisor, ended is
 * finished or taken back. */
void lifecycle_upgrade_reconcile(struct lifecycle *lifecycle);
/* An instance was initialized. True: its process was on its way out already when this core came, and is sent there. */
bool lifecycle_upgrade_sends_away(struct lifecycle_instance *instance);
/* The current one cannot hold: goes back to the program before, or to the configured fallback (LIF-8). False: there is
 * none. */
bool lifecycle_upgrade_fall_back(struct lifecycle_module *module, const char *reason);
void lifecycle_upgrade_stop(struct lifecycle_versions *versions);
/* The current process of the module, when it can be changed now; NULL: *err says why not. */
struct lifecycle_module *lifecycle_upgrade_changeable(struct lifecycle *lifecycle, const char *module_id,
                                                      struct error *err);
/* Begins the road for that edition. version: that the program must say of itself; "": any. */
bool lifecycle_upgrade_begin(struct lifecycle_module *current, const struct lifecycle_edition *edition,
                             const char *version, uint32_t probation_ms, const char *who, struct error *err);

/* configure.c: what gatehouse.yaml says as configuration, when it says something new. Adopt: nothing runs yet, or
 * nobody can start anything beside it, so it counts at once. Changed: by the road, where the module serves. */
void lifecycle_configure_adopt(struct lifecycle_versions *versions);
/* Whatever is not known of a configuration, or not any more, is as gatehouse.yaml says. */
void lifecycle_configure_fill(struct lifecycle_versions *versions);
void lifecycle_configure_changed(struct lifecycle_versions *versions);
/* A configuration against the schema in a module's descriptor, where it has one that can be compiled (SPI-15).
 * ERR_MODULE_CONFIG names the place and the rule, never the value. */
bool lifecycle_config_check(const Core__Module__V1__ModuleDescriptor *descriptor, const char *json, size_t length,
                            struct error *err);

/* configs.c: the configurations themselves, sealed in the store. */
/* Its revision: that of the same text, or a new one. */
uint64_t lifecycle_config_keep(struct lifecycle_versions *versions, const char *json, size_t length);
/* NULL: not known (any more). */
const struct lifecycle_config *lifecycle_config_find(const struct lifecycle_versions *versions, uint64_t revision);
/* What gatehouse.yaml says now; 0: it does not name the module. */
uint64_t lifecycle_config_of_file(struct lifecycle_versions *versions);
/* What that process is given. Borrowed; valid until control returns to the loop. */
const char *lifecycle_config_text(const struct lifecycle_module *module, size_t *length);
bool lifecycle_configs_restore(struct lifecycle *lifecycle, struct error *err);
/* Forgets those that nothing refers to any more. */
void lifecycle_configs_prune(struct lifecycle_versions *versions, struct store_batch *batch);
void lifecycle_configs_free(struct lifecycle_versions *versions);

/* versions.c: what is remembered of a module's programs. */
bool lifecycle_versions_restore(struct lifecycle *lifecycle, struct error *err);
void lifecycle_versions_write(struct lifecycle_versions *versions);
/* Adds what was decided to the history; verdict and cause are copied. lifecycle_versions_decide: of a candidate on
 * probation, which is shown only when it cannot be lost any more: up to then the phase is told as probation. */
void lifecycle_versions_decide(struct lifecycle_versions *versions, const struct lifecycle_edition *from,
                               const struct lifecycle_edition *to, const char *verdict, const char *cause,
                               uint64_t generation);
void lifecycle_versions_note(struct lifecycle_versions *versions, const struct lifecycle_edition *from,
                             const struct lifecycle_edition *to, const char *verdict, const char *cause,
                             uint64_t generation);
/* Makes an edition the current one; the one before is gone back to when it has proven itself (forward). Writes nothing.
 */
void lifecycle_versions_remember(struct lifecycle_versions *versions, const struct lifecycle_edition *edition,
                                 bool forward);
/* The module's process said of which version it is. */
void lifecycle_versions_heard(struct lifecycle_module *module, const char *version);
/* What can be named by its version. */
/* The program of that version, "": as configured. False: ERR_MODULE_VERSION_UNKNOWN, ERR_MODULE_VERSION_AMBIGUOUS. */
bool lifecycle_versions_find(const struct lifecycle_versions *versions, const char *version,
                             char program[static LIFECYCLE_PROGRAM_BYTES], struct error *err);
void lifecycle_versions_known(const struct lifecycle_versions *versions, struct lifecycle_known *known);
/* With what can be named by its version. Free with the generated function. */
Core__Admin__V1__ModuleVersions *lifecycle_versions_message(const struct lifecycle_versions *versions);
const char *lifecycle_upgrade_phase_name(enum lifecycle_upgrade_phase phase);
void lifecycle_versions_free(struct lifecycle_versions **versions);

/* orders.c: starts a module that is down; without a supervisor: attaches to it again. */
bool lifecycle_orders_start(struct lifecycle_module *module, struct error *err);
/* versions.c: the same as _write with a store, telling when it is durable. */
void lifecycle_versions_commit(struct lifecycle_versions *versions, store_done *done, void *arg);

/* core_upgrade.c (LIF-9, LIF-10, LIF-12): what the supervisor says, and the beginning and the end of the room. */
void lifecycle_core_init(struct lifecycle *lifecycle);
void lifecycle_core_free(struct lifecycle *lifecycle);
void lifecycle_core_told(struct lifecycle *lifecycle, const supervisor_control_v1_CoreProgram *news, bool greeting);
void lifecycle_core_ready(struct lifecycle *lifecycle);
void lifecycle_core_described(struct lifecycle *lifecycle, uint64_t sequence,
                              const supervisor_control_v1_ProgramDescribed *news);
void lifecycle_core_accepted(struct lifecycle *lifecycle, uint64_t sequence);
void lifecycle_core_refused(struct lifecycle *lifecycle, uint64_t sequence, unsigned reason);

/* orders.c: takes an instance out of service and ends its process, for an upgrade. */
void lifecycle_orders_leave(struct lifecycle_module *module, bool hand_over);
/* orders.c: an instance that drains already when this core comes, by an order of the one before: it finishes what it
 * has, and its process ends. */
void lifecycle_orders_finish(struct lifecycle_instance *instance);
/* orders.c: the end of an instance is no surprise: what was planned goes on. */
void lifecycle_orders_instance_ended(struct lifecycle_module *module, uint64_t generation);

/* descriptor.c: is this descriptor acceptable for this module (DSC-5, SPI-1, SPI-17)? granted: bits of families.def. */
bool lifecycle_descriptor_check(const struct lifecycle_module *module,
                                const Core__Module__V1__ModuleDescriptor *descriptor, unsigned *granted,
                                struct error *err);
const char *const *lifecycle_family_names(void); /* by bit, ended by NULL */

/* discovery.c */
struct lifecycle_discovery *lifecycle_discovery_start(struct lifecycle *lifecycle, struct error *err);
void lifecycle_discovery_stop(struct lifecycle_discovery *discovery); /* NULL-safe, as the following */
void lifecycle_discovery_free(struct lifecycle_discovery **discovery);
void lifecycle_discovery_scan(struct lifecycle *lifecycle);
struct lifecycle_socket lifecycle_discovery_look(const struct lifecycle_module *module); /* what is there now */

/* control_link.c */
struct lifecycle_control *lifecycle_control_open(struct lifecycle *lifecycle, int fd, struct error *err);
void lifecycle_control_stop(struct lifecycle_control *control); /* NULL-safe, as the following */
void lifecycle_control_free(struct lifecycle_control **control);
void lifecycle_control_ready(struct lifecycle_control *control, uint32_t startup_ms);
void lifecycle_control_kill(struct lifecycle_control *control, const char *module_id, uint64_t generation, bool trace);
bool lifecycle_control_start(struct lifecycle_control *control, const char *module_id, struct error *err);
/* *sequence: what a refusal names. */
bool lifecycle_control_stage(struct lifecycle_control *control, const char *module_id, const char *process_id,
                             const char *program, uint64_t *sequence, struct error *err);
bool lifecycle_control_describe(struct lifecycle_control *control, const char *program, uint64_t *sequence,
                                struct error *err);
bool lifecycle_control_replace(struct lifecycle_control *control, const char *program, uint32_t probation_ms,
                               bool final, uint64_t *sequence, struct error *err);
void lifecycle_control_verdict(struct lifecycle_control *control, bool holds, const char *reason);
/* "signal 9 (KILL)", "left with status 3". */
void lifecycle_exit_text(char *target, size_t target_bytes, supervisor_control_v1_ExitCause cause, int32_t status,
                         int32_t signal_number);
bool lifecycle_control_promote(struct lifecycle_control *control, const char *process_id, struct error *err);
bool lifecycle_control_end(struct lifecycle_control *control, const char *module_id, uint64_t generation,
                           struct error *err);
/* False: it was not sent. */
bool lifecycle_control_alert(struct lifecycle_control *control, const supervisor_control_v1_RaiseAlert *alert);
void lifecycle_control_hold(struct lifecycle_control *control, const char *module_id, bool held, const char *reason,
                            enum error_code code);
void lifecycle_control_module_ready(struct lifecycle_control *control, const char *module_id, uint64_t generation,
                                    uint64_t config);
bool lifecycle_control_restart(struct lifecycle_control *control, const char *module_id, uint64_t generation,
                               struct error *err);

#endif

/* lifecycle_internal.h: what the files of core/lifecycle share. Everything lives on the core thread, except where
 * discovery.c and control_link.c say that the I/O thread reads. */
#ifndef GATEHOUSE_CORE_LIFECYCLE_INTERNAL_H
#define GATEHOUSE_CORE_LIFECYCLE_INTERNAL_H

#include <sys/queue.h>
#include <sys/types.h>

#include "core/lifecycle/lifecycle.h"
#include "sdk/base/secret.h"
#include "sdk/control/control.h"
#include "wire/pbc/core/module/v1/module.pb-c.h"

#define LIFECYCLE_MAGIC 0x4c494645u
#define LIFECYCLE_INSTANCE_MAGIC 0x4c494e53u
#define LIFECYCLE_HISTORY_MAX 64
#define LIFECYCLE_LAST_WORDS_MAX 16
#define LIFECYCLE_REASON_BYTES 256
#define LIFECYCLE_SPI_VERSION "1"

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

/* One running process of a module. */
struct lifecycle_instance {
  uint32_t magic;
  struct lifecycle_module *module;
  uint64_t generation;
  enum lifecycle_state state;
  char reason[LIFECYCLE_REASON_BYTES];
  int64_t discovered_us;
  struct core_rpc_channel *channel;       /* NULL: no longer reachable */
  struct core_rpc_client_call *step_call; /* the attach step under way */
  struct core_rpc_client_call *health_call;
  struct core_rpc_timer *start_timer;
  struct secret *channel_secret; /* NULL: no SPI call is accepted */
  Core__Module__V1__ModuleDescriptor *descriptor;
  Core__Module__V1__Readiness *readiness;
  unsigned granted;    /* bits of families.def */
  bool serving;        /* told to on_serving */
  bool healthy;        /* what health said last */
  bool health_changed; /* while a step was under way: its answer is older */
};

struct lifecycle_module {
  STAILQ_ENTRY(lifecycle_module) entry;
  struct lifecycle *lifecycle;
  char *id;
  struct lifecycle_module_config config; /* borrowed texts; zero when the module is not configured */
  bool configured;
  uint64_t config_revision;
  struct core_rpc_listener *spi_listener, *spi_http_listener;
  char *runtime_path, *spi_path;
  ino_t runtime_inode; /* of the socket file the instance was dialled at */
  int64_t runtime_changed_ns;
  struct lifecycle_instance *instance; /* the newest; NULL: none yet */
  struct core_rpc_timer *retry_timer;
  struct core_rpc_timer *process_timer; /* a process that is neither ready nor refused in time is killed */
  unsigned attach_waits;                /* until the process behind a new socket is known and listens */
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

  uint32_t restarts;
  char last_exit[96];
  int64_t last_exit_at_ms;
  char fault[LIFECYCLE_REASON_BYTES]; /* what was wrong with the newest process, with its code; "" once it is ready */
  uint64_t fault_generation;          /* that process; its exit, which follows, is no news then */
  bool restart_waits;
  char *last_words[LIFECYCLE_LAST_WORDS_MAX];
  size_t last_word_count;
  struct lifecycle_transition history[LIFECYCLE_HISTORY_MAX]; /* a ring */
  size_t history_count;
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
  char *run_dir;
  int64_t started_us;
  int32_t supervisor_pid;
  char supervisor_version[32];
  unsigned turn; /* of lifecycle_family_channel */
  uint32_t core_starts;
  uint64_t core_generation;
  char core_last_exit[96];
  int64_t core_last_exit_at_ms;
  bool stopping;
};

/* lifecycle.c */
struct lifecycle_module *lifecycle_module_find(struct lifecycle *lifecycle, const char *module_id);
/* Finds or makes it, with its SPI listener. NULL: the id is no valid name, or the listener failed. */
struct lifecycle_module *lifecycle_module_ensure(struct lifecycle *lifecycle, const char *module_id);
bool lifecycle_module_is_alive(const struct lifecycle_module *module);
/* The supervisor named the user that the module runs as: its SPI sockets become that user's (TRN-4). */
void lifecycle_module_owner_set(struct lifecycle_module *module, uid_t uid, gid_t gid);

/* Of a module: the time within which it must be ready, in milliseconds; what was wrong, kept for the status. */
uint32_t lifecycle_module_start_timeout_ms(const struct lifecycle_module *module);
void lifecycle_module_fault(struct lifecycle_module *module, uint64_t generation, enum error_code code,
                            const char *format, ...) __attribute__((format(printf, 4, 5)));

/* machine.c: carries an event out: the new state, history, graph, metrics, on_serving. False: forbidden. */
bool lifecycle_instance_event(struct lifecycle_instance *instance, enum lifecycle_event event, const char *cause);
bool lifecycle_transition_lookup(enum lifecycle_state from, enum lifecycle_event event, enum lifecycle_state *to);

/* instance.c */
void lifecycle_instance_attach(struct lifecycle_module *module);
/* Ends it: event, connection and secret gone. The struct stays as the module's newest. */
void lifecycle_instance_end(struct lifecycle_instance *instance, enum lifecycle_event event, const char *cause);
void lifecycle_instance_free(struct lifecycle_instance **instance);

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

/* control_link.c */
struct lifecycle_control *lifecycle_control_start(struct lifecycle *lifecycle, int fd, struct error *err);
void lifecycle_control_stop(struct lifecycle_control *control); /* NULL-safe, as the following */
void lifecycle_control_free(struct lifecycle_control **control);
void lifecycle_control_ready(struct lifecycle_control *control, uint32_t startup_ms);
void lifecycle_control_kill(struct lifecycle_control *control, const char *module_id, uint64_t generation);
bool lifecycle_control_restart(struct lifecycle_control *control, const char *module_id, uint64_t generation,
                               uint32_t grace_ms, struct error *err);

#endif

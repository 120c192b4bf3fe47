/* supervisor_internal.h: inside of the supervisor: the child and its state machine, the link to the core, listeners,
 * the run directory. */
#ifndef GATEHOUSE_SUPERVISOR_INTERNAL_H
#define GATEHOUSE_SUPERVISOR_INTERNAL_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "sdk/base/id.h"
#include "sdk/control/control.h"
#include "supervisor/backoff.h"
#include "supervisor/spawn.h"
#include "supervisor/supervisor.h"
#include "supervisor/words.h"

struct supervisor;

/* Takes an event out of the loop that may never have been made: whoever owns it was made full of zeros. */
static inline void event_end(struct event *event) {
  if (event_initialized(event))
    event_del(event);
}

/* ---- child.c: one child's life --------------------------------------------------------------------------------------
 */

enum child_state {
  CHILD_DOWN,
  CHILD_STARTING,
  CHILD_UP,
  CHILD_STOPPING,
  CHILD_BACKOFF,
  CHILD_TRACING,
  CHILD_STATE_COUNT
};

enum child_event {
  CHILD_EVENT_START, /* run, whatever was before */
  CHILD_EVENT_READY, /* it said READY=1 */
  CHILD_EVENT_STOP,  /* end politely */
  CHILD_EVENT_KILL,  /* end now */
  CHILD_EVENT_TRACE, /* end now, and write where it was */
  CHILD_EVENT_EXIT,  /* the process is gone */
  CHILD_EVENT_TIMER, /* the state's time is over */
  CHILD_EVENT_ALIVE, /* it said WATCHDOG=1 */
  CHILD_EVENT_COUNT
};

/* What a process is to its module: see ProcessRole in control.proto, which has them in this order. */
enum child_role { CHILD_CURRENT, CHILD_CANDIDATE, CHILD_RETIRED };

struct child_death {
  supervisor_control_v1_ExitCause cause;
  int status, signal;
  int64_t wall_us;
  uint64_t generation, uptime_ms, ready_ms;
  pid_t pid;
  bool was_ready;
  supervisor_control_v1_NextStep next_step;
  uint32_t delay_ms;
  const char *error_name, *step; /* of a failed spawn */
};

#define CHILD_MAGIC 0x6368696cu
#define CHILD_TEXT_BYTES 128
#define CHILD_CODE_BYTES 64

struct child {
  uint32_t magic;
  const char *id;
  bool is_core;
  const struct config_module *config; /* NULL for the core */
  const char *module_id;              /* id of the module that it is a process of; id itself for a first process */
  struct config_module *own_config;   /* of a second process: config, under the process's id */
  enum child_role role;
  char program[256];     /* that it was staged with; "": as configured */
  uint64_t config_given; /* revision of the configuration that the core gave to this life of it; 0: it is not ready */
  const struct config_module *config_next; /* it is stopped to come back as this; NULL: it stays as it is */
  bool removed;                            /* not in the configuration any more; its place is free once it is down */
  struct supervisor *supervisor;
  struct spawn_image image;
  char *runtime_socket; /* removed when it dies, so that nobody dials a dead one; NULL for the core */

  enum child_state state;
  uint64_t generation;
  pid_t pid;
  int pidfd, pipe_read;
  int64_t spawned_us;
  unsigned starts, deaths;
  bool ready;          /* it said so in this life, or the core did */
  int64_t ready_us;    /* since when */
  int64_t proven_us;   /* since when by the word of a core; 0: none has said so */
  int64_t alive_us;    /* its last sign of life after it was up */
  bool restart_wanted; /* start again when the stop is done */
  bool held;
  char hold_reason[CHILD_TEXT_BYTES], hold_code[CHILD_CODE_BYTES], status[CHILD_TEXT_BYTES];
  supervisor_control_v1_ExitCause ending; /* why we end it; unspecified: we do not */
  uint32_t grace_ms;                      /* of the stop under way */
  struct child_death last_death;
  struct backoff backoff;

  unsigned restart;   /* enum config_restart */
  bool start_watched; /* kill it when it is not ready in time */
  uint32_t start_timeout_ms, stop_grace_ms, watchdog_ms;
  uint32_t heartbeat_ms; /* it is asked for a sign of life this often, also where none is enforced; 0: it is not */

  struct words words;
  struct words_kept last_words; /* of the life before */
  struct event exit_event, pipe_event, timer;
};

/* Prepares events and pipe of a child whose image and settings are filled in. */
bool child_init(struct child *child, struct event_base *base, struct error *err);
void child_free(struct child *child);
void child_happens(struct child *child, enum child_event event);
/* Stop with a grace of its own; 0: the configured one. */
void child_stop(struct child *child, uint32_t grace_ms, bool restart);
/* code: what clients of its listeners are answered with meanwhile; "": they wait. */
void child_hold(struct child *child, bool held, const char *reason, const char *code);
/* A core saw it ready: the next death is judged by it, and the next core is told; nothing else follows. */
void child_proven(struct child *child);
/* It has hung up and should be gone in a moment; if not, it is killed as for silence. */
void child_expect_end(struct child *child);
bool child_is_running(const struct child *child);
/* Whether a death is followed by a restart, by policy and hold. */
bool child_restarts(const struct child *child, const struct child_death *death);

/* ---- image.c: configuration into what spawn_run needs ---------------------------------------------------------------
 */

enum image_purpose {
  IMAGE_SERVES,    /* the core itself */
  IMAGE_DESCRIBES, /* asked what it is: without a channel */
};

/* Program of a name: itself with '/', else beside our own binary, else in PATH. Caller frees. */
char *image_program_find(const char *name);
bool image_user_find(const char *user, const char *group, struct spawn_image *image, struct error *err);
/* Id, user and runtime socket: what the directories need. child->config is set for a module. */
bool image_identity_prepare(struct supervisor *supervisor, struct child *child, struct error *err);
/* The rest; listeners and the notification socket are there. */
/* Forgets what was prepared, but for the descriptors that child_init made. */
void image_module_reset(struct child *child);
void image_core_prepare(struct supervisor *supervisor, struct child *child);
/* Before it is started again: its sandbox follows what was exchanged, a module's its program. */
void image_renew(struct supervisor *supervisor, struct child *child);
/* A further image of the core, with that program; "": the configured one. It shares the descriptors of the first. */
void image_core_make(struct supervisor *supervisor, struct spawn_image *image, const char *program,
                     enum image_purpose purpose);
/* In two steps, so that what takes its time is made for many modules at once. */
void image_module_begin(struct supervisor *supervisor, struct child *child);
void image_module_prepare(struct supervisor *supervisor, struct child *child);
/* Of the program of alerts. */
void image_alerts_prepare(struct supervisor *supervisor);
void image_alerts_renew(struct supervisor *supervisor);
/* What its next start is told. */
void image_log_level_set(struct spawn_image *image, unsigned level);
/* What the core is told of a sandbox; returns how many there are. They make the largest of the control messages: see
 * CONTROL_PACKET_BYTES_MAX. */
pb_size_t image_protections_fill(supervisor_control_v1_Protection *target, const struct sandbox *sandbox);
void image_free(struct spawn_image *image);

/* ---- process.c: a module's second process ---------------------------------------------------------------------------
 */

/* Makes a process of that module a candidate with this program; see Stage in control.proto. The reason is
 * REASON_UNSPECIFIED when it was done. */
supervisor_control_v1_Reason process_stage(struct supervisor *supervisor, const char *module_id, const char *process_id,
                                           const char *program);
void process_promote(struct supervisor *supervisor, struct child *child);
void process_free(struct child *child);
/* An absolute path of something that can be executed, by us at least: whether its user may shows when it is started. */
bool process_program_is_good(const char *program);

/* ---- core_program.c: the core's program and the change of it --------------------------------------------------------
 */

#define CORE_PROGRAM_BYTES 256
#define CORE_WHY_BYTES 256

enum core_phase {
  CORE_IDLE,
  CORE_LEAVING,
  CORE_STARTING,
  CORE_PROBATION,
  CORE_CONFIRMING,
  CORE_RETURNING,
  CORE_PHASE_COUNT
};

enum core_event {
  CORE_EVENT_SPAWN, /* a core is about to be started */
  CORE_EVENT_READY, /* it said so */
  CORE_EVENT_DEATH, /* it is gone, and nobody ordered that */
  CORE_EVENT_TIMER, /* the phase's time is over */
  CORE_EVENT_HOLDS, /* it said that it can stay, */
  CORE_EVENT_FAILS, /* or that it cannot */
  CORE_EVENT_COUNT
};

struct core_program {
  enum core_phase phase;
  struct spawn_image other; /* to be exchanged with the core's; of the last change when there is none under way */
  char from[CORE_PROGRAM_BYTES], to[CORE_PROGRAM_BYTES]; /* "": as configured */
  bool final;
  uint32_t probation_ms;
  uint64_t generation;                      /* of the newest core with the new program */
  supervisor_control_v1_CoreChange outcome; /* of the last change */
  char why[CORE_WHY_BYTES];
  struct event timer;
};

/* Before the core's image is prepared: finds out which program was kept. */
void core_program_init(struct supervisor *supervisor);
void core_program_free(struct supervisor *supervisor);
/* See ReplaceCore in control.proto. When it was done (REASON_UNSPECIFIED) the core is to be stopped and started. */
supervisor_control_v1_Reason core_program_replace(struct supervisor *supervisor, const char *program,
                                                  uint32_t probation_ms, bool final);
void core_program_happens(struct supervisor *supervisor, enum core_event event, const char *why);
/* The core is dead, and nobody ordered that. True: another program is started in its place, at once. */
bool core_program_goes_back(struct supervisor *supervisor, const struct child_death *death);
bool core_program_is_changing(const struct supervisor *supervisor);
void core_program_fill(const struct supervisor *supervisor, supervisor_control_v1_CoreProgram *out);

/* ---- core_describe.c: what a program says of itself -----------------------------------------------------------------
 */

struct core_describe {
  struct spawn_image image;
  pid_t pid; /* 0: none is being asked */
  int pidfd, pipe_read;
  uint64_t sequence; /* of the order */
  bool late;
  struct words words;
  struct event exit_event, pipe_event, timer;
};

/* See DescribeProgram in control.proto. REASON_UNSPECIFIED: the answer follows. */
supervisor_control_v1_Reason core_describe_begin(struct supervisor *supervisor, const char *program, uint64_t sequence);
void core_describe_free(struct supervisor *supervisor);

/* ---- alerts.c: a program is told what operators have to know --------------------------------------------------------
 */

#define ALERT_REASON_BYTES 256
#define ALERTS_WAITING_MAX 32
#define ALERT_SUBJECTS_MAX 80 /* modules of which is known what was told: more than a configuration can have */

enum alert_variable {
  ALERT_VARIABLE_ID,
  ALERT_VARIABLE_CONDITION,
  ALERT_VARIABLE_SEVERITY,
  ALERT_VARIABLE_MODULE,
  ALERT_VARIABLE_GENERATION,
  ALERT_VARIABLE_REASON,
  ALERT_VARIABLE_ATTEMPT,
  ALERT_VARIABLE_COUNT
};
extern const char *const alert_variable_names[ALERT_VARIABLE_COUNT]; /* behind GATEHOUSE_ALERT_ */

struct alert {
  enum config_alert condition;
  char module[64];
  uint64_t generation, number;
  char reason[ALERT_REASON_BYTES];
  int64_t at_ms;
  unsigned count, attempts; /* how often it was raised while it waited; runs for it */
};

/* What was told of a module. */
struct alert_subject {
  char module[64];
  unsigned open; /* bits of conditions that last, and were told */
  enum config_alert event;
  uint64_t event_generation; /* of the newest that does not last; 0: none */
};

struct alerts {
  bool configured;
  struct spawn_image image;
  char *variables[ALERT_VARIABLE_COUNT];    /* inside of image.environment, ALERT_REASON_BYTES each */
  struct alert waiting[ALERTS_WAITING_MAX]; /* oldest first; [0] is being told while there is a pid */
  size_t waiting_count;
  struct alert_subject subjects[ALERT_SUBJECTS_MAX];
  pid_t pid; /* 0: none runs */
  int pidfd, pipe_read;
  bool late;
  int64_t not_before_us, credit_us; /* of the next run: after a failed one; and by the rate, see alerts.c */
  uint64_t raised, delivered, failed, lost, lost_told;
  char problem[ALERT_REASON_BYTES]; /* of the newest run; "": none */
  struct words words;
  struct event exit_event, pipe_event, limit_timer, run_timer, calm_timer;
};

/* The user; then, when the directories are there, everything that a run needs. Nothing without a program. */
bool alerts_identity_prepare(struct supervisor *supervisor, struct error *err);
bool alerts_prepare(struct supervisor *supervisor, struct error *err);
void alerts_free(struct supervisor *supervisor);
/* Something operators may have to know. Allocates nothing, starts nothing now. */
void alerts_raise(struct supervisor *supervisor, enum config_alert condition, const char *module, uint64_t generation,
                  int64_t at_ms, const char *reason);
/* A child died: perhaps once too often. On the restart path. */
void alerts_child_died(const struct child *child, const struct child_death *death);
void alerts_report_fill(const struct supervisor *supervisor, supervisor_control_v1_AlertReport *out);

/* ---- listeners.c: public sockets ------------------------------------------------------------------------------------
 */

struct listener {
  const struct config_listener *config;
  int fd;
  char address[112];
  uint16_t port;
  bool unlink_at_end;
  struct supervisor *supervisor;
  struct event accept_event; /* while its clients are refused */
  bool refuses;
  int flags;                 /* of its file status, from before it did */
  const char *family, *code; /* of the module that is held; borrowed */
};

/* Takes what LISTEN_FDS hands to us, binds the rest. */
bool listeners_open(struct supervisor *supervisor, struct error *err);
void listeners_close(struct listener *listeners, size_t count);

/* One socket that a service manager handed to us. */
struct handed {
  int fd;
  char name[64]; /* of LISTEN_FDNAMES; "" when it has none */
};

#define HANDED_MAX 64

/* What LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES say (sd_listen_fds(3)): -1 with ERR_SUPERVISOR_HANDED, else how many.
 * 0: nothing is for this process. */
int handed_parse(const char *for_pid, const char *count, const char *names, pid_t self,
                 struct handed handed[static HANDED_MAX], struct error *err);

/* ---- refusals.c: answers for modules that are held down -------------------------------------------------------------
 */

#define REFUSED_MAX 64

/* A client that is being refused. */
struct refused {
  int fd; /* -1: a free place */
  bool answered;
  unsigned turns; /* that its bytes took */
  int64_t due_ms; /* by the monotonic clock: then it has to have begun, or to be gone */
  const char *family, *code;
  struct event event;
};

void refusals_init(struct supervisor *supervisor);
/* A module was held, let go, or has ended: looks which listeners' clients are to be refused from now on. */
void refusals_update(struct supervisor *supervisor);
void refusals_close(struct supervisor *supervisor);

/* ---- rundir.c: directories, the lock, generations -------------------------------------------------------------------
 */

bool rundir_prepare(struct supervisor *supervisor, struct error *err);
/* A process that was killed while it wrote a file left a part of it under another name. */
void rundir_remnants_remove(const char *path);
/* The directories of one module's process. */
bool rundir_child_prepare(struct supervisor *supervisor, const struct child *child, struct error *err);
/* A module's socket, also under the name that it has until it listens (rpc_server_listen_unix). Allocates nothing. */
void rundir_socket_remove(const struct child *child);
/* Hands the configuration to the core as a file of its own. */
bool rundir_config_write(struct supervisor *supervisor, struct error *err);
/* The next generation, remembered in the lock file so that a later supervisor goes on from there. */
uint64_t rundir_generation_next(struct supervisor *supervisor);

/* ---- notify.c: sd_notify of children --------------------------------------------------------------------------------
 */

struct notify_news {
  bool ready, watchdog, stopping, has_status;
  char status[CHILD_TEXT_BYTES];
};
/* Parses one datagram; unknown assignments are ignored. */
void notify_parse(const char *data, size_t length, struct notify_news *news);
bool notify_open(struct supervisor *supervisor, struct error *err);
void notify_close(struct supervisor *supervisor);

/* ---- upward.c: sd_notify to whoever started us ----------------------------------------------------------------------
 */

#define UPWARD_STATUS_BYTES 256

struct upward {
  int fd; /* -1: nobody wants to know */
  struct sockaddr_un address;
  socklen_t length;
  uint64_t watchdog_us;  /* within which whoever watches us wants a sign of life; 0: nobody does */
  bool announced;        /* READY=1 was said, or is owed */
  bool ready_owed;       /* it found no room in the queue of whoever is above */
  bool patience_is_over; /* READY=1 waits for no module any more */
  bool core_was_silent;  /* at the last ping that was due */
  char status[UPWARD_STATUS_BYTES];
  struct event news_event, patience_event, watchdog_event;
};

/* Address of a NOTIFY_SOCKET. False: it is neither a path nor an abstract name, or too long. */
bool upward_address(const char *text, struct sockaddr_un *address, socklen_t *length);
/* The interval in microseconds that WATCHDOG_USEC and WATCHDOG_PID ask of this process; 0: none. */
uint64_t upward_watchdog_us(const char *interval_us, const char *for_pid, pid_t self);
/* What is served, in one line. */
void upward_status_write(const struct supervisor *supervisor, char *target, size_t target_bytes);
/* Whether the core has given a sign of life lately, or is not yet to give one. */
bool upward_core_is_alive(const struct supervisor *supervisor, int64_t now_us);
/* How often the core has to give one for that; 0: nobody watches us. */
uint32_t upward_heartbeat_ms(const struct supervisor *supervisor);

/* Reads the environment; before children are prepared. Its events: once the loop is there. */
void upward_open(struct supervisor *supervisor);
void upward_watch(struct supervisor *supervisor);
void upward_close(struct supervisor *supervisor);
/* Something about what is served may have changed. Told after this turn of the loop. */
void upward_news(struct supervisor *supervisor);
void upward_stopping(struct supervisor *supervisor, const char *reason);
/* The start failed; error: the errno of it, 0: none. supervisor->exit_status is set. */
void upward_failed(struct supervisor *supervisor, const struct error *err, int error);
void upward_reload_begins(struct supervisor *supervisor);
void upward_reload_ends(struct supervisor *supervisor, const char *outcome);

/* ---- link.c: the control channel to the core ------------------------------------------------------------------------
 */

struct link {
  int fd;       /* our end; -1: no core */
  int core_end; /* the core's end while it is being spawned */
  uint64_t core_generation, sequence;
  struct event read_event, write_event;
  unsigned cursor;   /* what is still to be said: see link.c */
  uint64_t reply_to; /* of the list under way */
  bool core_program_owed, alerts_owed;
  unsigned bad_messages;
  struct control_message message; /* the one being built or handled */
};

void link_init(struct supervisor *supervisor);
/* Before and after the core's spawn. */
bool link_open(struct supervisor *supervisor);
void link_attach(struct supervisor *supervisor, uint64_t core_generation);
void link_close(struct supervisor *supervisor);
/* There is one child more: what is owed to the core is counted anew. Before child_count grows. */
void link_child_added(struct supervisor *supervisor);
void link_say_reconfigured(struct supervisor *supervisor);
void link_say_core_program(struct supervisor *supervisor);
void link_say_alerts(struct supervisor *supervisor);
void link_say_configured(struct supervisor *supervisor, const struct child *child);
void link_say_spawned(struct supervisor *supervisor, const struct child *child);
void link_say_notified(struct supervisor *supervisor, const struct child *child);
void link_say_death(struct supervisor *supervisor, const struct child *child, const struct child_death *death);

/* ---- privileges.c: what the supervisor gives up ---------------------------------------------------------------------
 */

struct privileges {
  unsigned needs; /* what capabilities were kept for */
  bool gave_up_capabilities, gave_up_gaining;
  struct sandbox self; /* what is found; nothing else of it is used */
};

/* When the listeners are bound, before the first child is prepared. */
void privileges_drop(struct supervisor *supervisor);
/* Whether a module can still be had as it is configured; ERR_CONFIG_VALUE. */
bool privileges_suffice(const struct supervisor *supervisor, const struct config_module *module, struct error *err);

/* Begins a message; link_say sends it, and owes the list when the channel is full. */
supervisor_control_v1_ControlMessage *link_begin(struct supervisor *supervisor, pb_size_t which, uint64_t reply_to);
#define LINK_BEGIN(supervisor, body, reply_to)                                                                         \
  link_begin((supervisor), supervisor_control_v1_ControlMessage_##body##_tag, (reply_to))
void link_say(struct supervisor *supervisor);
/* The process list from its beginning, as the answer to that order; 0: nobody asked. */
void link_owe_list(struct supervisor *supervisor, uint64_t reply_to);
/* Sends what is owed until it is all said or the channel is full. */
void link_settle(struct supervisor *supervisor);

/* ---- orders.c: what the core orders ---------------------------------------------------------------------------------
 */

/* Carries out the message that the link has received. */
void orders_handle(struct supervisor *supervisor);

/* ---- reload.c: SIGHUP -----------------------------------------------------------------------------------------------
 */

/* Children that there can be: the core, and two processes of as many modules as a configuration may have. */
#define SUPERVISOR_CHILDREN_MAX (1 + 2 * 64)

/* Reads the configuration again and goes over to it, as far as that is possible without a restart; else everything
 * stays, and it is said why. Where the core is not ready, or a reload is under way: later, by itself. */
void reload_run(struct supervisor *supervisor);
/* A child is down: a reload may have waited for it. */
void reload_child_settled(struct child *child);
/* The core is ready: a reload that waited for it is over, or begins. */
void reload_core_ready(struct supervisor *supervisor);
void reload_free(struct supervisor *supervisor);
/* What the core is told of: how many modules' processes there are; whether a child of that place in what is owed to it
 * (link.c) was removed; whether all children behind that one were. */
uint32_t reload_module_count(const struct supervisor *supervisor);
bool reload_is_gone(const struct supervisor *supervisor, size_t cursor);
bool reload_is_last(const struct supervisor *supervisor, size_t index);

/* ---- supervisor.c ---------------------------------------------------------------------------------------------------
 */

enum supervisor_phase { SUPERVISOR_RUNNING, SUPERVISOR_STOPPING_MODULES, SUPERVISOR_STOPPING_CORE };

struct supervisor {
  const struct config *config;
  const struct config_source *source;
  struct config **loaded; /* by reloads; the last one is in force, those before are still pointed to here and there */
  size_t loaded_count;
  enum { RELOAD_NONE, RELOAD_WAITS_FOR_MODULES, RELOAD_WAITS_FOR_CORE } reload; /* what one under way waits for */
  bool reload_again; /* one was asked for that could not begin: it follows when the core is ready */
  struct event_base *base;
  enum supervisor_phase phase;
  int exit_status;
  char boot_id[ID_UUID_BYTES];
  int lock_fd, null_fd, notify_fd;
  int watch_fd; /* the inotify descriptor of all cores, for as long as the supervisor lives; -1: none */
  uint64_t generation;
  char *notify_path;
  struct privileges privileges;
  struct listener *listeners;
  struct child *children; /* [0] is the core, then the modules as configured, then second processes; never moves */
  size_t child_count;
  struct link link;
  struct refused refused[REFUSED_MAX];
  struct core_program core_program;
  struct core_describe core_describe;
  struct alerts alerts;
  struct upward upward;
  struct event notify_event, turn_event, signal_events[4];
  struct watchdog_loop *watchdog; /* NULL: not watched */
};

struct child *supervisor_child_find(struct supervisor *supervisor, const char *id);
/* Begins the stop, or hurries it when it is under way. */
void supervisor_stop(struct supervisor *supervisor, int exit_status, const char *reason);

/* Called by the child's machine. */
void supervisor_child_spawned(struct child *child);
void supervisor_child_notified(struct child *child);
void supervisor_child_died(struct child *child, const struct child_death *death);
/* It is down and nothing is under way. */
void supervisor_child_settled(struct child *child);

#endif

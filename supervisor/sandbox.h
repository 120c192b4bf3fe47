/* sandbox.h: what confines a process, made before it is started (LIF-14).
 *
 * The supervisor prepares everything once per module: a system call filter from sandbox_calls.def, a Landlock ruleset
 * from sandbox_files.def, a mount namespace, a cgroup. Between clone and exec the child only hands these to the
 * kernel (sandbox_enter, sandbox_seal): a fixed set of calls, nothing is allocated. So the boundary is complete before
 * the first instruction of the module's program, and no program can leave it out.
 *
 * What cannot be had here (an older kernel, no root) is left out and said so: each measure has a state and a reason,
 * which `gatehouse module describe` shows. One thread: the supervisor's. */
#ifndef GATEHOUSE_SUPERVISOR_SANDBOX_H
#define GATEHOUSE_SUPERVISOR_SANDBOX_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sdk/config/config.h"

#define SANDBOX_REASON_BYTES 112
#define SANDBOX_OWN_MAX 4 /* comparisons with the process's own id in a filter */

/* The measures, in the order in which they are shown. */
#define SANDBOX_MEASURES(MEASURE)                                                                                      \
  MEASURE(USER, "user")                                                                                                \
  MEASURE(NO_NEW_PRIVILEGES, "no_new_privileges")                                                                      \
  MEASURE(CAPABILITIES, "capabilities")                                                                                \
  MEASURE(SECCOMP, "seccomp")                                                                                          \
  MEASURE(LANDLOCK_FILES, "landlock_files")                                                                            \
  MEASURE(LANDLOCK_NETWORK, "landlock_network")                                                                        \
  MEASURE(LANDLOCK_SCOPE, "landlock_scope")                                                                            \
  MEASURE(NETWORK, "network")                                                                                          \
  MEASURE(MOUNT_VIEW, "mount_view")                                                                                    \
  MEASURE(PRIVATE_TMP, "private_tmp")                                                                                  \
  MEASURE(RLIMITS, "rlimits")                                                                                          \
  MEASURE(PROCESSES, "processes")                                                                                      \
  MEASURE(CGROUP, "cgroup")                                                                                            \
  MEASURE(OOM_FIRST, "oom_first")                                                                                      \
  MEASURE(ENVIRONMENT, "environment")                                                                                  \
  MEASURE(DESCRIPTORS, "descriptors")                                                                                  \
  MEASURE(NOT_DUMPABLE, "not_dumpable")

enum sandbox_measure {
#define SANDBOX_MEASURE_NAME(name, text) SANDBOX_##name,
  SANDBOX_MEASURES(SANDBOX_MEASURE_NAME)
#undef SANDBOX_MEASURE_NAME
      SANDBOX_MEASURE_COUNT
};
const char *sandbox_measure_text(enum sandbox_measure measure);

/* Off: it cannot be had here. Loosened: in force, and the configuration allows more than the profile. Turned off: by
 * the configuration. */
enum sandbox_state { SANDBOX_OFF, SANDBOX_IN_FORCE, SANDBOX_LOOSENED, SANDBOX_TURNED_OFF };

struct sandbox_finding {
  enum sandbox_state state;
  char reason[SANDBOX_REASON_BYTES]; /* why it is not in force, or what is */
};

enum sandbox_profile {
  SANDBOX_MCP,
  SANDBOX_REST,
  SANDBOX_CONSOLE,
  SANDBOX_GENERIC,
  SANDBOX_SCRIPT,
  SANDBOX_CORE,
  SANDBOX_PROFILES
};
/* The programs that are built here, whose tables are minimal and who give up being dumpable. */
bool sandbox_profile_is_ours(enum sandbox_profile profile);
const char *sandbox_profile_text(enum sandbox_profile profile);

enum sandbox_access { SANDBOX_READ, SANDBOX_EXECUTE, SANDBOX_WRITE, SANDBOX_OWN };

/* A file or folder of the core, or the program of a module, that an operator may exchange for another of its name. */
#define SANDBOX_PLACES_MAX 8
struct sandbox_place {
  char *path;
  enum sandbox_access access;
  dev_t device; /* of what the ruleset names; */
  ino_t inode;  /* 0: nothing was there */
};

struct sandbox {
  enum sandbox_profile profile;
  bool applies; /* false: the zero value, nothing is done */
  struct sock_filter *filter;
  size_t filter_length;             /* 0: no filter */
  uint16_t own_at[SANDBOX_OWN_MAX]; /* where the filter compares with the process's own id */
  size_t own_count;
  int landlock_fd, mount_fd, cgroup_fd; /* -1: none */
  int events_fd;                        /* what happened to the group's memory; -1: nobody counts */
  uint64_t kills_before;                /* in the group, before the process that runs now */
  int tmp_fd;                           /* /tmp of the mount view while preparing; -1: none */
  struct {
    pid_t pid; /* 0: none */
    int news, leave;
  } helper; /* that builds the mount view, from begin to prepare */
  bool oom_first;
  struct sandbox_place places[SANDBOX_PLACES_MAX]; /* of a module only its program */
  size_t place_count;
  struct sandbox_finding findings[SANDBOX_MEASURE_COUNT];
};

/* What a sandbox is made from; texts are borrowed during the call. */
struct sandbox_wish {
  const struct config *config;
  bool core; /* for the core: module holds its keys, directory is the state directory */
  const struct config_module *module;
  const char *program;                         /* absolute path */
  const char *directory;                       /* its own, absolute; exists */
  const char *notify_path;                     /* the supervisor's notification socket; NULL: it speaks with nobody */
  char *const *arguments, *const *environment; /* the very ones of the exec to come */
  bool changes_user;                           /* it gets another user than the supervisor's */
  uid_t user, core_user;
  gid_t group;
};

/* Prepares everything; never fails: what cannot be had is found out and noted. NOTE: the filter holds the addresses of
 * program, arguments and environment; when one of those changes, prepare again. The sandbox has begun, with the same
 * wish: what takes its time is under way from then on, so that those of many modules are made beside one another. */
void sandbox_begin(struct sandbox *sandbox, const struct sandbox_wish *wish);
void sandbox_prepare(struct sandbox *sandbox, const struct sandbox_wish *wish);
void sandbox_free(struct sandbox *sandbox);
/* Before it is started again: when one of its places leads to another file than before, what names that file is made
 * anew: the core's ruleset; all of a module's sandbox, its /tmp with it. Else a few stat calls, and nothing is
 * allocated. */
void sandbox_renew(struct sandbox *sandbox, const struct sandbox_wish *wish);

/* Says once, in the log, what the configuration weakened (a warning) and what cannot be had here. */
void sandbox_report(const struct sandbox *sandbox, const char *module_id);

/* In the child, as the supervisor's user still: cgroup, order of death when memory is short, mount namespace. NULL:
 * done; else the name of the step that failed, errno tells. */
const char *sandbox_enter(const struct sandbox *sandbox);
/* In the child, after no_new_privs, before the descriptors are closed: the Landlock ruleset. */
bool sandbox_restrict_files(const struct sandbox *sandbox);
/* In the child, the last call before exec: the filter. */
bool sandbox_seal(const struct sandbox *sandbox, pid_t own);

/* The reason of a finding, printf-style. */
void sandbox_note(struct sandbox *sandbox, enum sandbox_measure measure, enum sandbox_state state, const char *format,
                  ...) __attribute__((format(printf, 4, 5)));

/* sandbox_seccomp.c: the filter of a profile. network: Internet sockets are allowed. start: three addresses of the one
 * execve that is allowed where processes are not. False: not on this machine. The caller frees *filter. */
struct sandbox_filter_wish {
  enum sandbox_profile profile;
  bool network;
  const void *start[3];
  const struct config_list *calls; /* names of further calls */
};
bool sandbox_filter_build(const struct sandbox_filter_wish *wish, struct sandbox *sandbox);
/* The table's entry for a call: for tests and documents. */
struct sandbox_call {
  const char *name; /* a machine may lack it */
  unsigned profiles;
  int condition;
  const char *reason;
};
extern const struct sandbox_call sandbox_calls[];
extern const size_t sandbox_call_count;

/* sandbox_landlock.c: the kernel's version of Landlock, 0: none; and the ruleset, noted in the findings. */
int sandbox_landlock_version(void);
void sandbox_landlock_prepare(struct sandbox *sandbox, const struct sandbox_wish *wish);

/* sandbox_mount.c: the mount namespace: a root of its own with what the profile may read, the module's directory, the
 * SPI sockets, a /tmp of its own. Begun by a helper process, whose work is then waited for and kept. */
void sandbox_mount_begin(struct sandbox *sandbox, const struct sandbox_wish *wish);
void sandbox_mount_finish(struct sandbox *sandbox);

/* sandbox_cgroup.c. source: the kernel's tables of mounts and of our own groups; NULL: this process's. */
struct sandbox_cgroup_source {
  const char *mountinfo, *membership;
};
void sandbox_cgroup_prepare(struct sandbox *sandbox, const struct sandbox_wish *wish,
                            const struct sandbox_cgroup_source *source);

/* Before a start, and after the death of what was started then, with its signal: whether the kernel ended it because
 * the memory of its group, or of the machine, ran out. No allocation. */
void sandbox_cgroup_begin(struct sandbox *sandbox);
bool sandbox_cgroup_ran_out(const struct sandbox *sandbox, int signal_number);

/* Network that a module is given: none, any, or a list of TCP ports. */
struct sandbox_network {
  bool given, any;
  uint16_t ports[16];
  size_t port_count;
};
struct sandbox_network sandbox_network_of(const struct sandbox *sandbox, const struct config_module *module);

/* Files of a profile, for Landlock and the mount view. */
typedef void sandbox_file_visitor(void *argument, const char *path, enum sandbox_access access);
void sandbox_files_visit(const struct sandbox *sandbox, const struct sandbox_wish *wish, sandbox_file_visitor *visit,
                         void *argument);

#endif

/* spawn.h: one program into one new process, fast and without allocation (LIF-7, LIF-14).
 *
 * An image is prepared once, when the supervisor starts: path, arguments, environment, descriptors, user, limits.
 * Running it is clone(CLONE_VM | CLONE_VFORK | CLONE_PIDFD) on a stack of its own: no page tables are copied, the pidfd
 * exists with the process, and a step that fails in the child is told by name through the shared memory. The child gets
 * standard input from /dev/null, output and error from output_fd, the inherited descriptors as 3, 4, …, and nothing
 * else; a session of its own; default signals; SIGKILL when the supervisor dies. The supervisor has one thread: that is
 * a condition. */
#ifndef GATEHOUSE_SUPERVISOR_SPAWN_H
#define GATEHOUSE_SUPERVISOR_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "supervisor/sandbox.h"

#define SPAWN_INHERIT_MAX 16
#define SPAWN_GROUPS_MAX 64
#define SPAWN_LIMITS_MAX 6
/* Descriptors of the supervisor that children inherit are kept above this number, out of the way of 3, 4, … */
#define SPAWN_DESCRIPTOR_MIN 64

struct spawn_limit {
  int resource; /* RLIMIT_… */
  struct rlimit value;
};

struct spawn_image {
  char *path;
  char **arguments;      /* ends with NULL */
  char **environment;    /* ends with NULL */
  char *generation_slot; /* inside of environment: where the generation's digits go; NULL: none */
  char *listen_pid_slot; /* where the child's pid goes; NULL: none */
  int inherit[SPAWN_INHERIT_MAX];
  unsigned inherit_count;
  int input_fd, output_fd;
  char *directory; /* the working directory */
  mode_t umask;
  bool change_user; /* user, group and groups below are set */
  uid_t user;
  gid_t group;
  gid_t groups[SPAWN_GROUPS_MAX];
  unsigned group_count;
  struct spawn_limit limits[SPAWN_LIMITS_MAX];
  unsigned limit_count;
  bool no_new_privileges, drop_capabilities;
  struct sandbox sandbox;
};

#define SPAWN_SLOT_BYTES 24 /* digits of a slot */

struct spawn_result {
  pid_t pid;
  int pidfd;        /* the caller closes it */
  int error;        /* errno of the step that failed */
  const char *step; /* "clone", "exec", …; a literal */
};

/* Starts a process. False: result->error and ->step say why, there is no process. No allocation. */
bool spawn_run(struct spawn_image *image, uint64_t generation, struct spawn_result *result);

/* Moves a descriptor above SPAWN_DESCRIPTOR_MIN, close-on-exec; closes the old one. -1: errno tells, the old one is
 * closed. */
int spawn_descriptor_raise(int fd);

#endif

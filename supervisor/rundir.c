/* rundir.c: the directories of DESIGN.md with their owners and modes, the lock that keeps two supervisors apart, and
 * the generation counter that lives in it.
 *
 *   <run>/                     0755
 *   <run>/supervisor.lock      0600  flock; "<pid> <last generation>"
 *   <run>/core/, core/spi/     0711  the core's
 *   <run>/core/spi/<id>/       0711  the core's; the module's sandbox shows it this one alone; 0710 with the module's
 *                                    group when their users differ: nobody else reaches the sockets in it
 *   <run>/modules/             0711
 *   <run>/modules/<id>/        0700  the module's; 02750 with the core's group when their users differ
 *   <state>/                   0700  the core's
 *   <state>/core.program       0600  the supervisor's: core_program.c */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/io.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define LOCK_WAIT_MS 1000
#define LOCK_PAUSE_MS 5

/* By descriptor: a directory below one of a child's is in that child's hands. ours_only: a top directory, which an
 * operator may have made, also as a symbolic link, and which is refused when it is somebody else's. Its mode is set
 * while it is ours, which takes no privilege but to give away (capabilities.def). */
static bool give(int fd, const char *path, mode_t mode, uid_t user, gid_t group, bool ours_only, struct error *err) {
  struct stat status;
  if (fstat(fd, &status) != 0)
    return error_set(err, ERR_SUPERVISOR_DIRECTORY, "%s cannot be looked at: %s", path, strerrorname_np(errno));
  if (ours_only && status.st_uid != user && status.st_uid != geteuid())
    return error_set(err, ERR_SUPERVISOR_DIRECTORY,
                     "the directory %s belongs to user %u: give it to user %u or name another", path, status.st_uid,
                     user);
  bool same_mode = (status.st_mode & 07777) == mode, root = geteuid() == 0;
  if (!same_mode && root && (status.st_uid != geteuid() || status.st_gid != getegid())) {
    if (fchown(fd, geteuid(), getegid()) != 0)
      return error_set(err, ERR_SUPERVISOR_DIRECTORY, "the directory %s cannot be taken back: %s", path,
                       strerrorname_np(errno));
    status.st_uid = geteuid();
    status.st_gid = getegid();
  }
  if (!same_mode && fchmod(fd, mode) != 0)
    return error_set(err, ERR_SUPERVISOR_DIRECTORY, "the mode of %s cannot be set: %s", path, strerrorname_np(errno));
  if (root && (status.st_uid != user || status.st_gid != group) && fchown(fd, user, group) != 0)
    return error_set(err, ERR_SUPERVISOR_DIRECTORY, "the directory %s cannot be given away: %s", path,
                     strerrorname_np(errno));
  return true;
}

static bool make_owned(const char *path, mode_t mode, uid_t user, gid_t group, bool ours_only, struct error *err) {
  if (!io_make_directories(path, mode, NULL))
    return error_set(err, ERR_SUPERVISOR_DIRECTORY, "the directory %s cannot be made: %s", path,
                     strerrorname_np(errno));
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (ours_only ? 0 : O_NOFOLLOW));
  if (fd < 0)
    return error_set(err, ERR_SUPERVISOR_DIRECTORY, "%s cannot be used as a directory: %s", path,
                     strerrorname_np(errno));
  bool ok = give(fd, path, mode, user, group, ours_only, err);
  close(fd);
  return ok;
}

static bool make_below(const char *top, const char *below, const char *id, mode_t mode, uid_t user, gid_t group,
                       struct error *err) {
  char *path = base_asprintf("%s%s%s", top, below, id);
  bool ok = make_owned(path, mode, user, group, false, err);
  base_free(path);
  return ok;
}

/* What a supervisor that was killed had begun to start dies with it, and holds the lock until it has: that is waited
 * for, LOCK_WAIT_MS at most. A supervisor that lives is not. */
static bool lock_take(int fd, unsigned long long owner) {
  static const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000};
  for (unsigned waited_ms = 0;; waited_ms += LOCK_PAUSE_MS) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
      return true;
    bool is_gone = owner > 0 && owner <= INT32_MAX && kill((pid_t)owner, 0) != 0 && errno == ESRCH;
    if (!is_gone || waited_ms >= LOCK_WAIT_MS)
      return false;
    nanosleep(&pause, NULL);
  }
}

static bool lock(struct supervisor *supervisor, struct error *err) {
  char text[64] = "";
  unsigned long long pid = 0;
  char *path = base_asprintf("%s/supervisor.lock", supervisor->config->run_dir);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  base_free(path);
  supervisor->lock_fd = spawn_descriptor_raise(fd);
  if (supervisor->lock_fd < 0)
    return error_set(err, ERR_SUPERVISOR_DIRECTORY, "the lock file cannot be opened: %s", strerrorname_np(errno));
  if (pread(supervisor->lock_fd, text, sizeof(text) - 1, 0) > 0) {
    char *rest; /* anything else than two numbers counts as none: strtoull says 0 */
    pid = strtoull(text, &rest, 10);
    supervisor->generation = strtoull(rest, NULL, 10);
  }
  if (!lock_take(supervisor->lock_fd, pid))
    return error_set(err, ERR_SUPERVISOR_RUNNING, "another supervisor (process %llu) uses %s", pid,
                     supervisor->config->run_dir);
  return true;
}

uint64_t rundir_generation_next(struct supervisor *supervisor) {
  char text[64];
  supervisor->generation++;
  int length =
      snprintf(text, sizeof(text), "%-10d %-20llu\n", (int)getpid(), (unsigned long long)supervisor->generation);
  if (pwrite(supervisor->lock_fd, text, (size_t)length, 0) != length)
    return supervisor->generation; /* a full disk: unique in this boot still, and the boot id tells boots apart */
  return supervisor->generation;
}

void rundir_socket_remove(const struct child *child) {
  char unready[PATH_MAX];
  if (snprintf(unready, sizeof(unready), "%s~", child->runtime_socket) < (int)sizeof(unready))
    unlink(unready); /* its name until it listens */
  unlink(child->runtime_socket);
}

bool rundir_child_prepare(struct supervisor *supervisor, const struct child *child, struct error *err) {
  const struct config *config = supervisor->config;
  const struct spawn_image *core = &supervisor->children[0].image;
  bool same = child->image.user == core->user;
  if (!make_below(config->run_dir, "/modules/", child->id, same ? 0700 : 02750, child->image.user,
                  same ? child->image.group : core->group, err) ||
      !make_below(config->run_dir, "/core/spi/", child->id, same ? 0711 : 0710, core->user,
                  same ? core->group : child->image.group, err))
    return false;
  rundir_socket_remove(child); /* of a run that was killed */
  return true;
}

bool rundir_prepare(struct supervisor *supervisor, struct error *err) {
  const struct config *config = supervisor->config;
  const struct spawn_image *core = &supervisor->children[0].image;
  if (!make_owned(config->run_dir, 0755, geteuid(), getegid(), true, err) || !lock(supervisor, err) ||
      !make_below(config->run_dir, "/core", "", 0711, core->user, core->group, err) ||
      !make_below(config->run_dir, "/core/spi", "", 0711, core->user, core->group, err) ||
      !make_below(config->run_dir, "/modules", "", 0751, geteuid(), core->group,
                  err) || /* the core looks for sockets */
      !make_owned(config->state_dir, 0700, core->user, core->group, true, err))
    return false;
  if (supervisor->alerts.configured && !make_below(config->run_dir, "/alerts", "", 0700, supervisor->alerts.image.user,
                                                   supervisor->alerts.image.group, err))
    return false;
  for (size_t i = 1; i < supervisor->child_count; i++)
    if (!rundir_child_prepare(supervisor, &supervisor->children[i], err))
      return false;
  return true;
}

void rundir_remnants_remove(const char *path) {
  char *pattern = base_asprintf("%s.??????", path);
  glob_t found;
  if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; i++)
      unlink(found.gl_pathv[i]);
    globfree(&found);
  }
  base_free(pattern);
}

bool rundir_config_write(struct supervisor *supervisor, struct error *err) {
  const struct config *config = supervisor->config;
  const struct spawn_image *core = &supervisor->children[0].image;
  char *path = base_asprintf("%s/core/gatehouse.yaml", config->run_dir);
  rundir_remnants_remove(path);
  bool ok = io_write_file_atomic(path, config->contents, config->contents_length, 0600, err) &&
            (geteuid() != 0 || chown(path, core->user, core->group) == 0 ||
             error_set(err, ERR_SUPERVISOR_DIRECTORY, "the configuration cannot be handed to the core"));
  base_free(path);
  return ok;
}

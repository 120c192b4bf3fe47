/* sandbox_mount.c: a module's view of the file system (LIF-14): a root of its own, read-only, that holds what its
 * profile may read, its program, its directory, the SPI sockets and the notification socket, a /proc of its own
 * processes, and a /tmp of its own. Nothing else has a name there.
 *
 * It is made once, when the supervisor starts, by a helper process in a new mount namespace, those of all modules
 * beside one another; the supervisor keeps the namespace by a descriptor, and each start of the module enters it by one
 * call. So a restart pays nothing for it, and /tmp lives as long as the supervisor. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/io.h"
#include "sdk/base/str.h"
#include "supervisor/sandbox.h"
#include "supervisor/spawn.h"

#define STAGE                                                                                                          \
  "/proc" /* there on every machine, and no source of a mount: hidden in the helper's namespace while building */
#define TMP_OPTIONS "size=64m,nr_inodes=8192"
#define STEP_BYTES 96

struct builder {
  char step[STEP_BYTES]; /* what failed; "" so far nothing */
};

static void failed(struct builder *builder, const char *step, const char *path) {
  int error = errno;
  if (!builder->step[0])
    snprintf(builder->step, sizeof(builder->step), "%s %.48s: %s", step, path, strerrorname_np(error));
}

static bool set_attributes(const char *path, uint64_t attributes, unsigned flags) {
  struct mount_attr change = {.attr_set = attributes};
  return syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &change, sizeof(change)) == 0;
}

/* An empty folder or file at STAGE/path to mount on; what is there already is part of a mount. */
static bool make_place(const char *place, bool folder) {
  char *parent = base_strdup(place), *slash = strrchr(parent, '/');
  *slash = '\0';
  bool ok = io_make_directories(parent, 0755, NULL);
  base_free(parent);
  if (folder)
    return ok && mkdir(place, 0755) == 0;
  int fd = ok ? open(place, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444) : -1;
  if (fd >= 0)
    close(fd);
  return fd >= 0;
}

static void bind_path(struct builder *builder, const char *path, enum sandbox_access access, bool recursive) {
  struct stat status;
  if (str_starts_with(path, "/proc") || stat(path, &status) != 0)
    return; /* it has a /proc of its own; or not on this machine */
  char *place = base_asprintf(STAGE "%s", path);
  struct stat there;
  uint64_t attributes = MOUNT_ATTR_NOSUID;
  if (access != SANDBOX_OWN && access != SANDBOX_WRITE)
    attributes |= MOUNT_ATTR_RDONLY;
  if (!S_ISCHR(status.st_mode))
    attributes |= MOUNT_ATTR_NODEV;
  if (access == SANDBOX_OWN)
    attributes |= MOUNT_ATTR_NOEXEC;
  if (stat(place, &there) == 0 && access != SANDBOX_OWN && access != SANDBOX_EXECUTE)
    ; /* inside of what is there */
  else if (stat(place, &there) != 0 && !make_place(place, S_ISDIR(status.st_mode)))
    failed(builder, "make place for", path);
  else if (mount(path, place, NULL, MS_BIND | (recursive ? MS_REC : 0), NULL) != 0)
    failed(builder, "mount", path);
  else if (!set_attributes(place, attributes, AT_RECURSIVE))
    failed(builder, "protect", path);
  base_free(place);
}

static void visit(void *argument, const char *path, enum sandbox_access access) {
  bind_path(argument, path, access, true);
}

static void mount_own_tmp(struct builder *builder, const struct sandbox_wish *wish) {
  char *options = base_asprintf("mode=0700,uid=%u,gid=%u," TMP_OPTIONS, wish->user, wish->group);
  if (mkdir(STAGE "/tmp", 0755) != 0 ||
      mount("tmpfs", STAGE "/tmp", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options) != 0)
    failed(builder, "mount", "/tmp");
  base_free(options);
}

static void mount_own_proc(struct builder *builder, const struct sandbox *sandbox) {
  const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY;
  bool narrow = sandbox_profile_is_ours(sandbox->profile); /* programs of others also ask for the machine's memory */
  if (mkdir(STAGE "/proc", 0555) != 0 ||
      mount("proc", STAGE "/proc", "proc", flags, narrow ? "hidepid=2,subset=pid" : "hidepid=2") != 0)
    failed(builder, "mount", "/proc");
}

/* Its own SPI sockets, under the names that the core gives them; none of another module. */
static void show_spi(struct builder *builder, const struct sandbox_wish *wish) {
  static const char *const names[][2] = {{".sock", "grpc.sock"}, {".http.sock", "http.sock"}};
  const char *id = wish->module->id;
  char *folder = base_asprintf("%s/core/spi/%s", wish->config->run_dir, id);
  bind_path(builder, folder, SANDBOX_READ, false);
  for (size_t i = 0; i < 2; i++) {
    char *link = base_asprintf(STAGE "%s%s", folder, names[i][0]), *target = base_asprintf("%s/%s", id, names[i][1]);
    if (symlink(target, link) != 0)
      failed(builder, "link", link);
    base_free(target);
    base_free(link);
  }
  base_free(folder);
}

static void build(struct builder *builder, const struct sandbox *sandbox, const struct sandbox_wish *wish) {
  umask(022);
  if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
      mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m,nr_inodes=1024") != 0) {
    failed(builder, "make", "a mount namespace");
    return;
  }
  mount_own_tmp(builder, wish);
  mount_own_proc(builder, sandbox);
  sandbox_files_visit(sandbox, wish, visit, builder);
  if (wish->notify_path) {
    show_spi(builder, wish);
    bind_path(builder, wish->notify_path, SANDBOX_READ, false);
  }
  if (builder->step[0])
    return;
  if (chdir(STAGE) != 0 || syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0 || chdir("/") != 0)
    failed(builder, "enter", "the new root");
  else if (!set_attributes("/", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0))
    failed(builder, "protect", "/");
}

/* The helper: builds, tells how it went, and stays until it is looked at. It keeps nothing else open: the ends of other
 * helpers' pipes would be held by it. */
__attribute__((noreturn)) static void help(const struct sandbox *sandbox, const struct sandbox_wish *wish, int news,
                                           int leave) {
  struct builder builder = {0};
  char byte;
  if (dup2(leave, STDIN_FILENO) < 0 || dup2(news, STDOUT_FILENO) < 0 || syscall(SYS_close_range, 3, ~0U, 0) != 0)
    _exit(1);
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* the supervisor takes the namespace from it and has no CAP_SYS_PTRACE */
  build(&builder, sandbox, wish);
  if (write(STDOUT_FILENO, builder.step, sizeof(builder.step)) == (ssize_t)sizeof(builder.step))
    while (read(STDIN_FILENO, &byte, 1) < 0 && errno == EINTR)
      continue;
  _exit(0);
}

static void keep(struct sandbox *sandbox, pid_t helper) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)helper);
  sandbox->mount_fd = spawn_descriptor_raise(open(path, O_RDONLY | O_CLOEXEC));
  snprintf(path, sizeof(path), "/proc/%d/root/tmp", (int)helper);
  sandbox->tmp_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (sandbox->mount_fd < 0 || sandbox->tmp_fd < 0)
    sandbox_note(sandbox, SANDBOX_MOUNT_VIEW, SANDBOX_OFF, "the namespace cannot be kept: %s", strerrorname_np(errno));
  else
    sandbox_note(sandbox, SANDBOX_MOUNT_VIEW, SANDBOX_IN_FORCE, "its own files, read-only but for its directory");
}

static void close_all(const int *descriptors, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (descriptors[i] >= 0)
      close(descriptors[i]);
}

void sandbox_mount_begin(struct sandbox *sandbox, const struct sandbox_wish *wish) {
  int news[2] = {-1, -1}, leave[2] = {-1, -1};
  if (geteuid() != 0) {
    sandbox_note(sandbox, SANDBOX_MOUNT_VIEW, SANDBOX_OFF, "only root can make one; Landlock keeps other files closed");
    return;
  }
  pid_t helper = pipe2(news, O_CLOEXEC) == 0 && pipe2(leave, O_CLOEXEC) == 0 ? fork() : -1;
  if (helper == 0)
    help(sandbox, wish, news[1], leave[0]);
  const int its[] = {news[1], leave[0]}, ours[] = {news[0], leave[1]};
  close_all(its, 2);
  if (helper > 0) {
    sandbox->helper.pid = helper;
    sandbox->helper.news = news[0];
    sandbox->helper.leave = leave[1];
    return;
  }
  close_all(ours, 2);
  sandbox_note(sandbox, SANDBOX_MOUNT_VIEW, SANDBOX_OFF, "cannot start a helper");
}

void sandbox_mount_finish(struct sandbox *sandbox) {
  char step[STEP_BYTES];
  pid_t helper = sandbox->helper.pid;
  if (helper == 0)
    return;
  ssize_t length = read(sandbox->helper.news, step, sizeof(step));
  if (length == (ssize_t)sizeof(step) && !step[0])
    keep(sandbox, helper);
  else
    sandbox_note(sandbox, SANDBOX_MOUNT_VIEW, SANDBOX_OFF, "cannot %.80s",
                 length == (ssize_t)sizeof(step) ? step : "start a helper");
  close(sandbox->helper.news);
  close(sandbox->helper.leave); /* it goes */
  while (waitpid(helper, NULL, 0) < 0 && errno == EINTR)
    continue;
  sandbox->helper.pid = 0;
}

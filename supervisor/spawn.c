/* spawn.c: see spawn.h. Between clone and exec the child runs on memory that it shares with the suspended supervisor:
 * it calls only what is a plain system call, and writes only the slots of its environment and the failure record. */
#include "supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address))
#endif

#define STACK_BYTES (64 * 1024)
static char stack[STACK_BYTES] __attribute__((aligned(64)));

struct child_task {
  struct spawn_image *image;
  struct spawn_result *result;
  pid_t parent;
};

static void write_digits(char *slot, uint64_t value) {
  char digits[SPAWN_SLOT_BYTES];
  unsigned count = 0;
  do {
    digits[count++] = (char)('0' + value % 10);
    value /= 10;
  } while (value > 0);
  for (unsigned i = 0; i < count; i++)
    slot[i] = digits[count - 1 - i];
  slot[count] = '\0';
}

/* Handlers of the supervisor must not run in the child, and what it ignores must not stay ignored. */
static void reset_signals(void) {
  struct sigaction standard = {.sa_handler = SIG_DFL};
  for (int number = 1; number < NSIG; number++)
    if (number != SIGKILL && number != SIGSTOP)
      sigaction(number, &standard, NULL); /* the two numbers that libc keeps for itself are refused */
}

static bool set_descriptors(const struct spawn_image *image) {
  if (dup2(image->input_fd, 0) < 0 || dup2(image->output_fd, 1) < 0 || dup2(image->output_fd, 2) < 0)
    return false;
  for (unsigned i = 0; i < image->inherit_count; i++)
    if (dup2(image->inherit[i], 3 + (int)i) < 0)
      return false;
  return syscall(SYS_close_range, 3 + image->inherit_count, ~0U, 0) == 0;
}

static bool set_limits(const struct spawn_image *image) {
  for (unsigned i = 0; i < image->limit_count; i++)
    if (setrlimit((__rlimit_resource_t)image->limits[i].resource, &image->limits[i].value) != 0)
      return false;
  return true;
}

/* The bounding and ambient sets; after them an exec as root gains nothing either. Refused when we are not root: then
 * there are none to drop. */
static bool drop_capabilities(const struct spawn_image *image) {
  if (!image->drop_capabilities)
    return true;
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0)
      return errno == EPERM;
  return true;
}

/* The other three sets, which the change of user has emptied already where it left root. */
static bool clear_capabilities(const struct spawn_image *image) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  const struct __user_cap_data_struct none[2] = {0};
  return !image->drop_capabilities || syscall(SYS_capset, &header, none) == 0;
}

/* The raw calls: libc's would look for threads to synchronise with. */
static bool set_user(const struct spawn_image *image) {
  if (!image->change_user)
    return true;
  return syscall(SYS_setgroups, image->group_count, image->groups) == 0 &&
         syscall(SYS_setresgid, image->group, image->group, image->group) == 0 &&
         syscall(SYS_setresuid, image->user, image->user, image->user) == 0;
}

/* After the change of user, since that clears it. A supervisor that died before this call is seen by the changed
 * parent. */
static bool die_with(pid_t parent) {
  return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == parent;
}

static int fail(struct child_task *task, const char *step) {
  task->result->error = errno ? errno : ESRCH;
  task->result->step = step;
  _exit(127);
}

static int run_child(void *argument) {
  struct child_task *task = argument;
  struct spawn_image *image = task->image;
  errno = 0;
  if (image->listen_pid_slot)
    write_digits(image->listen_pid_slot, (uint64_t)getpid());
  reset_signals();
  if (setsid() < 0)
    return fail(task, "session");
  const char *step = sandbox_enter(&image->sandbox);
  if (step)
    return fail(task, step);
  if (image->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return fail(task, "no_new_privileges");
  if (!sandbox_restrict_files(&image->sandbox))
    return fail(task, "landlock");
  if (!set_descriptors(image))
    return fail(task, "descriptors");
  if (!set_limits(image))
    return fail(task, "rlimits");
  if (!drop_capabilities(image))
    return fail(task, "capabilities");
  if (!set_user(image))
    return fail(task, "user");
  if (!clear_capabilities(image))
    return fail(task, "capabilities");
  if (!die_with(task->parent))
    return fail(task, "parent death signal");
  if (chdir(image->directory) != 0)
    return fail(task, "directory");
  umask(image->umask);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (!sandbox_seal(&image->sandbox, getpid()))
    return fail(task, "seccomp");
  execve(image->path, image->arguments, image->environment);
  return fail(task, "exec");
}

bool spawn_run(struct spawn_image *image, uint64_t generation, struct spawn_result *result) {
  *result = (struct spawn_result){.pid = -1, .pidfd = -1};
  struct child_task task = {.image = image, .result = result, .parent = getpid()};
  if (image->generation_slot)
    write_digits(image->generation_slot, generation);
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  int pidfd = -1;
  ASAN_UNPOISON_MEMORY_REGION(stack, STACK_BYTES); /* the last child left its frames by exec, never by return */
  pid_t pid = clone(run_child, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &task, &pidfd);
  int clone_error = errno;
  sigprocmask(SIG_SETMASK, &before, NULL);
  if (pid < 0) {
    result->error = clone_error;
    result->step = "clone";
    return false;
  }
  if (result->error != 0) { /* it has exited; collect it */
    siginfo_t info;
    waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED);
    close(pidfd);
    return false;
  }
  result->pid = pid;
  result->pidfd = pidfd;
  return true;
}

int spawn_descriptor_raise(int fd) {
  if (fd < 0)
    return -1;
  int raised = fcntl(fd, F_DUPFD_CLOEXEC, SPAWN_DESCRIPTOR_MIN);
  int error = errno;
  close(fd);
  errno = error;
  return raised;
}

/* core_describe.c: asks a program of the core what it is, before anything depends on it: runs `PROGRAM --describe`
 * once, as the core's user and in its sandbox, with neither a channel nor a second chance, and hands the last line that
 * it wrote to the core, unread. That it starts at all is proven by it. One at a time; DESCRIBE_MS at most. Allocates:
 * it is no part of a restart. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define DESCRIBE_MS 10000
#define NAME "core@describe"

static void release(struct core_describe *describe) {
  int *descriptors[] = {&describe->pidfd, &describe->pipe_read, &describe->image.output_fd};
  struct event *events[] = {&describe->exit_event, &describe->pipe_event, &describe->timer};
  for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
    event_end(events[i]);
  for (size_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++)
    if (*descriptors[i] > 0)
      close(*descriptors[i]);
  image_free(&describe->image);
  *describe = (struct core_describe){0};
}

static void read_pipe(struct core_describe *describe) {
  char data[4096];
  ssize_t count;
  while ((count = read(describe->pipe_read, data, sizeof(data))) > 0)
    words_feed(&describe->words, NAME, -1, data, (size_t)count);
}

static void on_pipe(evutil_socket_t fd, short what, void *context) {
  char data[4096];
  struct core_describe *describe = context;
  (void)what;
  ssize_t count = read(fd, data, sizeof(data));
  if (count > 0)
    words_feed(&describe->words, NAME, -1, data, (size_t)count);
}

static const char *last_line(const struct words *words) {
  const char *line, *last = "";
  for (unsigned i = 0; (line = words_line(&words->kept, i)) != NULL; i++)
    last = line;
  return last;
}

static void tell(struct supervisor *supervisor, supervisor_control_v1_ExitCause cause, const siginfo_t *info,
                 const char *text) {
  const struct core_describe *describe = &supervisor->core_describe;
  bool left = info->si_code == CLD_EXITED;
  log_event(LOG_INFO, "supervisor", "a program was asked what it is", LOG_TEXT("program", describe->image.path),
            LOG_INT("cause", cause), LOG_INT("status", info->si_status), LOG_TEXT("text", text));
  if (supervisor->link.fd < 0)
    return;
  supervisor_control_v1_ProgramDescribed *out =
      &LINK_BEGIN(supervisor, program_described, describe->sequence)->body.program_described;
  out->cause = cause;
  out->status = left ? info->si_status : 0;
  out->signal = left ? 0 : info->si_status;
  str_copy(out->text, sizeof(out->text), text);
  link_say(supervisor);
}

static void on_exit_event(evutil_socket_t fd, short what, void *context) {
  struct supervisor *supervisor = context;
  struct core_describe *describe = &supervisor->core_describe;
  siginfo_t info = {0};
  (void)fd;
  (void)what;
  kill(-describe->pid, SIGKILL); /* what it left behind in its session */
  while (waitid(P_PIDFD, (id_t)describe->pidfd, &info, WEXITED) != 0 && errno == EINTR)
    continue;
  read_pipe(describe);
  words_finish(&describe->words, NAME, -1);
  tell(supervisor,
       describe->late               ? supervisor_control_v1_ExitCause_EXIT_CAUSE_START_TIMEOUT
       : info.si_code != CLD_EXITED ? supervisor_control_v1_ExitCause_EXIT_CAUSE_SIGNAL
       : info.si_status             ? supervisor_control_v1_ExitCause_EXIT_CAUSE_STATUS
                                    : supervisor_control_v1_ExitCause_EXIT_CAUSE_CLEAN,
       &info, last_line(&describe->words));
  release(describe);
}

static void on_late(evutil_socket_t fd, short what, void *context) {
  struct core_describe *describe = context;
  (void)fd;
  (void)what;
  describe->late = true;
  pidfd_send_signal(describe->pidfd, SIGKILL, NULL, 0);
}

static bool pipe_open(struct core_describe *describe) {
  int ends[2];
  describe->image.output_fd = -1; /* until now the core's */
  if (pipe2(ends, O_CLOEXEC) != 0)
    return false;
  describe->pipe_read = spawn_descriptor_raise(ends[0]);
  describe->image.output_fd = spawn_descriptor_raise(ends[1]);
  return describe->pipe_read >= 0 && describe->image.output_fd >= 0 &&
         fcntl(describe->pipe_read, F_SETFL, O_NONBLOCK) == 0;
}

supervisor_control_v1_Reason core_describe_begin(struct supervisor *supervisor, const char *program,
                                                 uint64_t sequence) {
  static const struct timeval limit = {.tv_sec = DESCRIBE_MS / 1000};
  struct core_describe *describe = &supervisor->core_describe;
  struct spawn_result result;
  if (describe->pid)
    return supervisor_control_v1_Reason_REASON_ALREADY_RUNNING;
  if (program[0] && !process_program_is_good(program))
    return supervisor_control_v1_Reason_REASON_PROGRAM;
  image_core_make(supervisor, &describe->image, program, IMAGE_DESCRIBES);
  describe->sequence = sequence;
  if (!pipe_open(describe) || !spawn_run(&describe->image, 0, &result)) {
    release(describe);
    return supervisor_control_v1_Reason_REASON_PROGRAM;
  }
  close(describe->image.output_fd);
  describe->image.output_fd = -1;
  describe->pid = result.pid;
  describe->pidfd = result.pidfd;
  event_assign(&describe->exit_event, supervisor->base, describe->pidfd, EV_READ, on_exit_event, supervisor);
  event_assign(&describe->pipe_event, supervisor->base, describe->pipe_read, EV_READ | EV_PERSIST, on_pipe, describe);
  evtimer_assign(&describe->timer, supervisor->base, on_late, describe);
  event_add(&describe->exit_event, NULL);
  event_add(&describe->pipe_event, NULL);
  event_add(&describe->timer, &limit);
  return supervisor_control_v1_Reason_REASON_UNSPECIFIED;
}

void core_describe_free(struct supervisor *supervisor) {
  if (supervisor->core_describe.pid)
    release(&supervisor->core_describe);
}

/* pidfd_supervisor.c: the limit of the benchmark "supervise": nothing but start a program, wait for its pidfd, start it
 * again. No state, no log, no back-off, no sandbox, no descriptors to hand over. vfork and exec, as a supervisor that
 * cares for time does. Arguments: the program and its arguments. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* One life of the program. */
static void live_once(char **argv) {
  pid_t pid = vfork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    execv(argv[1], argv + 1);
    _exit(127);
  }
  if (pid < 0)
    exit(111);
  struct pollfd death = {.fd = pidfd_open(pid, 0), .events = POLLIN};
  siginfo_t info;
  while (poll(&death, 1, -1) < 0 && errno == EINTR)
    continue;
  waitid(P_PIDFD, (id_t)death.fd, &info, WEXITED);
  close(death.fd);
}

int main(int argc, char **argv) {
  if (argc < 2)
    return 100;
  for (;;)
    live_once(argv);
}

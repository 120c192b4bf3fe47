/* run_up.c: `up`: this process becomes the supervisor. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/str.h"
#include "supervisor/ctl/ctl_internal.h"

#define PROGRAM "gatehouse-supervisor"

static char *beside_this_program(void) {
  char path[4096];
  ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
  if (length <= 0)
    return base_strdup(PROGRAM);
  path[length] = '\0';
  char *slash = strrchr(path, '/');
  return slash ? base_asprintf("%.*s/" PROGRAM, (int)(slash - path), path) : base_strdup(PROGRAM);
}

int ctl_run_up(struct ctl *ctl) {
  const char *config = ctl_text(ctl, "config"), *run_dir = ctl_text(ctl, "run-dir");
  size_t set_count, count = 0;
  char **sets = ctl_texts(ctl, "set", &set_count);
  char **arguments = base_calloc(2 * set_count + 4, sizeof(char *)), *beside = beside_this_program();
  arguments[count++] = ctl_borrow(PROGRAM);
  if (config) {
    arguments[count++] = ctl_borrow("--config");
    arguments[count++] = ctl_borrow(config);
  }
  for (size_t i = 0; i < set_count; i++) {
    arguments[count++] = ctl_borrow("--set");
    arguments[count++] = sets[i];
  }
  if (run_dir)
    setenv("GATEHOUSE_RUN", run_dir, 1);
  signal(SIGPIPE, SIG_DFL); /* the supervisor decides for itself */
  if (access(beside, X_OK) == 0)
    execv(beside, arguments);
  execvp(PROGRAM, arguments);
  ctl_fail_code(ERR_NOT_FOUND, PROGRAM " cannot be started: %s", strerror(errno));
  base_free(arguments);
  base_free(sets);
  base_free(beside);
  return CTL_EXIT_ENVIRONMENT;
}

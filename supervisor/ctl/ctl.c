/* ctl.c: one run of the CLI, from argv to the exit status. */
#include <signal.h>

#include "sdk/base/log.h"
#include "supervisor/ctl/ctl_internal.h"

int ctl_main(int argc, char **argv) {
  struct ctl ctl = {0};
  log_init("ctl", LOG_FATAL); /* what goes wrong is said once, for people */
  error_origin_default_set(ERROR_ORIGIN_UNSPECIFIED);
  signal(SIGPIPE, SIG_IGN); /* a reader that left is an error of ctl_write */
  int status = ctl_arguments_read(&ctl, argc, argv);
  if (status < 0)
    status = ctl.command->run(&ctl);
  ctl_client_close(&ctl);
  ctl_arguments_free(&ctl);
  return status;
}

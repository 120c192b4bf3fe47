/* supervisor.h: the process that starts everything, keeps it running, and decides nothing (LIF-7, LIF-12, LIF-13).
 *
 * Rules, in the order in which they apply:
 *  1. The core is always kept running: at once after a death, with back-off in a crash loop (backoff.h). When the core
 *     leaves with 100 or 125, everything is stopped and the supervisor leaves with the same status.
 *  2. A module is first started when the core says Start. From then on it is started again after a death by its restart
 *     policy and the same back-off, at once and without asking, whether a core is there or not; the core hears of it.
 * That keeps the way from death to life shortest. A core that wants otherwise says Hold (then nothing restarts it),
 * Stop, Kill or Restart; all of them name the generation, and a stale one changes nothing.
 *  3. SIGTERM, SIGINT or the core's Shutdown: every module is stopped (SIGTERM, its grace, SIGKILL), then the core,
 * then the supervisor leaves with 0. A second signal skips the grace.
 *  4. Public listeners are bound once, here, and outlive every module. Children die with the supervisor. Clients of a
 *     module that is held down are answered with a fixed text; what they send is thrown away unread (refusals.c).
 *  5. What is killed for hanging gets SIGABRT first and half a second to write where it was.
 *
 * One thread, one libevent loop. After the start nothing is allocated on the way from a death to the new process:
 * images, events, rings and messages are made before. Exit statuses: exit_codes.def. Logs: JSON lines on stderr. Fails
 * (status 111) when the run directory is in use, an address is taken, or the core's program cannot be executed. */
#ifndef GATEHOUSE_SUPERVISOR_H
#define GATEHOUSE_SUPERVISOR_H

#include "sdk/base/error.h"
#include "sdk/config/config.h"

enum exit_status {
#define EXIT_STATUS(name, value, meaning) EXIT_STATUS_##name = (value),
#include "supervisor/exit_codes.def"
#undef EXIT_STATUS
};

/* Runs until it is told to stop. source: what config was read from, for the core to read the same. Both stay owned by
 * the caller. Returns an exit status. */
int supervisor_run(const struct config *config, const struct config_source *source);

/* What can be known without starting anything: programs that are not there, users that do not exist, protections that
 * are off. One warning a line in the log. False when something would keep it from running. */
bool supervisor_check(const struct config *config);

#endif

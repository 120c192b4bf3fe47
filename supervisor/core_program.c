/* core_program.c: which program the core has, and how it gets another one (LIF-9, LIF-10, LIF-12). There is one core at
 * a time, so the new one cannot serve beside the old one; it is started in its place, and what it does in its first
 * time decides. The core's own process is child.c's; this is the table of what its life means to a change of its
 * program:
 *
 *                SPAWN      READY   DEATH    TIMER     HOLDS   FAILS
 *   idle         -          -       -        -         -       -
 *   leaving      exchange   -       -        -         -       -         the old core was told to end
 *   starting     -          watch   return   -         -       end it    the new one was started
 *   probation    -          -       return   ask       -       end it
 *   confirming   -          -       return   give up   keep    end it    it was asked whether it can stay
 *   returning    restore    -       -        -         -       -         the program before comes back
 *
 * SPAWN and DEATH come from the way from a death to the new process, on which nothing is allocated: both images are
 * there before the old core is told to end, and change places.
 *
 * The program that is kept is written to <state>/core.program, with what the configuration said then: a later
 * supervisor starts it too, unless the configuration names another program by then, or it cannot be executed any more.
 * The file is the supervisor's own: one of somebody else is not read. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/io.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "supervisor/supervisor_internal.h"

#define CONFIRM_GRACE_MS 5000 /* beyond the time that modules have, for the answer */

static struct child *core_of(struct supervisor *supervisor) {
  return &supervisor->children[0];
}

static const char *shown(const char *program) {
  return program[0] ? program : "as configured";
}

/* ---- what is remembered ---------------------------------------------------------------------------------------------
 */

static bool remember(struct supervisor *supervisor, const char *program) {
  struct error err = {0};
  char *path = base_asprintf("%s/core.program", supervisor->config->state_dir);
  char *text = base_asprintf("%s\n%s\n", program, supervisor->config->core_binary);
  rundir_remnants_remove(path);
  bool ok = io_write_file_atomic(path, text, strlen(text), 0600, &err);
  if (!ok)
    log_error_value(LOG_ERROR, "supervisor", "the core's program cannot be written down", &err);
  base_free(text);
  base_free(path);
  return ok;
}

/* The two lines of the file. False: there is none of ours. */
static bool recall(const struct supervisor *supervisor, char program[static CORE_PROGRAM_BYTES],
                   char configured[static CORE_PROGRAM_BYTES]) {
  char text[2 * CORE_PROGRAM_BYTES];
  struct stat status;
  char *path = base_asprintf("%s/core.program", supervisor->config->state_dir);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  base_free(path);
  if (fd < 0)
    return false;
  bool ours = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == geteuid();
  ssize_t length = ours ? read(fd, text, sizeof(text) - 1) : -1;
  close(fd);
  if (length < 0)
    return false;
  text[length] = '\0';
  char *second = strchr(text, '\n'), *end = second ? strchr(second + 1, '\n') : NULL;
  if (!end || second - text >= CORE_PROGRAM_BYTES)
    return false;
  *second++ = *end = '\0';
  str_copy(program, CORE_PROGRAM_BYTES, text);
  str_copy(configured, CORE_PROGRAM_BYTES, second);
  return true;
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
  (void)fd;
  (void)what;
  core_program_happens(context, CORE_EVENT_TIMER, "");
}

void core_program_init(struct supervisor *supervisor) {
  char program[CORE_PROGRAM_BYTES], configured[CORE_PROGRAM_BYTES];
  struct child *core = core_of(supervisor);
  evtimer_assign(&supervisor->core_program.timer, supervisor->base, on_timer, supervisor);
  if (!recall(supervisor, program, configured) || !program[0])
    return;
  if (!str_equal(configured, supervisor->config->core_binary))
    log_event(LOG_WARN, "supervisor",
              "the configuration names another program of the core than when one was kept: it counts",
              LOG_TEXT("kept", program), LOG_TEXT("configured", supervisor->config->core_binary));
  else if (!process_program_is_good(program))
    log_event(LOG_ERROR, "supervisor",
              "the program that was kept for the core cannot be executed: the configured one is",
              LOG_TEXT("kept", program));
  else
    str_copy(core->program, sizeof(core->program), program);
}

/* ---- actions --------------------------------------------------------------------------------------------------------
 */

static void arm(struct supervisor *supervisor, uint32_t delay_ms) {
  struct timeval delay = {.tv_sec = delay_ms / 1000, .tv_usec = (suseconds_t)(delay_ms % 1000) * 1000};
  event_add(&supervisor->core_program.timer, &delay);
}

/* The prepared image becomes the core's, and the core's the prepared one. */
static void change_places(struct supervisor *supervisor, const char *program) {
  struct child *core = core_of(supervisor);
  struct spawn_image before = core->image;
  core->image = supervisor->core_program.other;
  supervisor->core_program.other = before;
  str_copy(core->program, sizeof(core->program), program);
  backoff_reset(&core->backoff);
}

static enum core_phase do_exchange(struct supervisor *supervisor, const char *why) {
  struct core_program *change = &supervisor->core_program;
  (void)why;
  change_places(supervisor, change->to);
  if (!change->final)
    return CORE_STARTING;
  change->outcome = supervisor_control_v1_CoreChange_CORE_CHANGE_KEPT;
  str_copy(change->why, sizeof(change->why), "it changes the store: there is no way back");
  return CORE_IDLE;
}

static enum core_phase ask(struct supervisor *supervisor) {
  arm(supervisor, (uint32_t)supervisor->config->core_upgrade_modules_ms + CONFIRM_GRACE_MS);
  return CORE_CONFIRMING;
}

static enum core_phase do_ask(struct supervisor *supervisor, const char *why) {
  (void)why;
  return ask(supervisor);
}

static enum core_phase do_watch(struct supervisor *supervisor, const char *why) {
  struct core_program *change = &supervisor->core_program;
  (void)why;
  change->generation = core_of(supervisor)->generation;
  log_event(LOG_INFO, "supervisor", "the core's new program is on probation", LOG_TEXT("program", shown(change->to)),
            LOG_INT("milliseconds", change->probation_ms));
  if (change->probation_ms == 0)
    return ask(supervisor);
  arm(supervisor, change->probation_ms);
  return CORE_PROBATION;
}

static enum core_phase do_return(struct supervisor *supervisor, const char *why) {
  struct core_program *change = &supervisor->core_program;
  event_del(&change->timer);
  change->generation = core_of(supervisor)->generation;
  str_copy(change->why, sizeof(change->why), why);
  log_event(LOG_ERROR, "supervisor", "the core's new program does not hold: the one before comes back",
            LOG_TEXT("program", shown(change->to)), LOG_TEXT("before", shown(change->from)), LOG_TEXT("why", why));
  return CORE_RETURNING;
}

static enum core_phase do_end(struct supervisor *supervisor, const char *why) {
  enum core_phase next = do_return(supervisor, why);
  child_stop(core_of(supervisor), 0, true);
  return next;
}

static enum core_phase do_give_up(struct supervisor *supervisor, const char *why) {
  (void)why;
  enum core_phase next = do_return(supervisor, "it did not answer whether it can stay");
  supervisor->core_program.phase = next; /* what the end of the process finds */
  child_happens(core_of(supervisor), CHILD_EVENT_TRACE);
  return next;
}

static enum core_phase do_keep(struct supervisor *supervisor, const char *why) {
  struct core_program *change = &supervisor->core_program;
  (void)why;
  event_del(&change->timer);
  if (!remember(supervisor, change->to))
    return do_end(supervisor, "it could not be written down that it is the core's program");
  change->outcome = supervisor_control_v1_CoreChange_CORE_CHANGE_KEPT;
  snprintf(change->why, sizeof(change->why), "held for %u ms", change->probation_ms);
  log_event(LOG_INFO, "supervisor", "the core's new program is kept", LOG_TEXT("program", shown(change->to)));
  return CORE_IDLE;
}

static enum core_phase do_restore(struct supervisor *supervisor, const char *why) {
  struct core_program *change = &supervisor->core_program;
  (void)why;
  change_places(supervisor, change->from);
  change->outcome = supervisor_control_v1_CoreChange_CORE_CHANGE_TAKEN_BACK;
  return CORE_IDLE;
}

/* ---- the machine ----------------------------------------------------------------------------------------------------
 */

typedef enum core_phase core_action(struct supervisor *supervisor, const char *why);

static core_action *const machine[CORE_PHASE_COUNT][CORE_EVENT_COUNT] = {
    [CORE_LEAVING] = {[CORE_EVENT_SPAWN] = do_exchange},
    [CORE_STARTING] = {[CORE_EVENT_READY] = do_watch, [CORE_EVENT_DEATH] = do_return, [CORE_EVENT_FAILS] = do_end},
    [CORE_PROBATION] = {[CORE_EVENT_DEATH] = do_return, [CORE_EVENT_TIMER] = do_ask, [CORE_EVENT_FAILS] = do_end},
    [CORE_CONFIRMING] = {[CORE_EVENT_DEATH] = do_return,
                         [CORE_EVENT_TIMER] = do_give_up,
                         [CORE_EVENT_HOLDS] = do_keep,
                         [CORE_EVENT_FAILS] = do_end},
    [CORE_RETURNING] = {[CORE_EVENT_SPAWN] = do_restore},
};

void core_program_happens(struct supervisor *supervisor, enum core_event event, const char *why) {
  struct core_program *change = &supervisor->core_program;
  core_action *action = machine[change->phase][event];
  if (!action || supervisor->phase != SUPERVISOR_RUNNING)
    return;
  change->phase = action(supervisor, why);
  if (change->phase == CORE_PROBATION || change->phase == CORE_CONFIRMING || event == CORE_EVENT_HOLDS)
    link_say_core_program(supervisor);
}

static const char *cause_text(supervisor_control_v1_ExitCause cause) {
  static const char *const texts[] = {
      [supervisor_control_v1_ExitCause_EXIT_CAUSE_START_TIMEOUT] = "it was not ready in its start timeout",
      [supervisor_control_v1_ExitCause_EXIT_CAUSE_WATCHDOG] = "it gave no sign of life",
      [supervisor_control_v1_ExitCause_EXIT_CAUSE_MEMORY] = "its memory limit was reached"};
  return (size_t)cause < sizeof(texts) / sizeof(texts[0]) ? texts[cause] : NULL;
}

bool core_program_goes_back(struct supervisor *supervisor, const struct child_death *death) {
  static const char *const when[CORE_PHASE_COUNT] = {[CORE_STARTING] = "before it was ready",
                                                     [CORE_PROBATION] = "on probation",
                                                     [CORE_CONFIRMING] = "at the end of its probation"};
  const char *cause = cause_text(death->cause), *moment = when[supervisor->core_program.phase];
  char why[CORE_WHY_BYTES];
  if (death->error_name)
    snprintf(why, sizeof(why), "it could not be started: %s in %s", death->error_name, death->step);
  else if (cause)
    str_copy(why, sizeof(why), cause);
  else
    snprintf(why, sizeof(why), "it ended by %s %d %s", death->signal ? "signal" : "status",
             death->signal ? death->signal : death->status, moment ? moment : "");
  core_program_happens(supervisor, CORE_EVENT_DEATH, why);
  return supervisor->core_program.phase == CORE_RETURNING;
}

bool core_program_is_changing(const struct supervisor *supervisor) {
  return supervisor->core_program.phase != CORE_IDLE;
}

/* ---- orders and news ------------------------------------------------------------------------------------------------
 */

supervisor_control_v1_Reason core_program_replace(struct supervisor *supervisor, const char *program,
                                                  uint32_t probation_ms, bool final) {
  struct core_program *change = &supervisor->core_program;
  const struct child *core = core_of(supervisor);
  if (supervisor->phase != SUPERVISOR_RUNNING)
    return supervisor_control_v1_Reason_REASON_SHUTTING_DOWN;
  if (change->phase != CORE_IDLE || supervisor->reload != RELOAD_NONE)
    return supervisor_control_v1_Reason_REASON_ALREADY_RUNNING;
  if (core->state != CHILD_UP)
    return supervisor_control_v1_Reason_REASON_NOT_RUNNING;
  if (program[0] && !process_program_is_good(program))
    return supervisor_control_v1_Reason_REASON_PROGRAM;
  if (final && !remember(supervisor, program))
    return supervisor_control_v1_Reason_REASON_UNWRITTEN;
  image_free(&change->other);
  image_core_make(supervisor, &change->other, program, IMAGE_SERVES);
  str_copy(change->from, sizeof(change->from), core->program);
  str_copy(change->to, sizeof(change->to), program);
  change->final = final;
  change->probation_ms = probation_ms;
  change->generation = 0;
  change->why[0] = '\0';
  change->outcome = supervisor_control_v1_CoreChange_CORE_CHANGE_UNSPECIFIED;
  change->phase = CORE_LEAVING;
  log_event(LOG_INFO, "supervisor", "the core is given another program", LOG_TEXT("from", shown(change->from)),
            LOG_TEXT("to", shown(change->to)));
  return supervisor_control_v1_Reason_REASON_UNSPECIFIED;
}

void core_program_fill(const struct supervisor *supervisor, supervisor_control_v1_CoreProgram *out) {
  static const supervisor_control_v1_CoreChange under_way[CORE_PHASE_COUNT] = {
      [CORE_STARTING] = supervisor_control_v1_CoreChange_CORE_CHANGE_STARTING,
      [CORE_PROBATION] = supervisor_control_v1_CoreChange_CORE_CHANGE_PROBATION,
      [CORE_CONFIRMING] = supervisor_control_v1_CoreChange_CORE_CHANGE_CONFIRMING};
  const struct core_program *change = &supervisor->core_program;
  str_copy(out->program, sizeof(out->program), supervisor->children[0].program);
  str_copy(out->from_program, sizeof(out->from_program), change->from);
  str_copy(out->to_program, sizeof(out->to_program), change->to);
  str_copy(out->why, sizeof(out->why), change->why);
  out->generation = change->generation;
  out->probation_ms = change->probation_ms;
  out->change = under_way[change->phase] ? under_way[change->phase] : change->outcome;
}

void core_program_free(struct supervisor *supervisor) {
  event_end(&supervisor->core_program.timer);
  image_free(&supervisor->core_program.other);
}

/* rundir_test.c: whose lock is waited for: that of a supervisor that was killed while something of it is still dying,
 * and no other. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/test.h"
#include "supervisor/supervisor_internal.h"

#define REMNANT_MS 150

static char directory[] = "/tmp/rundir_test_XXXXXX", run_dir[64], state_dir[64], lock_path[80];
static struct config config = {.run_dir = run_dir, .state_dir = state_dir};
static struct child core = {.id = "core", .is_core = true};
static struct supervisor supervisor = {.config = &config, .children = &core, .child_count = 1};

static void setup(void) {
  ck_assert_ptr_nonnull(mkdtemp(directory));
  snprintf(run_dir, sizeof(run_dir), "%s/run", directory);
  snprintf(state_dir, sizeof(state_dir), "%s/state", directory);
  snprintf(lock_path, sizeof(lock_path), "%s/supervisor.lock", run_dir);
  core.image.user = geteuid();
  core.image.group = getegid();
  ck_assert_int_eq(mkdir(run_dir, 0755), 0);
}

static void teardown(void) {
  char *command = base_asprintf("rm -rf %s", directory);
  ck_assert_int_eq(system(command), 0);
  base_free(command);
}

static pid_t dead_process(void) {
  pid_t pid = fork();
  if (pid == 0)
    _exit(0);
  ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
  return pid;
}

/* A process that holds the lock of `owner` from before this returns, for so long. */
static pid_t remnant_of(pid_t owner, unsigned for_ms) {
  int ready[2];
  char byte = 0;
  FILE *file = fopen(lock_path, "w");
  fprintf(file, "%-10d %-20d\n", (int)owner, 41);
  fclose(file);
  ck_assert_int_eq(pipe(ready), 0);
  pid_t pid = fork();
  if (pid == 0) {
    int fd = open(lock_path, O_RDWR | O_CLOEXEC);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || write(ready[1], &byte, 1) != 1)
      _exit(1);
    usleep(for_ms * 1000);
    _exit(0);
  }
  ck_assert_int_eq(read(ready[0], &byte, 1), 1);
  close(ready[0]);
  close(ready[1]);
  return pid;
}

static void remnant_end(pid_t pid) {
  kill(pid, SIGKILL);
  ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* Is refused, each time; the shortest, since this machine may be busy: who waits does so each time. */
static int64_t refused_within_ms(void) {
  int64_t shortest_ms = INT64_MAX;
  for (int i = 0; i < 5; i++) {
    struct error err = {0};
    int64_t start = clock_monotonic_ms();
    ck_assert(!rundir_prepare(&supervisor, &err));
    ck_assert_str_eq(err.code, "supervisor.running");
    int64_t took_ms = clock_monotonic_ms() - start;
    shortest_ms = took_ms < shortest_ms ? took_ms : shortest_ms;
  }
  return shortest_ms;
}

START_TEST(the_remnant_of_a_dead_supervisor_is_waited_for) {
  struct error err = {0};
  pid_t remnant = remnant_of(dead_process(), REMNANT_MS);
  ck_assert_msg(rundir_prepare(&supervisor, &err), "%s: %s", err.code, err.message);
  ck_assert_uint_eq(rundir_generation_next(&supervisor), 42); /* and its numbers go on */
  remnant_end(remnant);
}
END_TEST

START_TEST(a_remnant_that_stays_is_not_waited_for_long) {
  struct error err = {0};
  int64_t start = clock_monotonic_ms();
  pid_t remnant = remnant_of(dead_process(), 60000);
  ck_assert(!rundir_prepare(&supervisor, &err));
  ck_assert_str_eq(err.code, "supervisor.running");
  ck_assert_int_ge(clock_monotonic_ms() - start, 1000);
  remnant_end(remnant);
}
END_TEST

START_TEST(a_supervisor_that_lives_is_not_waited_for) {
  pid_t remnant = remnant_of(getpid(), 60000);
  ck_assert_int_lt(refused_within_ms(), 900);
  remnant_end(remnant);
}
END_TEST

/* What is written in it is no number of a process: nobody is known to be dead. */
START_TEST(a_lock_of_nobody_is_not_waited_for) {
  pid_t remnant = remnant_of(0, 60000);
  ck_assert_int_lt(refused_within_ms(), 900);
  remnant_end(remnant);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("supervisor.rundir");
  TCase *tests = tcase_create("rundir");
  tcase_add_checked_fixture(tests, setup, teardown);
  tcase_add_test(tests, the_remnant_of_a_dead_supervisor_is_waited_for);
  tcase_add_test(tests, a_remnant_that_stays_is_not_waited_for_long);
  tcase_add_test(tests, a_supervisor_that_lives_is_not_waited_for);
  tcase_add_test(tests, a_lock_of_nobody_is_not_waited_for);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? 0 : 1;
}

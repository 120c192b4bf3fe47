/* sandbox_cgroup_test.c: the control group of a module, made in a tree of plain files that looks like cgroup v2: where
 * it is made, what is written into it, what is said when it cannot be made (LIF-14), and deaths by its memory limit
 * (LIF-7). */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "supervisor/sandbox.h"

#define PATH_BYTES 256

static char root[64]; /* holds mountinfo, membership and the hierarchy */
static struct sandbox sandbox;
static struct config_module module;

static const char *path_of(const char *format, ...) {
  static char path[PATH_BYTES];
  int length = snprintf(path, sizeof(path), "%s/", root);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(path + length, sizeof(path) - (size_t)length, format, arguments);
  va_end(arguments);
  return path;
}

static void file_make(const char *name, const char *text) {
  FILE *file = fopen(path_of("%s", name), "we");
  ck_assert_ptr_nonnull(file);
  fputs(text, file);
  fclose(file);
}

static const char *text_of(const char *name) {
  static char text[128];
  FILE *file = fopen(path_of("%s", name), "re");
  ck_assert_msg(file != NULL, "%s is not there", name);
  size_t length = fread(text, 1, sizeof(text) - 1, file);
  text[length] = '\0';
  fclose(file);
  return text;
}

/* What the kernel puts into a new group; the folder of the hierarchy is "tree". */
static void group_make(const char *name) {
  static const char *const files[] = {
      "cgroup.procs", "cgroup.subtree_control", "memory.max", "memory.oom.group", "pids.max", "cpu.max"};
  char file[PATH_BYTES];
  ck_assert(mkdir(path_of("%s", name), 0700) == 0);
  for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
    snprintf(file, sizeof(file), "%s/%s", name, files[i]);
    file_make(file, "");
  }
}

/* A container's own hierarchy: its root is ours, and has a type. */
static void container_make(const char *controllers) {
  char line[PATH_BYTES];
  snprintf(line, sizeof(line), "22 1 0:20 / /sys rw - sysfs sysfs rw\n30 22 0:26 / %s rw,nosuid - cgroup2 cgroup rw\n",
           path_of("tree"));
  file_make("mountinfo", line);
  file_make("membership", "1:name=systemd:/x\n0::/\n");
  group_make("tree");
  file_make("tree/cgroup.controllers", controllers);
  file_make("tree/cgroup.type", "domain\n");
  group_make("tree/gatehouse-supervisor");
  group_make("tree/gatehouse-rest");
}

static void prepare(void) {
  char mountinfo[PATH_BYTES], membership[PATH_BYTES], id[] = "rest";
  snprintf(mountinfo, sizeof(mountinfo), "%s", path_of("mountinfo"));
  snprintf(membership, sizeof(membership), "%s", path_of("membership"));
  const struct sandbox_cgroup_source source = {mountinfo, membership};
  module.id = id;
  const struct sandbox_wish wish = {.module = &module};
  sandbox = (struct sandbox){
      .applies = true, .landlock_fd = -1, .mount_fd = -1, .cgroup_fd = -1, .events_fd = -1, .tmp_fd = -1};
  sandbox_cgroup_prepare(&sandbox, &wish, &source);
}

static void expect_said(enum sandbox_state state, const char *reason) {
  const struct sandbox_finding *finding = &sandbox.findings[SANDBOX_CGROUP];
  ck_assert_msg(strstr(finding->reason, reason) != NULL, "said: %s", finding->reason);
  ck_assert_int_eq(finding->state, state);
}

static void expect(enum sandbox_state state, const char *reason) {
  expect_said(state, reason);
  ck_assert_int_eq(sandbox.cgroup_fd >= 0, state == SANDBOX_IN_FORCE);
}

static void set_up(void) {
  strcpy(root, "/tmp/ghcgXXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(root));
  module = (struct config_module){.cgroup_memory_bytes = 256 << 20, .cgroup_processes = 40, .cgroup_cpu_percent = 150};
}

static void tear_down(void) {
  char command[PATH_BYTES];
  sandbox_free(&sandbox);
  snprintf(command, sizeof(command), "rm -rf %s", root);
  ck_assert_int_eq(system(command), 0);
}

START_TEST(limits_are_written_into_the_group_of_the_module) {
  container_make("cpuset cpu io memory pids\n");
  prepare();
  expect(SANDBOX_IN_FORCE, "memory 256 MiB, processes 40, processor 150 %");
  ck_assert_str_eq(text_of("tree/gatehouse-rest/memory.max"), "268435456");
  ck_assert_str_eq(text_of("tree/gatehouse-rest/memory.oom.group"), "1");
  ck_assert_str_eq(text_of("tree/gatehouse-rest/pids.max"), "40");
  ck_assert_str_eq(text_of("tree/gatehouse-rest/cpu.max"), "150000 100000");
}
END_TEST

START_TEST(the_supervisor_moves_into_a_leaf_and_divides_the_group) {
  container_make("cpu memory pids\n");
  prepare();
  ck_assert_str_eq(text_of("tree/gatehouse-supervisor/cgroup.procs"), "0");
  ck_assert_ptr_nonnull(strstr(text_of("tree/cgroup.subtree_control"), "+cpu"));
  ck_assert_str_eq(text_of("tree/cgroup.procs"), "");
}
END_TEST

START_TEST(the_child_enters_by_the_descriptor_that_is_kept) {
  container_make("cpu memory pids\n");
  prepare();
  ck_assert_int_ge(sandbox.cgroup_fd, 64);
  ck_assert_int_eq(fcntl(sandbox.cgroup_fd, F_GETFD), FD_CLOEXEC);
  ck_assert_ptr_null(sandbox_enter(&sandbox));
  ck_assert_str_eq(text_of("tree/gatehouse-rest/cgroup.procs"), "0");
}
END_TEST

START_TEST(what_has_no_limit_is_set_free) {
  container_make("cpu memory pids\n");
  module = (struct config_module){0};
  file_make("tree/gatehouse-rest/memory.max", "1");
  prepare();
  expect(SANDBOX_IN_FORCE, "0: no limit");
  ck_assert_str_eq(text_of("tree/gatehouse-rest/pids.max"), "max");
  ck_assert_str_eq(text_of("tree/gatehouse-rest/cpu.max"), "max");
  ck_assert_int_eq(strncmp(text_of("tree/gatehouse-rest/memory.max"), "max", 3), 0);
  ck_assert_str_eq(text_of("tree/gatehouse-rest/memory.oom.group"), "0");
}
END_TEST

START_TEST(without_a_processor_controller_the_rest_is_limited) {
  container_make("memory pids\n");
  ck_assert(unlink(path_of("tree/gatehouse-rest/cpu.max")) == 0);
  module.cgroup_cpu_percent = 0;
  prepare();
  expect(SANDBOX_IN_FORCE, "memory 256 MiB");
}
END_TEST

START_TEST(a_limit_without_a_controller_is_said_and_the_others_hold) {
  container_make("cpuset pids\n"); /* not cpu */
  ck_assert(unlink(path_of("tree/gatehouse-rest/cpu.max")) == 0);
  ck_assert(unlink(path_of("tree/gatehouse-rest/memory.max")) == 0);
  prepare();
  expect_said(SANDBOX_OFF, "there is no memory or cpu controller here; its other limits hold");
  ck_assert_int_ge(sandbox.cgroup_fd, 64);
  ck_assert_str_eq(text_of("tree/gatehouse-rest/pids.max"), "40");
}
END_TEST

START_TEST(a_limit_that_cannot_be_written_is_no_group) {
  container_make("cpu memory pids\n");
  ck_assert(unlink(path_of("tree/gatehouse-rest/cpu.max")) == 0);
  prepare();
  expect(SANDBOX_OFF, "its group cannot be made: ENOENT");
}
END_TEST

START_TEST(a_group_that_cannot_be_made_is_said) {
  container_make("memory pids\n");
  char from[PATH_BYTES];
  snprintf(from, sizeof(from), "%s", path_of("tree/gatehouse-rest"));
  ck_assert(rename(from, path_of("tree/aside")) == 0);
  file_make("tree/gatehouse-rest", "no folder");
  prepare();
  expect(SANDBOX_OFF, "its group cannot be made: ENOTDIR");
}
END_TEST

START_TEST(a_group_that_cannot_be_divided_is_said) {
  container_make("memory pids\n");
  ck_assert(unlink(path_of("tree/cgroup.subtree_control")) == 0);
  prepare();
  expect(SANDBOX_OFF, "the delegated cgroup cannot be divided");
}
END_TEST

START_TEST(no_hierarchy_is_said) {
  file_make("mountinfo", "25 22 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  file_make("membership", "4:memory:/\n");
  prepare();
  expect(SANDBOX_OFF, "no cgroup v2 hierarchy is mounted");
}
END_TEST

START_TEST(tables_that_cannot_be_read_are_no_hierarchy) {
  prepare();
  expect(SANDBOX_OFF, "no cgroup v2 hierarchy is mounted");
}
END_TEST

START_TEST(a_hierarchy_without_its_controllers_is_said) {
  container_make("cpuset io\n");
  prepare();
  expect(SANDBOX_OFF, "cgroup v2 has no memory, pids or cpu controller here");
}
END_TEST

/* One life in the group: what the kernel has counted before and after it. */
static bool ran_out(const char *before, const char *after, int signal_number) {
  file_make("tree/gatehouse-rest/memory.events", before);
  prepare();
  sandbox_cgroup_begin(&sandbox);
  file_make("tree/gatehouse-rest/memory.events", after);
  bool result = sandbox_cgroup_ran_out(&sandbox, signal_number);
  sandbox_free(&sandbox);
  return result;
}

#define EVENTS(kills) "low 0\nhigh 0\nmax 44\noom 9\noom_kill " kills "\noom_group_kill 7\n"

START_TEST(a_kill_that_the_kernel_counted_is_the_memory_limit) {
  container_make("memory pids\n");
  ck_assert(ran_out(EVENTS("0"), EVENTS("1"), SIGKILL));
  ck_assert(ran_out(EVENTS("3"), EVENTS("12"), SIGKILL));
}
END_TEST

START_TEST(a_kill_that_the_kernel_did_not_count_is_somebody_s) {
  container_make("memory pids\n");
  ck_assert(!ran_out(EVENTS("3"), EVENTS("3"), SIGKILL));
  ck_assert(!ran_out("", "", SIGKILL));
}
END_TEST

START_TEST(an_end_by_itself_is_not_the_memory_limit_whoever_else_was_killed) {
  container_make("memory pids\n");
  ck_assert(!ran_out(EVENTS("0"), EVENTS("1"), 0));
  ck_assert(!ran_out(EVENTS("0"), EVENTS("1"), SIGSEGV));
}
END_TEST

START_TEST(without_a_group_nothing_is_counted) {
  container_make("pids\n");
  prepare();
  ck_assert_int_eq(sandbox.events_fd, -1);
  sandbox_cgroup_begin(&sandbox);
  ck_assert(!sandbox_cgroup_ran_out(&sandbox, SIGKILL));
  struct sandbox nothing = {0}; /* the core's, or a module's without a sandbox */
  sandbox_cgroup_begin(&nothing);
  ck_assert(!sandbox_cgroup_ran_out(&nothing, SIGKILL));
}
END_TEST

START_TEST(the_machines_own_root_is_not_ours) {
  container_make("memory pids\n");
  ck_assert(unlink(path_of("tree/cgroup.type")) == 0);
  if (geteuid() != 0) { /* a folder of ours would be ours by its owner */
    ck_assert(chmod(path_of("tree"), 0500) == 0);
    return;
  }
  prepare();
  expect(SANDBOX_OFF, "no cgroup is delegated to the supervisor");
  ck_assert_str_eq(text_of("tree/gatehouse-supervisor/cgroup.procs"), "");
}
END_TEST

/* A service of systemd's with Delegate=yes; after: the supervisor was moved into its leaf before. */
static void service_make(const char *own) {
  char line[PATH_BYTES];
  container_make("memory pids\n");
  group_make("tree/system.slice");
  group_make("tree/system.slice/gatehouse.service");
  group_make("tree/system.slice/gatehouse.service/gatehouse-supervisor");
  group_make("tree/system.slice/gatehouse.service/gatehouse-rest");
  file_make("tree/system.slice/gatehouse.service/cgroup.controllers", "memory pids\n");
  snprintf(line, sizeof(line), "0::%s\n", own);
  file_make("membership", line);
}

static bool delegate(void) {
  const char *path = path_of("tree/system.slice/gatehouse.service");
  return setxattr(path, "trusted.delegate", "1", 1, 0) == 0 || setxattr(path, "user.delegate", "1", 1, 0) == 0;
}

static const char *const owns[] = {"/system.slice/gatehouse.service",
                                   "/system.slice/gatehouse.service/gatehouse-supervisor"};

START_TEST(a_delegated_service_is_divided_below_itself) {
  service_make(owns[_i]);
  if (!delegate())
    return; /* a file system without such attributes: nothing to try it on */
  module.cgroup_cpu_percent = 0;
  prepare();
  expect(SANDBOX_IN_FORCE, "memory 256 MiB");
  ck_assert_str_eq(text_of("tree/system.slice/gatehouse.service/gatehouse-rest/pids.max"), "40");
  ck_assert_str_eq(text_of("tree/system.slice/gatehouse.service/gatehouse-supervisor/cgroup.procs"), "0");
  ck_assert_str_eq(text_of("tree/gatehouse-rest/pids.max"), "");
}
END_TEST

START_TEST(a_service_that_is_not_delegated_is_left_alone) {
  service_make(owns[0]);
  if (geteuid() != 0)
    return; /* its owner would make it ours */
  prepare();
  expect(SANDBOX_OFF, "no cgroup is delegated to the supervisor");
  ck_assert_str_eq(text_of("tree/system.slice/gatehouse.service/cgroup.subtree_control"), "");
}
END_TEST

int main(void) {
  Suite *suite = suite_create("sandbox_cgroup");
  TCase *tests = tcase_create("groups");
  tcase_add_checked_fixture(tests, set_up, tear_down);
  tcase_add_test(tests, limits_are_written_into_the_group_of_the_module);
  tcase_add_test(tests, the_supervisor_moves_into_a_leaf_and_divides_the_group);
  tcase_add_test(tests, the_child_enters_by_the_descriptor_that_is_kept);
  tcase_add_test(tests, what_has_no_limit_is_set_free);
  tcase_add_test(tests, without_a_processor_controller_the_rest_is_limited);
  tcase_add_test(tests, a_limit_without_a_controller_is_said_and_the_others_hold);
  tcase_add_test(tests, a_limit_that_cannot_be_written_is_no_group);
  tcase_add_test(tests, a_group_that_cannot_be_made_is_said);
  tcase_add_test(tests, a_group_that_cannot_be_divided_is_said);
  tcase_add_test(tests, no_hierarchy_is_said);
  tcase_add_test(tests, tables_that_cannot_be_read_are_no_hierarchy);
  tcase_add_test(tests, a_hierarchy_without_its_controllers_is_said);
  tcase_add_test(tests, a_kill_that_the_kernel_counted_is_the_memory_limit);
  tcase_add_test(tests, a_kill_that_the_kernel_did_not_count_is_somebody_s);
  tcase_add_test(tests, an_end_by_itself_is_not_the_memory_limit_whoever_else_was_killed);
  tcase_add_test(tests, without_a_group_nothing_is_counted);
  tcase_add_test(tests, the_machines_own_root_is_not_ours);
  tcase_add_loop_test(tests, a_delegated_service_is_divided_below_itself, 0, 2);
  tcase_add_test(tests, a_service_that_is_not_delegated_is_left_alone);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

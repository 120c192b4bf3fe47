/* log_test.c: log lines are valid JSON whatever is in them (SPI-16); a failed check ends the process. io is tested here
 * too, because the lines are captured through files. */
#include "sdk/base/log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/check.h"
#include "sdk/base/io.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "sdk/base/test.h"

static char directory[] = "/tmp/gatehouse-log-test.XXXXXX";
static char path[128];

/* stderr of this (forked) test goes into a file. */
static void capture(void) {
  ck_assert_ptr_nonnull(mkdtemp(directory));
  snprintf(path, sizeof path, "%s/log", directory);
  int fd = open(path, O_RDWR | O_CREAT | O_APPEND, 0600);
  ck_assert_int_ge(fd, 0);
  ck_assert_int_ge(dup2(fd, STDERR_FILENO), 0);
  close(fd);
}

static struct buf captured(void) {
  struct buf text = {0};
  ck_assert(io_read_file(path, 1 << 20, &text, NULL));
  unlink(path);
  rmdir(directory);
  return text;
}

static void assert_member(const struct buf *line, const char *key, const char *expected) {
  const char *value;
  size_t length;
  ck_assert_msg(json_member(line->data, line->length, key, &value, &length), "%s", key);
  ck_assert_uint_eq(length, strlen(expected));
  ck_assert_mem_eq(value, expected, length);
}

START_TEST(a_line_is_one_json_object_with_its_fields) {
  capture();
  log_init("tester", LOG_INFO);
  log_event(LOG_DEBUG, "base", "not shown");
  log_event(LOG_WARN, "base", "a \"quoted\"\nmessage", LOG_TEXT("text", "\xff"), LOG_INT("number", -5),
            LOG_BOOL("flag", true), LOG_TEXT("none", NULL));
  struct buf line = captured();
  ck_assert(json_check(line.data, line.length, 1, NULL));
  ck_assert_ptr_eq(strchr(line.data, '\n'), line.data + line.length - 1);
  assert_member(&line, "process", "\"tester\"");
  assert_member(&line, "level", "\"warn\"");
  assert_member(&line, "message", "\"a \\\"quoted\\\"\\nmessage\"");
  assert_member(&line, "text", "\"\xef\xbf\xbd\"");
  assert_member(&line, "number", "-5");
  assert_member(&line, "flag", "true");
  assert_member(&line, "none", "null");
  buf_free(&line);
}
END_TEST

START_TEST(a_line_too_long_is_cut_and_stays_json) {
  capture();
  log_init("tester", LOG_INFO);
  char *large = base_alloc(20000);
  memset(large, '\x01', 19999);
  large[19999] = 0;
  log_event(LOG_ERROR, "base", "long", LOG_TEXT("large", large), LOG_INT("after", 1), LOG_TEXT("more", large));
  base_free(large);
  struct buf line = captured();
  ck_assert_uint_le(line.length, 8192);
  ck_assert(json_check(line.data, line.length, 1, NULL));
  assert_member(&line, "truncated", "true");
  buf_free(&line);
}
END_TEST

START_TEST(error_values_are_logged_with_code_and_trace) {
  capture();
  struct error err;
  error_set(&err, ERR_NOT_FOUND, "No such thing.");
  str_copy(err.trace_id, sizeof err.trace_id, "0af7651916cd43dd8448eb211c80319c");
  log_error_value(LOG_ERROR, "base", "lookup failed", &err);
  struct buf line = captured();
  assert_member(&line, "code", "\"not_found\"");
  assert_member(&line, "trace_id", "\"0af7651916cd43dd8448eb211c80319c\"");
  buf_free(&line);
}
END_TEST

START_TEST(a_failed_check_says_where_and_aborts) {
  capture();
  pid_t child = fork();
  if (child == 0) {
    BASE_CHECK(1 + 1 == 3);
    _exit(0);
  }
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  struct buf text = captured();
  ck_assert_ptr_nonnull(strstr(text.data, "\"condition\":\"1 + 1 == 3\""));
  buf_free(&text);
}
END_TEST

START_TEST(level_names_are_read) {
  enum log_level level;
  ck_assert(log_level_parse("debug", &level) && level == LOG_DEBUG);
  ck_assert(log_level_parse("fatal", &level) && level == LOG_FATAL);
  ck_assert(!log_level_parse("loud", &level) && !log_level_parse("panic", &level) && !log_level_parse(NULL, &level));
}
END_TEST

START_TEST(files_are_replaced_as_one_and_read_within_bounds) {
  struct buf text = {0};
  struct error err;
  ck_assert_ptr_nonnull(mkdtemp(directory));
  char *deep = base_asprintf("%s/a/b/", directory), *file = base_asprintf("%s/a/b/f", directory);
  ck_assert(io_make_directories(deep, 0700, &err));
  ck_assert(io_make_directories(deep, 0700, &err));
  ck_assert(io_write_file_atomic(file, "first", 5, 0640, &err));
  ck_assert(io_write_file_atomic(file, "second!", 7, 0600, &err));
  struct stat status;
  ck_assert_int_eq(stat(file, &status), 0);
  ck_assert_uint_eq(status.st_mode & 07777, 0600);
  ck_assert(io_read_file(file, 7, &text, &err) && str_equal(text.data, "second!"));
  ck_assert(!io_read_file(file, 6, &text, &err) && error_is(&err, ERR_ARGUMENT_TOO_LARGE));
  ck_assert_str_eq(text.data, "second!");
  ck_assert(!io_read_file(directory, 100, &text, &err) && error_is(&err, ERR_IO));
  ck_assert(!io_make_directories(file, 0700, &err) && error_is(&err, ERR_IO));
  unlink(file);
  ck_assert(!io_read_file(file, 6, &text, &err) && error_is(&err, ERR_NOT_FOUND));
  ck_assert(!io_write_file_atomic("/nowhere/at/all", "x", 1, 0600, &err) && error_is(&err, ERR_IO));
  ck_assert_int_eq(rmdir(deep), 0); /* fails when a temporary file was left */
  deep[strlen(deep) - 2] = 0;
  rmdir(deep);
  rmdir(directory);
  ck_assert(!io_set_nonblocking(-1, true) && !io_set_cloexec(-1, true));
  buf_free(&text);
  base_free(deep);
  base_free(file);
}
END_TEST

TEST_MAIN("base.log", a_line_is_one_json_object_with_its_fields, a_line_too_long_is_cut_and_stays_json,
          error_values_are_logged_with_code_and_trace, a_failed_check_says_where_and_aborts, level_names_are_read,
          files_are_replaced_as_one_and_read_within_bounds)

/* crash_test.c: children that crash in known ways; what they leave on stderr, and that they die of the same. */
#include "sdk/base/crash.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdk/base/json.h"
#include "sdk/base/test.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

static void __attribute__((noinline)) read_null(void) {
  volatile int *volatile nowhere = NULL;
  *nowhere = 1;
}

static void (*volatile deeper)(volatile char *above);

static void __attribute__((noinline)) recurse(volatile char *above) {
  volatile char here[4096];
  here[0] = above ? above[0] : 1;
  deeper(here);
  here[1] = here[0];
}

static void __attribute__((noinline)) jump_nowhere(void) {
  void (*volatile nowhere)(void) = NULL;
  nowhere();
}

static void overflow(void) {
  deeper = recurse;
  recurse(NULL);
}

static void send_itself(void) {
  kill(getpid(), SIGABRT);
}

static void *crash_in_thread(void *argument) {
  (void)argument;
  read_null();
  return NULL;
}

static void thread_without_signals(void) {
  sigset_t before;
  pthread_t thread;
  crash_signals_block_others(&before);
  if (pthread_create(&thread, NULL, crash_in_thread, NULL) == 0)
    pthread_join(thread, NULL);
}

static const struct {
  const char *name;
  void (*crash)(void);
  int signal;
  const char *message;
  unsigned frames_min;
} crashes[] = {
    {"a thread that leaves signals to others", thread_without_signals, SIGSEGV, "signal 11 (SEGV), near null", 2},
    {"null", read_null, SIGSEGV, "signal 11 (SEGV), near null", 3},
    {"abort", abort, SIGABRT, "signal 6 (ABRT), sent", 3},
    {"a stack that is used up", overflow, SIGSEGV, "signal 11 (SEGV)", 20},
    {"a jump to nowhere", jump_nowhere, SIGSEGV, "signal 11 (SEGV), near null", 1},
    {"sent from outside", send_itself, SIGABRT, "signal 6 (ABRT), sent", 3},
};

/* What the child wrote; its status. */
static int crash(void (*how)(void), char *text, size_t text_bytes) {
  int ends[2], status;
  size_t length = 0;
  ssize_t count;
  ck_assert_int_eq(pipe(ends), 0);
  pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDERR_FILENO);
    crash_handler_install("test");
    how();
    _exit(0);
  }
  close(ends[1]);
  while ((count = read(ends[0], text + length, text_bytes - length - 1)) > 0)
    length += (size_t)count;
  text[length] = '\0';
  close(ends[0]);
  ck_assert_int_eq(waitpid(pid, &status, 0), pid);
  return status;
}

START_TEST(a_crash_says_what_and_where_and_takes_its_course) {
  for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++) {
    char text[8192], wanted[128];
    int status = crash(crashes[i].crash, text, sizeof(text));
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == crashes[i].signal, "%s: %x", crashes[i].name, status);
    snprintf(wanted, sizeof(wanted), "\"room\":\"crash\",\"message\":\"%s\"}\n", crashes[i].message);
    ck_assert_msg(strstr(text, wanted) != NULL, "%s: %s", crashes[i].name, text);
    unsigned frames = 0, own = 0;
    for (const char *at = text; (at = strstr(at, "+0x")); at++)
      frames++;
    for (const char *at = text; (at = strstr(at, "base.crash_test+0x")); at++)
      own++;
    ck_assert_msg(frames >= crashes[i].frames_min - (own == 0) && own >= (crashes[i].frames_min > 1), "%s: %s",
                  crashes[i].name, text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
      ck_assert_uint_lt(strlen(line), 256);
      ck_assert_msg(line[0] == '{' && line[strlen(line) - 1] == '}', "%s", line);
    }
  }
}
END_TEST

TEST_MAIN("base.crash", a_crash_says_what_and_where_and_takes_its_course)

#else

START_TEST(a_sanitizer_has_its_own_report) {
  struct sigaction before, after;
  sigaction(SIGABRT, NULL, &before);
  crash_handler_install("test");
  sigaction(SIGABRT, NULL, &after);
  ck_assert(after.sa_handler == before.sa_handler);
}
END_TEST

TEST_MAIN("base.crash", a_sanitizer_has_its_own_report)

#endif

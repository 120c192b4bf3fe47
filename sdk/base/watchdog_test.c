/* watchdog_test.c: children whose loops hang in known ways, and such that only look as if they did: what they leave on
 * stderr, and how they end. */
#include "sdk/base/watchdog.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sdk/base/clock.h"
#include "sdk/base/crash.h"
#include "sdk/base/test.h"

#define HANG_MS 200

static void wait_ms(long milliseconds) {
  struct timespec left = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000};
  while (nanosleep(&left, &left) != 0)
    continue;
}

/* A loop that turns for so long. */
static void turn(struct watchdog_loop *loop, int64_t for_ms) {
  int64_t end_ms = clock_monotonic_ms() + for_ms;
  while (clock_monotonic_ms() < end_ms) {
    watchdog_loop_feed(loop);
    wait_ms(HANG_MS / 8);
  }
}

static struct watchdog_loop *begin(uint32_t hang_ms) {
  watchdog_start(hang_ms);
  return watchdog_loop_begin("the loop");
}

/* ---- those that hang ---- */

static void __attribute__((noinline)) waits_for_ever(void) {
  int ends[2];
  char byte;
  turn(begin(HANG_MS), HANG_MS);
  if (pipe(ends) == 0)
    (void)!read(ends[0], &byte, 1); /* begun again after each look (SA_RESTART) */
}

#if !defined(__SANITIZE_THREAD__) /* which hands signals over at calls only */
static void __attribute__((noinline)) spins(void) {
  begin(HANG_MS);
  for (volatile unsigned count = 0;; count++)
    continue;
}
#endif

static void *other_thread(void *argument) {
  (void)argument;
  struct watchdog_loop *loop = watchdog_loop_begin("the other");
  turn(loop, HANG_MS);
  wait_ms(60000);
  return NULL;
}

/* Its thread has every signal blocked at first, as those of the core have. */
static void another_thread_hangs(void) {
  struct watchdog_loop *loop = begin(HANG_MS);
  sigset_t all, before;
  pthread_t thread;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_create(&thread, NULL, other_thread, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  turn(loop, 60000);
}

/* What it would say has no reader. */
static void hangs_with_a_full_stderr(void) {
  static const char much[4096] = "";
  int flags = fcntl(STDERR_FILENO, F_GETFL);
  fcntl(STDERR_FILENO, F_SETFL, flags | O_NONBLOCK);
  while (write(STDERR_FILENO, much, sizeof(much)) > 0)
    continue;
  fcntl(STDERR_FILENO, F_SETFL, flags);
  begin(HANG_MS);
  wait_ms(60000);
}

/* ---- those that do not ---- */

static void turns(void) {
  turn(begin(HANG_MS), (int64_t)5 * HANG_MS);
}

static void is_switched_off(void) {
  ck_assert_ptr_null(begin(0));
  ck_assert_uint_eq(watchdog_feed_ms(), 0);
  wait_ms(3 * HANG_MS);
}

static void is_not_watched_any_more(void) {
  struct watchdog_loop *loop = begin(HANG_MS);
  watchdog_loop_end(&loop);
  wait_ms(3 * HANG_MS);
}

/* Alarms that others send are no looks. */
static void is_sent_alarms(void) {
  struct watchdog_loop *loop = begin(60000);
  for (int i = 0; i < 20; i++) {
    kill(getpid(), SIGALRM);
    tgkill(getpid(), gettid(), SIGALRM);
  }
  watchdog_loop_feed(loop);
}

/* Stopped by the parent, over and over, for longer than it would take; it turns in between. */
static void is_stopped_often(void) {
  turn(begin(HANG_MS), (int64_t)4 * HANG_MS);
}

struct life {
  const char *name;
  void (*live)(void);
  const char *message; /* NULL: it ends well */
  bool stopped, deaf;
};

static int live(const struct life *life, char *text, size_t text_bytes) {
  int ends[2], status;
  size_t length = 0;
  ssize_t count;
  ck_assert_int_eq(pipe(ends), 0);
  pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    if (life->deaf)
      dup2(open("/dev/null", O_RDONLY), 0);
    crash_handler_install("test");
    life->live();
    _exit(0);
  }
  close(ends[1]);
  for (int i = 0; i < 3 && life->stopped; i++) {
    wait_ms(HANG_MS / 2);
    kill(pid, SIGSTOP);
    wait_ms(3 * HANG_MS);
    kill(pid, SIGCONT);
  }
  if (life->deaf) /* nobody reads while it lives */
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
  while ((count = read(ends[0], text + length, text_bytes - length - 1)) > 0)
    length += (size_t)count;
  text[length] = '\0';
  close(ends[0]);
  if (!life->deaf)
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
  return status;
}

START_TEST(a_loop_that_hangs_says_where_and_ends_the_process) {
  static const struct life lives[] = {
    {"waits for ever", waits_for_ever, "the loop has not turned for 200 ms", false, false},
#if !defined(__SANITIZE_THREAD__)
    {"spins", spins, "the loop has not turned for 200 ms", false, false},
#endif
    {"another thread", another_thread_hangs, "the other has not turned for 200 ms", false, false},
  };
  for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
    char text[8192], wanted[128];
    int status = live(&lives[i], text, sizeof(text));
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == WATCHDOG_EXIT_HANG, "%s: %x", lives[i].name, status);
    snprintf(wanted, sizeof(wanted), "\"room\":\"crash\",\"message\":\"%s\"}\n", lives[i].message);
    ck_assert_msg(strstr(text, wanted) != NULL, "%s: %s", lives[i].name, text);
    ck_assert_msg(strstr(text, "\"stack\":\"") && strstr(text, "base.watchdog_test+0x"), "%s: %s", lives[i].name, text);
  }
}
END_TEST

START_TEST(a_process_whose_words_nobody_reads_ends_all_the_same) {
  static char text[1 << 20];
  static const struct life full = {"full", hangs_with_a_full_stderr, NULL, false, true};
  int status = live(&full, text, sizeof(text));
  ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == WATCHDOG_EXIT_HANG, "%x", status);
}
END_TEST

START_TEST(what_only_looks_like_a_hang_is_none) {
  static const struct life lives[] = {
      {"turns", turns, NULL, false, false},
      {"switched off", is_switched_off, NULL, false, false},
      {"not watched any more", is_not_watched_any_more, NULL, false, false},
      {"alarms of others", is_sent_alarms, NULL, false, false},
      {"stopped", is_stopped_often, NULL, true, false},
  };
  for (size_t i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
    char text[8192];
    int status = live(&lives[i], text, sizeof(text));
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: %x %s", lives[i].name, status, text);
    ck_assert_msg(text[0] == '\0', "%s: %s", lives[i].name, text);
  }
}
END_TEST

TEST_MAIN("base.watchdog", a_loop_that_hangs_says_where_and_ends_the_process,
          a_process_whose_words_nobody_reads_ends_all_the_same, what_only_looks_like_a_hang_is_none)

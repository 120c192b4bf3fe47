/* watchdog.c: see watchdog.h. The table of loops is static: a slot is taken by storing the thread that owns it, which
 * is done last, and what the handler keeps in a slot only the handler touches. */
#include "sdk/base/watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

#include "sdk/base/check.h"
#include "sdk/base/crash.h"

#define LOOKS_IN_HANG 4
#define LOOKS_WITHOUT_FEED_MAX (LOOKS_IN_HANG + 1) /* one of them may be a stop's */

struct watchdog_loop {
  _Atomic pid_t thread; /* 0: free */
  atomic_uint turns;
  unsigned seen, without_feed; /* the handler's */
  char report[96];
};

static struct watchdog_loop loops[WATCHDOG_LOOPS_MAX];
static uint32_t watched_hang_ms;

static _Noreturn void end(const struct watchdog_loop *loop, const void *context) {
  crash_report(loop->report, context);
  _exit(WATCHDOG_EXIT_HANG);
}

/* One look. The kernel gives the signal to any thread that takes it; the stack is the hanging thread's to tell, and one
 * that does not come to it until the next look, since it waits inside the kernel for good, is ended without. */
static void look(struct watchdog_loop *loop, const void *context) {
  pid_t thread = atomic_load_explicit(&loop->thread, memory_order_acquire);
  unsigned turns = atomic_load_explicit(&loop->turns, memory_order_relaxed);
  if (thread == 0 || turns != loop->seen) {
    loop->seen = turns;
    loop->without_feed = 0;
    return;
  }
  if (++loop->without_feed < LOOKS_WITHOUT_FEED_MAX)
    return;
  if (thread == gettid())
    end(loop, context);
  if (loop->without_feed > LOOKS_WITHOUT_FEED_MAX)
    end(loop, NULL);
  tgkill(getpid(), thread, SIGALRM);
}

static void on_alarm(int number, siginfo_t *info, void *context) {
  int saved = errno;
  (void)number;
  for (size_t i = 0; i < WATCHDOG_LOOPS_MAX; i++) {
    if (info->si_code == SI_KERNEL) /* the timer's; anybody may send one that is not */
      look(&loops[i], context);
    else if (loops[i].without_feed >= LOOKS_WITHOUT_FEED_MAX && loops[i].thread == gettid())
      end(&loops[i], context);
  }
  errno = saved;
}

void watchdog_start(uint32_t hang_ms) {
  const struct sigaction action = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
  BASE_CHECK(watched_hang_ms == 0);
  if (hang_ms == 0)
    return;
  watched_hang_ms = hang_ms;
  uint32_t look_ms = watchdog_feed_ms();
  const struct timeval period = {.tv_sec = look_ms / 1000, .tv_usec = (suseconds_t)(look_ms % 1000) * 1000};
  const struct itimerval timer = {.it_interval = period, .it_value = period};
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &timer, NULL);
}

uint32_t watchdog_feed_ms(void) {
  return watched_hang_ms == 0 || watched_hang_ms >= LOOKS_IN_HANG ? watched_hang_ms / LOOKS_IN_HANG : 1;
}

struct watchdog_loop *watchdog_loop_begin(const char *name) {
  sigset_t ours;
  size_t free = 0;
  if (watched_hang_ms == 0)
    return NULL;
  while (free < WATCHDOG_LOOPS_MAX && loops[free].thread != 0)
    free++;
  BASE_CHECK(free < WATCHDOG_LOOPS_MAX);
  struct watchdog_loop *loop = &loops[free];
  snprintf(loop->report, sizeof(loop->report), "%s has not turned for %u ms", name, watched_hang_ms);
  watchdog_loop_feed(loop);
  atomic_store_explicit(&loop->thread, gettid(), memory_order_release);
  sigemptyset(&ours);
  sigaddset(&ours, SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &ours, NULL);
  return loop;
}

void watchdog_loop_feed(struct watchdog_loop *loop) {
  if (loop != NULL)
    atomic_fetch_add_explicit(&loop->turns, 1, memory_order_relaxed);
}

void watchdog_loop_end(struct watchdog_loop **loop) {
  if (*loop != NULL)
    atomic_store_explicit(&(*loop)->thread, 0, memory_order_release);
  *loop = NULL;
}

/* crash.c: see crash.h. */
#include "sdk/base/crash.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#define STACK_BYTES 65536
#define LINE_BYTES 250 /* below what the supervisor keeps of a line (WORDS_LINE_BYTES) */
#define FRAMES_MAX 24
#define NAME_BYTES_MAX 40
#define NEAR_NULL_BYTES 65536
#define PATIENCE_MS 1000 /* for a reader of stderr that is behind; one that never comes is not waited for */

static const char *process_name = "";

/* A line that is being written; ends itself when it is full. */
struct line {
  char text[LINE_BYTES];
  size_t length;
};

static void append(struct line *line, const char *text, size_t length_max) {
  size_t length = strnlen(text, length_max);
  if (length > sizeof(line->text) - line->length)
    length = sizeof(line->text) - line->length;
  memcpy(line->text + line->length, text, length);
  line->length += length;
}

static void append_number(struct line *line, uintptr_t number, unsigned base) {
  char digits[24];
  size_t at = sizeof(digits);
  digits[--at] = '\0';
  do
    digits[--at] = "0123456789abcdef"[number % base];
  while ((number /= base) > 0);
  append(line, digits + at, sizeof(digits));
}

static void begin(struct line *line, const char *member) {
  line->length = 0;
  append(line, "{\"level\":\"panic\",\"process\":\"", LINE_BYTES);
  append(line, process_name, NAME_BYTES_MAX);
  append(line, "\",\"room\":\"crash\",\"", LINE_BYTES);
  append(line, member, LINE_BYTES);
  append(line, "\":\"", LINE_BYTES);
}

static void finish(struct line *line) {
  struct pollfd reader = {.fd = STDERR_FILENO, .events = POLLOUT};
  append(line, "\"}\n", 3);
  if (poll(&reader, 1, PATIENCE_MS) == 0)
    return;
  ssize_t ignored = write(STDERR_FILENO, line->text, line->length);
  (void)ignored;
}

/* ---- the stack ---- */

struct walk {
  struct line line;
  uintptr_t from; /* where the signal came; the handler's own frames are before it */
  unsigned count;
  bool begun;
};

/* "name+0xoffset" of an address in a file that is loaded, else the bare address. */
static void append_place(struct line *line, uintptr_t address) {
  struct dl_find_object object;
  if (_dl_find_object((void *)address, &object) == 0 && object.dlfo_link_map) {
    const char *path = object.dlfo_link_map->l_name, *slash = strrchr(path, '/');
    append(line, *path ? (slash ? slash + 1 : path) : program_invocation_short_name, NAME_BYTES_MAX);
    append(line, "+", 1);
    address -= object.dlfo_link_map->l_addr;
  }
  append(line, "0x", 2);
  append_number(line, address, 16);
}

static void frame_write(struct walk *walk, uintptr_t address) {
  const size_t longest = NAME_BYTES_MAX + sizeof(" +0x0123456789abcdef\"}\n");
  if (walk->count > 0 && walk->line.length + longest > LINE_BYTES) {
    finish(&walk->line);
    walk->line.length = 0;
  }
  if (walk->line.length == 0)
    begin(&walk->line, "stack");
  else
    append(&walk->line, " ", 1);
  append_place(&walk->line, address);
  walk->count++;
}

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *argument) {
  struct walk *walk = argument;
  int exact = 0; /* else it is where a call returns to: one less is inside the call */
  uintptr_t address = _Unwind_GetIPInfo(context, &exact);
  walk->begun = walk->begun || address == walk->from;
  if (!walk->begun)
    return _URC_NO_REASON;
  if (address == 0 || walk->count == FRAMES_MAX)
    return _URC_END_OF_STACK;
  frame_write(walk, exact ? address : address - 1);
  return _URC_NO_REASON;
}

static uintptr_t place_of(const void *context) {
  const ucontext_t *user = context;
#if defined(__x86_64__)
  return (uintptr_t)user->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
  return (uintptr_t)user->uc_mcontext.pc;
#else
  (void)user;
  return 0;
#endif
}

/* ---- the handler ---- */

static void reason_write(int number, const siginfo_t *info) {
  struct line line;
  begin(&line, "message");
  append(&line, "signal ", LINE_BYTES);
  append_number(&line, (uintptr_t)number, 10);
  const char *name = sigabbrev_np(number);
  append(&line, " (", 2);
  append(&line, name ? name : "?", NAME_BYTES_MAX);
  append(&line, ")", 1);
  if (number == SIGSYS) {
    append(&line, ", system call ", LINE_BYTES);
    append_number(&line, (uintptr_t)info->si_syscall, 10);
  } else if (info->si_code <= 0) {
    append(&line, ", sent", LINE_BYTES);
  } else if ((number == SIGSEGV || number == SIGBUS) && (uintptr_t)info->si_addr < NEAR_NULL_BYTES) {
    append(&line, ", near null", LINE_BYTES);
  }
  finish(&line);
}

static void stack_write(const void *context) {
  struct walk walk = {.from = place_of(context)};
  _Unwind_Backtrace(on_frame, &walk);
  if (walk.count == 0)
    frame_write(&walk, walk.from);
  finish(&walk.line);
}

static void on_crash(int number, siginfo_t *info, void *context) {
  reason_write(number, info);
  stack_write(context);
  raise(number); /* by default now; it comes when we return */
}

void crash_report(const char *reason, const void *context) {
  struct line line;
  begin(&line, "message");
  append(&line, reason, LINE_BYTES);
  finish(&line);
  if (context != NULL)
    stack_write(context);
}

static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS};

void crash_signals_block_others(sigset_t *before) {
  sigset_t others;
  sigfillset(&others);
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
    sigdelset(&others, numbers[i]);
  pthread_sigmask(SIG_SETMASK, &others, before);
}

void crash_handler_install(const char *process) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  static char memory[STACK_BYTES];
  const stack_t stack = {.ss_sp = memory, .ss_size = sizeof(memory)};
  struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = (int)(SA_SIGINFO | SA_ONSTACK | SA_RESETHAND)};
  process_name = process;
  sigaltstack(&stack, NULL);
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
    sigaction(numbers[i], &action, NULL);
#else
  process_name = process;
  (void)on_crash;
#endif
}

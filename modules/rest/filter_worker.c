/* filter_worker.c: the child process that runs jq programs: `gatehouse-rest --filter-worker`, descriptor 3 its socket.
 *
 * libjq can neither be interrupted nor bounded, and its input comes from outside; so it runs where it can do no harm
 * and can be killed: no environment, no other descriptor, bounded memory, and a system
 * call filter that leaves reading, writing and memory. The builtins that look outside a value are taken away by name,
 * so that a program which uses them fails with a reason; `import` and `include` no longer parse behind them.
 *
 * Compiled programs are kept: making jq's standard library ready takes longer than most filters. Any broken frame ends
 * the process, which its parent starts again when it needs one. */
#include <errno.h>
#include <fcntl.h>
#include <jq.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "modules/rest/rest_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/io.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* shadow memory is terabytes of address space, and reports need more system calls */
#else
#define SANITIZED 0
#endif

#define PROGRAMS_KEPT 16
#define OUTPUTS_MAX 10000
#define MEMORY_BYTES_MAX (512u << 20)
#define ALARM_S (REST_FILTER_WAIT_MS / 1000 + 2) /* should the parent be unable to kill */

/* clang-format off */
static const char prelude[] =
    "def env: error(\"env is not allowed\"); def input: error(\"input is not allowed\"); "
    "def inputs: error(\"inputs is not allowed\"); def debug: error(\"debug is not allowed\"); "
    "def debug(f): error(\"debug is not allowed\"); def stderr: error(\"stderr is not allowed\"); "
    "def input_filename: error(\"input_filename is not allowed\"); "
    "def input_line_number: error(\"input_line_number is not allowed\"); def halt: error(\"halt is not allowed\"); "
    "def halt_error: error(\"halt_error is not allowed\"); def halt_error(f): error(\"halt_error is not allowed\"); "
    "def modulemeta: error(\"modulemeta is not allowed\"); "
    "def get_search_list: error(\"get_search_list is not allowed\");\n";
/* clang-format on */

static const int allowed_calls[] = {
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(mmap),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(mprotect),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),
    SCMP_SYS(alarm),
    SCMP_SYS(setitimer),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(tgkill),
    SCMP_SYS(restart_syscall),
};

static bool limit_set(int resource, rlim_t value) {
  struct rlimit limit = {value, value};
  return setrlimit((__rlimit_resource_t)resource, &limit) == 0;
}

static bool system_calls_confine(void) {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  bool ok = context != NULL;
  for (size_t i = 0; ok && i < sizeof(allowed_calls) / sizeof(allowed_calls[0]); i++)
    ok = seccomp_rule_add(context, SCMP_ACT_ALLOW, allowed_calls[i], 0) == 0;
  ok = ok && seccomp_load(context) == 0;
  if (context)
    seccomp_release(context);
  return ok;
}

/* From here on the process has what it needs and gets nothing else. */
static bool confine(void) {
  bool ok = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && prctl(PR_SET_DUMPABLE, 0) == 0 &&
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && limit_set(RLIMIT_CORE, 0) && limit_set(RLIMIT_FSIZE, 0);
  if (SANITIZED)
    return ok;
  return ok && limit_set(RLIMIT_AS, MEMORY_BYTES_MAX) && system_calls_confine();
}

/* ---- frames ---- */

static bool read_all(int fd, void *target, size_t length) {
  for (char *at = target; length > 0;) {
    ssize_t count = read(fd, at, length);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return false;
    at += count;
    length -= (size_t)count;
  }
  return true;
}

/* ---- programs ---- */

struct program {
  char *text;
  jq_state *jq;
  uint64_t used_at;
};

struct worker {
  struct program programs[PROGRAMS_KEPT];
  uint64_t clock;
};

static void message_drop(void *arg, jv message) {
  (void)arg;
  jv_free(message);
}

static void program_forget(struct program *program) {
  if (program->jq)
    jq_teardown(&program->jq);
  base_free(BASE_TAKE(program->text));
}

/* The compiled program; NULL when it does not compile. */
static jq_state *program_get(struct worker *worker, const char *text) {
  struct program *oldest = &worker->programs[0];
  for (size_t i = 0; i < PROGRAMS_KEPT; i++) {
    struct program *program = &worker->programs[i];
    if (program->text && strcmp(program->text, text) == 0) {
      program->used_at = ++worker->clock;
      return program->jq;
    }
    if (program->used_at < oldest->used_at)
      oldest = program;
  }
  jq_state *jq = jq_init();
  if (!jq)
    return NULL;
  jq_set_error_cb(jq, message_drop, NULL);
  struct buf whole = {0};
  buf_append(&whole, prelude, sizeof(prelude) - 1);
  buf_append_text(&whole, text);
  bool compiled = jq_compile(jq, whole.data);
  buf_free(&whole);
  if (!compiled) {
    jq_teardown(&jq);
    return NULL;
  }
  program_forget(oldest);
  *oldest = (struct program){base_strdup(text), jq, ++worker->clock};
  return jq;
}

/* ---- running ---- */

/* Every output of the program, comma-separated, into *out. */
static enum rest_filter_outcome run(jq_state *jq, const char *json, size_t length, struct buf *out, size_t *count) {
  enum rest_filter_outcome outcome = REST_FILTER_DONE;
  jv input = jv_parse_sized(json, (int)length);
  if (!jv_is_valid(input)) {
    jv_free(input);
    return REST_FILTER_FAILED;
  }
  jq_start(jq, input, 0);
  jv value;
  while (jv_is_valid(value = jq_next(jq))) {
    jv text = jv_dump_string(value, 0);
    size_t bytes = (size_t)jv_string_length_bytes(jv_copy(text));
    if (*count == OUTPUTS_MAX || out->length + bytes + 3 > REST_FILTER_OUTPUT_BYTES_MAX) {
      jv_free(text);
      return REST_FILTER_TOO_LARGE;
    }
    if (*count > 0)
      buf_append_char(out, ',');
    buf_append(out, jv_string_value(text), bytes);
    (*count)++;
    jv_free(text);
  }
  if (jq_halted(jq) || jv_invalid_has_msg(jv_copy(value)))
    outcome = REST_FILTER_FAILED;
  jv_free(value);
  return outcome;
}

static enum rest_filter_outcome filter(struct worker *worker, const char *program, const char *json, size_t length,
                                       struct buf *result) {
  jq_state *jq = program_get(worker, program);
  if (!jq)
    return REST_FILTER_INVALID;
  struct buf out = {0};
  size_t count = 0;
  enum rest_filter_outcome outcome = run(jq, json, length, &out, &count);
  if (outcome == REST_FILTER_DONE && count == 1 && strcmp(out.data, "null") == 0)
    outcome = REST_FILTER_EMPTY;
  if (outcome == REST_FILTER_DONE) {
    if (count != 1)
      buf_append_char(result, '[');
    buf_append(result, out.data, out.length);
    if (count != 1)
      buf_append_char(result, ']');
  }
  buf_free(&out);
  return outcome;
}

static bool serve_one(struct worker *worker, int fd) {
  struct rest_filter_request request;
  if (!read_all(fd, &request, sizeof(request)) || request.program_bytes > REST_FILTER_PROGRAM_BYTES_MAX ||
      request.json_bytes > REST_RESPONSE_BYTES_MAX)
    return false;
  char *program = base_alloc((size_t)request.program_bytes + 1), *json = base_alloc((size_t)request.json_bytes + 1);
  struct buf result = {0};
  bool ok = read_all(fd, program, request.program_bytes) && read_all(fd, json, request.json_bytes);
  if (ok) {
    program[request.program_bytes] = json[request.json_bytes] = '\0';
    alarm(ALARM_S);
    struct rest_filter_reply reply = {.outcome = filter(worker, program, json, request.json_bytes, &result)};
    alarm(0);
    reply.json_bytes = (uint32_t)result.length;
    ok = io_write_all(fd, &reply, sizeof(reply)) && io_write_all(fd, result.data, result.length);
  }
  buf_free(&result);
  base_free(program);
  base_free(json);
  return ok;
}

int rest_filter_worker_main(int fd) {
  struct worker worker = {0};
  if (!confine())
    return 111;
  while (serve_one(&worker, fd))
    continue;
  for (size_t i = 0; i < PROGRAMS_KEPT; i++)
    program_forget(&worker.programs[i]);
  return 0;
}

/* sandbox_seccomp.c: from sandbox_calls.def to a filter (LIF-14).
 *
 * The calls of a profile, sorted by number and neighbours joined, become a binary tree of comparisons: some eight steps
 * for any call. The kernel remembers for each number that is allowed whatever its arguments are, and does not run the
 * filter for it again: a request pays nothing. A foreign architecture's calls end the process.
 *
 * FIRST_EXEC is how a filter that stands before exec forbids exec: the one call that is allowed has the addresses which
 * the arguments have in the supervisor. After it, that memory is gone, and nobody in the new program can know them. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "supervisor/sandbox.h"

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#define FOREIGN_FROM 0x40000000u /* x32 */
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#define FOREIGN_FROM 0x40000000u
#else
#define ARCHITECTURE 0 /* no filter is made */
#define FOREIGN_FROM 0
#endif

/* ---- the table ------------------------------------------------------------------------------------------------------
 */

enum condition {
  ANY,
  ABSENT,
  KILL,
  IOCTL,
  SOCKET,
  UNIX_ONLY,
  PRCTL,
  FIRST_ZERO,
  OWN,
  ASK,
  THREADS,
  SPAWN,
  PROCESSES,
  FIRST_EXEC
};

#define M (1u << SANDBOX_MCP)
#define R (1u << SANDBOX_REST)
#define C (1u << SANDBOX_CONSOLE)
#define G (1u << SANDBOX_GENERIC)
#define S (1u << SANDBOX_SCRIPT)
#define K (1u << SANDBOX_CORE)
#define B (M | R | C | K)
#define A (B | G | S)

const struct sandbox_call sandbox_calls[] = {
#define CALL(name, profiles, condition, reason) {#name, (profiles), (condition), (reason)},
#include "supervisor/sandbox_calls.def"
#undef CALL
};
const size_t sandbox_call_count = sizeof(sandbox_calls) / sizeof(sandbox_calls[0]);

/* ---- the program under construction ---------------------------------------------------------------------------------
 */

#define PROGRAM_MAX 2048 /* the kernel takes 4096 */

struct program {
  struct sandbox *sandbox;
  const struct sandbox_filter_wish *wish;
  struct sock_filter code[PROGRAM_MAX];
  size_t length;
};

static void emit(struct program *program, uint16_t code, uint32_t k, uint8_t yes, uint8_t no) {
  BASE_CHECK(program->length < PROGRAM_MAX);
  program->code[program->length++] = (struct sock_filter){code, yes, no, k};
}

static void emit_load(struct program *program, size_t offset) {
  emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* Both machines are little-endian: the low half of an argument comes first. */
static void emit_load_argument(struct program *program, unsigned index, bool high_half) {
  emit_load(program, offsetof(struct seccomp_data, args) + 8 * index + (high_half ? 4 : 0));
}

static void emit_return(struct program *program, uint32_t verdict) {
  emit(program, BPF_RET | BPF_K, verdict, 0, 0);
}

static void emit_refuse(struct program *program) {
  emit_return(program, SECCOMP_RET_ERRNO | EPERM);
}

static void emit_allow(struct program *program) {
  emit_return(program, SECCOMP_RET_ALLOW);
}

/* When the loaded word is one of these, allowed; else on. */
static void emit_allow_any_of(struct program *program, const uint32_t *values, size_t count) {
  for (size_t i = 0; i < count; i++) {
    emit(program, BPF_JMP | BPF_JEQ | BPF_K, values[i], 0, 1);
    emit_allow(program);
  }
}
#define ALLOW_ANY_OF(program, ...)                                                                                     \
  emit_allow_any_of(program, (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* ---- conditions: each body ends in a verdict on every way
 * ------------------------------------------------------------
 */

#define NEW_NAMESPACES                                                                                                 \
  (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

static void body_any(struct program *program) {
  emit_allow(program);
}

static void body_absent(struct program *program) {
  emit_return(program, SECCOMP_RET_ERRNO | ENOSYS);
}

static void body_kill(struct program *program) {
  emit_return(program, SECCOMP_RET_KILL_PROCESS);
}

static void body_ioctl(struct program *program) {
  emit_load_argument(program, 1, false);
  ALLOW_ANY_OF(program, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ);
  emit_refuse(program);
}

/* Unix sockets; with a network also TCP and UDP, and the kernel's own address list. */
static void body_socket(struct program *program) {
  emit_load_argument(program, 0, false);
  ALLOW_ANY_OF(program, AF_UNIX);
  if (!program->wish->network) {
    emit_refuse(program);
    return;
  }
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 5, 0);
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 4, 0);
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 2);
  emit_load_argument(program, 2, false);
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, 0 /* NETLINK_ROUTE */, 7, 0);
  emit_refuse(program);
  emit_load_argument(program, 1, false); /* Internet: of type stream or datagram, and of a usual protocol */
  emit(program, BPF_ALU | BPF_AND | BPF_K, 0xf, 0, 0);
  emit(program, BPF_JMP | BPF_JGT | BPF_K, SOCK_DGRAM, 4, 0);
  emit_load_argument(program, 2, false);
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 2);
  emit_allow(program);
  emit_refuse(program);
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_UDP, 0, 1);
  emit_allow(program);
  emit_refuse(program);
}

static void body_unix_only(struct program *program) {
  emit_load_argument(program, 0, false);
  ALLOW_ANY_OF(program, AF_UNIX);
  emit_refuse(program);
}

static void body_prctl(struct program *program) {
  emit_load_argument(program, 0, false);
  ALLOW_ANY_OF(program, PR_SET_NAME, PR_GET_NAME, PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE,
               PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_SET_VMA);
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, PR_SET_DUMPABLE, 0, 3);
  emit_load_argument(program, 1, false); /* it may give up being dumpable, not begin to be */
  ALLOW_ANY_OF(program, 0);
  emit_refuse(program);
}

static void body_first_zero(struct program *program) {
  emit_load_argument(program, 0, false);
  ALLOW_ANY_OF(program, 0);
  emit_refuse(program);
}

/* The number is put in when the process has one: sandbox_seal. */
static void body_own(struct program *program) {
  struct sandbox *sandbox = program->sandbox;
  BASE_CHECK(sandbox->own_count < SANDBOX_OWN_MAX);
  emit_load_argument(program, 0, false);
  sandbox->own_at[sandbox->own_count++] = (uint16_t)program->length;
  ALLOW_ANY_OF(program, 0);
  emit_refuse(program);
}

/* Whether a process is there: signal 0 is none. */
static void body_ask(struct program *program) {
  emit_load_argument(program, 1, false);
  ALLOW_ANY_OF(program, 0);
  emit_refuse(program);
}

static void body_threads(struct program *program) {
  emit_load_argument(program, 0, false);
  emit(program, BPF_JMP | BPF_JSET | BPF_K, NEW_NAMESPACES, 2, 0);
  emit(program, BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1);
  emit_allow(program);
  emit_refuse(program);
}

/* posix_spawn's own way, and threads. */
static void body_spawn(struct program *program) {
  emit_load_argument(program, 0, false);
  ALLOW_ANY_OF(program, CLONE_VM | CLONE_VFORK | SIGCHLD);
  body_threads(program);
}

static void body_processes(struct program *program) {
  emit_load_argument(program, 0, false);
  emit(program, BPF_JMP | BPF_JSET | BPF_K, NEW_NAMESPACES, 1, 0);
  emit_allow(program);
  emit_refuse(program);
}

static void body_first_exec(struct program *program) {
  const unsigned words = 6;
  for (unsigned i = 0; i < words; i++) {
    uint64_t address = (uint64_t)(uintptr_t)program->wish->start[i / 2];
    emit_load_argument(program, i / 2, i % 2 == 1);
    emit(program, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(i % 2 == 1 ? address >> 32 : address), 0,
         (uint8_t)(2 * (words - 1 - i) + 1));
  }
  emit_allow(program);
  emit_refuse(program);
}

static void (*const bodies[])(struct program *program) = {
    [ANY] = body_any,
    [ABSENT] = body_absent,
    [KILL] = body_kill,
    [IOCTL] = body_ioctl,
    [SOCKET] = body_socket,
    [UNIX_ONLY] = body_unix_only,
    [PRCTL] = body_prctl,
    [FIRST_ZERO] = body_first_zero,
    [OWN] = body_own,
    [ASK] = body_ask,
    [THREADS] = body_threads,
    [SPAWN] = body_spawn,
    [PROCESSES] = body_processes,
    [FIRST_EXEC] = body_first_exec,
};

/* ---- the tree -------------------------------------------------------------------------------------------------------
 */

struct range {
  uint32_t low, high;
  int condition;
};

static int by_number(const void *a, const void *b) {
  const struct range *left = a, *right = b;
  return (left->low > right->low) - (left->low < right->low);
}

/* What is asked for by name in the configuration stands before what the profile says: it is added first. */
static size_t collect(const struct sandbox_filter_wish *wish, struct range *ranges) {
  size_t count = 0, kept = 0;
  for (size_t i = 0; i < wish->calls->count; i++) {
    int number = config_call_number(wish->calls->items[i]);
    if (number >= 0)
      ranges[count++] = (struct range){(uint32_t)number, (uint32_t)number, ANY};
  }
  for (size_t i = 0; i < sandbox_call_count; i++) {
    int number = config_call_number(sandbox_calls[i].name);
    bool taken = number < 0 || !(sandbox_calls[i].profiles & (1u << wish->profile));
    for (size_t j = 0; !taken && j < count; j++)
      taken = ranges[j].low == (uint32_t)number;
    if (!taken)
      ranges[count++] = (struct range){(uint32_t)number, (uint32_t)number, sandbox_calls[i].condition};
  }
  qsort(ranges, count, sizeof(*ranges), by_number);
  for (size_t i = 0; i < count; i++)
    if (kept > 0 && ranges[kept - 1].condition == ANY && ranges[i].condition == ANY &&
        ranges[i].low <= ranges[kept - 1].high + 1)
      ranges[kept - 1].high = ranges[i].high;
    else
      ranges[kept++] = ranges[i];
  return kept;
}

static void emit_leaf(struct program *program, const struct range *range) {
  if (range->low != range->high) {
    emit(program, BPF_JMP | BPF_JGE | BPF_K, range->low, 0, 2);
    emit(program, BPF_JMP | BPF_JGT | BPF_K, range->high, 1, 0);
    emit_allow(program);
    emit_refuse(program);
    return;
  }
  size_t at = program->length;
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, range->low, 0, 0);
  bodies[range->condition](program);
  BASE_CHECK(program->length - at - 1 <= UINT8_MAX);
  program->code[at].jf = (uint8_t)(program->length - at - 1);
  emit_refuse(program);
}

static void emit_tree(struct program *program, const struct range *ranges, size_t count) {
  if (count == 1) {
    emit_leaf(program, ranges);
    return;
  }
  size_t left = count / 2, at = program->length;
  emit(program, BPF_JMP | BPF_JGE | BPF_K, ranges[left].low, 0, 1);
  emit(program, BPF_JMP | BPF_JA, 0, 0, 0); /* further than a conditional jump reaches */
  emit_tree(program, ranges, left);
  program->code[at + 1].k = (uint32_t)(program->length - at - 2);
  emit_tree(program, ranges + left, count - left);
}

bool sandbox_filter_build(const struct sandbox_filter_wish *wish, struct sandbox *sandbox) {
  if (ARCHITECTURE == 0)
    return false;
  struct program *program = BASE_NEW(struct program);
  struct range *ranges = base_calloc(sandbox_call_count + wish->calls->count, sizeof(*ranges));
  program->sandbox = sandbox;
  program->wish = wish;
  sandbox->own_count = 0;
  emit_load(program, offsetof(struct seccomp_data, arch));
  emit(program, BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
  emit_return(program, SECCOMP_RET_KILL_PROCESS);
  emit_load(program, offsetof(struct seccomp_data, nr));
  emit(program, BPF_JMP | BPF_JGE | BPF_K, FOREIGN_FROM, 0, 1);
  emit_return(program, SECCOMP_RET_KILL_PROCESS);
  emit(program, BPF_JMP | BPF_JGT | BPF_K, (uint32_t)config_call_last(), 0, 1);
  emit_return(program, SECCOMP_RET_ERRNO | ENOSYS);
  emit_tree(program, ranges, collect(wish, ranges));
  base_free(sandbox->filter);
  sandbox->filter = base_calloc(program->length, sizeof(*sandbox->filter));
  memcpy(sandbox->filter, program->code, program->length * sizeof(*sandbox->filter));
  sandbox->filter_length = program->length;
  base_free(ranges);
  base_free(program);
  return true;
}

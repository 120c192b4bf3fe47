/* sandbox_test.c: the filters that sandbox_calls.def becomes, run by a small interpreter over the calls of this machine
 * (LIF-14): what is in a profile is allowed, and nothing else. */
#include "supervisor/sandbox.h"

#include <check.h>
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

#define OWN_PID 4321u
#define REFUSED (SECCOMP_RET_ERRNO | EPERM)

static const char *const start[3] = {"program", "arguments", "environment"};

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#else
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

/* The verdict of a filter; the checks are what the kernel demands of one. */
static uint32_t run(const struct sandbox *sandbox, const struct seccomp_data *data) {
  uint32_t word = 0;
  for (size_t at = 0; at < sandbox->filter_length; at++) {
    const struct sock_filter *code = &sandbox->filter[at];
    switch (code->code) {
    case BPF_LD | BPF_W | BPF_ABS:
      ck_assert_uint_le(code->k, sizeof(*data) - 4);
      memcpy(&word, (const char *)data + code->k, sizeof(word));
      break;
    case BPF_ALU | BPF_AND | BPF_K:
      word &= code->k;
      break;
    case BPF_JMP | BPF_JA:
      at += code->k;
      break;
    case BPF_JMP | BPF_JEQ | BPF_K:
      at += word == code->k ? code->jt : code->jf;
      break;
    case BPF_JMP | BPF_JGE | BPF_K:
      at += word >= code->k ? code->jt : code->jf;
      break;
    case BPF_JMP | BPF_JGT | BPF_K:
      at += word > code->k ? code->jt : code->jf;
      break;
    case BPF_JMP | BPF_JSET | BPF_K:
      at += (word & code->k) ? code->jt : code->jf;
      break;
    case BPF_RET | BPF_K:
      return code->k;
    default:
      ck_abort_msg("an instruction that the filter should not have: %x", code->code);
    }
  }
  ck_abort_msg("the filter ends without a verdict");
}

static void build(struct sandbox *sandbox, enum sandbox_profile profile, bool network,
                  const struct config_list *calls) {
  static const struct config_list none = {0};
  *sandbox = (struct sandbox){
      .applies = true, .landlock_fd = -1, .mount_fd = -1, .cgroup_fd = -1, .events_fd = -1, .tmp_fd = -1};
  const struct sandbox_filter_wish wish = {
      .profile = profile, .network = network, .start = {start[0], start[1], start[2]}, .calls = calls ? calls : &none};
  ck_assert(sandbox_filter_build(&wish, sandbox));
  for (size_t i = 0; i < sandbox->own_count; i++)
    sandbox->filter[sandbox->own_at[i]].k = OWN_PID;
}

static uint32_t ask(const struct sandbox *sandbox, int number, uint64_t a, uint64_t b, uint64_t c) {
  const struct seccomp_data data = {.nr = number, .arch = ARCHITECTURE, .args = {a, b, c}};
  return run(sandbox, &data);
}

static bool in_profile(int number, unsigned profile) {
  for (size_t i = 0; i < sandbox_call_count; i++)
    if (config_call_number(sandbox_calls[i].name) == number && (sandbox_calls[i].profiles & (1u << profile)))
      return true;
  return false;
}

START_TEST(nothing_outside_of_a_profile_is_allowed) {
  struct sandbox sandbox;
  build(&sandbox, (enum sandbox_profile)_i, true, NULL);
  unsigned allowed = 0;
  for (int number = 0; number <= config_call_last(); number++) {
    uint32_t verdict = ask(&sandbox, number, 0xffffffff, 0xffffffff, 0xffffffff);
    if (!in_profile(number, (unsigned)_i))
      ck_assert_msg(verdict == REFUSED, "call %d is answered %x", number, verdict);
    else
      allowed += verdict == SECCOMP_RET_ALLOW;
  }
  ck_assert_uint_gt(allowed, 40);
  ck_assert_uint_eq(ask(&sandbox, config_call_last() + 1, 0, 0, 0), SECCOMP_RET_ERRNO | ENOSYS);
  ck_assert_uint_eq(ask(&sandbox, 0x40000000, 0, 0, 0), SECCOMP_RET_KILL_PROCESS);
  struct seccomp_data foreign = {.nr = 0, .arch = AUDIT_ARCH_I386};
  ck_assert_uint_eq(run(&sandbox, &foreign), SECCOMP_RET_KILL_PROCESS);
  sandbox_free(&sandbox);
}
END_TEST

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS)
#define P(name) (1u << SANDBOX_##name)
#define OURS (P(MCP) | P(REST) | P(CONSOLE) | P(CORE))
#define OTHERS (P(GENERIC) | P(SCRIPT))

static const struct {
  const char *what, *call;
  uint64_t a, b, c;
  bool network;
  unsigned allowed_for; /* profiles; the others get EPERM */
} cases[] = {
    {"a Unix socket", "socket", AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, false, OURS | OTHERS},
    {"TCP without a network", "socket", AF_INET, SOCK_STREAM, 0, false, 0},
    {"UDP without a network", "socket", AF_INET6, SOCK_DGRAM, 0, false, 0},
    {"the kernel's addresses without a network", "socket", AF_NETLINK, SOCK_RAW, 0, false, 0},
    {"TCP", "socket", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP, true, OURS | OTHERS},
    {"TCP over IPv6", "socket", AF_INET6, SOCK_STREAM, 0, true, OURS | OTHERS},
    {"UDP", "socket", AF_INET, SOCK_DGRAM, IPPROTO_UDP, true, OURS | OTHERS},
    {"the kernel's addresses", "socket", AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0, true, OURS | OTHERS},
    {"another netlink", "socket", AF_NETLINK, SOCK_RAW, 12, true, 0},
    {"raw packets", "socket", AF_PACKET, SOCK_RAW, 0, true, 0},
    {"a raw Internet socket", "socket", AF_INET, SOCK_RAW, 0, true, 0},
    {"SCTP", "socket", AF_INET, SOCK_STREAM, IPPROTO_SCTP, true, 0},
    {"multipath TCP", "socket", AF_INET, SOCK_STREAM, 262, true, 0},
    {"vsock", "socket", AF_VSOCK, SOCK_STREAM, 0, true, 0},
    {"a thread", "clone", THREAD_FLAGS, 0, 0, true, P(MCP) | P(REST) | P(CORE) | OTHERS},
    {"a thread in a new user namespace", "clone", THREAD_FLAGS | CLONE_NEWUSER, 0, 0, true, 0},
    {"posix_spawn", "clone", CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, true, P(REST) | P(SCRIPT)},
    {"fork", "clone", SIGCHLD, 0, 0, true, P(SCRIPT)},
    {"fork into a new mount namespace", "clone", SIGCHLD | CLONE_NEWNS, 0, 0, true, 0},
    {"another exec", "execve", 1, 2, 3, true, P(REST) | P(SCRIPT)},
    {"a signal to itself", "kill", OWN_PID, SIGTERM, 0, true, P(REST) | OTHERS},
    {"a signal to another", "kill", 1, SIGKILL, 0, true, P(REST) | P(SCRIPT)},
    {"whether another is there", "kill", 1, 0, 0, true, P(REST) | P(SCRIPT) | P(CORE)},
    {"to give a file away by name", "lchown", 0, 0, 0, true, 0},
    {"a lock of a file", "flock", 3, 0, 0, true, P(CORE) | OTHERS},
    {"a folder", "mkdir", 0, 0, 0, true, P(CORE) | OTHERS},
    {"abort()", "tgkill", OWN_PID, OWN_PID, SIGABRT, true, OURS | OTHERS},
    {"a signal to a thread of another", "tgkill", 1, 1, SIGKILL, true, P(REST) | P(SCRIPT)},
    {"to be no longer dumpable", "prctl", PR_SET_DUMPABLE, 0, 0, true, OURS | OTHERS},
    {"to be dumpable", "prctl", PR_SET_DUMPABLE, 1, 0, true, 0},
    {"to be traced", "prctl", PR_SET_PTRACER, 1, 0, true, 0},
    {"its own limits", "prlimit64", 0, 7, 0, true, OURS | OTHERS},
    {"another's limits", "prlimit64", 1, 7, 0, true, 0},
    {"bytes waiting", "ioctl", 3, FIONREAD, 0, true, P(REST) | OTHERS},
    {"typing into a terminal", "ioctl", 0, TIOCSTI, 0, true, 0},
    {"a pair of Unix sockets", "socketpair", AF_UNIX, SOCK_STREAM, 0, true, P(MCP) | P(REST) | P(CORE) | OTHERS},
};

START_TEST(arguments_decide) {
  for (unsigned profile = 0; profile < SANDBOX_PROFILES; profile++) {
    struct sandbox sandbox;
    build(&sandbox, (enum sandbox_profile)profile, cases[_i].network, NULL);
    uint32_t verdict = ask(&sandbox, config_call_number(cases[_i].call), cases[_i].a, cases[_i].b, cases[_i].c);
    uint32_t wanted = cases[_i].allowed_for & (1u << profile) ? SECCOMP_RET_ALLOW : REFUSED;
    ck_assert_msg(verdict == wanted, "%s for %s: %x", cases[_i].what,
                  sandbox_profile_text((enum sandbox_profile)profile), verdict);
    sandbox_free(&sandbox);
  }
}
END_TEST

START_TEST(the_first_exec_is_known_by_its_addresses) {
  struct sandbox sandbox;
  build(&sandbox, SANDBOX_MCP, true, NULL);
  uint64_t address[3] = {(uintptr_t)start[0], (uintptr_t)start[1], (uintptr_t)start[2]};
  ck_assert_uint_eq(ask(&sandbox, SYS_execve, address[0], address[1], address[2]), SECCOMP_RET_ALLOW);
  for (unsigned i = 0; i < 3; i++)
    for (unsigned bit = 0; bit < 64; bit++) {
      uint64_t other[3] = {address[0], address[1], address[2]};
      other[i] ^= 1ull << bit;
      ck_assert_uint_eq(ask(&sandbox, SYS_execve, other[0], other[1], other[2]), REFUSED);
    }
  sandbox_free(&sandbox);
}
END_TEST

START_TEST(what_only_an_intruder_asks_for_ends_ours_and_is_refused_to_others) {
  static const char *const calls[] = {"ptrace", "mount", "unshare", "bpf", "keyctl", "userfaultfd", "io_uring_setup"};
  for (unsigned profile = 0; profile < SANDBOX_PROFILES; profile++) {
    struct sandbox sandbox;
    build(&sandbox, (enum sandbox_profile)profile, true, NULL);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
      ck_assert_uint_eq(ask(&sandbox, config_call_number(calls[i]), 0, 0, 0),
                        OURS & (1u << profile) ? SECCOMP_RET_KILL_PROCESS : REFUSED);
    sandbox_free(&sandbox);
  }
}
END_TEST

START_TEST(calls_of_the_configuration_are_added) {
  char keyctl[] = "keyctl", clone[] = "clone", *names[] = {keyctl, clone};
  const struct config_list calls = {names, 2};
  struct sandbox sandbox;
  build(&sandbox, SANDBOX_GENERIC, false, &calls);
  ck_assert_uint_eq(ask(&sandbox, SYS_keyctl, 0, 0, 0), SECCOMP_RET_ALLOW);
  ck_assert_uint_eq(ask(&sandbox, SYS_clone, SIGCHLD, 0, 0), SECCOMP_RET_ALLOW);
  ck_assert_uint_eq(ask(&sandbox, SYS_bpf, 0, 0, 0), REFUSED);
  sandbox_free(&sandbox);
}
END_TEST

START_TEST(a_filter_is_short) {
  struct sandbox sandbox;
  build(&sandbox, (enum sandbox_profile)_i, true, NULL);
  ck_assert_uint_le(sandbox.filter_length, 1000); /* the kernel takes 4096 */
  sandbox_free(&sandbox);
}
END_TEST

START_TEST(the_table_names_real_calls_and_no_call_twice_in_one_profile) {
  unsigned known = 0;
  for (size_t i = 0; i < sandbox_call_count; i++) {
    known += config_call_number(sandbox_calls[i].name) >= 0;
    for (size_t j = 0; j < i; j++)
      ck_assert_msg(strcmp(sandbox_calls[i].name, sandbox_calls[j].name) != 0 ||
                        !(sandbox_calls[i].profiles & sandbox_calls[j].profiles),
                    "%s stands twice for a profile", sandbox_calls[i].name);
  }
#ifdef __x86_64__
  ck_assert_uint_eq(known, sandbox_call_count);
#endif
}
END_TEST

int main(void) {
  Suite *suite = suite_create("sandbox");
  TCase *tests = tcase_create("filters");
  tcase_add_loop_test(tests, nothing_outside_of_a_profile_is_allowed, 0, SANDBOX_PROFILES);
  tcase_add_loop_test(tests, arguments_decide, 0, (int)(sizeof(cases) / sizeof(cases[0])));
  tcase_add_test(tests, the_first_exec_is_known_by_its_addresses);
  tcase_add_test(tests, what_only_an_intruder_asks_for_ends_ours_and_is_refused_to_others);
  tcase_add_test(tests, calls_of_the_configuration_are_added);
  tcase_add_loop_test(tests, a_filter_is_short, 0, SANDBOX_PROFILES);
  tcase_add_test(tests, the_table_names_real_calls_and_no_call_twice_in_one_profile);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

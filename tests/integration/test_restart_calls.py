"""What the supervisor asks of the kernel to restart a module (LIF-7): the calls of a table, each as often as it says, and no other, twenty times
over. None of them asks for memory, nor is the allocator used. Needs strace and root."""
import collections
import os
import re
import shutil
import signal
import subprocess

import pytest

from harness import BUILD
from harness.processes import wait_until
from harness.supervised import LATER, MISSING, NOW, Stack, module

UNWATCHED = ["supervisor.hang_ms=0"]  # or SIGALRM comes every some seconds, and is in whatever is done then
VISIBLE_ALLOC = BUILD / "tests" / "visible_alloc.so"
pytestmark = [pytest.mark.skipif(MISSING or not VISIBLE_ALLOC.exists(), reason="not built"),
              pytest.mark.skipif(not shutil.which("strace") or os.geteuid() != 0, reason="needs strace and root")]

MODULES = [f"web{number}" for number in range(7)]
KILLS = 3  # of each in a row, in a moment: what it has credit for (supervisor/backoff.h); the next restart waits

# One restart, from the end of a process to the next one's being ready; also one that waits for its time, since a timer of the loop costs no
# call. How often the loop waits is left out: it depends on what comes together.
RESTART = {
    "epoll_ctl": 2,  # the pidfd of the dead one leaves the loop, that of the next one joins it
    "write": 4,  # three lines of the log: died, started, ready; and SIGCHLD's byte for the loop
    "rt_sigreturn": 1,
    "read": 3,  # its last words, of which there are none; SIGCHLD's byte, and no more
    "kill": 1,  # what it left behind in its session
    "waitid": 3,  # itself; and twice whether anybody else has ended
    "close": 1,  # its pidfd
    "unlink": 2,  # its runtime socket, under both of its names
    "getrandom": 1,  # jitter
    "sendto": 3,  # news for the core: exited, spawned, notified
    "newfstatat": 1,  # whether its program is still the file that its sandbox was made for
    "getpid": 2,
    "pwrite64": 1,  # the next generation, so that none is given twice
    "rt_sigprocmask": 2,
    "clone": 1,
    "recvmsg": 2,  # READY=1, and no more
}

# Between clone and exec, on the supervisor's memory. How often is the kernel's business (signals, capabilities), and always the same.
CHILD = {"rt_sigaction", "setsid", "openat", "write", "close", "setns", "prctl", "landlock_restrict_self", "dup2", "close_range", "prlimit64",
         "capset", "getppid", "getpid", "chdir", "umask", "rt_sigprocmask", "seccomp", "execve"}
MAY_LACK = {"setns", "landlock_restrict_self", "seccomp"}  # where the kernel has no such protection

MEMORY = {"brk", "mmap", "munmap", "mremap", "madvise", "mprotect"}
ALLOCATION = "getpgid"  # visible_alloc.so


class Trace:
    """strace of the supervisor and of all that it starts, a file for each."""

    def __init__(self, stack):
        self.pid, self.path = stack.process.pid, stack.directory / "trace"
        self.tracer = subprocess.Popen(["strace", "-f", "-ff", "-o", self.path, "-p", str(self.pid)], stderr=subprocess.PIPE, text=True)
        self.known = 0

    def __enter__(self):
        try:
            if "attached" not in self.tracer.stderr.readline():
                pytest.skip("this machine does not let us trace")
            self.calls()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """It is killed: whoever it traced goes on."""
        self.tracer.kill()
        self.tracer.wait()
        self.tracer.stderr.close()

    def text(self, pid):
        path = self.path.with_name(f"trace.{pid}")
        return path.read_text() if path.exists() else ""

    def calls(self):
        """What the supervisor did since the last time, when it has come to rest in its loop: {call: how often}."""
        def at_rest():
            text = self.text(self.pid)
            return re.match(r"epoll_wait\([^=]*$", text.rpartition("\n")[2]) and text
        text = wait_until(at_rest, "the supervisor to be at rest")
        new, self.known = text[self.known:], len(text)
        return collections.Counter(re.findall(r"^(\w+)\(", new, re.MULTILINE))

    def before_exec(self, pid):
        """The calls of a new process until its own program begins."""
        return collections.Counter(re.findall(r"^(\w+)\(", self.text(pid).partition("execve(")[0] + "execve(", re.MULTILINE))


def no_memory(calls):
    assert not MEMORY & calls.keys() and ALLOCATION not in calls, calls


def test_lif_7_the_restart_path_is_a_fixed_set_of_calls_and_allocates_nothing():
    with Stack([module(name, "ready", "sleep") for name in MODULES], env={"LD_PRELOAD": str(VISIBLE_ALLOC)}, sets=UNWATCHED) as stack:
        core, pids, children = stack.core(), {}, []
        for name in MODULES:
            pids[name] = core.start(name)["pid"]
            core.until("Notified", module_id=name)

        def restart(trace, name):
            """When the restart was, at once or later."""
            os.kill(pids[name], signal.SIGKILL)
            when = core.until("Exited", module_id=name)["next_step"]
            pids[name] = core.until("Spawned", module_id=name)["pid"]
            core.until("Notified", module_id=name)
            calls = trace.calls()
            no_memory(calls)
            assert 1 <= calls.pop("epoll_wait") <= 8, calls
            children.append(trace.before_exec(pids[name]))
            assert calls == RESTART
            return when
        with Trace(stack) as trace:
            for number in range(KILLS * len(MODULES)):
                assert restart(trace, MODULES[number % len(MODULES)]) == NOW
            assert any(restart(trace, MODULES[0]) == LATER for _ in range(10))  # a second of life earns one at once
    for calls in children:
        no_memory(calls)
        assert CHILD - MAY_LACK <= calls.keys() <= CHILD, calls
        assert calls == children[0]


def test_an_allocation_would_be_seen():
    """The counter-proof: making the second process of a module allocates, and it shows."""
    with Stack([module("web", "ready", "sleep")], env={"LD_PRELOAD": str(VISIBLE_ALLOC)}) as stack:
        core = stack.core()
        core.start("web")
        core.until("Notified")
        with Trace(stack) as trace:
            core.order("stage web web@2 /bin/true")
            core.processes()
            assert trace.calls()[ALLOCATION] > 0

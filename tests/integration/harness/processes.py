"""Processes that a test starts, with their output kept, and waiting for conditions."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

from . import PYTHON, QUICKSTART

LISTENING = "LISTENING "


def wait_until(condition, what, timeout_s=60, pause_s=0.01):
    """Calls `condition` until it answers something true, which is returned. Fails by name after timeout_s, which is far beyond what it takes."""
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s} s in vain: {what}")
        time.sleep(pause_s)


def own_address():
    """An address of loopback that nobody else binds to: a port that is free there stays free until it is wanted."""
    pid = os.getpid()
    return f"127.{1 + (pid >> 16) % 250}.{pid >> 8 & 255}.{pid & 255}"


def end_listener(listener):
    """Closes a socket that a thread accepts from. Closed only, that thread would wait on, and when the kernel starts its call again it
    would take connections from whatever has got the same descriptor since."""
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


class Stalls:
    """How late this machine lets processes go on, all the time: what a time that is measured meanwhile may be too long by. A nap on each
    processor tells of the machine, `ask`, if given, of one process: a call that it answers in no time unless it is held up itself."""

    NAP_S, TURNS = 0.005, 4  # what is measured takes some turns of several processes, each of which may be late

    def __init__(self, ask=None):
        self.ending = threading.Event()
        turns = [*([ask] if ask else []), *(self.napper(number) for number in os.sched_getaffinity(0))]
        self.late = [[] for _ in turns]  # of each: (from, until, by how many seconds)
        self.threads = [threading.Thread(target=self.run, args=pair, daemon=True) for pair in zip(turns, self.late)]

    @staticmethod
    def napper(processor):
        return lambda: os.sched_setaffinity(0, {processor})  # of this thread alone

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def run(self, turn, late):
        before = time.monotonic()
        while not self.ending.is_set():
            turn()
            time.sleep(self.NAP_S)
            now = time.monotonic()
            late.append((before, now, now - before - self.NAP_S))
            before = now

    def between(self, begin, end):
        """What was late in the time between, also what was under way at its end."""
        wait_until(lambda: all(late and late[-1][0] > end for late in self.late), "every stall to be over")
        return self.TURNS * max(by for late in self.late for since, until, by in late if since <= end and until >= begin)


class Process:
    """One child with its stdout and stderr in files; ends by its own id, at the latest when the test does."""

    def __init__(self, name, arguments, directory, env=None, **options):
        self.name = name
        self.stdout = pathlib.Path(directory) / f"{name}.stdout"
        self.stderr = pathlib.Path(directory) / f"{name}.stderr"
        with open(self.stdout, "ab") as out, open(self.stderr, "ab") as err:
            self.child = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                          env=None if env is None else {k: str(v) for k, v in env.items()}, **options)

    @property
    def pid(self):
        return self.child.pid

    def output(self):
        return self.stdout.read_text(errors="replace")

    def errors(self):
        return self.stderr.read_text(errors="replace")

    def running(self):
        return self.child.poll() is None

    def wait_for_output(self, text, timeout_s=60):
        """The first line of stdout that contains `text`; fails at once, with what it wrote, when the process has ended."""
        def found():
            running = self.running()  # first: what it wrote before its end is there then
            line = next((line[:-1] for line in self.output().splitlines(keepends=True) if text in line and line.endswith("\n")), None)
            if line is None and not running:
                raise AssertionError(f"{self.name} ended with {self.child.returncode}:\n{self.output()}{self.errors()}")
            return line
        return wait_until(found, f"{self.name} to write {text!r}", timeout_s)

    def stop(self, number=signal.SIGTERM, grace_s=60):
        """Signals, waits, and kills what does not go. The exit status (negative: a signal)."""
        if self.running():
            self.child.send_signal(number)
            try:
                self.child.wait(grace_s)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
                raise AssertionError(f"{self.name} did not end within {grace_s} s of signal {number}") from None
        return self.child.wait()


class Service(Process):
    """A process that prints LISTENING <port> when it serves."""

    def __init__(self, name, arguments, directory, **options):
        super().__init__(name, arguments, directory, **options)
        try:
            self.port = int(self.wait_for_output(LISTENING).removeprefix(LISTENING))
        except BaseException:
            self.child.kill()
            self.child.wait()
            raise
        self.url = f"http://127.0.0.1:{self.port}"


ALMANAC_KEY = "quickstart-almanac-key"


def start_worldclock(directory):
    return Service("worldclock", [PYTHON, "-B", QUICKSTART / "worldclock.py"], directory,
                   env={**os.environ, "WORLDCLOCK_KEY": ALMANAC_KEY})


def start_notes(directory):
    return Service("notes", [PYTHON, "-B", QUICKSTART / "notes_mcp.py"], directory)

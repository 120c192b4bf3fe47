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


def wait_until(condition, what, timeout_s=20, pause_s=0.01):
    """Calls `condition` until it answers something true, which is returned. Fails by name after timeout_s."""
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
    """How late this machine wakes whoever sleeps, all the time: what a time that is measured meanwhile may be too long by."""

    NAP_S, TURNS = 0.005, 4  # what is measured takes some turns of several processes, each of which may be late

    def __init__(self):
        self.late, self.ending = [], threading.Event()  # (when it was noticed, by how many seconds)
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()

    def run(self):
        before = time.monotonic()
        while not self.ending.is_set():
            time.sleep(self.NAP_S)
            now = time.monotonic()
            self.late.append((now, now - before - self.NAP_S))
            before = now

    def between(self, begin, end):
        return self.TURNS * max((late for moment, late in self.late if begin <= moment <= end + self.NAP_S), default=0)


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

    def wait_for_output(self, text, timeout_s=20):
        """The first line of stdout that contains `text`; fails at once, with what it wrote, when the process has ended."""
        def found():
            line = next((line for line in self.output().splitlines() if text in line), None)
            if line is None and not self.running():
                raise AssertionError(f"{self.name} ended with {self.child.returncode}:\n{self.output()}{self.errors()}")
            return line
        return wait_until(found, f"{self.name} to write {text!r}", timeout_s)

    def stop(self, number=signal.SIGTERM, grace_s=15):
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

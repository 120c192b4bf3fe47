"""The real supervisor around a driven core and children of many habits (tests/fixtures), for the supervisor's tests."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

from . import BIN, BUILD
from .processes import Process, wait_until

SUPERVISOR = BIN / "gatehouse-supervisor"
CHILD = BUILD / "tests" / "test_child"
FAKE_CORE = BUILD / "tests" / "fake_core"

CLEAN, STATUS, SIGNAL, STOPPED, KILLED, START_TIMEOUT, WATCHDOG = range(1, 8)  # ExitCause
MEMORY = 9
NOW, LATER, STAY_DOWN = 1, 2, 3  # NextStep
DOWN, STARTING, UP, STOPPING, BACKOFF = range(1, 6)  # ProcessState
UNKNOWN_MODULE, STALE, RUNNING, NOT_RUNNING, SHUTTING_DOWN, HELD = range(1, 7)  # Reason

MISSING = not (SUPERVISOR.exists() and CHILD.exists() and FAKE_CORE.exists())


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Core:
    """The connection of one fake core: what it was told, and orders to it."""

    def __init__(self, connection):
        self.connection, self.lines, self.rest = connection, [], b""
        connection.settimeout(60)

    def next(self):
        while b"\n" not in self.rest:
            data = self.connection.recv(65536)
            if not data:
                raise EOFError("the core is gone")
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        message = json.loads(line)
        self.lines.append(message)
        return message

    def until(self, body, **wanted):
        """The next message of this kind with these fields; fails on timeout."""
        while True:
            message = self.next()
            if message["body"] == body and all(message.get(k) == v for k, v in wanted.items()):
                return message

    def order(self, line):
        self.connection.sendall(line.encode() + b"\n")

    def start(self, module):
        self.order(f"start {module}")
        return self.until("Spawned", module_id=module)

    def processes(self):
        self.order("list")
        found = {}
        while True:
            entry = self.until("ProcessEntry")
            found[entry["module_id"]] = entry
            if entry["last"]:
                return found

    def gone(self):
        try:
            while self.next():
                pass
        except (EOFError, ConnectionError):
            return True


# Hands sockets over as systemd does: argv is the descriptors, then the command. LISTEN_PID is the number that stays through exec.
HAND_OVER = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",")]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number, inheritable=True)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Stack:
    """handed: (name, socket) pairs that a service manager would hand over. hook: text of the script of `alerts.program`,
        whose further keys are `alerts`. listeners: names, or their configuration. passable: other users may pass through the
        directory, and be the core."""

    def __init__(self, modules, listeners=("web",), core=None, extra="", env=None, sets=(), handed=(), alerts=None, hook=None, passable=False):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="gh"))
        self.run, self.cores = self.directory / "run", []
        self.core_listener = socket.socket(socket.AF_UNIX)
        self.core_listener.bind(str(self.directory / "core.sock"))
        self.core_listener.listen()
        if passable:
            self.directory.chmod(0o755)
            (self.directory / "core.sock").chmod(0o666)
        self.core_listener.settimeout(60)
        config = {"version": 1, "run_dir": str(self.run), "state_dir": str(self.directory / "state"),
                  "core": {"binary": str(FAKE_CORE), "args": [str(self.directory / "core.sock")], **(core or {})},
                  "listeners": [{"name": item, "port": 0} if isinstance(item, str) else item for item in listeners],
                  "modules": [{"binary": str(CHILD), **module} for module in modules]}
        if alerts is not None:
            config["alerts"] = {"program": str(self.directory / "hook"), **alerts}
        if hook is not None:
            (self.directory / "hook").write_text(hook)
            (self.directory / "hook").chmod(0o755)
        self.config = self.directory / "gatehouse.yaml"
        self.config.write_text(json.dumps(config))  # JSON is YAML
        self.arguments = [SUPERVISOR, "--config", self.config] + [x for s in sets for x in ("--set", s)]
        self.env = {**{k: v for k, v in os.environ.items() if not k.startswith("GATEHOUSE_")}, **(env or {})}
        options = {}
        if handed:
            numbers = [str(item.fileno()) for _, item in handed]
            self.arguments = ["/usr/bin/python3", "-c", HAND_OVER, ",".join(numbers), *self.arguments]
            self.env |= {"LISTEN_FDS": str(len(handed)), "LISTEN_FDNAMES": ":".join(name for name, _ in handed)}
            options["pass_fds"] = [item.fileno() for _, item in handed]
        self.process = Process("supervisor", self.arguments, self.directory, env=self.env, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.running():
            self.process.child.kill()
            self.process.child.wait()
        self.core_listener.close()
        for core in self.cores:
            core.connection.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def core(self, ready=True):
        """The next core that connects, greeted."""
        core = Core(self.core_listener.accept()[0])
        self.cores.append(core)  # or its connection would end with the test's last mention of it
        core.hello = core.until("Hello")
        core.modules = {}
        for _ in range(core.hello["module_count"]):
            module = core.until("ConfiguredModule")
            core.modules[module["module_id"]] = module
        core.list = {}
        while not core.list or not entry["last"]:
            entry = core.until("ProcessEntry")
            core.list[entry["module_id"]] = entry
        if ready:
            core.order("ready")
        return core

    def port(self, core, name="web"):
        return next(m[f"listener.{name}"] for m in core.modules.values() if f"listener.{name}" in m)

    def log(self):
        return self.process.errors()

    def read(self, name):
        """A report of a child as {key: [values]}."""
        path = self.directory / name
        wait_until(path.exists, f"{name} to be written")
        found = {}
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            found.setdefault(key, []).append(value)
        return found


def ask(port):
    """The pid that serves the port; None when the one that took the connection died with it."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            return int(connection.recv(64) or 0) or None
        except ConnectionError:
            return None


def module(name, *steps, **keys):
    return {"id": name, "args": list(steps), **keys}

"""Supervisors beside one another: kill -9 to serving for the same trivial service (line_service.c), and what each supervisor weighs.

All of them run at the same time on the same machine and are killed one after the other, so that each round asks every one of them, and each
round begins with another one. The clock runs from the signal to the first line of a new process; the socket is asked again and again without
a pause. In each round a service is killed twice: after a healthy run of two seconds and more, and at once when it serves again. Settings
are everybody's defaults, and where there is a choice, the faster one (no shell in between: the run script of s6 and of runit is the service
itself). What a supervisor weighs is taken when one of each runs: two would share their pages.

gatehouse-supervisor runs the service as a module in its whole sandbox, once with a listener of its own as modules have it, once binding its
own socket as under the others; the core's place is taken by tests/fixtures/fake_core.c, which starts every module and does nothing. The
real core and the real MCP module are rows of their own. The limit is a supervisor that can do nothing else (pidfd_supervisor.c).
"""
import contextlib
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import time

import common
from common import Directory, Failure, Row, percentile, program, pss_kb, say
from harness import BIN
from kill import SERVED_MS, Caller, back_again_ms
from stack import Stack

GIVE_UP_S = 30
HEALTHY_S = 2
CREDIT_S = 1.1  # of life earn one restart at once: killed faster, a module backs off, and that is not what is measured here
PROCESS_UP_MS, MODULE_READY_MS, SUPERVISOR_MB = 1.5, 10, 3  # budgets
SOCKET = "service.sock"


class Contender:
    """One supervisor with one service. Its processes but the service are .weighed."""

    def __init__(self, name, command, address, directory, settings=""):
        self.name, self.address, self.settings = name, str(address), settings
        self.healthy, self.at_once, self.ended = [], [], False
        with open(directory / "log", "ab") as log:
            # A session of its own, so that whatever is left at the end can be ended by its group.
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory,
                                            env={"PATH": os.environ["PATH"], "HOME": str(directory)}, start_new_session=True)
        self.pid = 0
        try:
            self.pid = self.serving(0)
        except Failure:
            self.end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        if self.ended:
            return
        self.ended = True
        # Looked up while the supervisor lives: afterwards the service's parent is somebody else.
        below = [pid for pid in (self.pid, *self.helpers) if pid]
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def serving(self, not_this):
        """The process id that the service answers with, asked until it is another one."""
        end = time.monotonic() + GIVE_UP_S
        while time.monotonic() < end:
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.settimeout(GIVE_UP_S)
                    connection.connect(self.address)
                    pid = int(connection.recv(64) or 0)
            except OSError:
                continue
            if pid and pid != not_this:
                return pid
        raise Failure(f"{self.name} does not serve")

    def back_again_ms(self):
        process = os.pidfd_open(self.pid)
        start = time.monotonic_ns()
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [])
        os.close(process)
        self.pid = self.serving(self.pid)
        return (time.monotonic_ns() - start) / 1e6

    @property
    def helpers(self):
        """Processes of the supervisor below its first one: the parents of the service."""
        found, pid = [], self.pid
        while pid > 1 and pid != self.process.pid:
            try:
                pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                break
            if pid != self.process.pid:
                found.append(pid)
        return [pid for pid in found if pid > 1]

    def weight_mb(self):
        return sum(pss_kb(pid) for pid in (self.process.pid, *self.helpers)) / 1024


def version(package):
    """What Debian calls the version that runs here."""
    out = subprocess.run(["dpkg-query", "-W", "-f=${Package} ${Version}", package], capture_output=True, text=True, check=False)
    return out.stdout or package


def folder(parent, name):
    path = parent / name
    path.mkdir()
    return path


def start_bare(directory):
    return Contender("bare pidfd supervisor", [program("pidfd_supervisor"), program("line_service"), directory / SOCKET],
                     directory / SOCKET, directory)


def start_gatehouse(directory, handed):
    module = {"id": "web", "binary": str(program("line_service")), "args": [] if handed else [f"./{SOCKET}"]}
    config = {"version": 1, "run_dir": str(directory / "run"), "state_dir": str(directory / "state"), "log": {"level": "warn"},
              "core": {"binary": str(common.BUILD / "tests" / "fake_core")}, "listeners": [], "modules": [module]}
    address = directory / "run" / "modules" / "web" / SOCKET
    if handed:
        address = directory / SOCKET
        config["listeners"] = [{"name": "web", "address": str(address)}]
        module["listeners"] = ["web"]
    (directory / "gatehouse.yaml").write_text(json.dumps(config))
    name = "gatehouse-supervisor, " + ("its listener" if handed else "the service binds")
    return Contender(name, [BIN / "gatehouse-supervisor", "--config", directory / "gatehouse.yaml"], address, directory, "in its whole sandbox")


def start_runit(directory):
    service = folder(folder(directory, "services"), "web")
    (service / "run").symlink_to(program("line_service"))
    return Contender("runit (runsvdir)", ["runsvdir", directory / "services"], service / SOCKET, directory,
                     f"{version('runit')}, defaults, run is the service itself")


def start_s6(directory):
    service = folder(folder(directory, "services"), "web")
    (service / "run").symlink_to(program("line_service"))
    return Contender("s6 (s6-svscan)", ["s6-svscan", directory / "services"], service / SOCKET, directory,
                     f"{version('s6')}, defaults, run is the service itself")


def start_supervisord(directory):
    (directory / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={directory}/supervisord.log\npidfile={directory}/supervisord.pid\n"
        f"[program:web]\ncommand={program('line_service')} {directory / SOCKET}\n")
    return Contender("supervisord", ["supervisord", "-c", directory / "supervisord.conf"], directory / SOCKET, directory,
                     f"{version('supervisor')}, defaults")


CONTENDERS = [("bare", start_bare, None), ("handed", lambda path: start_gatehouse(path, True), None),
              ("bound", lambda path: start_gatehouse(path, False), None), ("runit", start_runit, "runsvdir"), ("s6", start_s6, "s6-svscan"),
              ("supervisord", start_supervisord, "supervisord")]
TWIN = 2  # the second one of ours


def contend(options):
    """Rows of the trivial service under each."""
    with Directory() as directory, contextlib.ExitStack() as cleanup:
        contenders = []
        for name, start, needs in CONTENDERS:
            if needs and not shutil.which(needs):
                raise Failure(f"{needs} is not installed")
            contenders.append(cleanup.enter_context(start(folder(directory, name))))
        for number in range(options.kills):
            time.sleep(HEALTHY_S)
            first = number % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                contender.healthy.append(contender.back_again_ms())
                contender.at_once.append(contender.back_again_ms())
            say(f"supervise: round {number + 1} of {options.kills}")
        contenders[TWIN].end()
        weights = [(contender, contender.weight_mb()) for contender in contenders if not contender.ended]
    rows = []
    for kind, title in (("healthy", "after 2 s and more of health"), ("at_once", "at once after its start")):
        limit = percentile(getattr(contenders[0], kind), 0.5)
        for contender in contenders:
            took, ours = getattr(contender, kind), contender.name.startswith("gatehouse")
            rows.append(Row(f"{contender.name}: kill -9 to serving {title}: p50", percentile(took, 0.5), "ms", limit, "bare pidfd supervisor",
                            budget=("measured", "<=", PROCESS_UP_MS) if ours else None,
                            note=f"p99 {percentile(took, 0.99):.2f}, {min(took):.2f} to {max(took):.2f}, {len(took)} kills"))
    for contender, weight in weights:
        rows.append(Row(f"{contender.name}: memory of the supervisor", weight, "MB", note=contender.settings,
                        budget=("measured", "<=", SUPERVISOR_MB) if contender.name.startswith("gatehouse") else None))
    return rows


def started_to_ready_ms(gateway, name):
    """From each start of that module to its readiness (all phases, the deny path proven), by the supervisor's log."""
    began, took = {}, []
    for line in gateway.process.errors().splitlines():
        if f'"module":"{name}"' not in line or '"room":"supervisor"' not in line:
            continue
        event = json.loads(line)
        at = float(event["time"][17:].rstrip("Z")) + 60 * int(event["time"][14:16])
        if event["message"] == "started":
            began[event["generation"]] = at
        elif event["message"] == "ready" and event["generation"] in began:
            took.append((at - began.pop(event["generation"])) % 3600 * 1000)
    return took


def real(options, upstream):
    """Rows of the whole gateway: the MCP module and the core."""
    rows = []
    with Stack(upstream.port, log_level="info") as gateway:
        gateway.fill()
        for name in ("mcp", "core"):
            caller, took = Caller(gateway, "mcp"), []
            for _ in range(max(5, options.kills // 4)):
                gateway.wait_ready()
                time.sleep(max(options.settle, CREDIT_S))
                took.append(back_again_ms(gateway, name, caller, []))
            caller.close()
            rows.append(Row(f"gatehouse, {name}: kill -9 to the next served tools/call: p50", percentile(took, 0.5), "ms",
                            budget=("measured", "<=", SERVED_MS), note=f"p99 {percentile(took, 0.99):.1f}, {len(took)} kills"))
        ready = started_to_ready_ms(gateway, "mcp")
        if not ready:
            raise Failure("the log has no readiness of mcp")
        rows.append(Row("gatehouse, mcp: started to ready, deny path proven: p50", percentile(ready, 0.5), "ms",
                        budget=("measured", "<=", MODULE_READY_MS), note=f"p99 {percentile(ready, 0.99):.1f}, {len(ready)} starts"))
    return rows


def run(options, upstream):
    return contend(options) + real(options, upstream)

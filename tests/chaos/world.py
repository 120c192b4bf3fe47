"""One running gateway under load, and what must be true of it when the dust has settled.

Kind "gate": supervisor, core, mcp, rest, mcp2, hello. Kind "odd": the same with a fixture module (odd_module.py) in the place of rest, which
lingers in every state and answers as badly as it is told to. Kind "quarantine": the same, and few deaths are enough to hold it down. Kind
"upgrade": as "gate", with versions of mcp and rest to upgrade to (versions.py), and clients that open a connection for each request.
"""
import collections
import contextlib
import functools
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import tempfile
import time

import graphlog
import procs
from admin import Admin, Refused
from common import Broken
from doors import BROKEN, CONVERT, COUNT, FAILED, REFUSED, RIGHT, Door, Hello, McpTool
from harness import gateway as gateways, processes, stubs as contract
from harness.processes import wait_until
from ledger import Ledger, Session
from timeline import HOLD_S, SLACK_S, Log
from versions import Versions
from wire import Wire

HERE = pathlib.Path(__file__).resolve().parent
DOOR_OF = {"mcp": "mcp", "rest": "mcp", "odd": "mcp", "core": "mcp", "mcp2": "mcp2", "hello": "hello", "supervisor": "mcp"}
# door: (the module at the door, the modules behind it)
DOORS = {"mcp": ("mcp", ("rest", "odd")), "mcp2": ("mcp2", ()), "hello": ("hello", ())}
# A process that a busy machine does not let run for a second or two is neither hanging nor unready; HUNG_S is when one that hangs is ended.
PROBES = {"startup": {"interval_ms": 200, "timeout_ms": 10000},
          "liveness": {"interval_ms": 400, "timeout_ms": 2500, "failures": 2},
          "readiness": {"interval_ms": 200, "timeout_ms": 2000, "failures": 1}}
HUNG_S = 6.5
LEAVES_S = 2  # so long may a process of these gateways take to go
DEADLINE_S = 5  # of the tool
AT_ONCE = ("degraded", "draining", "stopping", "stopped", "quarantined", "crashing", "pausing")  # the states in which a module is not waited for
SETTLE_S = 10
SETTLED_S = 0.3  # connections that were closed on one side are gone on the other
DISK_MB = 192
UPGRADABLE = ("mcp", "rest")
# On a busy machine one stall makes five of fifty calls late: the times of so few say nothing of a version.
CORE_UPGRADE = {"start_timeout_ms": 6000, "watchdog_ms": 6000, "upgrade": {"probation_ms": 500, "modules_ms": 10000}}
UPGRADE = {"drain_timeout_ms": 6000, "upgrade": {"probation_ms": 600, "memory_bytes": 64 << 20, "latency_calls": 100}}
START_MS = 10000


def free_ports(count, keep):
    """Ports beyond those that the kernel gives away: nobody comes by one while its gateway is started again. keep: an ExitStack for the names
    that say to the other gateways of this machine whose they are."""
    lowest, highest = map(int, pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    found, candidates = [], [*range(10000, lowest), *range(highest + 1, 65536)]
    while len(found) < count:
        port = random.choice(candidates)
        with contextlib.suppress(OSError), socket.socket() as probe:  # somebody's
            probe.bind(("127.0.0.1", port))
            name = socket.socket(socket.AF_UNIX)
            keep.callback(name.close)
            name.bind(f"\0gatehouse chaos port {port}")
            found.append(port)
    return found


def mount(path):
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0755", "tmpfs", path]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@functools.cache
def may_mount():
    with tempfile.TemporaryDirectory(prefix="ghc") as path:
        if os.geteuid() != 0 or not mount(path):
            return False
        subprocess.run(["umount", "-l", path], check=True)
        return True


def permitted(hits):
    """{door: outcomes that keep the promise} when these were hit: processes, "channel X" (a connection of X that lives on) and "answers X"
    (what X says is nonsense). A payload that is wrong never does."""
    allowed = {}
    for door, (own, behind) in DOORS.items():
        allowed[door] = {RIGHT}
        near = {own, *behind}
        if "core" in hits or hits & set(behind) or hits & {f"channel {name}" for name in near}:
            allowed[door] |= {REFUSED}
        if hits & {f"answers {name}" for name in near}:
            allowed[door] |= {REFUSED, FAILED}
        if own in hits or "supervisor" in hits:
            allowed[door] |= {REFUSED, BROKEN}
    return allowed


def excused(timeline, door, asked, hits, modules):
    """Whether this refusal keeps the promise. A request waits HOLD_S for whoever is between two lives, also when it was under way behind the door:
    it goes on elsewhere, once."""
    own, behind = DOORS[door]
    behind = [name for name in behind if name in modules]
    if hits & {own, "supervisor", *(f"{what} {name}" for what in ("channel", "answers") for name in (own, *behind))}:
        return True
    begin, end = asked.began - SLACK_S, asked.ended + SLACK_S  # it was decided at any moment between these
    if "core" in hits and (timeline.core_ended(begin, end) or timeline.core_away_s(begin, end) > HOLD_S or timeline.leaves(own, begin - LEAVES_S, end)):
        return True  # it was under way there, or comes when that is away for too long, or to a process of the door's that is about to go
    if own == "hello":  # the example does not wait
        return not all(timeline.served_throughout(name, begin, end) for name in (own, "core"))
    ends = sum(timeline.ends(name, begin, end) for name in behind)
    late = asked.code == "deadline.exceeded" and asked.ended - asked.began >= DEADLINE_S  # in a process that hangs
    at_once = any(timeline.states_of(name, begin, end) & set(AT_ONCE) for name in behind)
    if late or ends > 1 or at_once:
        return True
    return timeline.away([own, *behind, "core"], asked.began, end, HOLD_S - 2 * SLACK_S)


class World:
    def __init__(self, kind, pace_s=0.004, keeps=(True, False), start_ms=START_MS):
        """keeps: for each client of an upgraded door, whether it keeps its connection: the others meet both versions by turns. start_ms: how
        long a version may take until it is ready."""
        self.kind, self.pace_s, self.keeps, self.start_ms = kind, pace_s, keeps, start_ms
        self.cleanup = contextlib.ExitStack()
        self.deaths = []  # (module, generation) that were killed
        self.core_deaths = 0  # of cores that served; one that is killed while it starts may have written nothing yet
        try:
            self.build()
        except BaseException:
            self.close()
            raise

    def build(self):
        self.directory = pathlib.Path(self.cleanup.enter_context(tempfile.TemporaryDirectory(prefix="ghc")))
        self.worldclock = processes.start_worldclock(self.directory)
        self.cleanup.callback(self.worldclock.stop)
        self.wire = Wire(self.worldclock.port)
        self.cleanup.callback(self.wire.close)
        self.notes = processes.start_notes(self.directory)
        self.cleanup.callback(self.notes.stop)
        self.ports = dict(zip(DOORS, free_ports(len(DOORS), self.cleanup)))
        self.disk = self.small_disk() if self.kind != "upgrade" else None  # a thousand upgrades under load leave a long log
        self.gateway = gateways.Gateway(self.configuration(), env={"GATEHOUSE_STATE": str(self.disk / "state")} if self.disk else None)
        self.cleanup.callback(self.gateway.close)
        self.admin = Admin(self.gateway.run)
        self.cleanup.callback(self.admin.close)
        self.log = Log(self)
        self.gateway.apply(gateways.quickstart_catalog(self.wire.port, self.notes.port))
        self.bearer = self.gateway.token(gateways.GUEST, "--team", "explorers")
        wait_until(self.serves, "every door to serve", 60, pause_s=0.05)
        self.warm_up()
        self.session = Session(f"http://127.0.0.1:{self.ports['mcp']}/mcp", self.bearer)
        keeps = {"mcp": self.keeps} if self.kind == "upgrade" else {}
        self.doors = {name: Door(name, lambda name=name: self.caller(name), self.pace_s, keeps.get(name, (True,))) for name in DOORS}
        self.ledger = Ledger(self.gateway.run, self.pace_s * 4)
        for thread in (*self.doors.values(), self.ledger):
            thread.start()
            self.cleanup.callback(thread.close)
        wait_until(lambda: all(door.seen.counts[RIGHT] > 20 for door in self.doors.values()), "the load to run", 30)
        with self.held():
            time.sleep(SETTLED_S)
            self.first = self.measure()

    def small_disk(self):
        """A folder on a disk of its own, which can be filled; None where none can be mounted."""
        path = self.directory / "disk"
        path.mkdir()
        if not may_mount() or not mount(path):
            return None
        self.cleanup.callback(subprocess.run, ["umount", "-l", path], check=True)
        (path / "state").mkdir(mode=0o700)
        return path

    def configuration(self):
        common = {"quarantine": {"deaths": 0, "late_starts": 0}, "probes": PROBES}
        modules = [{"id": "mcp", "family": "mcp", "binary": "gatehouse-mcp", "listeners": ["mcp"], **common},
                   {"id": "mcp2", "family": "mcp", "binary": "gatehouse-mcp", "listeners": ["mcp2"], "config": {"listener": "mcp2"}, **common},
                   {"id": "hello", "listeners": ["hello"], **common}]
        if self.kind in ("odd", "quarantine"):
            modules.append(self.odd_module(common))
        else:
            modules.append({"id": "rest", "family": "rest-grpc", "binary": "gatehouse-rest", **common})
        if self.kind == "upgrade":
            self.versions = Versions(self)
            for module in modules:
                if module["id"] in UPGRADABLE:
                    module.update(UPGRADE, start_timeout_ms=self.start_ms, binary=str(self.versions.program(module["id"], "lingers", "0")))
        core = {"core": CORE_UPGRADE} if self.kind == "upgrade" else {}
        listeners = [{"name": name, "port": port} for name, port in self.ports.items()]
        return {"version": 1, "store": {"backend": "sqlite"}, "listeners": listeners, "modules": modules, **core}

    def odd_module(self, common):
        stubs, self.steering = self.directory / "stubs", self.directory / "steering"
        stubs.mkdir()
        contract.make(stubs)
        self.steering.mkdir()
        self.steer()
        if self.kind == "quarantine":
            common = {**common, "quarantine": {"deaths": 2}}
        return {"id": "odd", "family": "rest-grpc", "binary": str(HERE / "odd_module.py"), "args": [str(stubs), str(self.steering)], **common,
                "start_timeout_ms": 30000, "drain_timeout_ms": 20000, "stop_grace_ms": 15000,
                "sandbox": {"read": [str(stubs), str(HERE)], "write": [str(self.steering)]}}

    def steer(self, **behaviour):
        """What the fixture module does from now on; see odd_module.py."""
        path = self.steering / "behaviour.json"
        path.with_suffix(".new").write_text(json.dumps(behaviour))
        path.with_suffix(".new").rename(path)

    def close(self):
        self.cleanup.close()

    # ---- looking ----

    def caller(self, door):
        address = ("127.0.0.1", self.ports[door])
        if door == "hello":
            return Hello(address, self.bearer)
        return McpTool(address, self.bearer, CONVERT if door == "mcp" else COUNT)

    def serves(self):
        for name in DOORS:
            caller = self.caller(name)
            outcome = caller.ask()
            caller.close()
            if outcome[0] != RIGHT:
                return False
        return True

    def warm_up(self):
        """Both MCP modules call both upstreams once, and what can be upgraded was: what is made at the first time is there when descriptors are
        counted."""
        for module in UPGRADABLE if self.kind == "upgrade" else ():
            self.versions.upgrade(module, self.versions.program(module, "lingers", "1"), probation_ms=1)
            self.versions.settled(module)
        if self.kind == "upgrade":
            self.versions.upgrade("core", self.versions.program("core", "good", "0"), probation_ms=1)
            self.versions.settled("core")
            self.wait_ready()
        for door in ("mcp", "mcp2"):
            for tool in (CONVERT, COUNT):
                caller = McpTool(("127.0.0.1", self.ports[door]), self.bearer, tool)
                caller.ask()
                caller.close()

    def processes(self):
        """{} while no core answers."""
        try:
            return self.admin.processes()
        except (ConnectionError, Refused):
            return {}

    @property
    def modules(self):
        return [module["id"] for module in self.gateway.config["modules"]]

    @property
    def supervisor_pid(self):
        return self.gateway.process.pid

    def pid(self, name):
        return self.supervisor_pid if name == "supervisor" else self.processes()[name]["pid"]

    def state(self, name):
        return self.processes().get(name, {}).get("state")

    def wait_state(self, name, *states, timeout_s=20):
        return wait_until(lambda: (now := self.state(name)) in states and now, f"{name} to be {' or '.join(states)}", timeout_s, pause_s=0.002)

    def all_ready(self):
        now = self.processes()
        return all(now.get(name, {}).get("state") == "ready" for name in self.modules) and now

    def wait_ready(self, timeout_s=20):
        try:
            return wait_until(self.all_ready, "every module to be ready", timeout_s, pause_s=0.01)
        except AssertionError as error:
            now = {name: (process.get("state"), process.get("reason")) for name, process in self.processes().items()}
            raise Broken(f"{error}: {now}") from None

    def wait_newer(self, name, generation):
        """Until a later life of it, and everybody else, is ready; one of the core has by then written down that it began."""
        wait_until(lambda: (now := self.all_ready()) and int(now[name]["generation"]) > generation, f"{name} to be back", 20)
        if name == "core":
            self.written()

    def written(self):
        """Until what the core has collected is on disk, where it does not wait for that itself: whatever an operator writes after it is."""
        before = self.ledger.writes
        wait_until(lambda: self.ledger.writes > before + 1, "an operator's writes to be answered", 20)

    def answered(self, times):
        """Until each client has had so many right answers, and the operator his: whatever was under way is judged."""
        clients = [client for door in self.doors.values() for client in door.clients]
        rights = [client.rights for client in clients]
        wait_until(lambda: all(client.rights >= before + times for client, before in zip(clients, rights)), "right answers at every door", 20)
        self.written()

    def wait_child(self, before, timeout_s=10):
        """The process that the supervisor starts next; before: its children until now."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            new = set(procs.children(self.supervisor_pid)) - before
            if new:
                return min(new)
        raise Broken("the supervisor started nothing")

    # ---- killing ----

    def note_death(self, name, generation):
        """generation: 0 when its end was ordered and nothing has to be said of it."""
        if name == "core":
            self.core_deaths += 1
        elif generation:
            self.deaths.append((name, generation))

    def kill(self, name, number=9):
        """Kills the living process of this name and answers the moment at which it was gone."""
        process = self.processes()[name]
        procs.kill_and_wait(process["pid"], number)
        moment = time.monotonic()
        self.note_death(name, int(process["generation"]))
        return moment

    def start_again(self):
        """After the death of the supervisor: nothing of it is left, then what an init would do."""
        run = f"GATEHOUSE_RUN={self.gateway.run}"
        wait_until(lambda: not procs.with_environment(run), "every process of a killed supervisor to be gone", 10)
        self.admin.close()
        moment = time.monotonic()
        self.gateway.start(wait=False)
        return moment

    def forget(self, name):
        """The pauses before restarts grow with every death; an order of an operator (for the core: a new start of the whole) begins anew."""
        if name in ("core", "supervisor"):
            with self.held():
                if self.gateway.stop() != 0:
                    raise Broken("an ordered end did not end with 0")
                self.start_again()
                self.wait_ready()
        else:
            before = self.wait_ready()[name]
            self.admin.order("Restart", name)
            self.wait_newer(name, int(before["generation"]))

    # ---- the dust has settled ----

    @contextlib.contextmanager
    def held(self):
        """No request of the load is under way."""
        everyone = (*self.doors.values(), self.ledger)
        try:
            for thread in everyone:
                thread.hold()
            yield
        finally:
            for thread in everyone:
                thread.release()

    def measure(self):
        """What may not grow: descriptors of each process, kept connections to an upstream left out; files in the run directory."""
        pooled = procs.connections_to({self.wire.port, self.notes.port})
        found = self.processes()
        count = {name: sorted(re.sub(r":\[.*", "", target) for target in procs.descriptors(process["pid"]).values() if target not in pooled)
                 for name, process in found.items()}
        files = sorted(str(path.relative_to(self.gateway.run)).replace("@2", "")  # which of its two processes serves does not matter
                       for path in self.gateway.run.rglob("*") if not path.is_dir())
        return {"descriptors": count, "files": files, "pids": {name: process["pid"] for name, process in found.items()}}

    def audit(self, with_log=True):
        """[what is broken]. Holds the load meanwhile. with_log: also what takes its time where there were many requests."""
        problems = []
        with self.held():
            self.wait_ready()
            for check in (self.check_ledger, *([self.check_log] if with_log else []), self.check_leaks, self.check_processes):
                try:
                    check()
                except (Broken, AssertionError, Refused, ConnectionError) as broken:
                    problems.append(f"{check.__name__.removeprefix('check_')}: {broken}")
        return problems

    def check_ledger(self):
        self.ledger.check(self.admin, lambda token: Hello(("127.0.0.1", self.ports["hello"]), token), self.session)

    def check_log(self):
        """The event log replays to the graph that the core has, and says why each one died."""
        replay, runs = graphlog.check(self.admin)
        silent = [f"{name} generation {generation}" for name, generation in self.deaths if not graphlog.causes(replay, name, generation)]
        if silent:
            raise Broken(f"the event log has no cause for the death of {silent}")
        if runs < self.core_deaths:
            raise Broken(f"a core that served was killed {self.core_deaths} times, the event log says so of {runs}")
        self.deaths.clear()

    def check_leaks(self):
        """No descriptor and no file more than in the beginning, within the time that idle connections may take to end."""
        def grown():
            now = self.measure()
            more = []
            for name, kinds in now["descriptors"].items():
                new = collections.Counter(kinds) - collections.Counter(self.first["descriptors"].get(name, kinds))
                if len(kinds) > len(self.first["descriptors"].get(name, kinds)):
                    more.append(f"{name}: {dict(new)} more than in the beginning; its Unix sockets: {procs.socket_names(now['pids'][name])}")
            new = set(now["files"]) - set(self.first["files"])
            return more + ([f"files: {sorted(new)}"] if new else [])
        try:
            wait_until(lambda: not grown(), "descriptors", SETTLE_S, pause_s=0.1)
        except AssertionError:
            raise Broken("; ".join(grown())) from None

    def check_processes(self):
        """Whoever was started for this gateway is one of those that it shows, and no dead child waits to be reaped."""
        shown = {process["pid"] for process in self.processes().values()}
        zombies = [pid for pid in procs.children(self.supervisor_pid) if procs.state(pid) == "Z"]
        family = set(procs.with_environment(f"GATEHOUSE_RUN={self.gateway.run}"))
        parents = {pid: set(procs.children(pid)) for pid in shown}
        strangers = family - shown - set().union(*parents.values())
        if zombies or strangers:
            raise Broken(f"zombies {zombies}, processes that nobody knows {sorted(strangers)}")

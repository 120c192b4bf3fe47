"""Nothing left: descriptors and memory of a running process by prlimit, and the disk that the store is on."""
import contextlib
import resource
import socket
import time

import procs
from admin import Refused
from common import Broken
from doors import ANSWER_TIMEOUT_S
from harness.http1 import Connection
from harness.processes import wait_until
from trial import Scenario
from world import may_mount

SPELL_S = 0.4
DOOR = {"mcp": "mcp", "hello": "hello", "rest": "mcp"}


@contextlib.contextmanager
def limited(pid, what, soft):
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, what, before)


def descriptors(trial):
    """No further descriptor can be opened for a while, and many want one. What is open goes on."""
    world, victim = trial.world, trial.scenario.victim
    with contextlib.ExitStack() as stack:
        stack.enter_context(limited(world.pid(victim), resource.RLIMIT_NOFILE, 3))
        for _ in range(30):
            one = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX if victim == "core" else socket.AF_INET)))
            one.setblocking(False)
            one.connect_ex(str(world.gateway.run / "core" / "admin.http.sock") if victim == "core" else ("127.0.0.1", world.ports[DOOR[victim]]))
        time.sleep(SPELL_S)
    trial.back(time.monotonic())


def memory(trial):
    """Hardly any address space beyond what it has, and large requests: it may refuse, or end and come back."""
    world, victim = trial.world, trial.scenario.victim
    before = world.processes()[victim]
    with limited(before["pid"], resource.RLIMIT_AS, procs.memory_bytes(before["pid"]) + 65536):
        end = time.monotonic() + SPELL_S
        while time.monotonic() < end and procs.state(before["pid"]) not in (None, "Z"):
            with contextlib.suppress(OSError, ValueError, Refused):
                large_request(world, victim)
    moment = time.monotonic()
    if procs.state(before["pid"]) in (None, "Z"):
        world.note_death(victim, int(before["generation"]))
        trial.state = "ready, died"
    trial.back(moment)


def large_request(world, victim):
    if victim == "core":
        world.admin.apply(*({"kind": "Team", "metadata": {"name": f"big{n}", "description": "z" * 2000}, "spec": {"no": "z" * 5000}} for n in range(300)))
        return
    with Connection(("127.0.0.1", world.ports[DOOR[victim]]), ANSWER_TIMEOUT_S) as connection:
        connection.send("POST", "/mcp", {"Authorization": f"Bearer {world.bearer}", "Content-Type": "application/json"}, b'{"x":"' + b"y" * 3000000 + b'"}')
        connection.read()


def disk(trial):
    """Full: writes are refused, everything else goes on; with room again writes are taken."""
    world = trial.world
    trial.hits = {"store"}
    ballast = world.disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * (1 << 20))
    refused = []
    try:
        def full():
            try:
                world.admin.apply(*({"kind": "Team", "metadata": {"name": f"fill{number}", "description": "f" * 900}, "spec": {}}
                                    for number in range(len(refused) + 1, len(refused) + 60)))
                refused.append(None)
            except Refused as refusal:
                refused.append(refusal)
                return True
            return False
        wait_until(full, "a write to be refused by a full disk", 10, pause_s=0)
        if refused[-1].code != "store.full":
            raise Broken(f"a full disk is told as {refused[-1]}")
        time.sleep(SPELL_S)
    finally:
        ballast.unlink()
    moment = time.monotonic()

    def taken():
        try:
            return world.admin.apply({"kind": "Team", "metadata": {"name": "room"}, "spec": {}})
        except Refused:
            return False
    wait_until(taken, "writes to be taken again", trial.scenario.bound_s)
    trial.back(moment)
    for name in world.admin.names("Team"):
        if name.startswith("fill"):
            world.admin.call("CatalogAdminService/Delete", {"kind": "Team", "name": name})


SCENARIOS = [
    *(Scenario("no descriptors", name, "ready", descriptors) for name in ("mcp", "rest", "hello", "core")),
    *(Scenario("no memory", name, "ready", memory) for name in ("mcp", "core")),
    Scenario("no disk", "core", "ready", disk, needs=lambda: None if may_mount() else "no small disk can be mounted here (needs root)"),
]

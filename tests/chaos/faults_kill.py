"""kill -9 of every process in every state that it can be caught in (LIF-6, LIF-7, LIF-12, LIF-13). States that pass within a millisecond are met by killing the new
process after a delay; the history then says in which state it was. The fixture module's states are in states_odd.py."""
import contextlib
import os
import signal
import time

import procs
from common import Broken
from harness.http1 import Connection
from harness.processes import wait_until
from timeline import LONG_MS, Log, events
from trial import ANEW_S, Scenario, state_at_death, was

EARLY_MS = (0, 1, 2, 4, 8, 12)


def ready(trial):
    trial.back(trial.kill())


def early(delay_ms):
    """Dies, and dies again so long after its next start."""
    def act(trial):
        world, victim = trial.world, trial.scenario.victim
        before = set(procs.children(world.supervisor_pid))
        trial.kill()
        pid = world.wait_child(before)
        end = time.monotonic() + delay_ms / 1000
        while time.monotonic() < end:
            pass
        procs.kill_and_wait(pid)
        moment = time.monotonic()
        trial.back(moment)
        if victim == "core":
            return
        generation = max(int(death["generation"]) for death in world.admin.describe(victim)["deaths"])
        world.note_death(victim, generation)
        trial.state = state_at_death(world, victim, generation)
    return act


def degraded(trial):
    """Stopped until the readiness probe has noticed, then killed; by the other probe, where that is quicker."""
    world, victim = trial.world, trial.scenario.victim
    before = trial.before[victim]
    generation = int(before["generation"])
    with procs.stopped(before["pid"]):
        wait_until(lambda: was(world, victim, generation, "degraded"), f"{victim} to be degraded", 20)
        with contextlib.suppress(ProcessLookupError):
            procs.kill_and_wait(before["pid"])
        moment = time.monotonic()
    world.note_death(victim, generation)
    trial.back(moment)


@contextlib.contextmanager
def slow_call(world, door):
    """A call that is in flight for some seconds: mcp2 and mcp ask the notes server, which counts slowly."""
    caller = world.caller(door)
    caller.name, caller.arguments = "slow_count", lambda n: {"steps": 60, "delay_ms": 50}
    caller.connection = Connection(caller.address, 20)
    caller.send(1)
    try:
        yield caller
    finally:
        caller.close()


def draining(trial):
    world, victim = trial.world, trial.scenario.victim
    with slow_call(world, victim):
        time.sleep(0.05)
        world.admin.order("Drain", victim, deadlineMs=8000)
        world.wait_state(victim, "draining")
        moment = trial.kill()
        if world.state(victim) not in ("ready", "starting", "backoff", "discovered", "registered", "initializing", "warming"):
            with contextlib.suppress(Exception):
                world.admin.order("Start", victim)
        trial.back(moment)


def stopped(trial):
    """Nothing to kill: ordered to stop, then the core dies, and it stays down until it is ordered to start."""
    world, victim = trial.world, trial.scenario.victim
    world.admin.order("Stop", victim)
    world.wait_state(victim, "stopped")
    trial.hits.add("core")
    trial.kill("core")
    world.wait_state(victim, "stopped")
    time.sleep(0.05)
    assert world.state(victim) == "stopped", world.state(victim)
    moment = time.monotonic()
    world.admin.order("Start", victim)
    trial.back(moment)


def twice(trial):
    """The next life is killed as soon as it is ready."""
    victim = trial.scenario.victim
    trial.kill()
    trial.world.wait_newer(victim, int(trial.before[victim]["generation"]))
    trial.back(trial.kill())


def backoff(trial):
    """Killed until its restart waits for so long that it can be met; then, when that is written down, the core dies too."""
    world, victim, log = trial.world, trial.scenario.victim, Log(trial.world)
    trial.hits.add("core")

    def waits():
        before = set(procs.children(world.supervisor_pid))
        with contextlib.suppress(KeyError, ProcessLookupError):  # its end is not known yet
            if world.processes()[victim].get("pid"):
                trial.kill()
        if any(event.get("module") == victim and event.get("next_ms", 0) >= LONG_MS for _, event in events(log.new())):
            return True
        with contextlib.suppress(Broken, ProcessLookupError):
            procs.kill_and_wait(world.wait_child(before, 0.05))
        return False
    wait_until(waits, "the restart to wait", 30, pause_s=0)
    world.wait_state(victim, "backoff")
    world.written()
    trial.back(trial.kill("core"))


def both(trial):
    """A module and the core within the same moment."""
    trial.hits.add("core")
    pid = trial.world.pid("core")
    trial.kill()
    procs.kill_and_wait(pid)
    trial.world.note_death("core", 0)
    trial.back(time.monotonic())


def everyone(trial):
    """Every process but the supervisor."""
    world = trial.world
    trial.hits |= {"core", "mcp", "rest", "mcp2", "hello"}
    processes = world.processes()
    for name in ("mcp", "rest", "mcp2", "hello", "core"):
        procs.kill_and_wait(processes[name]["pid"])
        if name == "core":
            world.note_death("core", 0)
    trial.back(time.monotonic())


def supervisor(trial):
    """Everything goes with it; an init starts it again."""
    world = trial.world
    world.gateway.process.child.kill()
    world.gateway.process.child.wait()
    trial.back(world.start_again())


def supervisor_early(delay_ms):
    """Killed so long after its start, while everything else is starting."""
    def act(trial):
        world = trial.world
        supervisor_kill = world.gateway.process.child
        supervisor_kill.kill()
        supervisor_kill.wait()
        world.start_again()
        time.sleep(delay_ms / 1000)
        world.gateway.process.child.kill()
        world.gateway.process.child.wait()
        trial.back(world.start_again())
    return act


def stopping(trial):
    """The core was told to end and is killed while it does."""
    world = trial.world
    pid = world.pid("core")
    os.kill(pid, signal.SIGTERM)
    time.sleep(trial.rng.random() * 0.01)
    with contextlib.suppress(ProcessLookupError):
        procs.kill_and_wait(pid)
    trial.back(time.monotonic())


def supervisor_stopping(trial):
    """The supervisor was told to end and is killed while it does."""
    world = trial.world
    child = world.gateway.process.child
    child.terminate()
    time.sleep(trial.rng.random() * 0.02)
    child.kill()
    child.wait()
    trial.back(world.start_again())


MODULES = ("mcp", "rest", "mcp2", "hello")
SCENARIOS = [
    *(Scenario("kill", name, "ready", ready) for name in (*MODULES, "core")),
    *(Scenario("kill", name, f"start+{delay:g}ms", early(delay), again=True) for name in ("mcp", "rest") for delay in EARLY_MS),
    *(Scenario("kill", "core", f"start+{delay:g}ms", early(delay), again=True) for delay in (*EARLY_MS, 20, 35)),
    *(Scenario("kill", name, "degraded", degraded) for name in ("mcp", "rest", "hello")),
    *(Scenario("kill", name, "draining", draining) for name in ("mcp", "mcp2")),
    *(Scenario("kill", name, "stopped", stopped) for name in ("rest", "hello")),
    *(Scenario("kill twice", name, "ready", twice, again=True) for name in (*MODULES, "core")),
    Scenario("kill until", "hello", "backoff", backoff, bound_s=8, again=True),
    Scenario("kill both", "mcp", "ready", both),
    Scenario("kill both", "rest", "ready", both),
    Scenario("kill all", "core", "ready", everyone),
    Scenario("kill", "core", "stopping", stopping),
    Scenario("kill", "supervisor", "ready", supervisor, bound_s=ANEW_S),
    *(Scenario("kill", "supervisor", f"start+{delay}ms", supervisor_early(delay), bound_s=ANEW_S) for delay in (2, 20, 60)),
    Scenario("kill", "supervisor", "stopping", supervisor_stopping, bound_s=ANEW_S),
]

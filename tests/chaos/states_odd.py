"""Every state that a module can be in, held for as long as a scenario needs it by the fixture module odd_module.py; in each the module is
killed, the core is killed, or the module is stopped for a while (LIF-1, LIF-7, LIF-12)."""
import contextlib
import time

import procs
from harness.processes import wait_until
from timeline import LONG_MS, Log, events
from trial import Scenario

PAUSE_S = 0.3


def reset(world):
    """The fixture module serves again, whatever it was told."""
    world.steer()
    if world.state("odd") in ("stopped", "draining", "backoff", "quarantined"):
        with contextlib.suppress(Exception):
            world.admin.order("Start", "odd")


def held_at_start(**behaviour):
    """Started anew with a behaviour that keeps it in one state of its start."""
    def reach(world, state):
        world.steer(**behaviour)
        before = set(procs.children(world.supervisor_pid))
        procs.kill_and_wait(world.pid("odd"))
        world.wait_child(before)
        world.wait_state("odd", state, timeout_s=20)
    return reach


def as_it_is(world, state):
    world.wait_state("odd", state)


def unready(world, state):
    world.steer(unready=True)
    world.wait_state("odd", state)


def drain(world, state):
    world.steer(hold="drain")
    world.admin.order("Drain", "odd", deadlineMs=15000)
    world.wait_state("odd", state)


def stop(world, state):
    world.steer(deaf=True)
    world.admin.order("Stop", "odd")
    world.wait_state("odd", state)


def down(world, state):
    world.admin.order("Stop", "odd")
    world.wait_state("odd", state)


def waiting(world, state):
    """Leaves with a status as soon as it starts, again and again, until its restart waits for so long that it can be met."""
    log = Log(world)
    world.steer(leave=3)
    with contextlib.suppress(KeyError):
        procs.kill_and_wait(world.pid("odd"))
    wait_until(lambda: any(event.get("module") == "odd" and event.get("next_ms", 0) >= LONG_MS for _, event in events(log.new())), "a long pause", 30)
    world.wait_state("odd", state)


def lost(world, state):
    """It lives on without its runtime socket."""
    world.steer(deafen=True)
    world.wait_state("odd", state)


# state: how it is reached
STATES = {
    "starting": held_at_start(hold="socket"),
    "discovered": held_at_start(hold="describe"),
    "initializing": held_at_start(hold="initialize"),
    "warming": held_at_start(unready=True),
    "ready": as_it_is,
    "degraded": unready,
    "draining": drain,
    "stopping": stop,
    "stopped": down,
    "backoff": waiting,
    "failed": lost,
}
WITHOUT_PROCESS = ("stopped", "backoff")
PASSING = ("backoff",)  # it ends by itself


def kill(trial, state):
    world = trial.world
    process = world.processes()["odd"]
    pid, generation = process["pid"], int(process["generation"])
    procs.kill_and_wait(pid)
    reset(world)
    world.note_death("odd", generation if state != "stopping" else 0)
    return time.monotonic()


def kill_core(trial, state):
    """The next core finds the module in that state and takes it from there."""
    world = trial.world
    trial.hits.add("core")
    moment = trial.kill("core")
    wait_until(world.processes, "the next core to answer", 20)
    if state == "stopped":
        world.wait_state("odd", "stopped")
    moment = max(moment, time.monotonic())
    return moment


def pause(trial, state):
    """SIGSTOP, then SIGCONT: nothing is lost but time."""
    pid = trial.world.pid("odd")
    with procs.stopped(pid):
        time.sleep(PAUSE_S)
    return time.monotonic()


def serve_again(trial, moment):
    """Whatever state it was left in: within the bound after it is told to behave (and started, where an order had ended it) it serves."""
    world = trial.world
    reset(world)

    def up():
        state = world.state("odd")
        if state in ("stopped", "draining"):
            reset(world)
        return state == "ready"
    wait_until(up, "the fixture module to be ready", 20, pause_s=0.02)
    trial.back(moment)


def scenario(do, state):
    def act(trial):
        world = trial.world
        try:
            STATES[state](world, state)
            assert state in PASSING or world.state("odd") == state, f"it did not stay {state}: {world.state('odd')}"
            serve_again(trial, do(trial, state))
        finally:
            reset(world)
    return act


SCENARIOS = [
    *(Scenario("kill", "odd", state, scenario(kill, state), world="odd", bound_s=8, again=True) for state in STATES if state not in WITHOUT_PROCESS),
    *(Scenario("kill core, odd is", "odd", state, scenario(kill_core, state), world="odd", bound_s=8, again=True) for state in STATES),
    *(Scenario("stop", "odd", state, scenario(pause, state), world="odd", bound_s=8, again=True)
      for state in ("discovered", "initializing", "warming", "ready", "degraded", "draining")),
]

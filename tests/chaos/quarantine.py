"""A module that is held down (LIF-8): it stays so across the death of the core and of everything, its clients are told in their protocol's form, and
the others serve."""
import contextlib
import time

import procs
from common import Broken
from harness.processes import wait_until
from trial import Scenario


def be_quarantined(world):
    """The fixture module leaves again and again, which is held against it for this while only."""
    world.steer(leave=3)
    with contextlib.suppress(KeyError):
        procs.kill_and_wait(world.pid("odd"))
    world.wait_state("odd", "quarantined", timeout_s=30)


def held(trial, moment):
    world = trial.world
    wait_until(world.processes, "the next core to answer", 20)
    world.wait_state("odd", "quarantined")
    world.steer()
    time.sleep(0.2)
    if world.state("odd") != "quarantined":
        raise Broken(f"nobody released it, and it is {world.state('odd')}")
    released = time.monotonic()
    world.admin.order("Release", "odd")
    trial.back(max(moment, released))


def core_dies(trial):
    be_quarantined(trial.world)
    trial.hits.add("core")
    held(trial, trial.kill("core"))


def supervisor_dies(trial):
    world = trial.world
    be_quarantined(world)
    trial.hits.add("supervisor")
    world.gateway.process.child.kill()
    world.gateway.process.child.wait()
    held(trial, world.start_again())


SCENARIOS = [
    Scenario("kill core, odd is", "odd", "quarantined", core_dies, world="quarantine", bound_s=8),
    Scenario("kill all, odd is", "odd", "quarantined", supervisor_dies, world="quarantine", bound_s=8),
]

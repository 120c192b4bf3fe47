"""SIGSTOP of every process: for a while, which may cost time and nothing else; for ever, until a probe has it killed (LIF-4); and across the
death of another."""
import os
import signal
import time

import procs
from harness.processes import wait_until
from trial import ANEW_S, Scenario
from world import HUNG_S

PAUSE_S = 0.4


def pause(trial):
    with procs.stopped(trial.world.pid(trial.scenario.victim)):
        time.sleep(PAUSE_S)
    trial.back(time.monotonic())


def hang(trial):
    """Until the liveness probe has it killed and it is back; the clock runs from the moment at which it stopped."""
    world, victim = trial.world, trial.scenario.victim
    before = world.processes()[victim]
    os.kill(before["pid"], signal.SIGSTOP)
    moment = time.monotonic()
    wait_until(lambda: procs.state(before["pid"]) is None, "a hanging module to be killed", 15)
    world.note_death(victim, int(before["generation"]))
    trial.back(moment)


def dies_while_stopped(stopped, victim):
    """`victim` is killed while `stopped` is; both serve when that goes on, and nothing is left open."""
    def act(trial):
        world = trial.world
        pid = world.pid(victim)
        trial.hits |= {victim}
        generation = int(world.processes()[victim]["generation"])
        with procs.stopped(world.pid(stopped)):
            procs.kill_and_wait(pid)
            time.sleep(0.2)
        world.note_death(victim, generation)
        trial.back(time.monotonic(), victim)
        with world.held():
            world.wait_ready()
            world.check_leaks()
    return act


NOBODY = frozenset()
SCENARIOS = [
    *(Scenario("pause", name, "ready", pause, hits=NOBODY) for name in ("mcp", "rest", "mcp2", "hello", "core", "supervisor")),
    *(Scenario("hang", name, "ready", hang, bound_s=HUNG_S + ANEW_S) for name in ("mcp", "rest", "hello")),
    Scenario("kill mcp, stopped is", "supervisor", "ready", dies_while_stopped("supervisor", "mcp"), hits=NOBODY),
    Scenario("kill core, stopped is", "supervisor", "ready", dies_while_stopped("supervisor", "core"), hits=NOBODY),
    Scenario("kill rest, stopped is", "core", "ready", dies_while_stopped("core", "rest"), hits=frozenset({"core"})),
    Scenario("kill core, stopped is", "hello", "ready", dies_while_stopped("hello", "core"), hits=frozenset({"hello"})),
]

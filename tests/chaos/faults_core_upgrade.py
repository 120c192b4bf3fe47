"""The core's own program is replaced under load (LIF-9, LIF-10, LIF-12, LIF-13): good programs, and bad ones of every kind (tests/fixtures/odd_core.c), in
the whole sandbox; and kill -9 and SIGSTOP of whoever takes part, in each phase. Whatever happens: it ends by itself, as the table says,
the program that was decided for runs, and at the doors it is what an ordered end of the core is."""
import contextlib
import itertools
import os
import time

import procs
from common import Broken
from harness.processes import wait_until
from trial import Scenario
from versions import PROMOTED, ROLLED_BACK

PAUSE_S = 0.3
SHORT_MS = 500
HELD_MS = 60000  # a probation that ends only when something happens
NUMBERS = itertools.count(1)
KEPT, BACK, EITHER = {PROMOTED}, {ROLLED_BACK}, {PROMOTED, ROLLED_BACK}
UNDONE = {None, ROLLED_BACK}  # None: as if there had been none


def program_of(pid):
    with contextlib.suppress(OSError):
        return os.path.realpath(f"/proc/{pid}/exe")
    return ""


def candidate(world, path, timeout_s=10):
    """The process of the new program, as the kernel knows it: nobody answers while it starts."""
    def found():
        return next((pid for pid in procs.children(world.supervisor_pid) if program_of(pid) == str(path)), None)
    return wait_until(found, "the new program's process", timeout_s, pause_s=0.001)


# ---- what is done ----

def nothing(_trial, _path):
    """The program is what it is."""


def kill_leaving(trial, _path):
    with contextlib.suppress(ProcessLookupError):  # it may be quicker
        procs.kill_and_wait(trial.before["core"]["pid"])


def kill_candidate(trial, path):
    procs.kill_and_wait(candidate(trial.world, path))


def kill_supervisor(trial, _path):
    trial.world.gateway.process.child.kill()
    trial.world.gateway.process.child.wait()
    trial.world.start_again()


def kill_module(name):
    def act(trial, _path):
        trial.hits.add(name)
        procs.kill_and_wait(trial.before[name]["pid"])
    return act


def pause_candidate(trial, path):
    with procs.stopped(candidate(trial.world, path)):
        time.sleep(PAUSE_S)


def pause_supervisor(trial, _path):
    with procs.stopped(trial.world.supervisor_pid):
        time.sleep(PAUSE_S)


def order_back(trial, _path):
    trial.world.admin.order("Rollback", "core")


# ---- when ----

def at_once(_world, _path):
    """The supervisor has agreed, and the core before is about to end."""


def starting(world, path):
    candidate(world, path)


def probation(world, _path):
    world.versions.wait_phase("core", "probation")


# ---- how it must end ----

def judge(world, versions, newest, ends, why):
    """versions: the program that served and the one that came; newest: when the change before this one was."""
    before, after = versions
    change = world.versions.settled("core")
    verdict = change["verdict"] if change["atMs"] != newest else None
    if verdict not in ends or (verdict == ROLLED_BACK and why not in change["cause"]):
        raise Broken(f"the upgrade of the core ended {verdict} ({change.get('cause')}), allowed: {ends} with {why!r}")
    wanted = after if verdict == PROMOTED else before
    if program_of(world.pid("core")) != wanted:
        raise Broken(f"{verdict}, and {program_of(world.pid('core'))} runs, not {wanted}")


def scenario(fault, word="good", when=at_once, do=nothing, probation_ms=SHORT_MS, ends=KEPT, why="", hits="core", short=False, bound_s=8):
    def act(trial):
        world = trial.world
        path = world.versions.program("core", word, str(next(NUMBERS)))
        newest = next((change["atMs"] for change in world.versions.of("core").get("changes", ())), None)
        before = program_of(world.pid("core"))
        world.versions.upgrade("core", path, probation_ms)
        when(world, path)
        do(trial, path)
        trial.back(time.monotonic())
        judge(world, (before, str(path)), newest, ends, why)
    return Scenario(fault, "core", when.__name__.replace("_", " "), act, world="upgrade", hits=frozenset({hits}), bound_s=bound_s, again=ends != KEPT,
                    long=not short)


SCENARIOS = [
    scenario("upgrade to a good program of", short=True),
    scenario("upgrade to one that crashes of", "crashes", ends=BACK, why="before it was ready", short=True),
    scenario("upgrade to one that hangs of", "hangs", ends=BACK, why="it was not ready in its start timeout", bound_s=12),
    scenario("upgrade to one that dies of", "dies", probation_ms=HELD_MS, ends=BACK, why="it ended by signal 4 on probation", short=True),
    scenario("upgrade to one that stalls of", "stalls", probation_ms=HELD_MS, ends=BACK, why="it gave no sign of life", bound_s=12),
    scenario("order back the upgrade of", when=probation, do=order_back, probation_ms=HELD_MS, ends=BACK, why="ordered"),
    scenario("kill the leaving one, upgrade of", do=kill_leaving),
    *(scenario("kill the candidate, upgrade of", when=when, do=kill_candidate, probation_ms=HELD_MS, ends=BACK, why="it ended by signal 9")
      for when in (starting, probation)),
    *(scenario("kill the supervisor, upgrade of", when=when, do=kill_supervisor, probation_ms=HELD_MS, ends=UNDONE, why="the gateway ended",
               hits="supervisor") for when in (at_once, starting, probation)),
    *(scenario(f"kill {module}, upgrade of", when=when, do=kill_module(module), short=(when, module) == (starting, "rest"))
      for when in (starting, probation) for module in ("mcp", "rest", "hello")),
    *(scenario(f"pause the {do.__name__.removeprefix('pause_')}, upgrade of", when=when, do=do, ends=EITHER)
      for when in (starting, probation) for do in (pause_candidate, pause_supervisor)),
]

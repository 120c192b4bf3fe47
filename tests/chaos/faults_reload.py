"""kill -9 and SIGSTOP while the supervisor reads its file again (SIGHUP): hello has another environment in it, so it is stopped and started, and then
the core is restarted. Whoever is hit at whatever moment: the new file is in force afterwards, as a whole, and nobody else notices. A file
that is refused changes nothing."""
import contextlib
import itertools
import os
import pathlib
import signal
import time

import procs
import yaml
from common import Broken
from harness.processes import wait_until
from trial import Scenario

CHANGED, KEY = "hello", "CHAOS_TURN"
DELAYS_MS = (0, 30)
PAUSE_S = 0.3
NUMBERS = itertools.count(1)


def rewrite(world, **keys):
    """The file with these keys of the changed module, and the order to read it."""
    for module in world.gateway.config["modules"]:
        if module["id"] == CHANGED:
            module.update(keys)
    world.gateway.config_path.write_text(yaml.safe_dump(world.gateway.config, sort_keys=False))
    os.kill(world.supervisor_pid, signal.SIGHUP)


def in_force(world, number):
    """The changed module runs with the new environment, as the kernel says."""
    with contextlib.suppress(OSError, KeyError):
        return f"{KEY}={number}\0".encode() in pathlib.Path(f"/proc/{world.pid(CHANGED)}/environ").read_bytes()
    return False


def kill(trial, victim):
    world = trial.world
    if victim == "supervisor":
        world.gateway.process.child.kill()
        world.gateway.process.child.wait()
        return world.start_again()
    with contextlib.suppress(KeyError, ProcessLookupError):  # it may be on its way out already, or not be there yet
        procs.kill_and_wait(world.processes()[victim]["pid"])
    return time.monotonic()


def pause(trial, victim):
    with procs.stopped(trial.world.pid(victim)):
        time.sleep(PAUSE_S)
    return time.monotonic()


def changed(do, victim, delay_ms):
    def act(trial):
        world, number = trial.world, next(NUMBERS)
        rewrite(world, env={KEY: str(number)})
        time.sleep(delay_ms / 1000)
        moment = do(trial, victim)
        try:
            wait_until(lambda: in_force(world, number), "the new file to be in force", 20)
        except AssertionError as error:
            raise Broken(str(error)) from None
        world.wait_ready()
        trial.back(moment, CHANGED)
    return act


def refused(trial):
    """A program that is not there: the file before stays in force."""
    world = trial.world
    before, config = world.processes(), dict(next(module for module in world.gateway.config["modules"] if module["id"] == CHANGED))
    program = f"/nonexistent/program{next(NUMBERS)}"
    rewrite(world, binary=program)
    wait_until(lambda: program in world.gateway.log(), "the file to be refused", 10)
    now = world.processes()
    if any(now[name]["pid"] != before[name]["pid"] for name in before):
        raise Broken(f"a file was refused, and processes changed: {before} {now}")
    for module in world.gateway.config["modules"]:
        if module["id"] == CHANGED:
            del module["binary"]
            module.update(config)
    rewrite(world)
    trial.back(time.monotonic(), CHANGED)


SCENARIOS = [
    *(Scenario(f"kill {victim}, file read again:", CHANGED, f"+{delay}ms", changed(kill, victim, delay), hits=frozenset({CHANGED, "core", victim}),
               bound_s=8, again=True) for victim in ("core", "supervisor", CHANGED, "rest") for delay in DELAYS_MS),
    *(Scenario(f"pause {victim}, file read again:", CHANGED, "+0ms", changed(pause, victim, 0), hits=frozenset({CHANGED, "core"}), bound_s=8, again=True)
      for victim in ("core", "supervisor")),
    Scenario("refuse a file for", CHANGED, "ready", refused, hits=frozenset()),
]

"""kill -9 and SIGSTOP of everybody who takes part in an upgrade, in each of its phases (LIF-9, LIF-10, LIF-12, LIF-13): the core, the supervisor,
the module's current process and the other one, which is the candidate and, when it was promoted, the old one. For a module at a door
and for one behind a door. Whatever was hit: the upgrade ends by itself, as the table says, and the program that was decided for serves."""
import itertools
import time

import procs
from common import Broken
from harness.processes import wait_until
from trial import ANEW_S, Scenario
from versions import LATE, LINGERS, PROMOTED, ROLLED_BACK
from world import UPGRADABLE

PAUSE_S = 0.3
HELD_MS = 60000  # a probation that ends only when something happens
SHORT_MS = 500
NUMBERS = itertools.count(2)


def starting(world, module, program, held_ms):
    """It serves only when it is let go (late)."""
    world.versions.hold(program, LATE, LINGERS)
    world.versions.upgrade(module, program, held_ms)
    wait_until(lambda: world.versions.beside(module), "the candidate's process", 20, pause_s=0.002)
    return world.versions.wait_phase(module, "starting")


def probation(world, module, program, held_ms):
    """One that is short may have ended well when it is looked for: then the old one, which lingers, is met on its way out."""
    world.versions.upgrade(module, program, held_ms)
    return world.versions.wait_phase(module, "probation", *(["retiring"] if held_ms == SHORT_MS else []))


def retiring(world, module, program, _):
    """Promoted at once; the old one begins to drain only when it is let go (lingers)."""
    world.versions.upgrade(module, program, 1)
    return world.versions.wait_phase(module, "retiring")


def rolling_back(world, module, program, _):
    """Taken back by an operator on probation; it begins to drain only when it is let go."""
    probation(world, module, program, HELD_MS)
    world.admin.order("Rollback", module)
    return world.versions.wait_phase(module, "rolling back")


PHASES = {"starting": starting, "probation": probation, "retiring": retiring, "rolling back": rolling_back, "long probation": probation}
VICTIMS = ("core", "supervisor", "current", "other")
EITHER = {PROMOTED, ROLLED_BACK}
UNDONE = {None, ROLLED_BACK}  # with everything else; a core that ends as well may have seen its modules go

# (phase, who was killed): how the upgrade may end. Killing who is judged by nobody leaves it as it was.
KILLED = {
    ("starting", "core"): {ROLLED_BACK}, ("starting", "supervisor"): UNDONE, ("starting", "current"): EITHER, ("starting", "other"): {ROLLED_BACK},
    ("probation", "core"): {ROLLED_BACK}, ("probation", "supervisor"): UNDONE, ("probation", "current"): EITHER, ("probation", "other"): {ROLLED_BACK},
    ("long probation", "other"): {ROLLED_BACK},
}
DECIDED = {"retiring": {PROMOTED}, "rolling back": {ROLLED_BACK}}  # whoever dies


def process_of(world, module, victim):
    """(pid, generation) of a victim."""
    if victim == "other":
        beside = world.versions.beside(module)
        if not beside:
            raise Broken(f"there is no second process of {module}: {world.versions.of(module)}")
        return beside["pid"], int(beside["generation"])
    if victim == "current":
        process = world.processes()[module]
        return process["pid"], int(process["generation"])
    return world.pid(victim), 0


def kill(trial, module, victim):
    world = trial.world
    if victim == "supervisor":
        world.gateway.process.child.kill()
        world.gateway.process.child.wait()
        return world.start_again()
    pid, generation = process_of(world, module, victim)
    procs.kill_and_wait(pid)
    moment = time.monotonic()
    if victim in ("core", "current"):
        world.note_death(module if victim == "current" else "core", generation)
    return moment


def pause(trial, module, victim):
    pid, _ = process_of(trial.world, module, victim)
    with procs.stopped(pid):
        time.sleep(PAUSE_S)
    return time.monotonic()


def hang(trial, module, victim):
    """Until it was found and is gone."""
    pid, _ = process_of(trial.world, module, victim)
    with procs.stopped(pid):
        wait_until(lambda: procs.state(pid) is None, "a hanging process to be ended", 40)
    return time.monotonic()


def judge(world, module, versions, newest, allowed):
    """How it ended, and that what was decided for is what runs. versions: the one that served and the one that came; newest: when the change
    before this upgrade was."""
    before, after = versions
    change = world.versions.settled(module)
    verdict = change["verdict"] if change["atMs"] != newest else None
    if verdict not in allowed:
        raise Broken(f"the upgrade ended {verdict} ({change.get('cause')}), allowed: {allowed}")
    wanted = after if verdict == PROMOTED else before
    if world.versions.running(module) != wanted:
        raise Broken(f"{verdict}, and {world.versions.running(module)} runs, not {wanted}")
    if world.versions.beside(module):
        raise Broken(f"two processes of {module} are left: {world.processes()}")


def scenario(phase, victim, do, module):
    def act(trial):
        world, number = trial.world, str(next(NUMBERS))
        words = ("late", "lingers", number) if phase == "starting" else ("lingers", number)
        program = world.versions.program(module, *words)
        versions, newest = (world.versions.running(module), ".".join(words)), world.versions.of(module)["changes"][0]["atMs"]
        allowed = DECIDED.get(phase) or (EITHER if do is pause else KILLED[phase, victim])
        # Where the probation may also end well it is short, or the scenario would last as long as it does.
        for each in (world.versions.program(module, *versions[0].split(".")), program):
            world.versions.hold(each, LINGERS)
        trial.state = PHASES[phase](world, module, program, SHORT_MS if PROMOTED in allowed else HELD_MS)
        moment = do(trial, module, victim)
        world.versions.let_go(module)
        trial.back(moment, module)
        judge(world, module, versions, newest, allowed)
    return act


def hits(victim, module, do):
    if do is pause:
        return frozenset()
    return frozenset({victim if victim in ("core", "supervisor") else module})


SCENARIOS = [
    Scenario(f"{do.__name__} {victim}, upgrade of", module, phase, scenario(phase, victim, do, module), world="upgrade", hits=hits(victim, module, do),
             bound_s=ANEW_S, again=do is kill and victim in ("core", "supervisor", "current"))
    for module, phase, victim, do in (*itertools.product(UPGRADABLE, ("starting", "probation", "retiring", "rolling back"), VICTIMS, (kill, pause)),
                                      *((module, "long probation", "other", hang) for module in UPGRADABLE))
]

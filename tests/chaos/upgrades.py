"""Upgrade under load: ./dev chaos --upgrades N [--write]. Good and bad versions of a module take turns, N times, while every door is asked without
a pause and each answer is checked. A good version is promoted; a bad one has to go by itself, for a cause that fits. Every request counts
once: on a good path, where it is right or a failure, or at a bad version, by the version's own word of what it took (odd_version.c).

Ends with a table. Exit status: 0; 1 when a good path failed, a version was not judged rightly, or an audit found something.
"""
import collections
import contextlib
import dataclasses
import json
import random
import time

import procs
from common import Broken, say
from doors import RIGHT
from harness.results import machine, measured, percentile, rewrite
from report import columns, markdown
from timeline import Log
from versions import PROMOTED, ROLLED_BACK
from world import World

BEGIN, END = "<!-- upgrades: written by ./dev chaos --upgrades N --write -->", "<!-- end of upgrades -->"
PROBATION_MS = 250  # of a good version
WATCHED_MS = 20000  # at most, of a bad one: its fault ends it before
PACE_S = 0.002
KEEPS = (True, False, False, False)  # clients at the door: one keeps its connection
AUDIT_EVERY = 100
START_MS = 1500  # one that hangs in its warm-up is known by then


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of version: the word for odd_version.c, and what the cause of its end may say, one of these; none for a good one."""
    title: str
    word: str = ""
    causes: tuple = ()


GOOD = Kind("good")
BAD = (Kind("crashes at its start", "crashes", ("signal 4 (ILL)",)), Kind("hangs in its warm-up", "hangs", ("not ready in time",)),
       Kind("crashes on probation", "dies", ("signal 4 (ILL)", "connection ended")),  # whichever the core hears of first
       Kind("leaks", "leaks", ("it grew by",)), Kind("5 % of its requests fail", "errs", ("requests failed", "the core saw failed")),
       Kind("slow", "slow", ("of its requests took", "the core saw took")))
MODULES = ("mcp", "rest")


@dataclasses.dataclass
class Turn:
    """One upgrade and what was seen meanwhile."""
    module: str
    kind: Kind
    verdict: str
    cause: str
    seconds: float
    right: int            # on good paths
    failures: list        # on good paths: outcome and answer
    bad: collections.Counter  # answers of the bad version, by outcome
    door: int             # requests at the door of that module


def taken(lines):
    """What a bad version took, by its own word: {"accepted": {ports}, "invoking": {numbers}}."""
    found = collections.defaultdict(set)
    for line in lines:
        if line.startswith('{"odd"'):
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                found[told["odd"]].add(told["value"])
    return found


def turn(world, log, module, kind, number):
    """One upgrade to its end."""
    program = world.versions.program(module, *((kind.word,) if kind.word else ("good", str(number % 2))))
    for door in world.doors.values():
        door.take()
    log.new()
    start = time.monotonic()
    world.versions.upgrade(module, program, WATCHED_MS if kind.word else PROBATION_MS)
    change = world.versions.settled(module, 40)
    seconds = time.monotonic() - start
    if change["to"] != str(program):
        raise Broken(f"the newest change is not of {program}: {change}")
    seen = {}
    for name, door in world.doors.items():  # what is under way is answered by now or soon: nothing is asked while it is counted
        door.hold()
        seen[name] = door.take()
        door.release()
    own, right, failures, bad = taken(log.new()), 0, [], collections.Counter()

    def is_its_own(asked):
        return asked.port in own["accepted"] if module == "mcp" else asked.number in own["invoking"]
    for name, door in seen.items():
        for asked in door.asked:
            if name == "mcp" and is_its_own(asked):
                bad[asked.outcome] += 1
            elif asked.outcome == RIGHT:
                right += 1
            else:
                failures.append(f"{name}: {asked.outcome} {asked.detail}")
    return Turn(module, kind, change["verdict"], change["cause"], seconds, right, failures, bad, len(seen["mcp"].asked))


def fitting(one):
    """Which of the causes that fit was told, or ""."""
    return next((cause for cause in one.kind.causes if cause in one.cause), "")


def judged_rightly(one):
    return one.verdict == ROLLED_BACK and bool(fitting(one)) if one.kind.word else one.verdict == PROMOTED


def weights(world):
    """{process: resident MB} of the two that go through all of it."""
    return {name: procs.resident_bytes(world.pid(name)) / (1 << 20) for name in ("supervisor", "core")}


def run(count, seed):
    """(turns, problems beside them, weights at the beginning and the end). Good and bad take turns; modules and kinds go round, so that each
    meets each."""
    turns, problems, rng = [], [], random.Random(seed)
    order = [(module, kind) for kind in BAD for module in MODULES]
    with contextlib.closing(World("upgrade", PACE_S, KEEPS, START_MS)) as world:
        log, before = Log(world), weights(world)
        for number in range(count):
            if number % (2 * len(order)) == 0:
                rng.shuffle(order)
            module, bad = order[number // 2 % len(order)]
            one = turn(world, log, module, bad if number % 2 else GOOD, number // 2)
            turns.append(one)
            if one.failures or not judged_rightly(one):
                say(f"turn {number + 1}, {module} {one.kind.title}: {one.verdict} ({one.cause}), {len(one.failures)} failed: {one.failures[:3]}")
            if (number + 1) % AUDIT_EVERY == 0 or number + 1 == count:
                problems += world.audit(with_log=False)
                say(f"{number + 1} of {count}, {sum(len(each.failures) for each in turns)} requests failed on good paths"
                    + "".join(f"\n    {problem}" for problem in problems))
        return turns, problems, (before, weights(world))


HEAD = ["version", "upgrades", "promoted", "rolled back by itself", "seconds p50", "p99", "slowest", "right on good paths", "failed there", "its own answers: right",
        "not right", "share it took", "cause"]


def row(title, group):
    own = sum((one.bad for one in group), collections.Counter())
    doors, took = sum(one.door for one in group), [one.seconds for one in group]
    verdicts = collections.Counter(one.verdict for one in group)
    causes = collections.Counter(fitting(one) for one in group if fitting(one))
    bad = sum(1 for one in group if one.kind.word)
    return [title, str(len(group)), f"{verdicts[PROMOTED]}", f"{verdicts[ROLLED_BACK]} of {bad}" if bad else "-", f"{percentile(took, 0.5):.2f}",
            f"{percentile(took, 0.99):.2f}", f"{max(took):.2f}", str(sum(one.right for one in group)), str(sum(len(one.failures) for one in group)),
            str(own[RIGHT]) if bad else "-", str(own.total() - own[RIGHT]) if bad else "-", f"{100 * own.total() / doors:.1f} %" if bad else "-",
            ", ".join(f"“{cause}” {count}" for cause, count in causes.items()) if title != "all" else ""]


def table(turns):
    lines = [HEAD]
    for kind in (GOOD, *BAD):
        for module in MODULES:
            group = [one for one in turns if one.kind == kind and one.module == module]
            if group:
                lines.append(row(f"{module}: {kind.title}", group))
    return [*lines, row("all", turns)]


def grown(before, after):
    return ", ".join(f"{name} from {before[name]:.1f} to {after[name]:.1f} MB" for name in before)


def page(lines, count, seconds, facts, weighed):
    return (f"{measured(facts)} {count} upgrades in {seconds / 60:.0f} minutes on one gateway; resident memory: {grown(*weighed)}.\n\n"
            + markdown(lines, words=1))


def main(options):
    start, facts = time.monotonic(), machine()
    say(f"{options.upgrades} upgrades, --seed {options.seed}")
    turns, problems, weighed = run(options.upgrades, options.seed)
    lines, seconds = table(turns), time.monotonic() - start
    print(columns(lines))
    failed, wrong = sum(len(one.failures) for one in turns), [one for one in turns if not judged_rightly(one)]
    asked = sum(one.right + len(one.failures) + one.bad.total() for one in turns)
    print(f"\n{len(turns)} upgrades in {seconds:.0f} s, {asked} requests, {failed} failed on good paths, {len(wrong)} versions judged wrongly, seed {options.seed}")
    print(f"resident memory: {grown(*weighed)}")
    for problem in problems:
        print(f"audit: {problem}")
    if options.write:
        rewrite("chaos.md", BEGIN, END, lambda _: page(lines, len(turns), seconds, facts, weighed))
    return 1 if failed or wrong or problems else 0

"""One scenario carried out once: what was done to whom in which state, what every door saw meanwhile, and which promise was broken."""
import dataclasses
import time
import typing

import procs
from admin import Refused
from common import Broken
from doors import REFUSED, WRONG, serves_again_ms
from harness.processes import Stalls
from timeline import Timeline
from world import DOOR_OF, excused, permitted

BOUND_S = 4.0  # one process may stall for two seconds meanwhile
ANEW_S = 6.0  # everything starts: supervisor, core and modules, one after another
LOG_S = 5
CALM_RIGHT = 3  # right answers to each client after the dust has settled


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A row of a table. act(trial) does it; hits: who may be noticed at the doors (the victim, where nothing else is said)."""
    fault: str
    victim: str
    state: str
    act: typing.Callable
    world: str = "gate"
    hits: frozenset = None
    bound_s: float = BOUND_S
    again: bool = False  # it dies so often that its next restart would wait: the pauses are forgotten afterwards
    needs: typing.Callable = lambda: None  # why it cannot be done here, or None
    long: bool = False  # only in the runs that last (--minutes), or when it is named (--only)
    known: str = ""  # a fault of the product that is known: why this fails today

    @property
    def name(self):
        return f"{self.fault} {self.victim} {self.state}"


class Trial:
    def __init__(self, world, scenario, rng):
        self.world, self.scenario, self.rng = world, scenario, rng
        self.hits = set(scenario.hits if scenario.hits is not None else {scenario.victim})
        self.state, self.back_ms, self.problems = scenario.state, None, []
        self.counts, self.codes, self.slowest_ms, self.before = {}, {}, 0.0, {}
        self.seconds, self.stalls = 0.0, Stalls()

    # ---- for the scenarios ----

    def kill(self, name=None, number=9):
        return self.world.kill(name or self.scenario.victim, number)

    def back(self, since, name=None):
        """Waits for the first right answer of the victim's door; the time counts."""
        caller = self.world.caller(DOOR_OF[name or self.scenario.victim])
        try:
            self.back_ms = serves_again_ms(caller, since, self.scenario.bound_s + 20)
        finally:
            caller.close()
        bound_ms = (self.scenario.bound_s + self.stalls.between(since, since + self.back_ms / 1000)) * 1000
        if self.back_ms > bound_ms:
            raise Broken(f"served again only after {self.back_ms:.0f} ms, the bound is {bound_ms:.0f}")

    # ---- running ----

    def calm(self):
        """Everything serves, and has been seen to."""
        self.world.wait_ready()
        self.world.answered(CALM_RIGHT)

    def run(self):
        begin = time.monotonic()
        try:
            self.calm()
            for door in self.world.doors.values():
                door.take()
            self.world.ledger.take()
            self.world.log.new()
            self.before = self.world.processes()
            with self.stalls:
                self.scenario.act(self)
            self.calm()
        except (Broken, AssertionError, Refused, ConnectionError, OSError, KeyError) as broken:
            self.problems.append(f"{type(broken).__name__}: {broken}"[:1500])
        self.judge()
        if self.scenario.again:
            self.forget()
        self.seconds = time.monotonic() - begin
        return self

    def forget(self):
        """Whatever happens in an ordered restart belongs to no scenario but this one."""
        try:
            self.world.forget(self.scenario.victim)
        except (Broken, AssertionError, Refused, OSError, KeyError) as broken:
            self.problems.append(f"afterwards: {type(broken).__name__}: {broken}"[:1500])

    def timeline(self):
        """Of a trial that came to its end the log tells until everybody serves: the supervisor may pass on late what the others wrote."""
        lines, end = [], time.monotonic() + (0 if self.problems else LOG_S)
        while True:
            lines += self.world.log.new()
            timeline = Timeline(lines, self.before, procs.KILLED)
            if timeline.serving() >= {"core", *self.world.modules} or time.monotonic() >= end:
                return timeline
            time.sleep(0.02)

    def judge(self):
        allowed, timeline = permitted(self.hits), self.timeline()
        for name, door in self.world.doors.items():
            seen = door.take()
            self.counts[name] = dict(seen.counts)
            for code, count in seen.codes.items():
                self.codes[code] = self.codes.get(code, 0) + count
            for outcome in seen.counts.keys() - allowed[name]:
                self.problems.append(f"{seen.counts[outcome]} requests at door {name} were {outcome}: {seen.examples[outcome]}")
            hasty = [asked for asked in seen.asked if asked.outcome == REFUSED and REFUSED in allowed[name]
                     and not excused(timeline, name, asked, self.hits, self.world.modules)]
            if hasty:
                self.problems.append(f"{len(hasty)} requests at door {name} were refused and could have been served, the first at "
                                     f"{hasty[0].began:.3f} after {(hasty[0].ended - hasty[0].began) * 1000:.0f} ms: {hasty[0].detail}; {timeline}")
            if allowed[name] == {"right"}:
                self.slowest_ms = max(self.slowest_ms, seen.slowest_ms)
        failures = self.world.ledger.take()
        if failures and not self.hits & {"core", "supervisor", "store"}:
            self.problems.append(f"{len(failures)} writes of an operator failed: {failures[0]}")
        assert WRONG not in allowed["mcp"]

    def result(self):
        """Plain data, for another process."""
        scenario = self.scenario
        return {"fault": scenario.fault, "victim": scenario.victim, "aim": scenario.state, "state": self.state, "world": scenario.world,
                "back_ms": self.back_ms, "problems": self.problems, "counts": self.counts, "codes": self.codes, "known": scenario.known,
                "slowest_ms": self.slowest_ms, "seconds": self.seconds, "elsewhere": sorted(
                    name for name, allowed in permitted(self.hits).items() if allowed == {"right"})}


def state_at_death(world, module, generation):
    """The state in which that life of a module was when it ended, from its history."""
    for entry in world.admin.describe(module).get("history", []):  # newest first
        if int(entry.get("generation", 0)) == generation and entry["toState"] in ("failed", "stopped"):
            unseen = (entry["fromState"], entry["toState"]) == ("discovered", "stopped")  # its socket had not been found
            return "starting" if unseen else entry["fromState"]
    return "starting"


def was(world, module, generation, state):
    """Whether that life of a module was ever in this state, from its history."""
    return any(int(entry.get("generation", 0)) == generation and entry["toState"] == state for entry in world.admin.describe(module).get("history", []))

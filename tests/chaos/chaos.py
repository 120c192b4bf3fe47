"""The chaos scenarios' one command: ./dev chaos [--minutes N] [--seed S]. See docs/chaos.md for what is promised and what is tried.

Without --minutes every scenario runs once; with it, scenarios are picked at random until the time is over. Ends with a table of the
numbers. Exit status: 0; 1 when a promise was broken; 2 when nothing could be run.
"""
import argparse
import collections
import multiprocessing
import pathlib
import random
import signal
import sys
import time
import traceback

import faults_core_upgrade
import faults_corrupt
import faults_kill
import faults_partition
import faults_reload
import faults_starve
import faults_stop
import faults_upgrade
import quarantine
import report
import states_odd
import upgrades
from common import say
from harness import gateway as gateways
from harness.results import machine, measured, rewrite
from trial import Trial
from world import World

TABLES = (faults_kill, faults_stop, faults_starve, faults_corrupt, faults_partition, faults_upgrade, faults_core_upgrade, faults_reload, states_odd, quarantine)
SCENARIOS = [scenario for table in TABLES for scenario in table.SCENARIOS]
STACKS = {"gate": 2, "odd": 1, "quarantine": 1, "upgrade": 2}  # gateways that run side by side
BEGIN, END = "<!-- trials: written by ./dev chaos --minutes N --write -->", "<!-- end of trials -->"
AUDIT_EVERY = 25  # trials, between two audits of one gateway


def arguments():
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, help="pick scenarios at random for so long; default: every scenario once")
    parser.add_argument("--seed", type=int, help="of the choice; default: a new one, which is printed")
    parser.add_argument("--only", metavar="TEXT", default="", help="scenarios whose name contains this")
    parser.add_argument("--list", action="store_true", help="the scenarios' names, and nothing is run")
    parser.add_argument("--upgrades", type=int, metavar="N", help="instead: N upgrades to good and bad versions in turn, and a table of them")
    parser.add_argument("--write", action="store_true", help="with --minutes or --upgrades: put the table into docs/chaos.md")
    parser.add_argument("--junit", type=pathlib.Path, help="write a report for machines here")
    parser.add_argument("--verbose", action="store_true", help="a line for each scenario")
    options = parser.parse_args()
    options.seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    every = options.minutes or options.only or options.list
    options.scenarios = [scenario for scenario in SCENARIOS if options.only in scenario.name and (every or not scenario.long)]
    if not options.scenarios:
        parser.error(f"no scenario's name contains {options.only!r}")
    return options


def share(scenarios, seed):
    """[(world, its scenarios)]: one for each gateway. Neighbours in the tables hit the same process: they are mixed."""
    shares = []
    for kind, count in STACKS.items():
        mine = [scenario for scenario in scenarios if scenario.world == kind]
        random.Random(seed).shuffle(mine)
        shares += [(kind, part) for part in (mine[number::count] for number in range(count)) if part]
    return shares


class Worker:
    """One gateway and the trials that it goes through; a gateway that does not come to rest is replaced, so that one fault is told once."""

    def __init__(self, kind, scenarios, number, options, tell):
        self.kind, self.scenarios, self.options, self.tell = kind, scenarios, options, tell
        self.rng = random.Random(f"{options.seed}/{number}")
        self.world, self.since_audit = None, 0

    def choice(self):
        if self.options.minutes is None:
            yield from self.scenarios
            return
        end = time.monotonic() + self.options.minutes * 60
        while time.monotonic() < end:
            yield self.rng.choice(self.scenarios)

    def run(self):
        try:
            for scenario in self.choice():
                reason = scenario.needs()
                if reason:
                    self.tell({"fault": scenario.fault, "victim": scenario.victim, "aim": scenario.state, "skipped": reason})
                    continue
                self.world = self.world or World(self.kind)
                result = Trial(self.world, scenario, self.rng).run().result()
                self.tell(result)
                self.since_audit += 1
                if self.since_audit >= AUDIT_EVERY:
                    self.audit()
                if result["problems"]:
                    self.drop(result["problems"])
            if self.world:
                self.audit()
        finally:
            self.drop()

    def audit(self):
        start, self.since_audit = time.monotonic(), 0
        problems = self.world.audit()
        self.tell({"fault": "audit of", "victim": f"the gateway ({self.kind})", "aim": "settled", "state": "settled", "world": self.kind, "back_ms": None,
                   "problems": problems, "counts": {}, "codes": {}, "known": "", "slowest_ms": 0.0, "elsewhere": [],
                   "seconds": time.monotonic() - start, "acknowledged": self.world.ledger.take_acknowledged()})
        if problems:
            self.drop(problems)

    def drop(self, problems=()):
        if not self.world:
            return
        if problems:
            path = pathlib.Path(gateways.BIN).parent / "chaos" / f"{self.kind}-{time.time_ns()}.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(problems) + "\n\n" + self.world.gateway.log(), encoding="utf-8")
            say(f"the gateway's log is in {path}")
        world, self.world, self.since_audit = self.world, None, 0
        world.close()


def worker_main(kind, scenarios, number, options, queue):
    try:
        Worker(kind, scenarios, number, options, queue.put).run()
    except BaseException:  # pylint: disable=broad-exception-caught  told to the parent, which fails
        queue.put({"crash": traceback.format_exc()})
    queue.put(None)


def run(options):
    """Every result, and what went wrong beside the scenarios."""
    context, results, crashes = multiprocessing.get_context("fork"), [], []
    queue = context.Queue()
    shares = share(options.scenarios, options.seed)
    workers = [context.Process(target=worker_main, args=(kind, part, number, options, queue), daemon=True) for number, (kind, part) in enumerate(shares)]
    for worker in workers:
        worker.start()
    running = len(workers)
    while running:
        result = queue.get()
        if result is None:
            running -= 1
        elif "crash" in result:
            crashes.append(result["crash"])
        else:
            results.append(result)
            show(result, options.verbose)
    for worker in workers:
        worker.join()
    return results, crashes


def show(result, verbose):
    name = f"{result['fault']} {result['victim']}, {result['aim']}"
    if result.get("problems"):
        say(f"{'known to fail' if result['known'] else 'BROKEN'}: {name}" + "".join(f"\n    {problem}" for problem in result["problems"])
            + (f"\n    known: {result['known']}" if result["known"] else ""))
    elif verbose and "skipped" not in result:
        back = "" if result["back_ms"] is None else f" back in {result['back_ms']:.0f} ms"
        say(f"{name}: {result['state']},{back} {result['seconds']:.1f} s")


def main():
    options = arguments()
    if options.list:
        print("\n".join(scenario.name + (f"  (known to fail: {scenario.known})" if scenario.known else "")
                        + ("  (only with --minutes or --only)" if scenario.long else "") for scenario in options.scenarios))
        return 0
    absent = gateways.missing()
    if absent:
        say(absent)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # of the workers too: each puts its gateway away
    if options.upgrades:
        return upgrades.main(options)
    say(f"{len(options.scenarios)} scenarios, " + ("each once" if options.minutes is None else f"{options.minutes:g} minutes") + f", --seed {options.seed}")
    start, facts = time.monotonic(), machine()
    results, crashes = run(options)
    trials = [result for result in results if "acknowledged" not in result]
    print(report.columns(report.table(trials, "victim", "fault")))
    print("\nstates in which each was hit:\n" + report.coverage(trials))
    codes = sum((collections.Counter(result.get("codes", {})) for result in results), collections.Counter())
    print("\nrefusals: " + ", ".join(f"{code} {count}" for code, count in codes.most_common()))
    lost = any("acknowledged and lost" in problem for result in results for problem in result.get("problems", ()))
    writes = f"writes acknowledged: {sum(result.get('acknowledged', 0) for result in results)}, lost: {'SOME' if lost else 'none'}"
    print(writes)
    for reason, count in collections.Counter(result["skipped"] for result in results if "skipped" in result).items():
        print(f"skipped {count}: {reason}")
    broken = [result for result in results if result.get("problems") and not result["known"]]
    for crash in crashes:
        say(f"the runner itself failed:\n{crash}")
        results.append({"fault": "the runner", "victim": "itself", "aim": "", "problems": [crash], "known": ""})
    if options.junit:
        report.junit(options.junit, results)
    verdict = (f"{len(results)} trials and audits in {time.monotonic() - start:.0f} s, seed {options.seed}: "
               + (f"{len(broken) + len(crashes)} broke a promise" if broken or crashes else "every promise was kept"))
    print(verdict)
    if options.write and options.minutes:
        rewrite("chaos.md", BEGIN, END, lambda _: f"{measured(facts)} {verdict}; {writes}.\n\n" + report.markdown(report.table(trials, "victim")))
    return 1 if broken or crashes else 0


if __name__ == "__main__":
    sys.exit(main())

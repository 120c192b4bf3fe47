"""What the benchmarks share: processes that are measured, pinning, medians of interleaved rounds, and facts of the machine.

Rules: a baseline and what is compared with it run in the same interleaved rounds; a value is the median of the rounds; every payload is
checked, and one wrong payload ends the benchmark.
"""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("GATEHOUSE_BUILD", ROOT / "build"))
PROGRAMS = BUILD / "bench"
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from harness.results import machine, percentile  # noqa: E402,F401  pylint: disable=wrong-import-position,unused-import

CPUS = sorted(os.sched_getaffinity(0))
PINNED = CPUS[-1:]


class Failure(Exception):
    """A measurement that would be wrong: a payload, a missing program, a process that ended."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def program(name):
    path = PROGRAMS / name
    if not path.exists():
        raise Failure(f"not built: {path}")
    return path


class Directory:
    """A short-named directory for sockets, gone at the end."""

    def __enter__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="ghb"))
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


class Child:
    """One process that was started here and is ended by its id. With ready, waits for its line "ready"."""

    def __init__(self, command, ready=False, **options):
        self.command = [str(word) for word in command]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
        self.pid = self.process.pid
        if ready and self.process.stdout.readline() != "ready\n":
            raise Failure(f"did not start: {' '.join(self.command)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def ask(self, *words):
        """One command line of measure.h; its checked result."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return checked(self.process.stdout.readline(), self.command[0])


def checked(line, who):
    """The result in one line of JSON; every payload must have been right."""
    if not line:
        raise Failure(f"{who} ended in the middle of a run")
    result = json.loads(line)
    if result["errors"] or not result["calls"]:
        raise Failure(f"{who}: wrong or missing payloads: {result}")
    return result


def pin(pids, cpus):
    """Every thread of these processes onto these CPUs."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cpus)


def medians(rounds):
    """The median of each number over the results of several rounds."""
    return {key: statistics.median(result[key] for result in rounds) for key in rounds[0]}


def cpu_us(pid):
    """CPU time of a process so far, all its threads that live, in microseconds."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1000


def pss_kb(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


class Row:
    """One line of the result: what was measured, against what, and whether that is within the budget.

    budget: None, or (value that is compared: "ratio" or "measured", "<=" or ">=", limit).
    """

    def __init__(self, name, measured, unit, baseline=None, baseline_name="", budget=None, note=""):
        self.name, self.measured, self.unit, self.note = name, measured, unit, note
        self.baseline, self.baseline_name, self.budget = baseline, baseline_name, budget
        self.ratio = measured / baseline if baseline else None

    def verdict(self):
        if self.budget is None:
            return ""
        which, relation, limit = self.budget
        value = self.ratio if which == "ratio" else self.measured
        return "pass" if (value <= limit if relation == "<=" else value >= limit) else "MISS"

    def data(self):
        return {"name": self.name, "measured": self.measured, "unit": self.unit, "baseline": self.baseline,
                "baseline_name": self.baseline_name, "ratio": self.ratio,
                "budget": self.budget and {"of": self.budget[0], "relation": self.budget[1], "limit": self.budget[2]},
                "verdict": self.verdict(), "note": self.note}

#!/usr/bin/python3
"""Runs the libFuzzer targets of a build directory and says what came of each.

Usage: run.py BUILD_DIR [--seconds N] [--jobs N] [--junit FILE] [TARGET...]

Each target starts from tests/fuzz/corpus/<target>/ and what earlier runs found (BUILD_DIR/corpus/<target>/). What breaks one is
kept as BUILD_DIR/findings/<target>-…: bring it into tests/fuzz/corpus/ with the fix. Exits 1 when a target broke, 64 for a name
that is no target.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

SEEDS = pathlib.Path(__file__).resolve().parent / "corpus"
GRACE_S = 60


def run_target(build, name, seconds):
    """(name, seconds it took, what it did, output when it broke)."""
    corpus, findings = build / "corpus" / name, build / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    command = [build / "fuzz" / f"fuzz.{name}", f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048",
               "-max_len=16384", "-print_final_stats=1", f"-artifact_prefix={findings}/{name}-", corpus]
    if (SEEDS / name).is_dir():
        command.append(SEEDS / name)
    start = time.monotonic()
    try:
        done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", timeout=seconds + GRACE_S, check=False, cwd=build)
        status, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        status, output = 1, f"did not end within {GRACE_S} s of its time"
    executed = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    covered = re.findall(r"cov: (\d+)", output)
    summary = f"{int(executed.group(1)) if executed else 0:>9} inputs  {covered[-1] if covered else 0:>6} edges"
    if status == 0 and not executed:
        status, output = 1, output + "\nno inputs were run"
    return name, time.monotonic() - start, summary, output if status else None


def write_junit(path, results):
    suite = ElementTree.Element("testsuite", name="fuzz", tests=str(len(results)))
    for name, took, summary, broken in results:
        case = ElementTree.SubElement(suite, "testcase", classname="fuzz", name=name, time=f"{took:.1f}")
        ElementTree.SubElement(case, "system-out").text = summary
        if broken:
            clean = re.sub(r"[^\t\n\x20-\x7e]", "?", broken[-8000:])
            ElementTree.SubElement(case, "failure", message=f"{name} broke").text = clean
    ElementTree.ElementTree(suite).write(path)


def main():
    parser = argparse.ArgumentParser(description="run libFuzzer targets")
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--junit", type=pathlib.Path)
    options = parser.parse_intermixed_args()
    build = options.build.resolve()
    known = sorted(path.name.removeprefix("fuzz.") for path in (build / "fuzz").glob("fuzz.*"))
    unknown = [name for name in options.targets if name not in known]
    if unknown or not known:
        print(f"no such target: {' '.join(unknown)}; there are: {' '.join(known)}", file=sys.stderr)
        return 64
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        results = []
        for result in pool.map(lambda name: run_target(build, name, options.seconds), options.targets or known):
            results.append(result)
            name, _, summary, broken = result
            print(f"{name:16} {summary}  {'BROKE' if broken else 'ok'}", flush=True)
            if broken:
                print(broken[-6000:], flush=True)
    if options.junit:
        write_junit(options.junit, results)
    return 1 if any(broken for *_, broken in results) else 0


if __name__ == "__main__":
    sys.exit(main())

"""The benchmarks' one command: ./dev bench [PART...]. See docs/benchmarks.md for what is measured, and how.

Prints tables, writes build/bench/results.json; with --write also puts the tables into docs/benchmarks.md. Exit status: 0, also when a
budget was missed; 1 with --strict when one was; 2 when something could not be measured.
"""
import argparse
import contextlib
import sys

import common
import kill
import mcp
import memory
import report
import spi
import stack
import supervise
from harness.results import rewrite

BEGIN, END = "<!-- results: written by ./dev bench --write -->", "<!-- end of results -->"
TITLES = {"spi": "Calls of a module to the core (SPI)", "mcp": "tools/call over REST", "memory": "Memory and start",
          "kill": "kill -9 and back again", "supervise": "Supervisors: kill -9 to serving, and memory"}

SETTLE_S = 1.1
SETTLE_MIN_S = 1.0  # supervisor/backoff.h: what a life has to last to earn a restart at once


def arguments():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(TITLES)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the median counts (5)")
    parser.add_argument("--milliseconds", type=int, default=1000, help="of one measurement in one round (1000)")
    parser.add_argument("--kills", type=int, default=50, help="of each process (50)")
    parser.add_argument("--settle", type=float, default=SETTLE_S,
                        help=f"seconds of calm between two kills ({SETTLE_S}, at least {SETTLE_MIN_S}: a restart at once is earned by that)")
    parser.add_argument("--quick", action="store_true", help="two rounds of 300 ms, five kills: to see that it works")
    parser.add_argument("--write", action="store_true", help="put the tables of the parts that ran into docs/benchmarks.md")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a budget was missed")
    options = parser.parse_args()
    unknown = set(options.parts) - set(TITLES)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if options.settle < SETTLE_MIN_S:
        parser.error(f"--settle: less than {SETTLE_MIN_S} s is a crash loop to the supervisor, which waits the longer before each restart")
    if options.quick:
        options.rounds, options.milliseconds, options.kills = 2, 300, 5
    options.parts = options.parts or list(TITLES)
    return options


def measure(options):
    """{title: rows}."""
    parts = {"spi": lambda gateway, upstream: spi.run(options, gateway), "mcp": lambda *pair: mcp.run(options, *pair),
             "memory": lambda gateway, upstream: memory.run(options, upstream), "kill": lambda gateway, upstream: kill.run(options, gateway),
             "supervise": lambda gateway, upstream: supervise.run(options, upstream)}
    sections = {}
    with contextlib.ExitStack() as cleanup:
        gateway = upstream = None
        absent = stack.missing()
        if absent:
            if options.parts != ["spi"]:
                raise common.Failure(f"not built: {absent}")
            common.say(f"echoes only, not built: {absent}")
        else:
            upstream = cleanup.enter_context(stack.Upstream())
            if set(options.parts) - {"memory", "supervise"}:  # these two start stacks of their own
                gateway = cleanup.enter_context(stack.Stack(upstream.port, log_level="info")).fill()  # kill reads there who is ready
        for part, title in TITLES.items():
            if part in options.parts:
                sections[title] = parts[part](gateway, upstream)
                print(report.table(title, sections[title]), flush=True)
    return sections


def write_page(texts):
    """texts: {title: table}. What was not measured now stays as it was."""
    def change(old):
        parts = {part.split("\n", 1)[0]: f"### {part.rstrip()}\n" for part in old.split("### ")[1:]}
        parts.update(texts)
        return "\n".join(parts[title] for title in TITLES.values() if title in parts)
    rewrite("benchmarks.md", BEGIN, END, change)


def main():
    options = arguments()
    facts = common.machine()
    try:
        sections = measure(options)
    except common.Failure as failure:
        common.say(failure)
        return 2
    report.write_json(common.BUILD / "bench" / "results.json", sections, facts)
    if options.write:
        write_page({title: report.markdown(title, rows, facts) for title, rows in sections.items()})
    missed = [row.name for rows in sections.values() for row in rows if row.verdict() == "MISS"]
    for name in missed:
        common.say(f"MISS: {name}")
    return 1 if missed and options.strict else 0


if __name__ == "__main__":
    sys.exit(main())

"""Results as a table for people, and as JUnit for the tally of ./dev test."""
import collections
import xml.etree.ElementTree as xml

import common  # noqa: F401  puts the harness on the path
from harness.results import percentile

# What passes within one turn of the core's loop: no fault can be timed to meet it.
TOO_SHORT = {"registered": "left in the same turn of the core in which it is entered"}
MODULE_STATES = ("starting", "discovered", "registered", "initializing", "warming", "ready", "degraded", "draining", "stopping", "stopped",
                 "failed", "backoff", "quarantined")


def milliseconds(values, share):
    return f"{percentile(values, share):.0f}" if values else "-"


def columns(grid):
    widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
    return "\n".join("  ".join(cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(line)).rstrip() for line in grid)


def counted(results, outcomes, elsewhere):
    """Requests of these outcomes at the doors where the fault may (not elsewhere) or may not (elsewhere) be noticed."""
    return sum(count for result in results for door, seen in result["counts"].items() if (door in result["elsewhere"]) == elsewhere
               for outcome, count in seen.items() if outcome in outcomes)


def rows(results, name_of):
    groups = collections.defaultdict(list)
    for result in results:
        if "skipped" not in result:
            groups[name_of(result)].append(result)
    yield from sorted(groups.items())
    yield ("all",), [result for group in groups.values() for result in group]


def table(results, *fields):
    """Lines of cells, the head first: one line for all results that have the same values in these fields."""
    grid = [["what was done", "times", "back p50", "p99", "slowest ms", "right", "refused", "failed", "broken", "elsewhere", "of them not right",
             "slowest ms", "promises broken"]]
    for name, group in rows(results, lambda result: tuple(result[field] for field in fields)):
        back = [result["back_ms"] for result in group if result["back_ms"] is not None]
        grid.append([" ".join(reversed(name)), str(len(group)), milliseconds(back, 0.5), milliseconds(back, 0.99), milliseconds(back, 1),
                     *(str(counted(group, (outcome,), False)) for outcome in ("right", "refused", "failed", "broken")),
                     str(counted(group, ("right", "refused", "failed", "broken", "wrong"), True)),
                     str(counted(group, ("refused", "failed", "broken", "wrong"), True)),
                     f"{max((result['slowest_ms'] for result in group), default=0):.0f}",
                     str(sum(1 for result in group if result["problems"] and not result["known"]))])
    return grid


def markdown(grid, words=0):
    """Lines of cells as Markdown. The first column is words, and the last ones of this number; the others are numbers."""
    return ("| " + " | ".join(grid[0]) + " |\n|---" + "|---:" * (len(grid[0]) - 1 - words) + "|---" * words + "|\n"
            + "".join("| " + " | ".join(line) + " |\n" for line in grid[1:]))


def coverage(results):
    """Which process was hit in which state."""
    met = collections.defaultdict(collections.Counter)
    for result in results:
        if "skipped" not in result:
            met[result["victim"]][result["state"]] += 1
    lines = [f"{victim}: " + ", ".join(f"{state} {count}" for state, count in sorted(states.items())) for victim, states in sorted(met.items())]
    everywhere = set().union(*met.values()) if met else set()
    lines += [f"state {state}: not met ({TOO_SHORT.get(state, 'by none of the scenarios that ran')})" for state in MODULE_STATES if state not in everywhere]
    return "\n".join(lines)


def junit(path, results):
    suite = xml.Element("testsuite", name="chaos", tests=str(len(results)))
    for result in results:
        case = xml.SubElement(suite, "testcase", classname="chaos", name=f"{result['fault']} {result['victim']} {result['aim']}",
                              time=f"{result.get('seconds', 0):.3f}")
        if "skipped" in result:
            xml.SubElement(case, "skipped", message=result["skipped"])
        elif result["problems"] and result["known"]:
            xml.SubElement(case, "skipped", message=f"known to fail: {result['known']}")
        elif result["problems"]:
            xml.SubElement(case, "failure", message=result["problems"][0][:500]).text = "\n".join(result["problems"])
    path.parent.mkdir(parents=True, exist_ok=True)
    xml.ElementTree(suite).write(path, encoding="unicode")

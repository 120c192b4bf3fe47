"""Results as a table for people and as one file of JSON for machines."""
import json

import common  # noqa: F401  puts the integration harness on the path
from harness.results import measured


def number(value):
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cells(row):
    budget = ""
    if row.budget:
        which, relation, limit = row.budget
        budget = f"{'≤' if relation == '<=' else '≥'} {limit:g}{' ×' if which == 'ratio' else ''}"
    baseline = f"{number(row.baseline)} ({row.baseline_name})" if row.baseline else ""
    ratio = f"{row.ratio:.2f} ×" if row.ratio else ""
    return [row.name, f"{number(row.measured)} {row.unit}", baseline, ratio, budget, row.verdict(), row.note]


HEAD = ["", "measured", "baseline", "ratio", "budget", "", "also"]


def markdown(title, rows, machine):
    """One part's table, with the machine and the day."""
    lines = [f"### {title}", "", measured(machine), "",
             "| " + " | ".join(HEAD) + " |", "|---|---:|---:|---:|---:|---|---|"]
    for row in rows:
        values = cells(row)
        if values[5] == "MISS":
            values[5] = "**MISS**"
        lines.append("| " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def table(title, rows):
    """Plain text in columns."""
    grid = [[title] + HEAD[1:]] + [cells(row) for row in rows]
    widths = [max(len(line[i]) for line in grid) for i in range(len(HEAD))]
    out = []
    for line in grid:
        out.append("  ".join(value.ljust(widths[i]) if i in (0, 5, 6) else value.rjust(widths[i]) for i, value in enumerate(line)))
    return "\n".join(text.rstrip() for text in out) + "\n"


def write_json(path, sections, machine):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine, "sections": {title: [row.data() for row in rows] for title, rows in sections.items()}}
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

#!/usr/bin/env python3
"""Writes docs/metrics.md from core/observe/metrics.def and buckets.def (SPI-16).

  metrics.py METRICS_DEF BUCKETS_DEF OUT           write OUT
  metrics.py METRICS_DEF BUCKETS_DEF OUT --check   exit 1 when OUT is not what would be written

Standard library only.
"""
import re
import sys


def fail(message):
    sys.exit(f"metrics.py: {message}")


def read(path):
    return open(path, encoding="utf-8").read()


def read_metrics(path):
    source = read(path)
    body = source[source.index("*/") + 2:]
    rows = re.findall(r'METRIC\(\s*\w+,\s*(\w+),\s*"([^"]*)",\s*"([^"]*)",\s*"([^"]*)"\s*\)', body)
    if not rows or len(rows) != len(re.findall(r"^METRIC\(", body, re.M)):
        fail(f"{path} has a line that this script cannot read")
    return rows


def read_buckets(path):
    rows = re.findall(r'^BUCKET\((\d+), "([0-9.]+)"\)$', read(path), re.M)
    bounds = [int(us) for us, _ in rows]
    if not bounds or bounds != sorted(set(bounds)):
        fail(f"{path}: the bounds do not rise")
    for us, seconds in rows:
        if round(float(seconds) * 1e6) != int(us):
            fail(f"{path}: {us} is not {seconds} s")
    return [seconds for _, seconds in rows]


def render(metrics, buckets):
    out = ["# Metrics", "",
           "Generated from `core/observe/metrics.def` by `docs/generate/metrics.py`; do not edit. The core is the system of "
           "record and answers in Prometheus text format 0.0.4. What modules publish appears as `gatehouse_module_<name>` "
           "with the label `module`. A metric of the core keeps at most 1000 series; what comes later is counted with every "
           "label `other`.", "", "| name | kind | labels | meaning |", "|---|---|---|---|"]
    for kind, name, text, labels in metrics:
        labels = ", ".join(f"`{label}`" for label in labels.split(",")) if labels else "–"
        out.append(f"| `{name}` | {kind.lower()} | {labels} | {text} |")
    out += ["", "A module on the SDK publishes every ten seconds what its `GetStats` answers: `requests_total`, `errors_total`, `in_flight`, "
            "`connections`, the histogram `request_seconds`, and its own numbers; MCP's are `callers`, `sessions`, `upstreams`, "
            "`list_cache_bytes`, `http_connections_total`, `http_connections_refused_total`, `http_requests_refused_total` and "
            "`http_clients_dropped_total`, REST's `clients` and `filtered_total`. What was counted is told once; what a module had not told when "
            "it died is lost."]
    out += ["", "Histograms of the core are durations in seconds with the buckets " + ", ".join(buckets) + " and +Inf."]
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) not in (4, 5):
        fail("usage: metrics.py METRICS_DEF BUCKETS_DEF OUT [--check]")
    text = render(read_metrics(sys.argv[1]), read_buckets(sys.argv[2]))
    if len(sys.argv) == 5:
        try:
            committed = read(sys.argv[3])
        except FileNotFoundError:
            committed = ""
        if committed != text:
            fail(f"{sys.argv[3]} is stale: run {' '.join(sys.argv[:4])}")
    else:
        with open(sys.argv[3], "w", encoding="utf-8") as out:
            out.write(text)


main()

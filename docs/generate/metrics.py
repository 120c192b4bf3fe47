#!/usr/bin/env python3
"""docs/metrics.md from core/observe/metrics.def and buckets.def (SPI-16)."""
import re

import page

BUCKETS = "core/observe/buckets.def"


def read_buckets():
    rows = re.findall(r'^BUCKET\((\d+), "([0-9.]+)"\)$', page.read(BUCKETS), re.M)
    bounds = [int(us) for us, _ in rows]
    if not bounds or bounds != sorted(set(bounds)):
        page.fail(f"{BUCKETS}: the bounds do not rise")
    for us, seconds in rows:
        if round(float(seconds) * 1e6) != int(us):
            page.fail(f"{BUCKETS}: {us} is not {seconds} s")
    return [seconds for _, seconds in rows]


def render():
    out = ["# Metrics", "",
           "Generated from `core/observe/metrics.def` by `docs/generate/metrics.py`; do not edit. The core is the system of "
           "record and answers in Prometheus text format 0.0.4. What modules publish appears as `gatehouse_module_<name>` "
           "with the label `module`. A metric of the core keeps at most 1000 series; what comes later is counted with every "
           "label `other`.", "", "| name | kind | labels | meaning |", "|---|---|---|---|"]
    for _name, kind, name, text, labels in page.rows("core/observe/metrics.def", "METRIC"):
        labels = ", ".join(f"`{label}`" for label in labels.split(",")) if labels else "–"
        out.append(f"| `{name}` | {kind.lower()} | {labels} | {text} |")
    out += ["", "A module on the SDK publishes every ten seconds what its `GetStats` answers: `requests_total`, `errors_total`, `in_flight`, "
            "`connections`, the histogram `request_seconds`, and its own numbers; MCP's are `callers`, `sessions`, `upstreams`, "
            "`list_cache_bytes`, `http_connections_total`, `http_connections_refused_total`, `http_requests_refused_total` and "
            "`http_clients_dropped_total`, REST's `clients` and `filtered_total`. What was counted is told once; what a module had not told when "
            "it died is lost."]
    out += ["", "Histograms of the core are durations in seconds with the buckets " + ", ".join(read_buckets()) + " and +Inf."]
    return out


page.main(render, "docs/metrics.md")

#!/usr/bin/env python3
"""Writes docs/metrics.md from core/observe/metrics.def and buckets.def (SPI-16)."""
import page

INTRO = """# Metrics

Generated from `core/observe/metrics.def` and `core/observe/buckets.def` by `docs/generate/metrics.py`; do not edit.

The core is the system of record. Operators read the same text, Prometheus format 0.0.4, from `StatusService.GetMetrics` on the admin
socket, or from `GET /metrics` of the console module; [operating.md](operating.md#metrics) says how to switch that on. A metric without a
sample is not shown. What a module publishes itself is named `gatehouse_module_…` and carries the label `module`.
"""


def render():
    metrics = page.rows("core/observe/metrics.def", "METRIC")
    bounds = [text for _us, text in page.rows("core/observe/buckets.def", "BUCKET")]
    out = [*INTRO.splitlines(), "",
           *page.table(("metric", "kind", "labels", "meaning"),
                       [(f"`{name}`", kind.lower(), ", ".join(f"`{label}`" for label in labels.split(",") if label), about)
                        for _id, kind, name, about, labels in metrics])]
    return [*out, "", "Histograms have these upper bounds in seconds, and `+Inf`: " + ", ".join(bounds) + "."]


page.main(render, "docs/metrics.md")

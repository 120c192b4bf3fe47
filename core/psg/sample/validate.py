#!/usr/bin/env python3
"""Validates what `psg_sample` prints against the published MPLP schemas (CHK-1, SCH-2, EVT-1 to EVT-4), and the
conservation law over it (CHK-4).

  validate.py SAMPLE_PROGRAM SCHEMA_FOLDER

GATEHOUSE_MPLP_SCHEMAS names another folder. Without the schemas or python3-jsonschema the check is skipped (exit 77).
"""
import json
import os
import pathlib
import re
import subprocess
import sys

FAMILIES = {"graph_update": "graph-update", "pipeline_stage": "pipeline-stage", "runtime_execution": "runtime-execution"}
OBJECTS = {"ContextNode": "context", "ExtensionNode": "extension", "TraceNode": "trace"}


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def main():
    folder = pathlib.Path(os.environ.get("GATEHOUSE_MPLP_SCHEMAS", sys.argv[2]))
    if not (folder / "events").is_dir():
        skip(f"no schemas in {folder}")
    try:
        import jsonschema
    except ImportError as missing:
        skip(f"{missing.name} is not installed")
    checker = jsonschema.FormatChecker()
    uuid4 = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
    checker.checks("uuid")(lambda value: bool(uuid4.match(value)))
    schemas = {path: json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*.json")}
    by_id = {schema["$id"]: schema for schema in schemas.values() if isinstance(schema, dict) and "$id" in schema}

    def validator(path):
        schema = schemas[folder / path]
        try:
            from referencing import Registry, Resource
            from referencing.jsonschema import DRAFT7
            registry = Registry().with_resources(
                (uri, Resource(contents=content, specification=DRAFT7)) for uri, content in by_id.items())
            return jsonschema.Draft7Validator(schema, registry=registry, format_checker=checker)
        except ImportError:  # before jsonschema 4.18
            resolver = jsonschema.RefResolver(schema["$id"], schema, store=by_id)
            return jsonschema.Draft7Validator(schema, resolver=resolver, format_checker=checker)

    core = validator("events/mplp-event-core.schema.json")
    families = {name: validator(f"events/mplp-{part}-event.schema.json") for name, part in FAMILIES.items()}
    objects = {name: validator(f"mplp-{part}.schema.json") for name, part in OBJECTS.items()}
    lines = subprocess.run([sys.argv[1]], check=True, capture_output=True, text=True, encoding="utf-8").stdout.splitlines()
    counts, bad, sums = {}, [], {"node": 0, "edge": 0}
    for line in lines:
        item = json.loads(line)
        subject = item.get("event", item.get("node"))
        kind = item["event"]["event_family"] if "event" in item else item["type"]
        checks = [core, families[kind]] if "event" in item else [objects[kind]] if kind in objects else []
        for check in checks:
            bad += [f"{kind}: {error.json_path}: {error.message}" for error in check.iter_errors(subject)]
        if checks:
            counts[kind] = counts.get(kind, 0) + 1
        if kind == "graph_update":
            sums["node"] += subject["node_delta"]
            sums["edge"] += subject["edge_delta"]
            if (sums["node"], sums["edge"]) != (subject["payload"]["node_count"], subject["payload"]["edge_count"]):
                bad.append(f"the law does not hold at {subject['event_id']}")
    missing = (set(FAMILIES) | set(OBJECTS)) - set(counts)
    bad += [f"no {name} among the sample" for name in sorted(missing)]
    print("\n".join(bad[:20]) or f"valid: {counts}")
    sys.exit(1 if bad else 0)


main()

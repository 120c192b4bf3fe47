#!/usr/bin/env python3
"""docs/errors.md from sdk/base/error_codes.def (ERR-5). The categories and their HTTP and gRPC numbers are read from the table in
sdk/base/error.c, so the page cannot disagree with the code."""
import re

import page

CODES = "sdk/base/error_codes.def"
CATEGORIES = "sdk/base/error.c"
GRPC = ["OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
        "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
        "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"]


def read_categories():
    source = page.read(CATEGORIES)
    rows = re.findall(r'\[ERROR_CATEGORY_(\w+)\] = \{"\w+", (\d+), (\d+), (true|false)\}', source)
    if len(rows) < 2:
        page.fail(f"no category table in {CATEGORIES}")
    return {name: (int(http), int(grpc), retryable == "true") for name, http, grpc, retryable in rows}


def read_groups():
    """[(group, [(category, code, summary)])]: a one-line comment opens a group."""
    source = page.read(CODES)
    pattern = re.compile(r'^/\* (?P<group>[^*\n]+) \*/$|ERROR_CODE\(\s*(?P<name>\w+),\s*(?P<category>\w+),\s*'
                         r'"(?P<code>[^"]*)",\s*"(?P<summary>(?:[^"\\]|\\.)*)"\s*\)', re.M)
    body = source[source.index("*/") + 2:]
    groups = []
    for match in pattern.finditer(body):
        if match["group"]:
            groups.append((match["group"], []))
        elif not groups:
            page.fail(f"{match['name']} stands in no group")
        else:
            groups[-1][1].append((match["category"], match["code"], match["summary"].replace('\\"', '"')))
    found = sum(len(rows) for _, rows in groups)
    if found != len(re.findall(r"^ERROR_CODE\(", body, re.M)):
        page.fail(f"{CODES} has a line that this script cannot read")
    return groups


def render():
    groups, categories = read_groups(), read_categories()
    out = ["# Error codes", "",
           "Generated from `sdk/base/error_codes.def` by `docs/generate/errors.py`; do not edit. A code keeps its text and "
           "category for good, so programs may rely on it. Every protocol shows it in its own form: problem details "
           "(REST), the `data` member of a JSON-RPC error (MCP, A2A), the error object (LLM), `google.rpc.Status` "
           "details (gRPC).", "", "## Categories", "", "| category | HTTP | gRPC | retryable by default |",
           "|---|---|---|---|"]
    for name, (http, grpc, retryable) in categories.items():
        if name != "NONE":
            out.append(f"| {name} | {http} | {GRPC[grpc]} | {'yes' if retryable else 'no'} |")
    for group, rows in groups:
        out += ["", f"## {group[0].upper()}{group[1:]}", "", "| code | category | meaning |", "|---|---|---|"]
        for category, code, summary in rows:
            if category not in categories:
                page.fail(f"{code}: unknown category {category}")
            cell = summary.replace("|", "\\|")
            out.append(f"| `{code}` | {category} | {cell} |")
    return out


page.main(render, "docs/errors.md")

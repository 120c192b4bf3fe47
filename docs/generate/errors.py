#!/usr/bin/env python3
"""Writes docs/errors.md from sdk/base/error_codes.def (ERR-5).

  errors.py DEF ERROR_C OUT           write OUT
  errors.py DEF ERROR_C OUT --check   exit 1 when OUT is not what would be written

The categories and their HTTP and gRPC numbers are read from the table in sdk/base/error.c, so the page cannot disagree
with the code. Standard library only.
"""
import re
import sys

GRPC = ["OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
        "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
        "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"]


def fail(message):
    sys.exit(f"errors.py: {message}")


def read_categories(path):
    source = open(path, encoding="utf-8").read()
    rows = re.findall(r'\[ERROR_CATEGORY_(\w+)\] = \{"\w+", (\d+), (\d+), (true|false)\}', source)
    if len(rows) < 2:
        fail(f"no category table in {path}")
    return {name: (int(http), int(grpc), retryable == "true") for name, http, grpc, retryable in rows}


def read_groups(path):
    """[(group, [(category, code, summary)])]: a one-line comment opens a group."""
    source = open(path, encoding="utf-8").read()
    pattern = re.compile(r'^/\* (?P<group>[^*\n]+) \*/$|ERROR_CODE\(\s*(?P<name>\w+),\s*(?P<category>\w+),\s*'
                         r'"(?P<code>[^"]*)",\s*"(?P<summary>(?:[^"\\]|\\.)*)"\s*\)', re.M)
    body = source[source.index("*/") + 2:]
    groups = []
    for match in pattern.finditer(body):
        if match["group"]:
            groups.append((match["group"], []))
        elif not groups:
            fail(f"{match['name']} stands in no group")
        else:
            groups[-1][1].append((match["category"], match["code"], match["summary"].replace('\\"', '"')))
    found = sum(len(rows) for _, rows in groups)
    if found != len(re.findall(r"^ERROR_CODE\(", body, re.M)):
        fail(f"{path} has a line that this script cannot read")
    return groups


def render(groups, categories):
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
                fail(f"{code}: unknown category {category}")
            cell = summary.replace("|", "\\|")
            out.append(f"| `{code}` | {category} | {cell} |")
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) not in (4, 5):
        fail("usage: errors.py DEF ERROR_C OUT [--check]")
    text = render(read_groups(sys.argv[1]), read_categories(sys.argv[2]))
    if len(sys.argv) == 5:
        try:
            committed = open(sys.argv[3], encoding="utf-8").read()
        except FileNotFoundError:
            committed = ""
        if committed != text:
            fail(f"{sys.argv[3]} is stale: run {' '.join(sys.argv[:4])}")
    else:
        with open(sys.argv[3], "w", encoding="utf-8") as out:
            out.write(text)


main()

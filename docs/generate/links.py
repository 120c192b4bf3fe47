#!/usr/bin/env python3
"""Checks that what the written pages point at is there: relative links with their headings, and paths of the repository in `code`."""
import re
import sys

import page

RUN_FILES = ("core/gatehouse.yaml",)  # of a running gateway, like its sockets
CODE_PATH = re.compile(r"`((?:core|sdk|supervisor|modules|proto|tests|deploy|docs|conformance)/[\w./-]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")


def anchors(text):
    """Anchors of the headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.M)}


def faults(path):
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(page.ROOT)
    for target, anchor in LINK.findall(text):
        other = (path.parent / target).resolve() if target else path
        if not other.exists():
            yield f"{name}: no such file: {target}"
        elif anchor and anchor not in anchors(other.read_text(encoding="utf-8")):
            yield f"{name}: {target or name} has no heading #{anchor}"
    for code in CODE_PATH.findall(text):
        if not code.endswith(".sock") and code not in RUN_FILES and not (page.ROOT / code).exists():
            yield f"{name}: no such path: {code}"


pages = [*sorted((page.ROOT / "docs").glob("*.md")), page.ROOT / "README.md", page.ROOT / "CHANGELOG.md"]
found = [fault for path in pages for fault in faults(path)]
print("\n".join(found), file=sys.stderr)
sys.exit(1 if found else 0)

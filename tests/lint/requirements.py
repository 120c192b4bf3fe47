#!/usr/bin/python3
"""Lists the requirement ids (BND-1, LIF-3, …) that tests name, and, where the requirements are at hand, those that none names.

Usage: requirements.py [SPEC_DIR]   SPEC_DIR holds Markdown tables whose first column is the id.
Informational: the project does not need those files, and the exit status is always 0.
"""
import collections
import pathlib
import re
import sys

from sources import ROOT, files, read

REQUIREMENT = re.compile(r"\b([A-Z][A-Z0-9]{2}-(?:\d+|[A-Z]{3}))\b")
DEFINITION = re.compile(r"^\|\s*([A-Z][A-Z0-9]{2}-(?:\d+|[A-Z]{3}))\s*\|", re.M)
TEST_NAME = re.compile(r"\bdef test_((?:[a-z][a-z0-9]{2}_\d+_)+)")  # test_lif_9_lif_12_what_it_says
NOT_REQUIREMENTS = {"SHA", "AES", "UTF", "CVE", "RFC", "ISO", "CRC"}


def named_by_tests():
    """{id: [files]} of every id that a test names."""
    found = collections.defaultdict(list)
    for path in files():
        if not (path.stem.endswith("_test") or path.parts[0] in ("tests", "conformance")) or path.parts[:2] == ("tests", "lint"):
            continue
        text = read(path)
        in_names = {f"{head.upper()}-{number}" for ids in TEST_NAME.findall(text) for head, number in re.findall(r"([a-z][a-z0-9]{2})_(\d+)_", ids)}
        for name in set(REQUIREMENT.findall(text)) | in_names:
            if name.split("-")[0] not in NOT_REQUIREMENTS:
                found[name].append(str(path))
    return found


def sort_key(name):
    head, tail = name.split("-")
    return head, tail.zfill(4)


def main(arguments):
    found = named_by_tests()
    for name in sorted(found, key=sort_key):
        print(f"{name:8} {' '.join(sorted(found[name]))}")
    spec = pathlib.Path(arguments[0]) if arguments else ROOT.parent / "shared" / "spec"
    if not spec.is_dir():
        print(f"{len(found)} requirement ids are named by tests")
        return 0
    defined = {name for page in spec.glob("*.md") for name in DEFINITION.findall(page.read_text(encoding="utf-8"))}
    missing = sorted(defined - set(found), key=sort_key)
    print(f"{len(found)} requirement ids are named by tests; {len(missing)} of {len(defined)} defined ones are not:")
    print(" ".join(missing))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

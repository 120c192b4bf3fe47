#!/usr/bin/python3
"""Runs clang-tidy, with .clang-tidy of the project's root, over every C file that the build compiles.

Usage: tidy.py --build DIR [--jobs N] [FILE...]   DIR has a compile_commands.json. Prints the findings and exits 1 when
there is one. Only files of the project are looked at, not what the build generated.
"""
import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys

from sources import ROOT


def compiled(build):
    entries = json.loads((build / "compile_commands.json").read_text())
    paths = {(pathlib.Path(entry["directory"]) / entry["file"]).resolve() for entry in entries}
    return sorted(p for p in paths if p.is_relative_to(ROOT) and not p.is_relative_to(build) and p.suffix == ".c")


def tidy(build, path):
    """The findings in one file, as text."""
    out = subprocess.run(["clang-tidy", "-p", str(build), "--quiet", "--extra-arg=-Wno-unknown-warning-option", str(path)],
                         capture_output=True, text=True, check=False)
    if out.returncode and not out.stdout.strip():
        return f"{path}: clang-tidy failed: {out.stderr[-2000:]}"
    return out.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    build = options.build.resolve()
    paths = [p.resolve() for p in options.files] or compiled(build)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        findings = [text for text in pool.map(lambda p: tidy(build, p), paths) if text]
    print("\n".join(findings))
    print(f"clang-tidy: {len(paths)} files, {len(findings)} with findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

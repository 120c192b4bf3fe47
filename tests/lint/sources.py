#!/usr/bin/python3
"""Checks on every source file that need no compiler: opening comment, unwanted words, format, shell scripts, length.

Usage: sources.py [--lengths|--format]   Prints one problem a line, `path:line: what`, and exits 1 when there is one. With --lengths
it prints the distribution of file lengths and the longest files instead, with --format it formats the C files. The functions are what
test_lint.py calls: each returns a list of problems. Files are those that git knows or would add.
"""
import collections
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
C_SUFFIXES = {".c", ".h"}
LENGTH_LIMIT = 600

# What a file of this kind starts with, after a first line "#!…" if it has one.
OPENINGS = {
    ".c": r"/\*", ".h": r"/\*", ".def": r"/\*", ".mjs": r"/\*|//", ".proto": r"//|/\*", ".go": r"//|/\*",
    ".py": r'"""|#', ".sh": "#", ".cmake": "#", ".yaml": "#", ".yml": "#", ".options": "#", ".md": "# ",
    "CMakeLists.txt": "#", "": "#",
}
# Files that cannot or need not carry a comment.
NO_OPENING = {"LICENSE", ".clang-format", ".gitignore", ".dockerignore"}
SEEDS = pathlib.Path("tests/fuzz/corpus")  # inputs of fuzz targets: every byte counts

# Written in pieces so that this file does not contain them.
UNWANTED = {
    "an unfinished mark": re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK|T" r"BD|W" r"IP)\b"),
    "a path of one machine": re.compile(r"(?<![\w.])/(wor" r"k|ro" r"ot|hom" r"e/\w+|tmp/w" r"t)/"),
    "a package registry's address": re.compile(r"registry\.npm" r"js|py" r"pi\.org|python" r"hosted|proxy\.gol" r"ang"),
}


def files():
    """Every text file of the project, relative to its root."""
    out = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         capture_output=True, check=False)
    if out.returncode == 0 and out.stdout:
        names = [pathlib.Path(name) for name in out.stdout.decode().split("\0") if name]
    else:  # an unpacked archive: no git
        names = [p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file()]
        names = [p for p in names if not p.parts[0].startswith("build") and ".git" not in p.parts]
    return sorted(p for p in set(names) if (ROOT / p).is_file() and b"\0" not in (ROOT / p).read_bytes()[:4096])


def c_files():
    return [p for p in files() if p.suffix in C_SUFFIXES]


def read(path):
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def check_openings():
    problems = []
    for path in files():
        pattern = OPENINGS.get(path.name, OPENINGS.get(path.suffix))
        if pattern is None or path.name in NO_OPENING or SEEDS in path.parents:
            continue
        text = read(path)
        if text.startswith("#!"):
            text = text.partition("\n")[2]
        if path.suffix == ".yaml" and text.startswith("---"):
            text = text.partition("\n")[2]
        if text.strip() and not re.match(pattern, text):
            problems.append(f"{path}:1: does not open with a comment on its purpose")
    return problems


def check_words():
    problems = []
    for path in files():
        for number, line in enumerate(read(path).splitlines(), 1):
            for what, pattern in UNWANTED.items():
                if pattern.search(line):
                    problems.append(f"{path}:{number}: {what}: {line.strip()[:100]}")
    return problems


def check_format():
    names = [str(p) for p in c_files()]
    if not names:
        return []
    out = subprocess.run(["clang-format", "--dry-run", "-Werror", *names], cwd=ROOT, capture_output=True, text=True, check=False)
    places = collections.Counter(line.split(":")[0] for line in out.stderr.splitlines() if ": error:" in line)
    return [f"{path}: not formatted in {number} places; ./dev format" for path, number in sorted(places.items())]


def check_shell():
    scripts = [str(p) for p in files() if p.suffix in ("", ".sh") and re.match(r"#!.*\b(ba)?sh\b", read(p))]
    if not scripts:
        return []
    out = subprocess.run(["shellcheck", "-f", "gcc", *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    return out.stdout.splitlines()


def check_lengths():
    return [f"{p}: {n} lines, the limit is {LENGTH_LIMIT}" for p, n in lengths() if n > LENGTH_LIMIT]


def lengths():
    """(path, lines) of every C file, longest first."""
    return sorted(((p, read(p).count("\n")) for p in c_files()), key=lambda item: -item[1])


def main(arguments):
    if arguments == ["--lengths"]:
        found = lengths()
        if found:
            print(f"{len(found)} C files, median {statistics.median(n for _, n in found):.0f} lines; the longest:")
        for path, number in found[:10]:
            print(f"  {number:5} {path}")
        return 0
    if arguments == ["--format"]:
        return subprocess.run(["clang-format", "-i", *map(str, c_files())], cwd=ROOT, check=False).returncode
    problems = check_openings() + check_words() + check_format() + check_shell() + check_lengths()
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

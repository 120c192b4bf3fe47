#!/usr/bin/python3
"""Checks who looks into whom: a room includes only public headers of rooms below it (BND-4, BND-5).

The order of the rooms is read from the CMake lists (sdk/CMakeLists.txt, core/CMakeLists.txt), lowest first, so there is
one list for the build and for this check. Rules: sdk sees sdk below; core sees sdk and core below; the supervisor sees
only sdk/base, sdk/control and sdk/config; the operator CLI, modules and the conformance kit see sdk; `x_internal.h` is
seen by its own room only. Tests follow the rules of the room that they stand in; those in tests/ and the generators in docs/ may see every public header.

Usage: include_graph.py   Prints one problem a line and exits 1 when there is one.
"""
import pathlib
import re
import sys

from sources import ROOT, c_files, read

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')
SUPERVISOR_SEES = {"sdk/base", "sdk/control", "sdk/config"}


def room_order(folder):
    """Rooms of one folder, lowest first, as its CMakeLists.txt lists them."""
    listed = re.search(r"foreach\(room ([^)]*)\)", read(f"{folder}/CMakeLists.txt"))
    return [f"{folder}/{room}" for room in listed.group(1).split()] if listed else []


def room_of(path):
    """The room that a file is in: its folder, up to the depth at which rooms live ("core/store", "modules/mcp")."""
    parts = pathlib.PurePath(path).parts
    if parts[0] == "supervisor":
        return "supervisor/ctl" if parts[1] == "ctl" and len(parts) > 2 else "supervisor"
    if parts[0] in ("sdk", "core", "modules", "proto"):
        return "/".join(parts[:2]) if len(parts) > 2 else parts[0]
    return parts[0]


def may_see(room, other, order):
    """Whether a file of `room` may include a public header of `other`."""
    if room == other or room in ("tests", "docs"):
        return True
    top, other_top = room.split("/")[0], other.split("/")[0]
    if room == "supervisor":
        return other in SUPERVISOR_SEES
    if top == "core" and room == "core":  # main.c puts the core together
        return other_top in ("sdk", "core")
    if other_top == "sdk" and top != "sdk":
        return True
    if top == other_top and top in ("sdk", "core") and room in order and other in order:
        return order.index(other) < order.index(room)
    return False


def resolve(path, included):
    """The project file that an include means, or None for generated and foreign headers."""
    for candidate in (ROOT / path).parent / included, ROOT / included:
        if candidate.is_file():
            found = candidate.resolve().relative_to(ROOT)
            return None if found.parts[0].startswith("build") else found
    return None


def check_includes():
    order = room_order("sdk") + room_order("core")
    problems = []
    for path in c_files():
        room = room_of(path)
        for number, line in enumerate(read(path).splitlines(), 1):
            match = INCLUDE.match(line)
            target = match and resolve(path, match.group(1))
            if not target:
                continue
            other = room_of(target)
            if other != room and target.stem.endswith("_internal"):
                problems.append(f"{path}:{number}: {target} is internal to {other}")
            elif not may_see(room, other, order):
                problems.append(f"{path}:{number}: {room} may not look into {other} ({target})")
    return problems


def main():
    problems = check_includes()
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

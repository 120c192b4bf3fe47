"""System calls of every program of a gateway that runs under strace, kept apart by program."""
import collections
import re
import shutil

from .processes import wait_until

LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
STARTS = ("clone", "clone3", "fork", "vfork")
STRACE = shutil.which("strace")


def command(path):
    """What goes before a command so that its calls, and those of all that it starts, are written to `path`."""
    return [STRACE, "-D", "-f", "-q", "-s", "0", "-e", "signal=none", "-o", path]


def wait_written(path, pid):
    """Until the end of process `pid`, which was the first, is written."""
    end = re.compile(rf"^{pid} +\+\+\+ exited", re.M)
    wait_until(lambda: end.search(path.read_text(errors="replace")[-20000:]), "strace to be done")


def lines_of(path):
    """(pid, name of the call that begins or None, name of the call that ends or None, the rest of the line)."""
    for line in path.read_text(errors="replace").splitlines():
        match = LINE.match(line)
        if match:
            pid, resumed, name, rest = match.groups()
            ends = resumed or (None if rest.endswith("<unfinished ...>") else name)
            yield pid, name, ends, rest


def calls(path):
    """{program: {name of a call: a line that made it}}. From an execve on, calls count for the new program; what a process does before
    its first one counts for the program that started it."""
    parents = {}
    for pid, _, ends, rest in lines_of(path):
        child = re.search(r"= (\d+)$", rest) if ends in STARTS else None
        if child:
            parents[child.group(1)] = pid
    program, asked, found = {}, {}, collections.defaultdict(dict)
    for pid, name, ends, rest in lines_of(path):
        program.setdefault(pid, program.get(parents.get(pid), ""))
        if name == "execve":
            asked[pid] = re.match(r'"([^"]*)"', rest).group(1).rpartition("/")[2]
        if name:
            found[program[pid]].setdefault(name, f"{name}({rest}")
        if ends == "execve" and rest.endswith("= 0"):
            program[pid] = asked[pid]
    return dict(found)

"""System calls of every program of a gateway that runs under strace, kept apart by program."""
import collections
import re
import shutil

from .processes import wait_until

LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")
STRACE = shutil.which("strace")


def command(path):
    """What goes before a command so that its calls, and those of all that it starts, are written to `path`."""
    return [STRACE, "-D", "-f", "-q", "-s", "0", "-e", "signal=none", "-o", path]


def wait_written(path, pid):
    """Until the end of process `pid`, which was the first, is written."""
    wait_until(lambda: f"\n{pid} +++ exited" in path.read_text(errors="replace")[-4000:], "strace to be done")


def calls(path):
    """{program: {name of a call}}: from the moment after its execve. A worker of a program (gatehouse-rest --filter-worker) counts as a
    program of its own; what a process does between fork and exec counts for the program that forked, the supervisor's excepted."""
    program, found, pending = {}, collections.defaultdict(set), {}
    for line in path.read_text(errors="replace").splitlines():
        match = LINE.match(line)
        if not match:
            continue
        pid, resumed, name, rest = match.groups()
        if name == "execve":
            file, arguments = re.match(r'"([^"]*)"\.*, \[(.*?)\]', rest).groups() if rest.startswith('"') else ("", "")
            pending[pid] = file.rpartition("/")[2] + (" worker" if arguments.count(",") == 1 and "rest" in file else "")
        if (name or resumed) == "execve":
            if pid in pending and re.search(r"= 0$", rest):
                program[pid] = pending.pop(pid)
            continue
        if name in ("clone", "clone3", "fork", "vfork") or resumed in ("clone", "clone3", "fork", "vfork"):
            child = re.search(r"= (\d+)$", rest)
            if child and pid in program:
                program.setdefault(child.group(1), program[pid])
        if name and pid in program:
            found[program[pid]].add(name)
    return dict(found)

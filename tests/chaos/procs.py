"""Processes as the kernel shows them: children, descriptors, orphans, limits; and descriptors of others by pidfd_getfd (root)."""
import collections
import contextlib
import ctypes
import os
import pathlib
import select
import signal
import socket
import struct
import time

from common import Broken

PIDFD_GETFD = 438  # the same number on every architecture
LIBC = ctypes.CDLL(None, use_errno=True)
PROC = pathlib.Path("/proc")


def state(pid):
    """One letter, or None when there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def children(pid):
    try:
        return [int(word) for word in (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]
    except OSError:
        return []


def descriptors(pid):
    """{number: what it is}."""
    found = {}
    try:
        for name in os.listdir(PROC / str(pid) / "fd"):
            with contextlib.suppress(OSError):
                found[int(name)] = os.readlink(PROC / str(pid) / "fd" / name)
    except OSError:
        pass
    return found


def connections_to(ports):
    """The TCP sockets of this machine that are connected to one of these local ports, as descriptors() names them."""
    found = set()
    for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) in ports:
            found.add(f"socket:[{fields[9]}]")
    return found


def memory_bytes(pid):
    """The size of its address space."""
    return int((PROC / str(pid) / "statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")


def resident_bytes(pid):
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def with_environment(text):
    """The processes that were started with `text` in their environment, zombies left out."""
    found, needle = [], str(text).encode()
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if needle in (entry / "environ").read_bytes() and state(int(entry.name)) != "Z":
                    found.append(int(entry.name))
    return found


KILLED = collections.deque(maxlen=1000)  # (pid, before it was killed, after it was gone), by the wall's clock


def kill_and_wait(pid, number=signal.SIGKILL, timeout_s=10):
    """Signals the process that now has this id; returns when it is gone."""
    handle = os.pidfd_open(pid)
    began = time.time()
    try:
        signal.pidfd_send_signal(handle, number)
        if not select.select([handle], [], [], timeout_s)[0]:
            raise Broken(f"process {pid} did not end within {timeout_s} s of signal {number}")
    finally:
        KILLED.append((pid, began, time.time()))
        os.close(handle)


@contextlib.contextmanager
def stopped(pid):
    """SIGSTOP; SIGCONT at the end, when it is still there."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# ---- descriptors of others ----

def duplicate(pid, number):
    """A descriptor of another process as one of ours: what is written, others take for that process's own words."""
    handle = os.pidfd_open(pid)
    try:
        copy = LIBC.syscall(PIDFD_GETFD, handle, number, 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return copy
    finally:
        os.close(handle)


def may_duplicate():
    """Why descriptors of others cannot be taken here, or None."""
    handle = os.pidfd_open(os.getpid())
    try:
        copy = LIBC.syscall(PIDFD_GETFD, handle, 0, 0)
    finally:
        os.close(handle)
    if copy >= 0:
        os.close(copy)
    return None if copy >= 0 and os.geteuid() == 0 else "descriptors of other processes cannot be taken here (pidfd_getfd needs root)"


def sockets(pid):
    """Every Unix socket of a process as a socket of ours. The caller closes them."""
    found = []
    for number, target in descriptors(pid).items():
        if target.startswith("socket:"):
            with contextlib.suppress(OSError):
                one = socket.socket(fileno=duplicate(pid, number))
                if one.family == socket.AF_UNIX:
                    found.append(one)
                else:
                    one.close()
    return found


def connected_to(pid, path):
    """The sockets of `pid` that are connected to a listener whose path ends with `path`."""
    found = []
    for one in sockets(pid):
        name = b""
        with contextlib.suppress(OSError):
            name = one.getpeername()
        name = name if isinstance(name, str) else name.decode(errors="replace")
        if name.rstrip("~").endswith(path):  # a runtime socket is bound under a name with a ~ and then renamed
            found.append(one)
        else:
            one.close()
    return found


def socket_names(pid):
    """How many Unix sockets of each name (its own, or its peer's) a process has, as far as they can be looked at."""
    names = collections.Counter()
    for one in sockets(pid):
        with contextlib.suppress(OSError):
            name = one.getsockname() or one.getpeername()
            names[name if isinstance(name, str) else name.decode(errors="replace")] += 1
        one.close()
    return dict(names)


def packet_sockets(pid, peer):
    """The packet sockets (control channels) of `pid` whose other end was made by process `peer`."""
    found = []
    for one in sockets(pid):
        kind = one.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        made_by = struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0] if kind == socket.SOCK_SEQPACKET else 0
        if kind == socket.SOCK_SEQPACKET and made_by == peer:
            found.append(one)
        else:
            one.close()
    return found

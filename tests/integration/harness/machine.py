"""A machine of its own whose first process is a real systemd, with our units, unchanged, and our programs where they are installed.

It is made of namespaces: processes, mounts, control groups, network, host name. Its root is an overlay of this machine's: it sees every
file here, and what it writes is in memory and gone with it; network is its loopback only. Its end is SIGKILL to its first process: the
kernel ends what is left inside and takes the mounts with it, also when the test itself is killed.
"""
import concurrent.futures
import contextlib
import ctypes
import os
import pathlib
import pty
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

from . import BIN, ROOT
from .processes import wait_until

UNITS = ROOT / "deploy" / "systemd"
PROGRAMS = ("gatehouse", "gatehouse-supervisor", "gatehouse-core", "gatehouse-mcp", "gatehouse-rest")
SYSTEMD = "/lib/systemd/systemd"
LOG = "/var/log/gatehouse.log"
# What systemd itself asks for; all else of a machine (journal, udev, logins) is not there.
TARGETS = ("sysinit", "basic", "shutdown", "sockets", "network-online", "multi-user")
CLONE_NEWNET = 0x40000000

BOOT = """
set -eu
root=$1/root
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
  touch "$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
touch "$root/dev/console"
mount --bind "$console" "$root/dev/console"
mkdir "$root/dev/shm" "$root/dev/pts"
ln -s /proc/self/fd "$root/dev/fd"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
for name in $programs; do
  touch "$root/usr/bin/$name"
  mount --bind "$bin/$name" "$root/usr/bin/$name"
done
rm -rf "$root/var/lib/gatehouse" "$root/etc/gatehouse"
mkdir "$root/etc/gatehouse" "$root/units"
for name in $targets; do
  printf '[Unit]\\nDefaultDependencies=no\\n' >"$root/units/$name.target"
done
cp "$units/gatehouse.service" "$units/gatehouse.socket" "$root/units/"
cd "$root"
mkdir old
pivot_root . old
umount -l old
exec env -i container=gatehouse-test PATH=/usr/bin:/bin:/usr/sbin:/sbin SYSTEMD_UNIT_PATH=/units \\
  %s --system --unit=multi-user.target --log-target=console --show-status=no
""" % SYSTEMD


def hierarchy():
    """Where cgroup v2 is mounted, or None."""
    lines = [line.split() for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line]
    return pathlib.Path(lines[0][4]) if lines else None


def missing():
    """Why there can be no such machine here, or None."""
    tools = ["unshare", "nsenter", "setpriv", "systemctl", SYSTEMD]
    absent = [name for name in tools if not shutil.which(name)] + [name for name in PROGRAMS if not (BIN / name).exists()]
    if os.geteuid() != 0:
        return "only root can make namespaces and mounts"
    if absent:
        return f"not here: {', '.join(absent)}"
    if not hierarchy() or not os.access(hierarchy() / "cgroup.procs", os.W_OK):
        return "no cgroup v2 hierarchy that can be written to"
    return None


class NoMachine(Exception):
    """It cannot be made here; nothing of ours ran."""


class Machine:
    """Started, and idle: systemd is up, no unit of ours is."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="ghm"))
        self.group = hierarchy() / f"gatehouse-test-{self.directory.name}"
        self.console, self.said = pty.openpty(), b""
        try:
            self.boot()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def boot(self):
        self.group.mkdir()
        enter = f"echo 0 >{shlex.quote(str(self.group / 'cgroup.procs'))} && exec unshare --cgroup sh -c \"$0\" boot {self.directory}"
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--mount", "--uts", "--ipc", "--net", "--kill-child",
             "sh", "-c", enter, BOOT],
            env={**os.environ, "console": os.ttyname(self.console[1]), "bin": str(BIN), "units": str(UNITS),
                 "programs": " ".join(PROGRAMS), "targets": " ".join(TARGETS)},
            stdin=subprocess.DEVNULL, stdout=self.console[1], stderr=self.console[1])
        threading.Thread(target=self.listen, daemon=True).start()
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")

        def up():
            if self.process.poll() is not None:
                raise NoMachine(f"it cannot be made: {self.text()[-600:]}")
            self.first = next(iter(children.read_text().split()), None)
            # Until its root is its own, what is asked inside would be answered by the systemd of this machine.
            return self.first and self.path("/units").exists() and self.show("multi-user.target", "ActiveState") == "active"
        try:
            wait_until(up, "systemd to be up", 60, pause_s=0.05)
        except AssertionError as error:
            raise NoMachine(f"{error}: {self.text()[-600:]}") from None

    def listen(self):
        with contextlib.suppress(OSError):  # the machine has ended
            while data := os.read(self.console[0], 4096):
                self.said += data

    def text(self):
        """What systemd says."""
        return self.said.decode(errors="replace").replace("\r\n", "\n")

    def close(self):
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()
        for end in self.console:
            os.close(end)
        if self.group.exists():
            wait_until(self.groups_are_gone, "the machine's control groups to be empty")
        shutil.rmtree(self.directory)

    def groups_are_gone(self):
        try:
            for folder, _, _ in os.walk(self.group, topdown=False):
                os.rmdir(folder)
        except OSError:
            return False  # somebody is still ending
        return True

    # ---- inside -----------------------------------------------------------------------------------------------------

    def run(self, *arguments, check=True, timeout=60):
        """Runs a command inside: its CompletedProcess."""
        out = subprocess.run(["nsenter", "--target", self.first, "--all", *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                             check=False, env={"PATH": os.environ["PATH"], "GATEHOUSE_RUN": "/run/gatehouse"})
        assert not check or out.returncode == 0, (arguments, out.returncode, out.stdout, out.stderr, self.text()[-2000:], self.log()[-4000:])
        return out

    def show(self, unit, name):
        """One property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit, check=False).stdout.strip()

    def path(self, inside):
        return pathlib.Path(f"/proc/{self.first}/root{inside}")

    def write(self, inside, text):
        self.path(inside).parent.mkdir(parents=True, exist_ok=True)
        self.path(inside).write_text(text)

    def log(self):
        return self.path(LOG).read_text() if self.path(LOG).exists() else ""

    def pid(self, inside):
        """The number here of a process that has that one inside."""
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                numbers = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(numbers) > 1 and numbers[-1] == str(inside) and os.readlink(status.parent / "ns/pid") == os.readlink(f"/proc/{self.first}/ns/pid"):
                    return int(numbers[0])
        raise AssertionError(f"there is no process {inside} inside")

    def signal(self, inside, number):
        os.kill(self.pid(inside), getattr(signal, f"SIG{number}"))

    def inside(self, make):
        """What make() returns, run by a thread in the machine's network: a socket stays where it was made."""
        def enter():
            with open(f"/proc/{self.first}/ns/net", "rb") as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            return make()
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(enter).result()

    def connect(self, port, timeout=20):
        """A connection to loopback inside."""
        return self.inside(lambda: socket.create_connection(("127.0.0.1", port), timeout=timeout))

    def listen_on(self, port):
        """A socket that listens inside."""
        return self.inside(lambda: socket.create_server(("127.0.0.1", port)))

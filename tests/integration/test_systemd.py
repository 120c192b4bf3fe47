"""The supervisor as a service of systemd: readiness and status, the watchdog, sockets handed over, the units themselves."""
import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import threading
import time

import pytest

from harness import gateway as gateways
from harness.processes import Process, own_address, wait_until
from harness.supervised import MISSING, SUPERVISOR, Stack, ask, module

pytestmark = pytest.mark.skipif(MISSING, reason="not built")

UNITS = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "systemd"


TIMESTAMPS = 35  # SO_TIMESTAMPNS: with each datagram comes when it was sent


class Above:
    """Whoever started the supervisor: its notification socket, by path or abstract."""

    def __init__(self, abstract=False):
        self.directory = tempfile.mkdtemp(prefix="gha")
        self.name = f"@gatehouse-test-{os.getpid()}-{time.monotonic_ns()}" if abstract else f"{self.directory}/notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if abstract else self.name)
        self.socket.setsockopt(socket.SOL_SOCKET, TIMESTAMPS, 1)
        self.heard, self.said_at = [], 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        shutil.rmtree(self.directory)

    def next(self, timeout_s=20):
        """The next datagram as {variable: value}; None in time."""
        self.socket.settimeout(timeout_s)
        try:
            data, about, _, _ = self.socket.recvmsg(8192, 64)
        except TimeoutError:
            return None
        seconds, nanoseconds = next(struct.unpack("qq", value) for _, kind, value in about if kind == TIMESTAMPS)
        text, self.said_at = data.decode(), seconds + nanoseconds / 1e9
        self.heard.append(text)
        return dict(line.split("=", 1) for line in text.splitlines())

    def until(self, **wanted):
        """The next datagram with these assignments; a pattern is looked for in its value."""
        while True:
            said = self.next()
            assert said is not None, f"{wanted} was never said: {self.heard}"
            if all(key in said and re.search(pattern, said[key]) for key, pattern in wanted.items()):
                return said

    def has_said(self, word):
        return any(word in text.splitlines() for text in self.heard)

    def silence(self):
        """Takes what there is, without waiting."""
        while self.next(0.001) is not None:
            pass


    def fill(self):
        """Until its queue has room for nothing more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger, contextlib.suppress(BlockingIOError):
            stranger.setblocking(False)
            while True:
                stranger.sendto(b"X=1", self.name)


def start(above, modules, env=None, **options):
    return Stack(modules, env={"NOTIFY_SOCKET": above.name, **(env or {})}, **options)


# ---- readiness and status ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_said_when_the_core_and_every_module_are(abstract):
    with Above(abstract) as above, start(above, [module("web", "ready", "sleep"), module("off", "sleep", enabled=False)]) as stack:
        core = stack.core()
        above.until(STATUS="^starting: 0 of 1 modules ready; not ready: web$")
        assert not above.has_said("READY=1")
        core.start("web")
        above.until(READY="1", STATUS="^serving: 1 of 1 modules ready$")


def test_what_finds_no_room_is_said_again():
    with Above() as above, start(above, [module("web", "ready", "sleep")]) as stack:
        core = stack.core()
        above.until(STATUS="^starting: 0 of 1 modules ready")
        above.fill()
        core.start("web")
        core.until("Notified")
        core.processes()  # it has tried to say so
        above.until(READY="1", STATUS="^serving: 1 of 1 modules ready$")
        above.fill()
        core.order("abort")
        stack.core(ready=False)
        above.until(STATUS="^degraded: the core is down; it is being started again$")


def test_ready_is_not_said_by_the_modules_alone():
    with Above() as above, start(above, [module("web", "ready", "sleep")]) as stack:
        core = stack.core(ready=False)
        core.start("web")
        core.until("Notified")
        above.silence()
        assert above.heard and not above.has_said("READY=1")
        core.order("ready")
        above.until(READY="1", STATUS="^serving")


def test_a_module_that_never_gets_ready_does_not_keep_the_gateway_from_being_started():
    with Above() as above, start(above, [module("web", "sleep", start_timeout_ms=300), module("ok", "ready", "sleep")]) as stack:
        core = stack.core()
        core.start("web")
        core.start("ok")
        begin = time.monotonic()
        above.until(READY="1", STATUS="^degraded: 1 of 2 modules ready; not ready: web$")
        assert time.monotonic() - begin > 0.15


def test_a_module_that_stays_down_is_not_waited_for():
    with Above() as above, start(above, [module("web", "exit", "3", restart="never", start_timeout_ms=60000)]) as stack:
        core = stack.core()
        core.start("web")
        above.until(READY="1", STATUS="^degraded: 0 of 1 modules ready; not ready: web$")


def test_a_module_that_is_held_is_not_waited_for():
    with Above() as above, start(above, [module("web", "sleep", start_timeout_ms=60000)]) as stack:
        core = stack.core()
        core.order("hold web 1 five deaths")
        above.until(READY="1", STATUS="^degraded")


def test_the_status_follows_what_is_served():
    with Above() as above, start(above, [module("web", "ready", "sleep")]) as stack:
        core = stack.core()
        core.start("web")
        above.until(READY="1")
        core.order("abort")
        above.until(STATUS="^degraded: the core is down; it is being started again$")
        stack.core()
        again = above.until(STATUS="^serving: 1 of 1 modules ready$")
        assert "READY" not in again, "readiness is said once"


def test_stopping_is_said_with_the_exit_status():
    with Above() as above, start(above, []) as stack:
        stack.core()
        above.until(READY="1")
        stack.process.child.send_signal(signal.SIGTERM)
        assert above.until(STOPPING="1") == {"STOPPING": "1", "STATUS": "stopping: SIGTERM", "EXIT_STATUS": "0"}
        assert stack.process.child.wait(20) == 0


def test_a_core_that_gives_up_is_told_with_its_exit_status():
    with Above() as above, start(above, []) as stack:
        stack.core().order("exit 125")
        assert above.until(STOPPING="1")["EXIT_STATUS"] == "125"
        assert stack.process.child.wait(20) == 125


def test_an_address_that_is_taken_is_told_with_its_error_number():
    with Above() as above, socket.create_server(("127.0.0.1", 0)) as taken:
        web = {"name": "web", "address": "127.0.0.1", "port": taken.getsockname()[1]}
        with start(above, [], listeners=[web]) as stack:
            said = above.until(STOPPING="1")
            assert said["ERRNO"] == str(errno.EADDRINUSE) and said["EXIT_STATUS"] == "111"
            assert 'listener "web" cannot be bound' in said["STATUS"]
            assert stack.process.child.wait(20) == 111


def test_a_notify_socket_that_is_nobody_s_harms_nothing():
    for name in ("relative/path", "vsock:2:1", "/nonexistent/notify", "/" + "x" * 300):
        with Stack([], env={"NOTIFY_SOCKET": name}) as stack:
            stack.core()
            assert stack.process.stop() == 0
            assert ("neither a path nor an abstract name" in stack.log()) == (name != "/nonexistent/notify")


# ---- the watchdog -----------------------------------------------------------------------------------------------------

def pings(above, seconds):
    """How many pings come in that time."""
    above.silence()
    end, count = time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        said = above.next(left)
        count += bool(said and said.get("WATCHDOG") == "1")
    return count


def ping_interval(above, count):
    """The median of so many intervals from ping to ping, as they were sent: one that this machine was late for is not the rule."""
    above.silence()
    times = [above.until(WATCHDOG="1") and above.said_at for _ in range(count + 1)]
    return statistics.median(later - earlier for earlier, later in zip(times, times[1:]))


def until_pings_end(above, seconds):
    """Until none has come for that time."""
    wait_until(lambda: pings(above, seconds) == 0, "the pings to end")


@contextlib.contextmanager
def beating(core):
    """The core gives signs of life meanwhile."""
    done = threading.Event()
    thread = threading.Thread(target=lambda: [core.order("heartbeat") for _ in iter(lambda: done.wait(0.05), True)])
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_pings_come_at_half_the_interval_while_the_core_gives_signs_of_life():
    with Above() as above, start(above, [], {"WATCHDOG_USEC": "400000"}) as stack:
        core = stack.core()
        above.until(READY="1")
        with beating(core):
            assert 0.18 < ping_interval(above, 10) < 0.25
        until_pings_end(above, 1)
        wait_until(lambda: "no sign of life: the watchdog above" in stack.log(), "the silence to be noticed")
        with beating(core):
            above.until(WATCHDOG="1")


def test_pings_go_on_while_the_core_is_started():
    with Above() as above, start(above, [], {"WATCHDOG_USEC": "100000"}) as stack:
        stack.core(ready=False)
        assert 0.04 < ping_interval(above, 10) < 0.08


@pytest.mark.parametrize("env", [{}, {"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}])
def test_nobody_is_pinged_who_does_not_watch_this_process(env):
    with Above() as above, start(above, [], env) as stack:
        stack.core()
        above.until(READY="1")
        assert pings(above, 0.4) == 0


@pytest.mark.skipif(gateways.missing(), reason="the gateway is not built")
def test_pings_stop_when_the_real_core_or_the_supervisor_hangs_and_not_before():
    with Above() as above:
        with gateways.Gateway(env={"NOTIFY_SOCKET": above.name, "WATCHDOG_USEC": "1000000"}) as gateway:
            above.until(READY="1", STATUS="^serving: 2 of 2 modules ready$")
            assert 0.45 < ping_interval(above, 5) < 0.7, "the core's heartbeats keep the pings going"
            core = gateway.processes()["core"]["pid"]
            for pid in (core, gateway.process.pid):
                os.kill(pid, signal.SIGSTOP)
                try:
                    until_pings_end(above, 1.5)
                finally:
                    os.kill(pid, signal.SIGCONT)
                above.until(WATCHDOG="1")


# ---- sockets that are handed over ---------------------------------------------------------------------------------------

def listening(address=("127.0.0.1", 0)):
    return socket.create_server(address)


def web_at(handed, name="web"):
    host, port = handed.getsockname()
    return {"name": name, "address": host, "port": port}


@pytest.mark.parametrize("name", ["web", "gatehouse.socket", ""])
def test_a_socket_is_taken_over_by_name_or_by_address(name):
    with listening() as handed:
        with Stack([module("web", "ready", "serve", listeners=["web"])], listeners=[web_at(handed)], handed=[(name, handed)]) as stack:
            core = stack.core()
            assert fcntl.fcntl(handed.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK, "a module that accepts must never block"
            pid = core.start("web")["pid"]
            assert ask(handed.getsockname()[1]) == pid


def test_two_sockets_of_one_unit_find_their_listeners_by_address():
    with listening() as first, listening() as second:
        modules = [module(name, "ready", "serve", listeners=[name]) for name in ("one", "two")]
        with Stack(modules, listeners=[web_at(first, "one"), web_at(second, "two")],
                   handed=[("gatehouse.socket", second), ("gatehouse.socket", first)]) as stack:
            core = stack.core()
            pids = {name: core.start(name)["pid"] for name in ("one", "two")}
            assert ask(first.getsockname()[1]) == pids["one"] and ask(second.getsockname()[1]) == pids["two"]


def test_a_unix_socket_is_taken_over_and_its_file_is_left_to_its_owner(tmp_path):
    path = str(tmp_path / "web.sock")
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(path)
        handed.listen()
        with Stack([], listeners=[{"name": "web", "address": path}], handed=[("x", handed)]) as stack:
            stack.core()
            assert stack.process.stop() == 0
        assert os.path.exists(path)


def test_connections_wait_while_the_whole_gateway_is_replaced():
    with listening() as handed:
        for _ in range(2):
            with socket.create_connection(handed.getsockname()) as early:
                with Stack([module("web", "ready", "serve", listeners=["web"])], listeners=[web_at(handed)],
                           handed=[("web", handed)]) as stack:
                    pid = stack.core().start("web")["pid"]
                    early.settimeout(20)
                    assert int(early.recv(64)) == pid
                    assert stack.process.stop() == 0


def test_a_socket_that_matches_nothing_is_an_error_that_names_it():
    def deaf():
        item = socket.socket()
        item.bind(("127.0.0.1", 0))
        return item
    datagram = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fixed = {"name": "web", "address": "127.0.0.1", "port": 1}
    for make, name, listener, says in (
            (listening, "web", fixed, r'listener "web" is at 127.0.0.1 port \d+, but 127.0.0.1 port 1 is configured'),
            (listening, "web", {"name": "web", "address": "127.0.0.2"}, r"127.0.0.1 port \d+, but 127.0.0.2 port 0"),
            (listening, "web", {"name": "web", "address": "/tmp/x"}, "but /tmp/x port 0 is configured"),
            (listening, "other", fixed, r'"other" at 127.0.0.1 port \d+ has neither the name nor the address'),
            (listening, "other", {"name": "web"}, "has neither the name nor the address"),
            (deaf, "web", {"name": "web"}, "does not listen for streams"),
            (datagram, "web", {"name": "web"}, "does not listen for streams")):
        with make() as handed, Above() as above:
            with start(above, [], listeners=[listener], handed=[(name, handed)]) as stack:
                assert re.search(says, above.until(STOPPING="1")["STATUS"])
                assert stack.process.child.wait(20) == 100
                assert "supervisor.listener.handed" in stack.log()


def test_a_second_socket_for_a_listener_is_an_error():
    with listening() as first, listening() as second:
        with Stack([], listeners=["web"], handed=[("web", first), ("web", second)]) as stack:
            assert stack.process.child.wait(20) == 100
            assert 'listener \\"web\\" is handed two sockets' in stack.log()


def test_sockets_for_another_process_are_not_taken():
    with Stack([], env={"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "nobody"}) as stack:
        stack.core()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="no systemd-socket-activate here")
def test_systemd_s_own_tool_hands_a_socket_over():
    with listening((own_address(), 0)) as probe:
        address = probe.getsockname()
    listener = {"name": "web", "address": address[0], "port": address[1]}
    with Stack([module("web", "ready", "serve", listeners=["web"])], listeners=[listener]) as stack:
        stack.core()
        assert stack.process.stop() == 0  # only its files are wanted
        stack.process = Process("activated", ["systemd-socket-activate", "-l", f"{address[0]}:{address[1]}", "--fdname=web",
                                              *stack.arguments], stack.directory,
                                env={"PATH": "/usr/bin:/bin"})
        early = wait_until(lambda: connect(address), "systemd-socket-activate to listen")
        with early:
            pid = stack.core().start("web")["pid"]
            early.settimeout(20)
            assert int(early.recv(64)) == pid
            assert stack.process.stop() == 0


def connect(address):
    try:
        return socket.create_connection(address)
    except ConnectionRefusedError:
        return None


# ---- the units --------------------------------------------------------------------------------------------------------

@pytest.fixture
def units(tmp_path):
    """Both units, with the program where it was built."""
    text = (UNITS / "gatehouse.service").read_text()
    assert "/usr/bin/gatehouse-supervisor" in text
    (tmp_path / "gatehouse.service").write_text(text.replace("/usr/bin/gatehouse-supervisor", str(SUPERVISOR)))
    shutil.copy(UNITS / "gatehouse.socket", tmp_path)
    return [tmp_path / "gatehouse.service", tmp_path / "gatehouse.socket"]


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_the_units_are_valid(units, capsys):
    """What `systemd-analyze security` makes of the service is printed: it weighs what the modules' sandbox needs as a danger."""
    out = analyze("verify", "--man=no", *units)
    assert out.returncode == 0 and not out.stderr, out.stderr
    judged = analyze("security", "--no-pager", "--offline=yes", units[0]).stdout.strip().splitlines()
    with capsys.disabled():
        print(f"\nsystemd-analyze security: {judged[-1] if judged else 'knows no --offline here'}")


def test_the_state_is_left_to_the_core_s_user():
    """StateDirectory= would give it back to root at each start; test_systemd_real.py shows the rest."""
    text = (UNITS / "gatehouse.service").read_text()
    assert "\nStateDirectory=" not in text and "\nReadWritePaths=-/var/lib/gatehouse\n" in text


def test_the_units_leave_the_modules_sandbox_room():
    """What would break it, or be inherited by every module in whatever language."""
    keys = {line.split("=", 1)[0]: line.split("=", 1)[1] for line in (UNITS / "gatehouse.service").read_text().splitlines()
            if "=" in line and not line.startswith("#")}
    assert not {"RestrictNamespaces", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "SystemCallFilter", "ProtectControlGroups"} & set(keys)
    assert keys["Type"] == "notify" and keys["Restart"] == "always" and keys["KillMode"] == "mixed"
    for name in ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN", "CAP_KILL"):
        assert name in keys["CapabilityBoundingSet"]
    socket_unit = (UNITS / "gatehouse.socket").read_text()
    assert "FileDescriptorName=mcp\n" in socket_unit and f"ListenStream=127.0.0.1:{4444}\n" in socket_unit

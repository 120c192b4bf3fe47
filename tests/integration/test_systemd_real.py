"""The units of deploy/systemd, unchanged, under a real systemd as process 1 (DEP-4): start, readiness, doors, reload, watchdog, restart, stop,
exit statuses. test_systemd.py plays systemd; this is systemd. It needs root and a cgroup v2 hierarchy, and is skipped elsewhere."""
import json
import time

import pytest

from harness import machine as machines
from harness.processes import wait_until
from harness.sanitizers import sanitized
from harness.supervised import alive

pytestmark = [pytest.mark.skipif(machines.missing() is not None, reason=f"no systemd as process 1: {machines.missing()}"),
              pytest.mark.skipif(sanitized(), reason="the limits of the unit are for builds without sanitizers")]

SERVICE, SOCKET = "gatehouse.service", "gatehouse.socket"
PORT = 4444
USERS = {"core": 64000, "mcp": 64001, "rest": 64002}
CONFIG = {
    "version": 1, "core": {"user": str(USERS["core"])}, "store": {"backend": "sqlite"},
    "listeners": [{"name": "mcp", "address": "127.0.0.1", "port": PORT}],
    "modules": [{"id": "mcp", "family": "mcp", "binary": "gatehouse-mcp", "listeners": ["mcp"], "user": str(USERS["mcp"])},
                {"id": "rest", "family": "rest-grpc", "binary": "gatehouse-rest", "user": str(USERS["rest"])}]}


@pytest.fixture(scope="module")
def machine():
    try:
        started = machines.Machine()
    except machines.NoMachine as error:
        pytest.skip(f"no systemd as process 1: {error}")
    with started:
        yield started


class Service:
    """Our two units on the machine, from a clean beginning."""

    def __init__(self, machine):
        self.machine = machine

    def prepare(self, config=None, extra=""):
        """extra: lines of a drop-in beside the one that keeps the log, for which the machine has no journal."""
        self.machine.run("systemctl", "stop", SOCKET, SERVICE)
        self.machine.run("systemctl", "reset-failed", SOCKET, SERVICE, check=False)  # what it has forgotten needs none
        self.machine.run("rm", "-rf", "/var/lib/gatehouse", machines.LOG)
        self.configure(config or CONFIG)
        log = f"StandardOutput=append:{machines.LOG}\nStandardError=append:{machines.LOG}\n"
        self.machine.write(f"/units/{SERVICE}.d/test.conf", f"[Service]\n{log}{extra}")
        self.machine.run("systemctl", "daemon-reload")
        return self

    def configure(self, config):
        self.machine.write("/etc/gatehouse/gatehouse.yaml", json.dumps(config))  # JSON is YAML

    def systemctl(self, *arguments, **options):
        return self.machine.run("systemctl", *arguments, **options)

    def get(self, name):
        return self.machine.show(SERVICE, name)

    def until(self, name, wanted, timeout_s=30):
        wait_until(lambda: self.get(name) == wanted, f"{name} to be {wanted}; {self.machine.text()[-1000:]}", timeout_s, pause_s=0.05)

    def main(self):
        return int(self.get("MainPID"))

    def answer(self, connection=None):
        """The status line of the MCP endpoint to a request that it refuses."""
        with connection or self.machine.connect(PORT) as open_connection:
            open_connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return open_connection.makefile("rb").readline().decode().strip()

    def processes(self):
        return {item["id"]: item for item in json.loads(self.machine.run("gatehouse", "status", "--output", "json").stdout)["processes"]}

    def events(self, message):
        """Lines of the supervisor's log with that message."""
        whole = self.machine.log().rpartition("\n")[0]  # somebody may be writing the last line
        found = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in found if line["process"] == "supervisor" and line["message"] == message]


@pytest.fixture
def service(machine):
    return Service(machine)


SERVED = "HTTP/1.1 404 Not Found"
TEAM = """kind: Team
metadata: {name: kept}
spec: {}
"""


def test_it_starts_and_is_confined_as_without_systemd(service):
    service.prepare().systemctl("start", SERVICE)
    assert service.get("ActiveState") == "active" and service.get("StatusText") == "serving: 2 of 2 modules ready"
    assert service.answer() == SERVED
    for name, process in service.processes().items():
        assert process["state"] == "ready", process
    for module in ("core", "mcp", "rest"):
        described = json.loads(service.machine.run("gatehouse", "module", "describe", module, "--output", "json").stdout)
        states = {item["name"]: item["state"] for item in described["protections"]}
        off = {"cgroup", "mount_view", "private_tmp", "oom_first", "environment"} if module == "core" else {"cgroup"}
        assert {name for name, state in states.items() if state != "in force"} <= off, states


def test_the_delegated_group_is_divided(service):
    """Where systemd has controllers to delegate (LIF-14); elsewhere supervisor/sandbox_cgroup_test.c has to do."""
    limited = {**CONFIG["modules"][1], "cgroup": {"memory_bytes": 512 << 20, "processes": 77}}
    service.prepare({**CONFIG, "modules": [CONFIG["modules"][0], limited]}).systemctl("start", SERVICE)
    measure = next(item for item in json.loads(service.machine.run("gatehouse", "module", "describe", "rest", "--output", "json").stdout)["protections"]
                   if item["name"] == "cgroup")
    if measure["state"] != "in force":
        pytest.skip(f"no limits by cgroup here: {measure['why']}")
    group = service.machine.path(f"/sys/fs/cgroup{service.get('ControlGroup')}/gatehouse-rest")
    assert (group / "pids.max").read_text() == "77\n" and (group / "memory.max").read_text() == f"{512 << 20}\n"
    assert str(service.processes()["rest"]["pid"]) in service.machine.run("cat", f"/sys/fs/cgroup{service.get('ControlGroup')}/gatehouse-rest/cgroup.procs").stdout.split()
    service.systemctl("stop", SERVICE)
    assert service.get("Result") == "success"


def test_active_means_ready(service):
    """The core and one module are ready; the other one never is, and is waited for as long as its start may take."""
    late = {"id": "late", "family": "mcp", "binary": "/bin/sleep", "args": ["600"], "start_timeout_ms": 1500}
    service.prepare({**CONFIG, "modules": [CONFIG["modules"][0], late]}).systemctl("start", "--no-block", SERVICE)
    def starting():
        said = dict(line.split("=", 1) for line in service.systemctl("show", "--property=StatusText,ActiveState", SERVICE).stdout.splitlines())
        return said["StatusText"] == "starting: 1 of 2 modules ready; not ready: late" and said  # both of one moment
    assert wait_until(starting, "the other module to be waited for")["ActiveState"] == "activating"
    service.until("ActiveState", "active")
    assert service.get("StatusText") == "degraded: 1 of 2 modules ready; not ready: late"


def test_a_connection_to_systemd_s_door_starts_the_service_and_is_served(service):
    service.prepare().systemctl("start", SOCKET)
    assert service.get("ActiveState") == "inactive"
    assert service.answer() == SERVED
    service.until("ActiveState", "active")
    service.systemctl("stop", SERVICE)
    with service.machine.connect(PORT) as early:  # the door is open while nobody is behind it
        assert service.answer(early) == SERVED
    service.until("ActiveState", "active")


def test_it_starts_again_on_the_state_that_it_left(service):
    """The state belongs to the core's user, which systemd knows nothing of."""
    service.prepare().systemctl("start", SERVICE)
    service.machine.write("/etc/gatehouse/team.yaml", TEAM)
    service.machine.run("gatehouse", "apply", "-f", "/etc/gatehouse/team.yaml")
    for _ in range(2):
        service.systemctl("restart", SERVICE)
        assert service.get("StatusText") == "serving: 2 of 2 modules ready"
        assert "kept" in service.machine.run("gatehouse", "export").stdout
    owners = {path.stat().st_uid for path in service.machine.path("/var/lib/gatehouse").iterdir()}
    assert owners == {USERS["core"]}


def test_reload_takes_over_what_is_right_and_refuses_the_rest(service):
    service.prepare().systemctl("start", SERVICE)
    before = service.main()
    service.configure({**CONFIG, "log": {"level": "debug"}})
    service.systemctl("reload", SERVICE)
    wait_until(lambda: service.events("the configuration was taken over"), "the reload to be done")
    service.configure({**CONFIG, "wrong": 1})
    service.systemctl("reload", SERVICE)
    wait_until(lambda: service.events("the configuration is not taken over; the one before stays in force"), "the reload to be refused")
    service.until("ActiveState", "active")
    assert service.main() == before and service.answer() == SERVED


def test_a_supervisor_that_is_killed_is_started_again_and_serves(service):
    service.prepare().systemctl("start", SOCKET, SERVICE)
    before, children = service.main(), {item["pid"] for item in service.processes().values() if item["id"] != "supervisor"}
    outside = [service.machine.pid(pid) for pid in {before, *children}]
    service.machine.signal(before, "KILL")
    wait_until(lambda: not any(alive(pid) for pid in outside), "all to die with it")  # or one of them might take the connection along
    assert service.answer() == SERVED
    service.until("NRestarts", "1")
    service.until("StatusText", "serving: 2 of 2 modules ready")
    now = {item["pid"] for item in service.processes().values() if item["id"] != "supervisor"}
    assert service.main() != before and not now & children
    members = service.machine.run("cat", f"/sys/fs/cgroup{service.get('ControlGroup')}/cgroup.procs").stdout.split()
    assert {int(pid) for pid in members} == now | {service.main()}, "nobody of the life before is left"


@pytest.mark.parametrize("who", ["supervisor", "core"])
def test_one_that_hangs_is_found_by_the_watchdog(who, service):
    service.prepare(extra="WatchdogSec=4\n").systemctl("start", SOCKET, SERVICE)
    before = service.main()
    service.machine.signal(before if who == "supervisor" else service.processes()["core"]["pid"], "STOP")
    service.until("NRestarts", "1")
    wait_until(lambda: "Watchdog timeout" in service.machine.text(), "systemd to say why")
    assert service.answer() == SERVED
    assert service.main() != before


def test_it_stops_in_order_and_leaves_nothing(service):
    service.prepare().systemctl("start", SERVICE)
    group, begin = service.machine.path("/sys/fs/cgroup" + service.get("ControlGroup")), time.monotonic()
    service.systemctl("stop", SERVICE)
    assert time.monotonic() - begin < 10
    assert service.get("Result") == "success" and service.get("ExecMainStatus") == "0"
    assert [line["module"] for line in service.events("ended")][-1] == "core" and len(service.events("ended")) == 3
    assert {(line["status"], line["signal"]) for line in service.events("ended")} == {(0, 0)}
    assert not group.exists() or not (group / "cgroup.procs").read_text()
    with pytest.raises(ConnectionRefusedError):
        service.machine.connect(PORT)


def test_a_wrong_configuration_is_not_started_again(service):
    service.prepare({**CONFIG, "wrong": 1})
    assert service.systemctl("start", SERVICE, check=False).returncode == 1
    assert service.get("ExecMainStatus") == "100"
    assert (service.get("ActiveState"), service.get("NRestarts")) == ("failed", "0")
    assert "wrong" in service.machine.log()


def test_a_core_that_gives_up_is_not_started_again(service):
    service.prepare({**CONFIG, "core": {"binary": "/bin/sh", "args": ["-c", "exit 125"]}})
    service.systemctl("start", SERVICE, check=False)
    service.until("ActiveState", "failed")
    assert (service.get("ExecMainStatus"), service.get("NRestarts")) == ("125", "0")


def test_an_address_that_is_taken_is_tried_until_it_is_free(service):
    service.prepare()
    with service.machine.listen_on(PORT):
        service.systemctl("start", SERVICE, check=False)
        wait_until(lambda: int(service.get("NRestarts")) >= 2, "systemd to try again", 30)
        wait_until(lambda: "status=111" in service.machine.text(), "systemd to say why")
    service.until("StatusText", "serving: 2 of 2 modules ready")
    assert service.answer() == SERVED

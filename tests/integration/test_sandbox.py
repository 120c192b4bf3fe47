"""A module that tries everything, in the real gateway (LIF-14): it gets nothing, and the others serve on (tests/fixtures/hostile.c)."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess

import pytest

from harness import BUILD, gateway as gateways
from harness.mcp import ModernMcp
from harness.processes import wait_until
from harness.sanitizers import sanitized

HOSTILE = BUILD / "tests" / "hostile"
ABSTRACT = f"gatehouse-test-{os.getpid()}"
UNITS = {"value": 5, "from_unit": "km", "to_unit": "m"}
NO = {"EPERM", "EACCES", "ENOENT", "ENOSYS", "EROFS"}
BOUNDED = {"fork_bomb": {"EPERM", "EAGAIN"}, "memory_bomb": {"ENOMEM"}, "file_bomb": {"EFBIG"}, "write_own_program": {*NO, "ETXTBSY"}}
LIMITS = {"address_space_bytes": 256 << 20, "processes": 40}

pytestmark = [pytest.mark.skipif(not HOSTILE.exists(), reason="not built: hostile"),
              pytest.mark.skipif(sanitized(), reason="a build with sanitizers has no system call filter")]


def landlock():
    """The kernel's version of Landlock, 0: none."""
    script = "import ctypes; print(ctypes.CDLL(None).syscall(444, None, 0, 1))"
    return max(0, int(subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, text=True, check=True).stdout))


# what differs: keys of the module, what is in force otherwise than usual, what it may do after all
CASES = {
    "as it comes": ({}, {}, set()),
    "a user of its own": ({"user": "nobody"}, {"user": "in force"}, set()),
    "a user of its own that starts programs": ({"user": "games", "sandbox": {"profile": "script"}}, {"user": "in force"},
                                               # to signal all is no error to the kernel when each single one is refused
                                               {"run_shell", "run_from_memory", "signal_everybody"}),
    "without a mount view": ({"sandbox": {"mount_view": False}}, {"mount_view": "turned off", "private_tmp": "off"},
                             # sockets are not files to Landlock: their owner and the core's and the modules' own checks decide
                             # and that a folder changes is told to whoever owns it
                             {"reach_admin_socket", "reach_spi_of_other_module", "reach_runtime_of_other_module", "watch_state"}),
    "a user of its own, without a mount view": ({"user": "nobody", "sandbox": {"mount_view": False}}, {"mount_view": "turned off", "private_tmp": "off", "user": "in force"}, set()),
    "without Landlock": ({"user": "nobody", "sandbox": {"landlock": False}},
                         {"landlock_files": "turned off", "landlock_network": "turned off", "landlock_scope": "turned off"}, {"reach_abstract_socket"}),
}


@pytest.fixture(scope="module")
def listening():
    """A TCP port and an abstract socket that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"\0{ABSTRACT}")
        unix.listen()
        yield tcp.getsockname()[1]


def module(gateway_directory, port, program, **keys):
    return {"id": "hostile", "family": "echo", "binary": str(program), "start_timeout_ms": 600000, "rlimits": LIMITS, **keys,
            "env": {"STATE": str(gateway_directory / "state"), "PORT": str(port), "ABSTRACT": ABSTRACT, "OTHER": "mcp", "PROGRAM": str(program),
                    "SETUID": str(program.parent / "setuid")}}


class Stack(gateways.Gateway):
    """The quick start with the hostile module; a set-user-id program waits in its directory."""

    def __init__(self, port, program, **keys):
        config = gateways.quickstart_config()
        directory = program.parent
        config["modules"].append(module(directory, port, program, **keys))
        super().__init__(config, env={"GATEHOUSE_STATE": str(directory / "state")}, wait=False, passable=True)

    @property
    def own(self):
        return self.run / "modules" / "hostile"

    def wait_others(self):
        wait_until(lambda: all(self.processes().get(name, {}).get("state") == "ready" for name in ("mcp", "rest")), "mcp and rest to be ready")

    def report(self):
        path = self.own / "report"
        wait_until(path.exists, "the hostile module to be done", 60)
        return dict(line.split() for line in path.read_text().splitlines())

    def protections(self):
        described = self.describe("hostile")
        return {item["name"]: item for item in described["protections"]}


@pytest.fixture
def place(tmp_path_factory):
    """A directory that every user may pass through, with the hostile program, which belongs to the user of the gateway."""
    directory = pathlib.Path(subprocess.run(["mktemp", "-d", "/tmp/ghpXXXXXX"], check=True, capture_output=True, text=True).stdout.strip())
    directory.chmod(0o711)
    shutil.copy(HOSTILE, directory / "hostile")
    (directory / "hostile").chmod(0o755)
    yield directory / "hostile"
    shutil.rmtree(directory)


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_module_gets_nothing_and_the_others_serve(case, place, listening, worldclock, notes):
    keys, otherwise, after_all = CASES[case]
    if "user" in keys and os.geteuid() != 0:
        pytest.skip("only root can start processes as other users")
    with Stack(listening, place, **keys) as stack:
        stack.wait_others()
        stack.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        before = {name: stack.processes()[name]["pid"] for name in ("supervisor", "core", "mcp", "rest")}
        token = stack.token(gateways.GUEST, "--team", "explorers")
        with ModernMcp(stack.mcp_url, token) as mcp:
            for _ in range(20):
                assert mcp.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000
            report = stack.report()
            assert mcp.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000
        got = {name: answer for name, answer in report.items() if answer not in BOUNDED.get(name, NO) and name not in after_all}
        states = {name: item["state"] for name, item in stack.protections().items()}
        assert len(report) > 60 and not got, (got, states)
        assert before == {name: stack.processes()[name]["pid"] for name in before}
        expected_states(states, otherwise)


def expected_states(states, otherwise):
    """Every measure that this machine can have is in force."""
    version, root = landlock(), os.geteuid() == 0
    here = {"no_new_privileges": True, "capabilities": True, "seccomp": True, "landlock_files": version > 0, "landlock_network": version >= 4,
            "landlock_scope": version >= 6, "network": True, "mount_view": root, "private_tmp": root, "rlimits": True, "environment": True,
            "descriptors": True, "oom_first": True}
    for name, possible in here.items():
        assert states[name] == otherwise.get(name, "in force" if possible else "off"), (name, states)


# call -> profile in which it is the end
FATAL = {"trace_supervisor": "mcp", "load_bpf": "rest", "open_userfaultfd": "console"}


@pytest.mark.parametrize("attempt", FATAL)
def test_what_only_an_intruder_asks_for_ends_a_module_of_ours(attempt, place, listening):
    with Stack(listening, place, args=[attempt], sandbox={"profile": FATAL[attempt]}, restart="never") as stack:
        def ended():
            return re.search(r"signal 31|SYS", stack.processes().get("hostile", {}).get("lastExit", ""))
        wait_until(ended, "the hostile module to be ended by its filter")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a mount view")
def test_every_module_has_a_tmp_of_its_own(place, listening):
    with Stack(listening, place) as stack:
        stack.wait_others()
        stack.report()
        roots = [pathlib.Path(f"/proc/{stack.processes()[name]['pid']}/root") / "tmp" for name in ("mcp", "rest", "hostile")]
        assert len({path.stat().st_dev for path in roots} | {os.stat("/tmp").st_dev}) == 4


def test_a_module_of_ours_under_its_own_profile_can_start_nothing(place, listening):
    with Stack(listening, place, args=["run_shell"], sandbox={"profile": "mcp"}) as stack:
        assert stack.report() == {"run_shell": "EPERM"}


@pytest.mark.skipif(os.geteuid() != 0, reason="a set-user-id program of another user needs root to make")
def test_a_set_user_id_program_gives_nothing(place, listening):
    """It runs, in the profile that may start programs, as the user that it was started by."""
    setuid = place.parent / "setuid"
    shutil.copy(HOSTILE, setuid)
    setuid.chmod(0o4755)
    assert subprocess.run([setuid, "uid"], user="nobody", check=False).returncode == 7, "the program itself does not work here"
    with Stack(listening, place, user="nobody", sandbox={"profile": "script", "read": [str(setuid)]}, args=["run_setuid_program"]) as stack:
        assert stack.report()["run_setuid_program"] in NO


def test_a_loosened_sandbox_is_a_warning_in_the_status(place, listening):
    keys = {"sandbox": {"calls": ["keyctl"], "connect": ["443"], "read": ["/etc/hostname"], "landlock": False}, "args": ["session_keyring"]}
    with Stack(listening, place, **keys) as stack:
        assert stack.report()["session_keyring"] not in ("EPERM", "ENOSYS")
        def warned():
            text = stack.ctl("status", check=False).stdout
            return next((line for line in text.splitlines() if line.startswith("warning: hostile: ")), None)
        warning = wait_until(warned, "the status to warn")
        for what in ("seccomp loosened", "network loosened", "landlock_files turned off"):
            assert what in warning
        assert '"message":"a protection is loosened","module":"hostile","protection":"seccomp"' in stack.log()


@pytest.mark.parametrize(("keys", "said"), [
    ({"calls": ["no_such_call"]}, 'no such system call here: "no_such_call"'), ({"connect": ["any", "443"]}, 'stands alone: "any"'),
    ({"connect": ["70000"]}, 'not a TCP port, any or none: "70000"'), ({"read": ["relative"]}, "must be an absolute path"),
    ({"write": ["/a/../b"]}, "must be an absolute path"), ({"profile": "root"}, "auto,mcp"), ({"seccmp": True}, 'did you mean "seccomp"')])
def test_a_wrong_key_is_an_error_with_its_name(keys, said, tmp_path):
    path = tmp_path / "gatehouse.yaml"
    path.write_text(json.dumps({"version": 1, "modules": [{"id": "x", "sandbox": keys}]}))
    out = subprocess.run([BUILD / "bin" / "gatehouse", "config", "check", "--config", path], capture_output=True, text=True, timeout=20, check=False)
    assert out.returncode != 0 and said in out.stdout + out.stderr, out


def test_describe_says_of_every_measure_whether_it_is_in_force_and_why_not(place, listening):
    with Stack(listening, place) as stack:
        stack.wait_others()
        text = stack.ctl("module", "describe", "mcp").stdout
        assert re.search(r"^PROTECTION +STATE +WHAT / WHY NOT$", text, re.M)
        assert re.search(r"^seccomp +in force +profile mcp$", text, re.M)
        for line in text[text.index("PROTECTION"):].split("\n\n")[0].splitlines()[1:]:
            assert re.match(r"\w+ +(in force|off|turned off|loosened) +\S", line), line


# ---- the core ----

OF_ITS_OWN = {"open_store", "open_master_key", "list_state", "read_configuration", "find_other_process"}


# everything up to the first call that ends the core (open_by_handle), and these alone
ALONE = ("reach_abstract_socket", "connect_tcp", "connect_udp", "bind_tcp", "open_netlink", "signal_supervisor", "signal_everybody", "limits_of_supervisor",
         "fork_bomb", "set_clock", "take_capabilities", "be_dumpable", "run_shell", "run_from_memory")


@pytest.mark.parametrize("attempt", ["", *ALONE])
def test_a_core_that_was_taken_over_gets_nothing_but_its_own(attempt, place, listening):
    """The hostile program in the core's place and profile."""
    program, state = place.parent / "gatehouse-core", place.parent / "state"
    place.rename(program)
    config = gateways.quickstart_config()
    config["core"] = {"binary": str(program), "args": [attempt] if attempt else []}
    env = {"GATEHOUSE_STATE": str(state), "STATE": str(state), "PORT": str(listening), "ABSTRACT": ABSTRACT, "OTHER": "mcp", "PROGRAM": str(program),
           "SETUID": str(place.parent / "setuid")}
    with gateways.Gateway(config, env=env, wait=False, passable=True) as started:
        if not attempt:
            wait_until(lambda: re.search(r'"message":"ended","module":"core".*"signal":31', started.log()), "the core to be ended by its filter")

        def report():
            path = state / ("report" if attempt else "report.new")
            lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
            return (lines[-1:] == [["make_device", "EPERM"]] or (attempt and lines)) and dict(lines)
        got = {name: answer for name, answer in wait_until(report, "a whole report").items() if answer not in BOUNDED.get(name, NO) and name not in OF_ITS_OWN}
        assert not got, got


def test_the_core_is_confined_and_says_so(place, listening):
    with Stack(listening, place) as stack:
        stack.wait_others()
        described = stack.describe("core")
        states = {item["name"]: item["state"] for item in described["protections"]}
        version = landlock()
        here = {"no_new_privileges": True, "capabilities": True, "seccomp": True, "landlock_files": version > 0, "landlock_network": version >= 4,
                "landlock_scope": version >= 6, "network": True, "rlimits": True, "descriptors": True, "not_dumpable": True}
        assert {name: states[name] for name in here} == {name: "in force" if possible else "off" for name, possible in here.items()}
        core = stack.processes()["core"]
        assert not core.get("warnings")
        status = pathlib.Path(f"/proc/{core['pid']}/status").read_text()
        for line in ("CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapInh:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
            assert line in status, line


def test_a_loosened_core_is_a_warning_in_the_status():
    config = gateways.quickstart_config()
    config["core"] = {"sandbox": {"seccomp": False, "read": ["/etc/hostname"], "connect": ["5432"]}}
    with gateways.Gateway(config) as started:
        warnings = " ".join(started.processes()["core"]["warnings"])
        for what in ("seccomp turned off", "landlock_files loosened", "network loosened"):
            assert what in warnings, warnings
        assert '"message":"a protection is off","module":"core","protection":"seccomp"' in started.log()


def test_a_wrong_key_of_the_core_is_an_error_with_its_name(tmp_path):
    path = tmp_path / "gatehouse.yaml"
    path.write_text(json.dumps({"version": 1, "core": {"sandbox": {"calls": ["no_such_call"], "read": ["relative"]}}}))
    out = subprocess.run([BUILD / "bin" / "gatehouse", "config", "check", "--config", path], capture_output=True, text=True, timeout=20, check=False)
    assert out.returncode != 0 and "core.sandbox.calls" in out.stdout + out.stderr and "core.sandbox.read" in out.stdout + out.stderr, out


def test_limits_by_cgroup_hold(place, listening):
    """Where a cgroup with controllers is delegated to us; elsewhere the unit test's tree of files has to do (supervisor/sandbox_cgroup_test.c)."""
    keys = {"cgroup": {"memory_bytes": 64 << 20, "processes": 9, "cpu_percent": 50}, "args": ["run_shell"]}
    with Stack(listening, place, **keys) as stack:
        stack.report()
        measure = stack.protections()["cgroup"]
        if measure["state"] != "in force":
            pytest.skip(f"no limits by cgroup here: {measure['why']}")
        own = pathlib.Path(f"/proc/{stack.processes()['hostile']['pid']}/cgroup").read_text().strip().rpartition("::")[2]
        assert own.endswith("/gatehouse-hostile"), own
        mount = next(line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line)
        group = pathlib.Path(mount + own)
        assert [(group / name).read_text().strip() for name in ("memory.max", "memory.oom.group", "pids.max", "cpu.max")] == \
            [str(64 << 20), "1", "9", "50000 100000"]

"""What the supervisor keeps of root's power (LIF-14): supervisor/capabilities.def is what it has, and each entry is needed."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess

import pytest

from harness import ROOT, gateway as gateways
from harness.processes import wait_until
from harness.sanitizers import sanitized

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only root has what could be given up"),
              pytest.mark.skipif(gateways.missing() is not None, reason=str(gateways.missing()))]

TABLE = ROOT / "supervisor" / "capabilities.def"
UNIT = ROOT / "deploy" / "systemd" / "gatehouse.service"
ENTRIES = re.findall(r'^CAPABILITY\((\w+), (ALWAYS|USERS|VIEWS), "(.+)"\)$', TABLE.read_text(), re.M)
# Their numbers in linux/capability.h.
NUMBERS = {"CHOWN": 0, "DAC_OVERRIDE": 1, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8, "SYS_CHROOT": 18, "SYS_ADMIN": 21}
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def configuration(users, views):
    """One that takes users, or mount views, or neither."""
    config = gateways.quickstart_config()
    for number, module in enumerate(config["modules"]):
        module |= {"sandbox": {"mount_view": views}, "upgrade": {"probation_ms": 500}}
        if users:
            module["user"] = str(64001 + number)
    return {**config, "core": {"user": "64000"}} if users else config


def status_of(pid):
    return dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def capabilities_of(pid):
    """{set: names}; a number that is not in the table stays one."""
    names = {number: name for name, number in NUMBERS.items()}
    found = status_of(pid)
    return {kind: {names.get(bit, bit) for bit in range(64) if int(found[kind], 16) >> bit & 1} for kind in SETS}


def described(gateway, name):
    out = json.loads(gateway.ctl("module", "describe", name, "--output", "json").stdout)
    return {item["name"]: item for item in out["protections"]}


def test_the_table_and_the_unit_of_systemd_agree():
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("CAPABILITY(")]
    names = {name for name, _, _ in ENTRIES}
    assert len(lines) == len(ENTRIES) and names == set(NUMBERS)
    bounding = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.M)[1].split()
    assert set(bounding) == {f"CAP_{name}" for name in names} | {"CAP_NET_BIND_SERVICE"}, "and a privileged port at the start"
    model = (ROOT / "docs" / "threat-model.md").read_text()
    assert not [name for name in names if f"`{name}`" not in model]


@pytest.mark.parametrize(("users", "views"), [(False, False), (True, False), (False, True), (True, True)])
def test_it_has_what_the_table_says_and_nothing_else(users, views):
    wanted = {name for name, when, _ in ENTRIES if when == "ALWAYS" or (users and when == "USERS") or (views and when == "VIEWS")}
    with gateways.Gateway(configuration(users, views), passable=True) as gateway:
        pid = gateway.processes()["supervisor"]["pid"]
        assert capabilities_of(pid) == {"CapInh": set(), "CapPrm": wanted, "CapEff": wanted, "CapBnd": wanted, "CapAmb": set()}
        assert status_of(pid)["NoNewPrivs"] == "1"
        protections = described(gateway, "supervisor")
        assert protections["capabilities"]["state"] == "in force" and protections["capabilities"]["why"] == f"at most {' '.join(sorted(wanted))}"
        assert {name for name, item in protections.items() if item["state"] == "in force"} >= {"capabilities", "no_new_privileges"}
        assert sanitized() or protections["not_dumpable"]["state"] == "in force"
        for name in ("core", "mcp", "rest"):
            assert capabilities_of(gateway.processes()[name]["pid"]) == dict.fromkeys(SETS, set())


def test_who_is_not_root_keeps_nothing():
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv here")
    with gateways.Gateway(configuration(False, False)) as gateway:
        assert gateway.stop() == 0
        for folder, _, files in os.walk(gateway.directory):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.lchown(path, 64000, 64000)
        gateway.under = ["setpriv", "--reuid=64000", "--regid=64000", "--clear-groups", "--inh-caps=+net_bind_service",
                         "--ambient-caps=+net_bind_service"]
        gateway.start()
        found = capabilities_of(gateway.processes()["supervisor"]["pid"])
        assert [found[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [set()] * 4
        assert described(gateway, "supervisor")["capabilities"]["why"] == "at most none"


def test_what_takes_a_capability_works_after_the_others_are_gone():
    """Ends and restarts of processes of other users, new directories for one of another user at a reload, an upgrade beside, the stop."""
    config = configuration(True, True)
    with gateways.Gateway(config, passable=True) as gateway:
        gateway.wait_restarted(gateway.kill("mcp"))
        gateway.wait_restarted(gateway.kill("core"))
        before = gateway.processes()["rest"]
        gateway.ctl("module", "restart", "rest")
        gateway.wait_restarted(before)
        config["modules"][1]["user"] = "64009"  # its directory is another's, and its mode is right
        gateway.config_path.write_text(json.dumps(config))
        os.kill(gateway.processes()["supervisor"]["pid"], 1)
        wait_until(lambda: "the configuration was taken over" in gateway.log(), "the reload")
        gateway.wait_ready()
        folder = (gateway.run / "modules" / "rest").stat()
        assert (folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode)) == (64009, 64000, 0o2750)
        gateway.ctl("module", "upgrade", "mcp", "--to", str(gateways.BIN / "gatehouse-mcp"))
        wait_until(lambda: "promoted" in gateway.ctl("module", "describe", "mcp").stdout, "the second process to take over", 60, pause_s=0.2)
        assert described(gateway, "rest")["mount_view"]["state"] == "in force"
        folder = (gateway.run / "modules" / "mcp@2").stat()
        assert (folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode)) == (64001, 64000, 0o2750)
        assert gateway.stop() == 0
        assert "a signal could not be sent" not in gateway.log() and "could not be started" not in gateway.log()


@pytest.mark.skipif(not shutil.which("setpriv") or sanitized(), reason="no setpriv here, or a build that lets itself be looked into")
def test_nobody_looks_into_it_without_the_power_to_trace():
    """Root that lacks only what lets it look into everybody, and sees the environment of every process of its own that is dumpable."""
    less = ["setpriv", "--bounding-set=-sys_ptrace,-sys_admin,-perfmon"]

    def reads(pid):
        return subprocess.run([*less, "cat", f"/proc/{pid}/environ"], capture_output=True, check=False).returncode == 0
    with gateways.Gateway(configuration(False, False), passable=True) as gateway, subprocess.Popen([*less, "sleep", "600"]) as other:
        try:
            wait_until(lambda: reads(other.pid), "a process like the reader to be seen")
            assert not [process for process in gateway.processes().values() if reads(process["pid"])]
        finally:
            other.kill()


# What fails without it, as the log or `module describe` has it.
MISSED = {"CHOWN": "cannot be given away: EPERM", "DAC_OVERRIDE": "cannot be made: EACCES", "KILL": "a signal could not be sent",
          "SETGID": '"step":"user","error":"EPERM"', "SETUID": '"step":"user","error":"EPERM"', "SETPCAP": "the bounding set is the supervisor's",
          "SYS_ADMIN": "cannot make a mount namespace: EPERM", "SYS_CHROOT": '"step":"mount namespace","error":"EPERM"'}


@pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv here")
@pytest.mark.parametrize("name", [entry[0] for entry in ENTRIES])
def test_no_entry_is_there_without_need(name):
    with gateways.Gateway(configuration(True, True), passable=True, wait=False, under=["setpriv", f"--bounding-set=-{name.lower()}"]) as gateway:
        def missed():
            if MISSED[name] in gateway.log():
                return True
            processes = gateway.processes()
            if "mcp" not in processes:
                return False
            if processes["mcp"].get("state") == "ready":
                gateway.ctl("module", "stop", "mcp", check=False)
            return MISSED[name] in gateway.ctl("module", "describe", "mcp", check=False).stdout
        wait_until(missed, f"something to fail without {name}", 60, pause_s=0.05)
        # Who may not signal others cannot stop them, and the kernel does not end them with it, either: that asks for the same right.
        left = [process["pid"] for process in gateway.processes().values() if process.get("pid")] if name == "KILL" else []
        if gateway.process.running():
            gateway.process.child.kill()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("key", "said"), [("no_new_privileges", "NoNewPrivs"), ("drop_capabilities", "CapBnd")])
def test_a_child_that_is_to_keep_them_lets_the_supervisor_keep_them_and_that_is_a_warning(key, said):
    config = gateways.quickstart_config()
    config["modules"][1]["sandbox"] = {key: False}
    with gateways.Gateway(config) as gateway:
        supervisor = gateway.processes()["supervisor"]
        ours = status_of("self")[said]
        assert status_of(supervisor["pid"])[said] == ours and status_of(gateway.processes()["mcp"]["pid"])[said] != ours
        measure = described(gateway, "supervisor")[{"drop_capabilities": "capabilities"}.get(key, key)]
        assert measure["state"] == "turned off" and "rest" in measure["why"]
        assert "turned off" in supervisor["warnings"][0]


@pytest.mark.parametrize(("change", "key"), [({"user": "64001"}, "user"), ({"sandbox": {"mount_view": True}}, "sandbox.mount_view"),
                                             ({"sandbox": {"mount_view": False, "drop_capabilities": False}}, "sandbox.drop_capabilities"),
                                             ({"sandbox": {"mount_view": False, "no_new_privileges": False}}, "sandbox.no_new_privileges")])
def test_a_reload_that_would_need_what_was_given_up_is_refused(change, key):
    config = configuration(False, False)
    with gateways.Gateway(config, passable=True) as gateway:
        before = gateway.processes()["rest"]
        config["modules"][1] |= change
        gateway.config_path.write_text(json.dumps(config))
        os.kill(gateway.processes()["supervisor"]["pid"], 1)
        wait_until(lambda: f"this {key} needs a restart: the supervisor has given up what it takes" in gateway.log(), "the reload to be refused")
        assert gateway.processes()["rest"]["pid"] == before["pid"]
        assert gateway.stop() == 0
        gateway.start()
        assert gateway.processes()["rest"]["state"] == "ready"


@pytest.mark.skipif(not shutil.which("choom"), reason="no choom here")
def test_a_gateway_that_is_to_end_first_itself_starts_its_modules():
    """A score that root has set cannot be lowered without SYS_RESOURCE: modules keep it, and that is said."""
    with gateways.Gateway(under=["choom", "-n", "600", "--"]) as gateway:
        measure = described(gateway, "mcp")["oom_first"]
        assert (measure["state"], measure["why"]) == ("off", "the whole gateway has a score of 600")
        assert pathlib.Path(f"/proc/{gateway.processes()['mcp']['pid']}/oom_score_adj").read_text() == "600\n"

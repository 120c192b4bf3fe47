"""New versions of a module beside the old one, on the real stack under load (LIF-9, LIF-10): the good one takes over, every bad one
goes by itself, and no client notices either. The same a thousand times over, with every kind of bad version: ./dev chaos --upgrades 1000."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import time

import pytest

from harness import BIN, gateway as gateways
from harness.http1 import Connection
from harness.load import Load
from harness.mcp import LegacyMcp, ModernMcp
from harness.processes import wait_until

PYMODULE = pathlib.Path(__file__).resolve().parent / "modules" / "pymodule.py"
ROUNDS = 12
UNITS = {"value": 5, "from_unit": "km", "to_unit": "m"}
OPEN = {"landlock": False, "mount_view": False, "seccomp": False}  # what the wrappers execute is not in any profile


def config_with(**of_modules):
    config = gateways.quickstart_config()
    for module in config["modules"]:
        module.update({"start_timeout_ms": 4000, "sandbox": OPEN, "upgrade": {"probation_ms": 500, "latency_percent": 0}})
        module.update(of_modules.get(module["id"], {}))
    return config


def program(gateway, name, script=None, of="mcp"):
    """A program beside the gateway's files: a copy of ours, or a wrapper."""
    path = gateway.directory / name
    if script is None:
        shutil.copy2(BIN / f"gatehouse-{of}", path)
    else:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return path


def versions(gateway, module="mcp"):
    return gateway.describe(module).get("versions", {})


def settled(gateway, module="mcp", timeout_s=30):
    """Until nothing is under way: the versions, and the newest change."""
    def done():
        now = versions(gateway, module)
        return not now.get("phase") and now
    now = wait_until(done, f"the upgrade of {module} to end", timeout_s, pause_s=0.05)
    return now, (now.get("changes") or [None])[0]


def running(gateway, module="mcp"):
    return os.readlink(f"/proc/{gateway.processes()[module]['pid']}/exe")


def test_lif_9_a_good_version_takes_over_under_load_and_no_request_fails(start_quickstart):
    with start_quickstart(config=config_with(mcp={"start_timeout_ms": 30000})) as gateway:
        before, real, go = gateway.processes(), program(gateway, "gatehouse-mcp-new"), gateway.directory / "go"
        path = program(gateway, "patient", f"until test -e {go}; do sleep 0.02; done\nexec {real}")  # a candidate for as long as we look
        with Load(gateway) as load:
            out = gateway.ctl("module", "upgrade", "mcp", "--to", path)
            assert "upgrading mcp" in out.stdout
            both = wait_until(lambda: [p for p in gateway.processes().values() if p.get("role") == "candidate"], "the candidate to be shown")
            assert both[0]["id"].startswith("mcp@") and both[0]["program"] == str(path)
            again = gateway.ctl("module", "upgrade", "mcp", "--to", path, check=False)
            assert again.returncode == 1 and "an upgrade is under way" in again.stderr
            assert "an upgrade is under way" in gateway.ctl("module", "restart", "mcp", check=False).stderr
            go.touch()
            now, change = settled(gateway)
            served = load.right
            wait_until(lambda: load.right > served + 50, "the new one to serve")
        assert load.failures == []
        assert (change["verdict"], change["to"], change["who"]) == ("promoted", str(path), "an operator")
        assert now["program"] == str(path) and now["hasPrevious"] and not now.get("previous")
        assert running(gateway) == str(real)
        after = gateway.processes()
        assert after["rest"]["pid"] == before["rest"]["pid"] and not [p for p in after.values() if p.get("role")]
        gateway.wait_restarted(gateway.kill("mcp"))
        assert running(gateway) == str(real)  # the promoted one is what is restarted
        assert "rolled back" not in gateway.ctl("module", "describe", "mcp").stdout


BAD = {
    "crashes at start": ("exit 3", "left with status 3"),
    "hangs at start": ("exec sleep 1000", "not ready in time"),
    "says another id": ("GATEHOUSE_MODULE_ID=other exec {bin}/gatehouse-mcp", "the module says it is"),
    "is another module": ("exec {bin}/gatehouse-rest", "but the module speaks"),
    "dies on probation": ("{bin}/gatehouse-mcp & sleep 0.6; kill -9 $!; exit 9", "status 9"),
}


def test_lif_9_every_bad_version_goes_by_itself_and_no_request_fails(start_quickstart):
    config = config_with(mcp={"start_timeout_ms": 5000, "sandbox": OPEN, "upgrade": {"probation_ms": 5000, "latency_percent": 0}})
    with start_quickstart(config=config) as gateway:
        before = gateway.processes()["mcp"]
        with Load(gateway) as load:
            for name, (script, why) in BAD.items():
                if name == "dies on probation":
                    continue  # below: its end is the end of requests that it took
                path = program(gateway, name.replace(" ", "-"), script.format(bin=BIN))
                gateway.ctl("module", "upgrade", "mcp", "--to", path)
                now, change = settled(gateway)
                assert change["verdict"] == "rolled back" and why in change["cause"], (name, change)
                assert not now.get("program")
        assert load.failures == []
        after = gateway.processes()["mcp"]
        assert (after["pid"], after["generation"], after["state"]) == (before["pid"], before["generation"], "ready")
        history = gateway.describe("mcp")["history"]
        assert any(step["toState"] == "rolling-back" for step in history)
        refused = gateway.ctl("module", "upgrade", "mcp", "--to", "/nonexistent/program", check=False)
        assert refused.returncode == 1 and "no such program" in refused.stderr
        plain = gateway.directory / "plain.txt"
        plain.write_text("no program")
        gateway.ctl("module", "upgrade", "mcp", "--to", plain)
        assert settled(gateway)[1]["verdict"] == "refused"


def by_version(directory, name, version):
    """A program in the directory of versions that says that it is of this version."""
    path = directory / "versions" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexport PYMODULE_VERSION={version}\nexec {PYMODULE} good\n")
    path.chmod(0o755)
    return path


def echo_config(stubs, tmp_path, **keys):
    tmp_path.chmod(0o755)
    return {"id": "echo", "family": "echo", "binary": str(PYMODULE), "args": ["good"], "sandbox": OPEN, "start_timeout_ms": 10000,
            "rlimits": {"address_space_bytes": 0}, "upgrade": {"probation_ms": 300, "memory_bytes": 50 << 20},
            "env": {"PYMODULE_STUBS": str(stubs), "PYMODULE_REPORT": str(tmp_path / "report")}, **keys}


def test_lif_9_a_version_is_found_by_its_name_and_must_be_what_it_is_called(stubs, tmp_path):
    config = {"version": 1, "versions_dir": str(tmp_path / "versions"), "modules": [echo_config(stubs, tmp_path)]}
    with gateways.Gateway(config=config) as gateway:
        unknown = gateway.ctl("module", "upgrade", "echo", "--to", "1.9", check=False)
        assert unknown.returncode == 1 and 'there is no version "1.9"; there are: 1.0.0; versions_dir' in unknown.stderr
        gateway.stop()  # the core may look into a directory that is there when it starts
        paths = {version: by_version(tmp_path, f"pymodule.py-{version}", version) for version in ("1.9", "1.10")}
        by_version(tmp_path, "2.0/pymodule.py", "2.0-beta")
        gateway.start()
        known = [(item["version"], item.get("program", "")) for item in versions(gateway, "echo")["known"]]
        assert known == [("1.0.0", ""), ("1.9", str(paths["1.9"])), ("1.10", str(paths["1.10"])),
                         ("2.0", str(tmp_path / "versions/2.0/pymodule.py"))]
        assert "1.10" in gateway.ctl("module", "describe", "echo").stdout
        gateway.ctl("module", "upgrade", "echo", "--to", "1.10")
        now, change = settled(gateway, "echo")
        assert (change["verdict"], change["to"], change["toVersion"], change["fromVersion"]) == ("promoted", str(paths["1.10"]), "1.10", "1.0.0")
        assert (now["program"], now["version"], now["previousVersion"]) == (str(paths["1.10"]), "1.10", "1.0.0")
        gateway.ctl("module", "upgrade", "echo", "--to", "2.0")
        _, change = settled(gateway, "echo")
        assert change["verdict"] == "rolled back" and "version 2.0 was asked for, and the module says it is 2.0-beta" in change["cause"]
        gateway.ctl("module", "upgrade", "echo", "--to", "1.0.0")  # by the history: it ran before, as configured
        now, change = settled(gateway, "echo")
        assert change["verdict"] == "promoted" and change["fromVersion"] == "1.10" and not now.get("program")
        by_version(tmp_path, "1.9/pymodule.py", "1.9")
        several = gateway.ctl("module", "upgrade", "echo", "--to", "1.9", check=False)
        assert several.returncode == 1 and "several programs are version 1.9" in several.stderr and str(paths["1.9"]) in several.stderr
        gateway.ctl("module", "upgrade", "echo", "--to", paths["1.9"])  # by its path it can be had
        assert settled(gateway, "echo")[1]["toVersion"] == "1.9"
        paths["1.10"].unlink()
        gone = gateway.ctl("module", "upgrade", "echo", "--to", "1.10", check=False)
        assert gone.returncode == 1 and "there are: 1.0.0, 1.9, 2.0" in gone.stderr


def test_lif_10_a_rollback_aborts_an_upgrade_and_goes_back_after_one(start_quickstart):
    with start_quickstart(config=config_with()) as gateway:
        path = program(gateway, "gatehouse-mcp-new")
        first = gateway.processes()["mcp"]["pid"]
        nothing = gateway.ctl("module", "rollback", "mcp", check=False)
        assert nothing.returncode == 1 and "no version before" in nothing.stderr
        with Load(gateway) as load:
            gateway.ctl("module", "upgrade", "mcp", "--to", path, "--probation", "60s")
            wait_until(lambda: versions(gateway)["phase"] == "probation", "probation")
            gateway.ctl("module", "rollback", "mcp")
            _, change = settled(gateway)
            assert change["verdict"] == "rolled back" and "ordered by an operator" in change["cause"]
            assert gateway.processes()["mcp"]["pid"] == first
            gateway.ctl("module", "upgrade", "mcp", "--to", path)
            assert settled(gateway)[1]["verdict"] == "promoted" and running(gateway) == str(path)
            gateway.ctl("module", "rollback", "mcp")
            now, change = settled(gateway)
            assert change["verdict"] == "promoted" and change["from"] == str(path) and not change.get("to")
            assert running(gateway) == os.path.realpath(BIN / "gatehouse-mcp") and not now.get("hasPrevious")
        assert load.failures == []


def test_lif_12_lif_13_a_promoted_version_and_its_history_outlive_core_and_supervisor(start_quickstart):
    with start_quickstart(config=config_with()) as gateway:
        path = program(gateway, "gatehouse-mcp-new")
        gateway.ctl("module", "upgrade", "mcp", "--to", path)
        settled(gateway)
        gateway.wait_restarted(gateway.kill("core"))
        gateway.wait_ready()
        assert versions(gateway)["program"] == str(path) and running(gateway) == str(path)
        # in the middle of an upgrade: the candidate is taken back
        other = program(gateway, "gatehouse-mcp-other")
        gateway.ctl("module", "upgrade", "mcp", "--to", other, "--probation", "60s")
        wait_until(lambda: versions(gateway)["phase"] == "probation", "probation")
        gateway.wait_restarted(gateway.kill("core"))
        gateway.wait_ready()
        _, change = settled(gateway)
        assert change["verdict"] == "rolled back" and "the core ended" in change["cause"] and running(gateway) == str(path)
        assert not [p for p in gateway.processes().values() if p.get("role")]
        # the supervisor dies in the middle of an upgrade, and comes back
        gateway.ctl("module", "upgrade", "mcp", "--to", other, "--probation", "60s")
        wait_until(lambda: versions(gateway)["phase"] == "probation", "probation")
        os.kill(gateway.processes()["core"]["pid"], signal.SIGSTOP)  # it dies with the supervisor, and sees nobody else die before
        gateway.process.child.kill()
        gateway.process.child.wait()
        gateway.start()
        assert running(gateway) == str(path)
        assert [c["verdict"] for c in versions(gateway)["changes"]] == ["rolled back", "promoted"]
        assert gateway.stop() == 0
        gateway.start()
        assert running(gateway) == str(path)
        gateway.ctl("module", "rollback", "mcp")
        settled(gateway)
        assert running(gateway) == os.path.realpath(BIN / "gatehouse-mcp")


def test_lif_12_a_promotion_that_was_not_written_down_yet_is_told_by_the_next_core(start_quickstart):
    """The store cannot write when it is decided, and the core dies before it can: the supervisor knows."""
    with start_quickstart(config=config_with()) as gateway:
        path = program(gateway, "gatehouse-mcp-new")
        with contextlib.closing(sqlite3.connect(gateway.state / "gatehouse.db", isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            gateway.ctl("module", "upgrade", "mcp", "--to", path)
            wait_until(lambda: "an upgrade was decided" in gateway.log(), "the decision")
            assert versions(gateway)["phase"] == "probation", "nobody is told what could still be lost"
            core = gateway.kill("core")
        gateway.wait_restarted(core)
        gateway.wait_ready()
        now, change = settled(gateway)
        assert (change["verdict"], change["to"], change["who"]) == ("promoted", str(path), "the core"), change
        assert "before it was written down" in change["cause"]
        assert now["program"] == running(gateway) == str(path) and now["hasPrevious"]
        gateway.ctl("module", "rollback", "mcp")
        settled(gateway)
        assert running(gateway) == os.path.realpath(BIN / "gatehouse-mcp")


class HalfSent:
    """A client whose request is on its way: its process has the head and waits for the rest."""

    def __init__(self, gateway):
        self.connection, client = Connection(gateway.mcp_url), ModernMcp(gateway.mcp_url, gateway.token(gateways.GUEST, "--team", "explorers"))
        body, headers = client.message("tools/call", {"name": "convert_units", "arguments": UNITS})
        self.body, self.headers = json.dumps(body).encode(), {**client.headers, **headers}
        self.begin()
        assert self.go_on().json()["result"]["structuredContent"]["result"] == 5000  # so it is served by one that serves
        self.begin()

    def begin(self):
        self.connection.send("POST", "/mcp", {**self.headers, "Content-Length": len(self.body)}, self.body[:-5])

    def go_on(self):
        self.connection.send_bytes(self.body[-5:])
        return self.connection.read()


@pytest.mark.parametrize("phase", ["retiring", "rolling back", "probation"])
def test_lif_12_a_core_that_dies_breaks_no_connection_of_a_version_that_is_leaving(start_quickstart, phase):
    with start_quickstart(config=config_with()) as gateway:
        path, current = program(gateway, "gatehouse-mcp-new"), gateway.processes()["mcp"]
        if phase == "retiring":
            leaving, client = current, HalfSent(gateway)
        gateway.ctl("module", "upgrade", "mcp", "--to", path, "--probation", "1ms" if phase == "retiring" else "60s")
        if phase != "retiring":
            wait_until(lambda: versions(gateway)["phase"] == "probation", "probation")
            leaving = next(process for process in gateway.processes().values() if process.get("role") == "candidate")
            os.kill(current["pid"], signal.SIGSTOP)  # so that the candidate takes the connection
            client = HalfSent(gateway)
            os.kill(current["pid"], signal.SIGCONT)
        if phase == "rolling back":
            gateway.ctl("module", "rollback", "mcp")
        wait_until(lambda: versions(gateway)["phase"] == phase, phase)
        gateway.wait_restarted(gateway.kill("core"))
        gateway.wait_ready()
        answer = client.go_on()
        assert answer and "jsonrpc" in answer.json(), answer  # refused, or served by an old version of a new core
        _, change = settled(gateway)
        assert change["verdict"] == ("promoted" if phase == "retiring" else "rolled back")
        assert gateway.processes()["mcp"]["pid"] != leaving["pid"] and not os.path.exists(f"/proc/{leaving['pid']}")


def test_lif_8_a_version_that_cannot_hold_goes_back_before_it_is_held_down(start_quickstart):
    with start_quickstart(config=config_with()) as gateway:
        path = program(gateway, "gatehouse-mcp-new")
        gateway.ctl("module", "upgrade", "mcp", "--to", path)
        settled(gateway)
        for _ in range(6):
            before = wait_until(lambda: (p := gateway.processes().get("mcp", {})).get("state") == "ready" and p, "mcp")
            os.kill(before["pid"], signal.SIGKILL)
            wait_until(lambda: gateway.processes().get("mcp", {}).get("generation") != before["generation"], "its end", pause_s=0.02)
        wait_until(lambda: gateway.processes()["mcp"]["state"] == "ready" and running(gateway) == os.path.realpath(BIN / "gatehouse-mcp"),
                   "the version before", 20)
        now, change = settled(gateway)
        assert change["verdict"] == "rolled back" and "6 deaths" in change["cause"] and change["who"] == "the core"
        assert not now.get("hasPrevious")
        with ModernMcp(gateway.mcp_url, gateway.token(gateways.GUEST, "--team", "explorers")) as mcp:
            assert mcp.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000


def test_lif_10_a_candidate_that_dies_is_told_of_with_what_it_died_of(start_quickstart):
    """The end of its connection comes first, and says less. Here the supervisor tells it late."""
    with start_quickstart(config=config_with()) as gateway:
        gateway.ctl("module", "upgrade", "mcp", "--to", program(gateway, "gatehouse-mcp-new"), "--probation", "60s")
        wait_until(lambda: versions(gateway)["phase"] == "probation", "probation")
        candidate = next(process for process in gateway.processes().values() if process.get("role") == "candidate")
        os.kill(gateway.process.pid, signal.SIGSTOP)
        try:
            os.kill(candidate["pid"], signal.SIGKILL)
            wait_until(lambda: gateway.processes()[candidate["id"]]["state"] != "ready", "its connection to end")
            time.sleep(0.3)  # what is waited for is that nothing is decided
        finally:
            os.kill(gateway.process.pid, signal.SIGCONT)
        _, change = settled(gateway)
        assert change["verdict"] == "rolled back" and "signal 9" in change["cause"], change


# ---- criteria, by a module that says what it likes of itself ----

@pytest.mark.parametrize("behaviour, why", [
    ("errs_on_probation", "5.0 % of its"), ("slow_on_probation", "% of its requests took"), ("leaks_on_probation", "it grew by"),
    ("dies_on_probation", "status 7"), ("degrades_on_probation", "not ready any more")])
def test_lif_9_each_criterion_of_the_probation_rolls_back(stubs, tmp_path, behaviour, why):
    echo = echo_config(stubs, tmp_path, upgrade={"probation_ms": 20000, "memory_bytes": 50 << 20})
    with gateways.Gateway(config={"version": 1, "modules": [echo]}) as gateway:
        before = gateway.processes()["echo"]
        path = program(gateway, behaviour, f"exec {PYMODULE} {behaviour}")
        gateway.ctl("module", "upgrade", "echo", "--to", path)
        _, change = settled(gateway, "echo", 40)
        assert change["verdict"] == "rolled back" and why in change["cause"], change
        after = gateway.processes()["echo"]
        assert (after["pid"], after["state"]) == (before["pid"], "ready")


@pytest.mark.parametrize("behaviour, why", [
    ("lies_on_probation", "calls that the core saw failed"), ("hangs_on_probation", "calls that the core saw failed")])
def test_lif_9_a_version_that_counts_well_and_fails_is_rolled_back_by_what_the_core_sees(start_quickstart, stubs, behaviour, why):
    config = config_with(rest={"sandbox": OPEN, "rlimits": {"address_space_bytes": 0},
                               "upgrade": {"probation_ms": 30000, "error_calls": 5, "latency_percent": 0},
                               "env": {"PYMODULE_STUBS": str(stubs), "PYMODULE_FAMILY": "rest-grpc"}})
    with start_quickstart(config=config) as gateway:
        before = gateway.processes()["rest"]
        path = program(gateway, behaviour, f"export PYMODULE_REPORT={gateway.directory}/report; exec {PYMODULE} {behaviour}")
        with Load(gateway, clients=8) as load:
            gateway.ctl("module", "upgrade", "rest", "--to", path)
            _, change = settled(gateway, "rest", 40)
        assert change["verdict"] == "rolled back" and why in change["cause"], change
        assert load.failures, "what the bad version took and failed is not repeated"
        after = gateway.processes()["rest"]
        assert (after["pid"], after["state"]) == (before["pid"], "ready")
        with Load(gateway) as load:
            assert load.failures == []


def test_lif_11_a_version_that_asks_for_it_is_rolled_back(stubs, tmp_path):
    echo = echo_config(stubs, tmp_path, probes={"readiness": {"interval_ms": 200}})
    with gateways.Gateway(config={"version": 1, "modules": [echo]}) as gateway:
        path = program(gateway, "regrets", f"exec {PYMODULE} regrets")
        gateway.ctl("module", "upgrade", "echo", "--to", path)
        assert settled(gateway, "echo")[1]["verdict"] == "promoted"
        (tmp_path / "report.regret").touch()
        wait_until(lambda: versions(gateway, "echo")["changes"][0]["verdict"] == "rolled back", "the module to ask for it", 20)
        now, change = settled(gateway, "echo")
        assert "replies are not what they should be" in change["cause"] and change["from"] == str(path) and not now.get("program")
        wait_until(lambda: gateway.processes()["echo"]["state"] == "ready", "the version before", 20)


def test_lif_9_good_and_bad_versions_in_turn_under_load(start_quickstart):
    bad = [script.format(bin=BIN) for name, (script, _) in BAD.items() if name not in ("dies on probation", "hangs at start")]
    config = config_with()
    with start_quickstart(config=config) as gateway:
        good = [program(gateway, f"gatehouse-mcp-{i}") for i in range(2)]
        wrong = [program(gateway, f"bad-{i}", script) for i, script in enumerate(bad)]
        expected = []
        with Load(gateway) as load:
            for turn in range(ROUNDS):
                path = good[turn // 2 % 2] if turn % 2 == 0 else wrong[turn // 2 % len(wrong)]
                gateway.ctl("module", "upgrade", "mcp", "--to", path, "--probation", "300ms")
                _, change = settled(gateway)
                expected.append("promoted" if turn % 2 == 0 else "rolled back")
                assert (change["verdict"], change["to"]) == (expected[-1], str(path)), change
                assert not load.failures, load.failures[:3]
        assert load.failures == []
        print(f"{ROUNDS} upgrades, {load.right} requests, {len(load.failures)} failed")


def test_lif_8_a_module_that_cannot_hold_goes_to_its_fallback(start_quickstart):
    config = config_with(mcp={"fallback": str(BIN / "gatehouse-mcp"), "sandbox": OPEN})
    module = next(module for module in config["modules"] if module["id"] == "mcp")
    module["binary"] = "/bin/false"
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    with gateways.Gateway(config=config) as gateway:  # which waits until it is ready
        now, change = settled(gateway)
        assert running(gateway) == os.path.realpath(BIN / "gatehouse-mcp") == now["program"]
        assert change["verdict"] == "rolled back" and "fallback" in change["cause"] and "6 deaths" in change["cause"]
        assert gateway.stop() == 0
        gateway.start()  # it is remembered: no crash loop again
        assert running(gateway) == os.path.realpath(BIN / "gatehouse-mcp")
        assert len(versions(gateway)["changes"]) == 1


def test_lif_9_a_session_of_the_old_version_goes_on_with_the_new_one(start_quickstart):
    with start_quickstart(config=config_with()) as gateway:
        path = program(gateway, "gatehouse-mcp-new")
        token = gateway.token(gateways.GUEST, "--team", "explorers")
        with LegacyMcp(gateway.mcp_url, token) as session:
            identifier = session.session_id
            assert identifier and session.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000
            gateway.ctl("module", "upgrade", "mcp", "--to", path)
            while versions(gateway).get("phase"):
                assert session.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000
            assert running(gateway) == str(path)
            session.close()  # its connection; the session stays
            assert session.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000
            assert session.session_id == identifier

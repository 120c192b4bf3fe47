"""The core itself is upgraded in place, on the real stack under load (LIF-9, LIF-10, LIF-12): a good program is kept, a bad one is taken
back by itself, modules keep their clients, and what was acknowledged is there afterwards."""
import copy
import json
import os
import pathlib
import signal
import threading

import pytest

from harness import BIN, gateway as gateways
from harness.load import Load
from harness.mcp import LegacyMcp, ModernMcp
from harness.processes import wait_until

CORE = BIN / "gatehouse-core"
UNITS = {"value": 5, "from_unit": "km", "to_unit": "m"}
OPEN = {"landlock": False, "seccomp": False}  # what the wrappers execute is not in the core's profile
DESCRIBES = f'test "$1" = --describe && exec {CORE} --describe'
CHANGED_SCHEMA = 'test "$1" = --describe && echo \'{"program":"gatehouse-core","version":"9.9.9","storeSchema":%d}\' && exit'


def config_with(sandbox=None, **core):
    config = copy.deepcopy(gateways.quickstart_config())
    config["core"] = {"upgrade": {"probation_ms": 500, "modules_ms": 30000}, **({"sandbox": sandbox} if sandbox else {}), **core}
    return config


def start(worldclock, notes, config):
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    gateway = gateways.Gateway(config=config)
    try:
        gateway.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
    except BaseException:
        gateway.close()
        raise
    return gateway


def program(gateway, name, script=None, version=None):
    """A program beside the gateway's files: a wrapper, or a copy of the core that calls itself another version."""
    path = gateway.directory / name
    if script is not None:
        path.write_text(f"#!/bin/sh\n{script}\n")
    else:
        bytes_ = CORE.read_bytes()
        own = json.loads(os.popen(f"{CORE} --describe").read())["version"].encode()
        assert len(own) == len(version) and own + b"\0" in bytes_
        path.write_bytes(bytes_.replace(own + b"\0", version.encode() + b"\0"))
    path.chmod(0o755)
    return path


def versions(gateway):
    out = gateway.ctl("module", "describe", "core", "--output", "json", check=False)
    return json.loads(out.stdout).get("versions", {}) if out.returncode == 0 else None


def settled(gateway, changes, timeout_s=60):
    """Until so many changes are in the history and nothing is under way: the versions, and the newest change."""
    def done():
        now = versions(gateway)
        return now is not None and not now.get("phase") and len(now.get("changes", [])) >= changes and now
    try:
        now = wait_until(done, f"change {changes} of the core to be decided", timeout_s, pause_s=0.05)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{gateway.log()[-6000:]}") from None
    assert len(now["changes"]) == changes
    return now, now["changes"][0]


def on_probation(gateway):
    wait_until(lambda: (versions(gateway) or {}).get("phase") == "probation", "a core on probation", pause_s=0.02)
    return gateway.processes()["core"]


def running(gateway):
    return os.readlink(f"/proc/{gateway.processes()['core']['pid']}/exe")


class Writer(threading.Thread):
    """Makes tokens, one after the other; keeps the ids of those that were acknowledged."""

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.gateway, self.kept, self.stop = gateway, [], threading.Event()

    def run(self):
        while not self.stop.is_set():
            out = self.gateway.ctl("token", "create", "--user", gateways.GUEST, "--output", "json", check=False)
            if out.returncode == 0:
                self.kept.append(json.loads(out.stdout)["token"])

    def __enter__(self):
        self.start()
        wait_until(lambda: self.kept, "a first write")
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.join(60)

    def all_there(self):
        url = self.gateway.mcp_url
        for token in self.kept:
            with ModernMcp(url, token) as mcp:
                assert "world_time" in mcp.tools()


def test_lif_9_lif_12_a_good_program_takes_the_cores_place_under_load(worldclock, notes):
    with start(worldclock, notes, config_with()) as gateway:  # confined as ever
        before, path = gateway.processes(), program(gateway, "gatehouse-core-next", version="0.1.9")
        token = gateway.token(gateways.GUEST, "--team", "explorers")
        with LegacyMcp(gateway.mcp_url, token) as session, Load(gateway, refusals=True) as load, Writer(gateway) as writer:
            identifier = session.session_id
            assert session.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000
            assert "upgrading core" in gateway.ctl("module", "upgrade", "core", "--to", path).stdout
            now, change = settled(gateway, 1)
            load.again()
            assert session.session_id == identifier
            session.close()  # its connection
            assert session.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000
            written = len(writer.kept)
            wait_until(lambda: len(writer.kept) > written, "a write after it")
        assert not load.failures, load.failures[:3]
        print(load.told())
        writer.all_there()
        after = gateway.processes()
        assert (change["verdict"], change["to"], change["who"]) == ("promoted", str(path), "an operator"), change
        assert change["cause"] == "held for 500 ms" and change["generation"] == after["core"]["generation"]
        assert now["program"] == str(path) == after["core"]["program"] == running(gateway) and now["hasPrevious"]
        assert after["core"]["version"] == "0.1.9" != before["core"]["version"]
        assert int(after["core"]["generation"]) > int(before["core"]["generation"])
        for name in ("mcp", "rest"):
            assert (after[name]["pid"], after[name]["state"]) == (before[name]["pid"], "ready")
        described = gateway.ctl("module", "describe", "core").stdout
        assert "promoted" in described and str(path) in described
        stages = json.loads(gateway.ctl("psg", "query", "StageNode", "--filter", "module=core", "--output", "json").stdout)
        assert "held for 500 ms" in json.dumps(stages)
        gateway.wait_restarted(gateway.kill("core"))  # from now on it is the core's program
        assert running(gateway) == str(path)


def test_lif_9_lif_12_an_upgrade_of_the_core_refuses_nothing_that_may_wait(worldclock, notes):
    """What reaches a core that is about to end was not begun, and goes on with the next one: every call is answered right."""
    config = config_with()
    config["dispatch"] = {"hold_ms": 10000}  # a slow machine's time to be back is not what is tried here
    next(module for module in config["modules"] if module["id"] == "mcp")["config"] = {"coreWaitMs": 10000}
    with start(worldclock, notes, config) as gateway:
        path = program(gateway, "gatehouse-core-next", version="0.1.9")
        with Load(gateway, clients=8) as load:
            for count, program_of_then in enumerate((path, CORE, path), 1):
                gateway.ctl("module", "upgrade", "core", "--to", program_of_then)
                assert settled(gateway, count)[1]["verdict"] == "promoted"
                load.again()
        assert not load.failures, load.failures[:3]


def test_lif_9_the_cores_program_is_named_by_its_version_too(worldclock, notes, tmp_path):
    tmp_path.chmod(0o755)
    folder = tmp_path / "versions"
    folder.mkdir()
    with start(worldclock, notes, config_with() | {"versions_dir": str(folder)}) as gateway:
        own = gateway.processes()["core"]["version"]
        (folder / "0.1.9").mkdir()
        program(gateway, "next", version="0.1.9").rename(folder / "0.1.9" / "gatehouse-core")
        program(gateway, "lies", version="0.1.8").rename(folder / "gatehouse-core-0.1.7")
        known = [one["version"] for one in versions(gateway)["known"]]
        assert known == [own, "0.1.7", "0.1.9"]
        lies = gateway.ctl("module", "upgrade", "core", "--to", "0.1.7", check=False)
        assert lies.returncode == 1 and "it says that it is version 0.1.8, and not 0.1.7" in lies.stderr
        unknown = gateway.ctl("module", "upgrade", "core", "--to", "3", check=False).stderr
        assert f"there are: {own}, 0.1.7, 0.1.9" in unknown and "versions_dir" not in unknown
        gateway.ctl("module", "upgrade", "core", "--to", "0.1.9")
        now, change = settled(gateway, 2)
        assert (change["verdict"], change["fromVersion"], change["toVersion"]) == ("promoted", own, "0.1.9"), change
        assert now["version"] == "0.1.9" == gateway.processes()["core"]["version"]
        assert running(gateway) == str(folder / "0.1.9" / "gatehouse-core")
        gateway.ctl("module", "upgrade", "core", "--to", own)  # the configured one, by the version that it had
        _, change = settled(gateway, 3)
        assert (change["verdict"], change["toVersion"], change.get("to", "")) == ("promoted", own, ""), change
        assert running(gateway) == str(CORE)


def test_a_directory_of_versions_that_was_not_there_is_told_of(worldclock, notes, tmp_path):
    tmp_path.chmod(0o755)
    folder = tmp_path / "versions"
    with start(worldclock, notes, config_with() | {"versions_dir": str(folder)}) as gateway:
        told = gateway.ctl("module", "upgrade", "core", "--to", "3", check=False).stderr
        assert f"versions_dir {folder} is not there" in told
        folder.mkdir()
        told = gateway.ctl("module", "upgrade", "rest", "--to", "3", check=False).stderr
        if "Landlock" in gateway.ctl("module", "describe", "core").stdout:
            assert f"versions_dir {folder} was not there when the core started" in told
        gateway.wait_restarted(gateway.kill("core"))  # its sandbox follows
        assert "versions_dir" not in gateway.ctl("module", "upgrade", "rest", "--to", "3", check=False).stderr


def test_lif_9_a_core_that_cannot_be_one_is_refused_before_anything_happens(worldclock, notes):
    with start(worldclock, notes, config_with(OPEN)) as gateway:
        before, refusals = gateway.processes(), 0
        plain = gateway.directory / "plain.txt"
        plain.write_text("no program")
        schema = json.loads(os.popen(f"{CORE} --describe").read())["storeSchema"]
        with Load(gateway, refusals=True) as load:
            for path, why in [("/nonexistent/program", "no program"), (plain, "no program"), (BIN / "gatehouse-mcp", "does not describe itself"),
                              (program(gateway, "exits", "echo broken >&2; exit 3"), "left with status 3: broken"),
                              (program(gateway, "older", CHANGED_SCHEMA % (schema - 1)), "cannot open this store"),
                              (program(gateway, "newer", CHANGED_SCHEMA % (schema + 1)), "say --no-rollback")]:
                out = gateway.ctl("module", "upgrade", "core", "--to", path, check=False)
                refusals += 1
                assert out.returncode == 1 and why in out.stderr, (path, out.stderr)
                change = versions(gateway)["changes"][0]
                assert change["verdict"] == "refused" and why in change["cause"], change
            older = gateway.ctl("module", "upgrade", "core", "--to", gateway.directory / "older", "--no-rollback", check=False)
            assert older.returncode == 1 and "cannot open this store" in older.stderr
            unknown = gateway.ctl("module", "upgrade", "core", "--to", "2.0", check=False)
            assert unknown.returncode == 1 and "module.version.unknown" in unknown.stderr and "there are: 0.1.0" in unknown.stderr
            assert "no version before" in gateway.ctl("module", "rollback", "core", check=False).stderr
        assert not load.failures and not load.refused
        after = gateway.processes()["core"]
        assert (after["pid"], after["generation"]) == (before["core"]["pid"], before["core"]["generation"])
        assert len(versions(gateway)["changes"]) == refusals + 1


WAITS = 'while [ ! -e "$0.go" ]; do sleep 0.05; done'  # for the test, which knows whether it is on probation
BAD = {
    "exits at once": ("exit 100", "it ended by status 100 before it was ready"),
    "says never again": ("exit 125", "it ended by status 125 before it was ready"),
    "lacks something": ("exit 111", "it ended by status 111 before it was ready"),
    "hangs at start": ("exec sleep 1000", "it was not ready in its start timeout"),
    "dies on probation": (f"{CORE} & {WAITS}; kill -9 $!; exit 7", "it ended by status 7 on probation"),
    "hangs on probation": (f"{CORE} & {WAITS}; kill -STOP $!; wait", "it gave no sign of life"),
}


def test_lif_9_lif_10_every_bad_program_is_taken_back_by_itself(worldclock, notes):
    config = config_with(OPEN, start_timeout_ms=5000, watchdog_ms=4000)  # of the good one too
    config["core"]["upgrade"]["probation_ms"] = 60000
    with start(worldclock, notes, config) as gateway:
        before = gateway.processes()
        # Before others are started here: one that is not yet another program holds the file open, and it could not be executed.
        paths = {name: program(gateway, name.replace(" ", "-"), f"{DESCRIBES}\n{script}") for name, (script, _) in BAD.items()}
        with Load(gateway, refusals=True) as load, Writer(gateway) as writer:
            for count, (name, (_, why)) in enumerate(BAD.items(), 1):
                path = paths[name]
                gateway.ctl("module", "upgrade", "core", "--to", path)
                if name.endswith("on probation"):
                    on_probation(gateway)
                    path.with_name(f"{path.name}.go").touch()
                now, change = settled(gateway, count)
                assert (change["verdict"], change["to"], change["who"]) == ("rolled back", str(path), "an operator"), (name, change)
                assert why in change["cause"], (name, change)
                assert not now.get("program") and not now.get("hasPrevious")
                load.again()
        assert not load.failures, load.failures[:3]
        print(load.told())
        writer.all_there()
        gateway.wait_ready()
        after = gateway.processes()
        assert running(gateway) == os.path.realpath(CORE) and after["core"]["state"] == "ready"
        for name in ("mcp", "rest"):
            assert after[name]["pid"] == before[name]["pid"], gateway.log()
        stages = json.loads(gateway.ctl("psg", "query", "StageNode", "--filter", "module=core", "--output", "json").stdout)
        assert "rolling-back" in json.dumps(stages) and BAD["hangs at start"][1] in json.dumps(stages)
        assert gateway.log().count("the core's new program does not hold") == len(BAD)


def test_lif_9_a_core_to_which_the_modules_do_not_come_back_is_taken_back(worldclock, notes):
    config = config_with(OPEN)
    config["core"]["upgrade"] = {"probation_ms": 60000, "modules_ms": 4000}  # the other module is back in time
    with start(worldclock, notes, config) as gateway:
        rest = gateway.processes()["rest"]["pid"]
        path = program(gateway, "loses-one", f"{DESCRIBES}\nkill -STOP {rest}\nexec {CORE}")
        try:
            gateway.ctl("module", "upgrade", "core", "--to", path)
            _, change = settled(gateway, 1)
        finally:
            os.kill(rest, signal.SIGCONT)
        assert change["verdict"] == "rolled back", change
        assert change["cause"] == "module rest was ready before and was not again in 4000 ms"
        gateway.wait_ready()
        assert running(gateway) == os.path.realpath(CORE)


def test_lif_10_rollback_ends_a_probation_and_goes_back_after_one(worldclock, notes):
    with start(worldclock, notes, config_with()) as gateway:
        path = program(gateway, "gatehouse-core-next", version="0.1.9")
        with Load(gateway, refusals=True) as load:
            gateway.ctl("module", "upgrade", "core", "--to", path, "--probation", "60s")
            assert on_probation(gateway)["reason"] == "a new program, on probation"
            assert "under way" in gateway.ctl("module", "upgrade", "core", "--to", path, check=False).stderr
            assert "rolling back core" in gateway.ctl("module", "rollback", "core").stdout
            _, change = settled(gateway, 1)
            assert change["verdict"] == "rolled back" and "ordered by an operator" in change["cause"]
            assert running(gateway) == os.path.realpath(CORE)
            gateway.ctl("module", "upgrade", "core", "--to", path)
            assert settled(gateway, 2)[1]["verdict"] == "promoted" and running(gateway) == str(path)
            gateway.ctl("module", "rollback", "core")
            now, change = settled(gateway, 3)
            assert (change["verdict"], change["from"], change.get("to", "")) == ("promoted", str(path), ""), change
            assert running(gateway) == os.path.realpath(CORE) and not now.get("hasPrevious") and not now.get("program")
            load.again()
        assert not load.failures, load.failures[:3]


def test_lif_12_a_core_that_is_killed_on_probation_is_taken_back(worldclock, notes):
    with start(worldclock, notes, config_with()) as gateway:
        path = program(gateway, "gatehouse-core-next", version="0.1.9")
        gateway.ctl("module", "upgrade", "core", "--to", path, "--probation", "60s")
        os.kill(on_probation(gateway)["pid"], signal.SIGKILL)
        _, change = settled(gateway, 1)
        assert change["verdict"] == "rolled back" and "it ended by signal 9 on probation" in change["cause"]
        assert running(gateway) == os.path.realpath(CORE)


def test_lif_12_a_core_that_is_killed_while_it_leaves_is_replaced_and_loses_nothing(worldclock, notes):
    with start(worldclock, notes, config_with()) as gateway:
        path = program(gateway, "gatehouse-core-next", version="0.1.9")
        pid = gateway.processes()["core"]["pid"]
        with Writer(gateway) as writer:
            gateway.ctl("module", "upgrade", "core", "--to", path)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it was quicker
            assert settled(gateway, 1)[1]["verdict"] == "promoted"
        writer.all_there()
        assert running(gateway) == str(path)


def test_lif_13_the_supervisor_is_killed_in_the_middle_and_afterwards(worldclock, notes):
    with start(worldclock, notes, config_with()) as gateway:
        path = program(gateway, "gatehouse-core-next", version="0.1.9")

        def killed_and_started():
            gateway.process.child.kill()
            gateway.process.child.wait()
            gateway.start()
        gateway.ctl("module", "upgrade", "core", "--to", path, "--probation", "60s")
        on_probation(gateway)
        killed_and_started()
        _, change = settled(gateway, 1)
        assert change["verdict"] == "rolled back" and "the gateway ended during the upgrade" in change["cause"]
        assert running(gateway) == os.path.realpath(CORE)
        gateway.ctl("module", "upgrade", "core", "--to", path)
        settled(gateway, 2)
        killed_and_started()
        assert running(gateway) == str(path) and len(versions(gateway)["changes"]) == 2
        assert gateway.stop() == 0
        gateway.start()
        assert running(gateway) == str(path) == versions(gateway)["program"]
        # a configuration that names another program since then counts
        other = program(gateway, "gatehouse-core-other", version="0.1.8")
        assert gateway.stop() == 0
        gateway.config["core"]["binary"] = str(other)
        gateway.config_path.write_text(json.dumps(gateway.config))
        gateway.start()
        now, change = settled(gateway, 3)
        assert running(gateway) == str(other) and not now.get("program") and "configuration names another" in change["cause"]


def test_lif_10_a_program_that_changes_the_store_is_taken_only_by_word_and_has_no_way_back(worldclock, notes):
    schema = json.loads(os.popen(f"{CORE} --describe").read())["storeSchema"]
    with start(worldclock, notes, config_with(OPEN)) as gateway:
        once = gateway.directory / "once"
        path = program(gateway, "newer", f"{CHANGED_SCHEMA % (schema + 1)}\n"
                       f"test -e {once} || {{ touch {once}; exit 111; }}\nexec {CORE} \"$@\"")
        gateway.ctl("module", "upgrade", "core", "--to", path, "--no-rollback")
        now, change = settled(gateway, 1)  # its first start failed, and it was started again
        assert change["verdict"] == "promoted" and "no way back" in change["cause"]
        assert now["program"] == str(path) and not now.get("hasPrevious") and once.exists()
        assert "no version before" in gateway.ctl("module", "rollback", "core", check=False).stderr
        assert (gateway.state / "core.program").read_text().splitlines()[0] == str(path)
        assert pathlib.Path(f"/proc/{gateway.processes()['core']['pid']}").exists()

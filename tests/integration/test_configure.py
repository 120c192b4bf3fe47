"""Configurations of a module take the road of new versions (SPI-15, LIF-9, LIF-10): staged, validated, on probation, one command back;
by `module configure` and by a reload of gatehouse.yaml."""
import contextlib
import json
import os
import re
import signal

import pytest
import yaml

from harness import gateway as gateways
from harness.load import Load
from harness.processes import wait_until
from test_upgrade import config_with, echo_config, program, settled, versions

SECRET = "hunter2-is-no-password"


class Echo:
    """A gateway with one module that writes down what it is given, and whose configuration says how it behaves."""

    def __init__(self, stubs, tmp_path, config=None, wait=True, **keys):
        self.report = tmp_path / "report"
        self.module = echo_config(stubs, tmp_path, config=config or {"say": "one"}, **keys)
        self.gateway = gateways.Gateway(config={"version": 1, "modules": [self.module]}, wait=wait)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gateway.close()

    def configure(self, config, *options, check=True):
        return self.gateway.ctl("module", "configure", "echo", "--file", "-", *options, check=check, stdin=json.dumps(config))

    def write(self, config):
        self.module["config"] = config
        self.gateway.config_path.write_text(yaml.safe_dump({"version": 1, "modules": [self.module]}, sort_keys=False))

    def hangup(self):
        self.gateway.process.child.send_signal(signal.SIGHUP)

    def settled(self, changes):
        """The versions, and the newest change, when that many were decided and nothing is under way."""
        wait_until(lambda: len(versions(self.gateway, "echo").get("changes", [])) >= changes, f"{changes} changes", pause_s=0.05)
        now, change = settled(self.gateway, "echo")
        assert len(now["changes"]) == changes, now
        return now, change

    def pid(self):
        return self.gateway.processes()["echo"]["pid"]

    def given(self):
        """What the current process was given, line by line."""
        path = f"{self.report}.config.{self.pid()}"
        return [json.loads(line) for line in open(path, encoding="utf-8")] if os.path.exists(path) else []

    def runs_with(self, config, revision):
        """Waits until the current process was given this, and nothing else, by Initialize, GetModuleConfig and WatchModuleConfig."""
        wait_until(lambda: {"initialize", "get", "watch"} <= {line["how"] for line in self.given()}, "the module to have looked")
        for line in self.given():
            if line["how"] != "watch ended":  # a core that is gone ends it
                assert (line["config"], int(line["revision"])) == (config, revision), self.given()

    def probation(self):
        wait_until(lambda: versions(self.gateway, "echo").get("phase") == "probation", "probation", pause_s=0.02)


def test_spi_15_a_good_configuration_takes_over_and_one_command_goes_back(stubs, tmp_path):
    with Echo(stubs, tmp_path) as it:
        first = it.pid()
        it.runs_with({"say": "one"}, 1)
        out = it.configure({"say": "two", "password": SECRET})
        assert "configuration 2 goes to echo" in out.stdout
        now, change = it.settled(1)
        assert (change["verdict"], change["who"], change["fromConfig"], change["toConfig"]) == ("promoted", "an operator", "1", "2")
        assert (now["config"], now["previousConfig"], now["fileConfig"]) == ("2", "1", "1")
        assert it.pid() != first
        it.runs_with({"say": "two", "password": SECRET}, 2)
        told = it.gateway.ctl("module", "describe", "echo").stdout
        assert "runs         1.0.0 as configured, configuration 2\n" in told
        assert re.search(r"promoted +configuration 1 +configuration 2 +an operator", told), told
        same = it.configure({"say": "two", "password": SECRET}, check=False)
        assert same.returncode == 1 and "that is its configuration (2)" in same.stderr
        it.gateway.ctl("module", "rollback", "echo")
        now, change = it.settled(2)
        assert (change["verdict"], change["fromConfig"], change["toConfig"]) == ("promoted", "2", "1") and not now.get("hasPrevious")
        it.runs_with({"say": "one"}, 1)
        # nothing of what is in it is shown or kept where it could be read
        shown = it.gateway.ctl("module", "describe", "echo", "--output", "json").stdout + it.gateway.ctl("events").stdout + it.gateway.log()
        assert SECRET not in shown
        for path in it.gateway.state.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # of a moment
                assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_spi_15_a_configuration_that_is_refused_changes_nothing(stubs, tmp_path):
    with Echo(stubs, tmp_path) as it:
        first = it.pid()
        it.configure({"refuse": "say is missing"})
        now, change = it.settled(1)
        assert (change["verdict"], change["toConfig"], now["config"]) == ("rolled back", "2", "1")
        assert "say is missing" in change["cause"] and not now.get("hasPrevious")
        assert it.pid() == first
        it.runs_with({"say": "one"}, 1)
        for text, why in (("[1]", "a document is a mapping"), ("a: 1\n---\nb: 1\n", "2 documents"), ("{", "config.syntax")):
            refused = it.gateway.ctl("module", "configure", "echo", "--file", "-", check=False, stdin=text)
            assert refused.returncode != 0 and why in refused.stderr, refused.stderr
        assert "module.unknown" in it.gateway.ctl("module", "configure", "nosuch", check=False).stderr
        assert "that is its configuration (1)" in it.gateway.ctl("module", "configure", "echo", check=False).stderr
        assert len(versions(it.gateway, "echo")["changes"]) == 1 and it.pid() == first


@pytest.mark.parametrize("behaviour, why", [
    ("errs_on_probation", "5.0 % of its"), ("dies_on_probation", "status 7"), ("degrades_on_probation", "not ready any more"),
    ("dies_in_initialize", "status 4")])
def test_lif_9_a_configuration_that_does_not_hold_is_rolled_back_by_itself(stubs, tmp_path, behaviour, why):
    with Echo(stubs, tmp_path) as it:
        first = it.pid()
        it.configure({"behaviour": behaviour}, "--probation", "20s")
        now, change = it.settled(1)
        assert change["verdict"] == "rolled back" and why in change["cause"] and now["config"] == "1", change
        assert it.pid() == first and it.gateway.processes()["echo"]["state"] == "ready"


def test_lif_12_lif_13_a_configuration_outlives_core_and_supervisor(stubs, tmp_path):
    with Echo(stubs, tmp_path) as it:
        # in the middle: the one before stays
        it.configure({"say": "never"}, "--probation", "60s")
        it.probation()
        it.gateway.wait_restarted(it.gateway.kill("core"))
        it.gateway.wait_ready()
        now, change = it.settled(1)
        assert change["verdict"] == "rolled back" and "the core ended" in change["cause"] and now["config"] == "1"
        it.runs_with({"say": "one"}, 1)
        # promoted: it stays, whoever is killed
        it.configure({"say": "two"})
        now, _ = it.settled(2)
        assert now["config"] == "3"  # a revision is one text for ever
        it.gateway.wait_restarted(it.gateway.kill("core"))
        it.gateway.wait_ready()
        it.runs_with({"say": "two"}, 3)
        it.gateway.wait_restarted(it.gateway.kill("echo"))
        it.runs_with({"say": "two"}, 3)
        it.configure({"say": "never"}, "--probation", "60s")
        it.probation()
        it.gateway.process.child.kill()
        it.gateway.process.child.wait()
        it.gateway.start()
        assert versions(it.gateway, "echo")["config"] == "3"
        it.runs_with({"say": "two"}, 3)
        assert it.gateway.stop() == 0
        it.gateway.start()
        it.runs_with({"say": "two"}, 3)
        it.gateway.ctl("module", "rollback", "echo")
        settled(it.gateway, "echo")
        it.runs_with({"say": "one"}, 1)


def test_lif_10_a_rollback_ends_a_change_that_is_under_way(stubs, tmp_path):
    with Echo(stubs, tmp_path) as it:
        first = it.pid()
        it.configure({"say": "never"}, "--probation", "60s")
        it.probation()
        assert "an upgrade is under way" in it.configure({"say": "two"}, check=False).stderr
        it.gateway.ctl("module", "rollback", "echo")
        _, change = it.settled(1)
        assert change["verdict"] == "rolled back" and "ordered by an operator" in change["cause"] and it.pid() == first


def test_lif_9_program_and_configuration_are_one_history(stubs, tmp_path):
    with Echo(stubs, tmp_path) as it:
        path = program(it.gateway, "other", f"export PYMODULE_VERSION=2.0; exec {it.module['binary']} good")
        it.configure({"say": "two"})
        it.settled(1)
        it.gateway.ctl("module", "upgrade", "echo", "--to", path)
        now, change = it.settled(2)
        assert (change["to"], change["fromConfig"], change["toConfig"], now["previousConfig"]) == (str(path), "2", "2", "2")
        it.runs_with({"say": "two"}, 2)
        it.gateway.ctl("module", "configure", "echo")  # back to what gatehouse.yaml says, with the new program
        now, change = it.settled(3)
        assert (now["program"], now["config"], now["previous"], now["previousConfig"]) == (str(path), "1", str(path), "2")
        it.runs_with({"say": "one"}, 1)


# ---- gatehouse.yaml ----

def test_spi_15_a_reload_takes_the_same_road_and_the_core_goes_on(stubs, tmp_path):
    with Echo(stubs, tmp_path) as it:
        core, first = it.gateway.processes()["core"]["pid"], it.pid()
        it.write({"say": "two"})
        it.hangup()
        now, change = it.settled(1)
        assert (change["verdict"], change["who"], now["config"], now["fileConfig"]) == ("promoted", "the configuration", "2", "2")
        it.runs_with({"say": "two"}, 2)
        assert it.gateway.processes()["core"]["pid"] == core and it.pid() != first
        # one that does not hold: the one before stays, also after a start of everything, until the file says something else
        it.write({"refuse": "no"})
        it.hangup()
        now, change = it.settled(2)
        assert (change["verdict"], now["config"], now["fileConfig"]) == ("rolled back", "2", "3")
        it.runs_with({"say": "two"}, 2)
        assert it.gateway.stop() == 0
        it.gateway.start()
        it.runs_with({"say": "two"}, 2)
        it.write({"say": "three"})
        it.hangup()
        now, change = it.settled(3)
        assert (change["verdict"], now["config"], now["fileConfig"]) == ("promoted", "4", "4")
        it.gateway.ctl("module", "rollback", "echo")
        now, _ = it.settled(4)
        assert (now["config"], now["fileConfig"]) == ("2", "4")
        it.runs_with({"say": "two"}, 2)


def test_spi_15_a_reload_during_a_change_waits_for_its_end(stubs, tmp_path):
    with Echo(stubs, tmp_path) as it:
        it.configure({"say": "two"}, "--probation", "60s")
        it.probation()
        it.write({"say": "three"})
        it.hangup()
        wait_until(lambda: "configurations of modules were read again" in it.gateway.log(), "the core to have read it")
        assert versions(it.gateway, "echo")["phase"] == "probation"
        it.gateway.ctl("module", "rollback", "echo")
        now, change = it.settled(2)
        assert (change["verdict"], now["config"]) == ("promoted", "3")
        it.runs_with({"say": "three"}, 3)


def test_spi_15_a_changed_file_counts_at_the_next_start_and_goes_back_when_it_cannot_hold(stubs, tmp_path):
    with Echo(stubs, tmp_path, upgrade={"probation_ms": 300}, quarantine={"deaths": 2}) as it:
        it.configure({"say": "two"})
        it.settled(1)
        assert it.gateway.stop() == 0
        it.write({"say": "three"})
        it.gateway.start()
        now, change = it.settled(2)
        assert (change["verdict"], change["who"], now["config"], now["previousConfig"]) == ("promoted", "the configuration", "3", "2")
        it.runs_with({"say": "three"}, 3)
        assert it.gateway.stop() == 0
        it.write({"refuse": "no"})
        it.gateway.start()  # which waits until it is ready
        now, change = it.settled(4)
        assert (change["verdict"], change["fromConfig"], change["toConfig"], change["who"]) == ("rolled back", "4", "3", "the core")
        it.runs_with({"say": "three"}, 3)


def test_spi_15_a_module_that_does_not_serve_gets_a_mended_file_at_once(stubs, tmp_path):
    with Echo(stubs, tmp_path, {"refuse": "no"}, wait=False, quarantine={"deaths": 0}) as it:
        wait_until(lambda: "Initialize failed: no (echo.config)" in json.dumps(it.gateway.status() or {}), "it to be refused")
        it.write({"say": "mended"})
        it.hangup()
        it.gateway.wait_ready()
        now, change = settled(it.gateway, "echo")
        assert change["verdict"] == "promoted" and "did not serve" in change["cause"] and now["config"] == now["fileConfig"] == "2"
        it.runs_with({"say": "mended"}, 2)


def test_lif_9_clients_notice_nothing_of_a_change_and_the_schema_is_asked_first(start_quickstart):
    with start_quickstart(config=config_with()) as gateway:
        before = gateway.processes()
        with Load(gateway) as load:
            gateway.ctl("module", "configure", "mcp", "--file", "-", stdin="pageSize: 7\ninstructions: Ask the clock.\n")
            now, change = settled(gateway)
            served = load.right
            wait_until(lambda: load.right > served + 50, "the new one to serve")
            for bad, why in (("pageSize: many", "/pageSize: wrong type"), ("nosuch: 1", "nosuch")):
                refused = gateway.ctl("module", "configure", "mcp", "--file", "-", check=False, stdin=bad)
                assert refused.returncode == 1 and "module.config.invalid" in refused.stderr and why in refused.stderr, refused.stderr
            gateway.ctl("module", "rollback", "mcp")
            settled(gateway)
        assert load.failures == []
        assert change["verdict"] == "promoted" and now["config"] == "2"
        after = gateway.processes()
        assert after["core"]["pid"] == before["core"]["pid"] and after["rest"]["pid"] == before["rest"]["pid"]

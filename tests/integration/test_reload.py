"""SIGHUP: gatehouse.yaml is read again; what can change does, what cannot is refused whole, and the old one stays in force."""
import json
import os
import signal

import pytest

from harness import gateway as gateways
from harness.processes import wait_until
from harness.supervised import CHILD, MISSING, Stack, alive, module
from test_systemd import Above, start

pytestmark = pytest.mark.skipif(MISSING, reason="not built")


class Reloading:
    """A supervisor over these modules whose file a test writes anew, and whoever watches it."""

    def __init__(self, *modules, **options):
        self.above = Above()
        self.stack = start(self.above, modules, **options)
        self.config = json.loads(self.stack.config.read_text())
        self.core = self.stack.core()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.__exit__()
        self.above.__exit__()

    def write(self, modules=None, **keys):
        if modules is not None:
            keys["modules"] = [{"binary": str(CHILD), **item} for item in modules]
        self.stack.config.write_text(json.dumps({**self.config, **keys}))

    def hangup(self):
        """Asks for a reload, when readiness was said, and waits for it to begin."""
        if not any(text.startswith("READY=1") for text in self.above.heard):
            self.above.until(READY="1")
        self.stack.process.child.send_signal(signal.SIGHUP)
        begun = self.above.until(RELOADING="1")  # said only to somebody who was told READY=1
        assert int(begun["MONOTONIC_USEC"]) > 0

    def outcome(self, pattern):
        return self.above.until(READY="1", STATUS=pattern)

    def next_core(self):
        self.core = self.stack.core()
        return self.core


def test_an_unchanged_file_changes_nothing():
    with Reloading(module("web", "ready", "sleep")) as it:
        pid = it.core.start("web")["pid"]
        it.hangup()
        it.outcome("the configuration is the same as before$")
        assert it.core.processes()["web"]["pid"] == pid


def test_the_log_level_and_the_restart_policy_change_in_place():
    with Reloading(module("web", "ready", "sleep", restart="always")) as it:
        pid = it.core.start("web")["pid"]
        it.write([module("web", "ready", "sleep", restart="never")], log={"level": "error"})
        it.hangup()
        it.outcome("the configuration was taken over$")
        assert it.core.processes()["web"]["pid"] == pid
        before = it.stack.log()
        os.kill(pid, signal.SIGKILL)
        assert it.core.until("Exited")["next_step"] == 3  # stays down
        assert it.stack.log() == before, "nothing below error is written any more"


def test_a_reload_that_is_asked_for_while_the_core_starts_follows_when_it_is_ready():
    with Reloading(module("web", "ready", "sleep", restart="always")) as it:
        pid = it.core.start("web")["pid"]
        it.above.until(READY="1")
        os.kill(it.core.processes()["core"]["pid"], signal.SIGKILL)
        starting = it.stack.core(ready=False)
        it.write([module("web", "ready", "sleep", restart="never")])
        it.hangup()
        wait_until(lambda: "the configuration is read again when the core is ready" in it.stack.log(), "the reload to wait")
        assert "was taken over" not in it.stack.log()
        starting.order("ready")
        it.outcome("the configuration was taken over$")
        os.kill(pid, signal.SIGKILL)
        assert starting.until("Exited")["next_step"] == 3  # stays down


def test_a_reload_that_is_asked_for_during_another_one_follows_it():
    with Reloading(module("web", "ready", "sleep")) as it:
        it.core.start("web")
        it.write([module("web", "ready", "sleep"), module("new", "ready", "sleep")])
        it.hangup()
        starting = it.stack.core(ready=False)
        it.write([module("web", "ready", "sleep"), module("new", "ready", "sleep"), module("newer", "ready", "sleep")])
        it.hangup()
        wait_until(lambda: "the configuration is read again when the core is ready" in it.stack.log(), "the reload to wait")
        starting.order("ready")
        assert set(it.next_core().modules) == {"web", "new", "newer"}


def test_a_module_that_is_added_starts_and_the_others_go_on():
    with Reloading(module("web", "ready", "sleep")) as it:
        pid = it.core.start("web")["pid"]
        it.write([module("web", "ready", "sleep"), module("new", "report", "report", "ready", "sleep", env={"EXTRA": "yes"})])
        it.hangup()
        core = it.next_core()
        assert set(core.modules) == {"web", "new"} and core.list["web"]["pid"] == pid
        core.start("new")
        core.until("Notified", module_id="new")
        assert "EXTRA=yes" in it.stack.read("run/modules/new/report")["env"]
        it.outcome("the configuration was taken over$")
        it.above.until(STATUS="^serving: 2 of 2")


def test_a_module_that_is_removed_is_stopped_and_can_come_back():
    with Reloading(module("web", "ready", "sleep"), module("old", "ready", "sleep")) as it:
        pids = {name: it.core.start(name)["pid"] for name in ("web", "old")}
        it.write([module("web", "ready", "sleep")])
        it.hangup()
        core = it.next_core()
        assert set(core.modules) == {"web"} and set(core.list) == {"core", "web"}
        wait_until(lambda: not alive(pids["old"]), "the removed module to end")
        assert core.list["web"]["pid"] == pids["web"]
        it.outcome("^serving: 1 of 1 modules ready; the configuration was taken over$")
        core.order("start old")
        assert core.until("Refused")["reason"] == 1  # unknown
        it.write()
        it.hangup()
        core = it.next_core()
        assert set(core.modules) == {"web", "old"}
        assert core.start("old")["pid"] != pids["old"] and alive(pids["web"])


def test_a_module_that_is_changed_is_started_anew_and_the_others_go_on():
    with Reloading(module("web", "ready", "sleep"), module("other", "ready", "sleep")) as it:
        pids = {name: it.core.start(name)["pid"] for name in ("web", "other")}
        it.write([module("web", "report", "report", "ready", "sleep", env={"NEW": "1"}), module("other", "ready", "sleep")])
        it.hangup()
        core = it.next_core()
        assert core.list["web"]["state"] == 1 and core.list["other"]["pid"] == pids["other"]
        core.start("web")
        assert "NEW=1" in it.stack.read("run/modules/web/report")["env"]
        now = it.core.processes()
        assert now["other"]["pid"] == pids["other"] and now["web"]["pid"] != pids["web"]


def test_spi_15_a_modules_own_configuration_is_left_to_the_core():
    with Reloading(module("web", "ready", "sleep", config={"say": "one"}), module("other", "ready", "sleep")) as it:
        pids = {name: it.core.start(name)["pid"] for name in ("web", "other")}
        core = it.core.list["core"]["pid"]
        it.write([module("web", "ready", "sleep", config={"say": "two"}, restart="never"), module("other", "ready", "sleep")])
        it.hangup()
        it.core.until("Reconfigured")
        it.outcome("the configuration was taken over$")
        now = it.core.processes()
        assert {name: now[name]["pid"] for name in pids} == pids and now["core"]["pid"] == core
        assert "two" in (it.stack.run / "core" / "gatehouse.yaml").read_text()
        it.write([module("web", "ready", "sleep", config={"say": "three"}, env={"NEW": "1"}), module("other", "ready", "sleep")])
        it.hangup()  # what else changed of it needs another process
        assert it.next_core().list["web"]["state"] == 1 and it.core.list["other"]["pid"] == pids["other"]


def test_a_module_is_switched_off_and_on():
    with Reloading(module("web", "ready", "sleep")) as it:
        pid = it.core.start("web")["pid"]
        it.write([module("web", "ready", "sleep", enabled=False)])
        it.hangup()
        core = it.next_core()
        wait_until(lambda: not alive(pid), "the module to end")
        it.outcome("the configuration was taken over$")
        core.order("start web")
        assert core.until("Refused")["reason"] == 6  # held
        it.write()
        it.hangup()
        core = it.next_core()
        assert core.start("web")["pid"] != pid


@pytest.mark.parametrize("keys,says", [
    ({"state_dir": "/tmp/elsewhere"}, "a change of state_dir needs a restart"),
    ({"store": {"durability": "none"}}, "a change of store.durability needs a restart"),
    ({"core": {"stop_grace_ms": 500, "binary": "/bin/false"}}, "a change of core.binary needs a restart"),
    ({"listeners": []}, "a change of listeners needs a restart"),
    ({"listeners": [{"name": "web", "port": 1}]}, "a change of listeners needs a restart"),
    ({"modules": [{"id": "web", "binary": "/nonexistent/program"}]}, 'module "web": the program is not there'),
    ({"modules": [{"id": "web", "binary": str(CHILD), "restrat": "never"}]}, 'unknown key; did you mean "restart"'),
    ({"version": 2}, "version"),
    ({"modules": [{"id": "web"}, {"id": "web"}]}, "web")])
def test_what_cannot_change_is_refused_and_nothing_changes(keys, says):
    with Reloading(module("web", "ready", "sleep")) as it:
        pid = it.core.start("web")["pid"]
        in_force = (it.stack.run / "core" / "gatehouse.yaml").read_text()
        it.write(log={"level": "error"}, **keys)
        it.hangup()
        assert says in it.outcome("the new configuration is refused")["STATUS"]
        assert it.core.processes()["web"]["pid"] == pid
        assert (it.stack.run / "core" / "gatehouse.yaml").read_text() == in_force
        assert '"level":"info"' in it.stack.log().splitlines()[-1] or "stays in force" in it.stack.log()


def test_a_file_that_is_gone_or_no_yaml_is_refused():
    with Reloading(module("web", "ready", "sleep")) as it:
        pid = it.core.start("web")["pid"]
        for text in ("{", None):
            it.stack.config.write_text(text) if text else it.stack.config.unlink()
            it.hangup()
            it.outcome("the new configuration is refused")
        assert it.core.processes()["web"]["pid"] == pid


def test_reload_after_reload_leaves_no_descriptor_behind():
    with Reloading(module("web", "ready", "sleep")) as it:
        it.core.start("web")
        count = lambda: len(os.listdir(f"/proc/{it.stack.process.pid}/fd"))
        counts = []
        for number in range(6):
            it.write([module("web", "ready", "sleep")] + ([] if number % 2 else [module(f"m{number}", "ready", "sleep")]))
            it.hangup()
            it.next_core()
            it.outcome("the configuration was taken over$")
            wait_until(lambda: it.core.processes().keys() >= {"web"}, "the list")
            if number >= 4:
                wait_until(lambda: count() <= counts[number - 2], f"no more descriptors than two reloads before: {counts}")
            counts.append(count())


@pytest.mark.skipif(gateways.missing(), reason="the gateway is not built")
def test_the_real_gateway_takes_a_module_in_and_keeps_serving(tmp_path):
    import yaml
    with gateways.Gateway() as gateway:
        before = gateway.processes()
        second = {"id": "rest2", "family": "rest-grpc", "binary": "gatehouse-rest"}
        gateway.config = {**gateway.config, "modules": [*gateway.config["modules"], second]}
        gateway.config_path.write_text(yaml.safe_dump(gateway.config, sort_keys=False))
        os.kill(gateway.process.pid, signal.SIGHUP)
        wait_until(lambda: gateway.processes().get("rest2", {}).get("state") == "ready", "the new module to be ready")
        gateway.wait_ready()
        now = gateway.processes()
        assert now["mcp"]["pid"] == before["mcp"]["pid"] and now["rest"]["pid"] == before["rest"]["pid"]

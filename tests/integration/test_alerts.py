"""Alerts (LIF-8, LIF-10, LIF-11): the program that tells operators, run by the real supervisor, driven by a core of the test and by the real one."""
import json
import os
import pathlib
import re
import time

import pytest

from harness import BIN
from harness import gateway as gateways
from harness.processes import wait_until
from harness.supervised import MISSING, Stack, alive, module
from test_lifecycle import kill_until_quarantined, wait_state

pytestmark = pytest.mark.skipif(MISSING, reason="not built")

QUARANTINED, RELEASED, ROLLED_BACK, FALLBACK, STORM, DEGRADED, RECOVERED = range(1, 8)  # AlertCondition
WRITES = """#!/bin/sh
cat > "new.$$" && mv "new.$$" "alert-$(date +%s%N).json"
"""
SLOW_MACHINE_S, LONG_MS = 60, 60000


def hooked(hook=WRITES, modules=(), **alerts):
    return Stack(list(modules), alerts={"retry_ms": 50, **alerts}, hook=hook)


def told(run):
    """What the script wrote, in the order of its runs."""
    return [json.loads(path.read_text()) for path in sorted(pathlib.Path(run, "alerts").glob("alert-*.json"))]


def wait_told(run, count):
    return wait_until(lambda: len(found := told(run)) >= count and found, f"{count} alerts", SLOW_MACHINE_S, pause_s=0.02)


def wait_condition(run, condition):
    return wait_until(lambda: next((one for one in told(run) if one["condition"] == condition), None), condition, SLOW_MACHINE_S,
                      pause_s=0.02)


def report(core, **wanted):
    """The report of how things stand that says this: the newest one, or one that is to come."""
    last = next((line for line in reversed(core.lines) if line["body"] == "AlertReport"), {})
    return last if last and last.items() >= wanted.items() else core.until("AlertReport", **wanted)


def test_lif_8_an_alert_is_told_with_a_document_a_few_variables_and_nothing_else():
    hook = """#!/bin/sh
env > env; pwd > cwd
(: > /tmp/x) && echo yes > tmp
cat /etc/shadow ../../gatehouse.yaml ../../state/master.key > secrets 2>/dev/null
ls ../core > core 2>/dev/null
echo $$ > own; mv own pid  # when it is seen, the shell has its own output again
while [ ! -e go ]; do :; done
""" + WRITES.partition("\n")[2]
    with Stack([], alerts={"timeout_ms": LONG_MS}, hook=hook, env={"SECRET_OF_THE_SHELL": "x"}) as stack:
        core = stack.core()
        assert report(core)["configured"] == 1
        core.order(f'alert web {QUARANTINED} 7 6 deaths in 60 s; "quoted"')
        folder = stack.run / "alerts"
        wait_until((folder / "pid").exists, "the program to run")
        process = pathlib.Path("/proc", (folder / "pid").read_text().strip())
        found = {path.name: os.readlink(path) for path in (process / "fd").iterdir()}
        ours = {name: target for name, target in found.items() if name != "255" and not target.endswith("/hook")}  # the shell's script
        assert set(ours) == {"0", "1", "2"} and ours["0"] == "/memfd:alert (deleted)" and ours["1"] == ours["2"] and ours["1"].startswith("pipe:")
        status = dict(line.split(":\t") for line in (process / "status").read_text().splitlines())
        (folder / "go").touch()
        document = wait_told(stack.run, 1)[0]
        at = document.pop("at")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", at)
        assert document.pop("id") == f"{core.hello['boot_id']}-1" and document.pop("host")
        reason = '6 deaths in 60 s; "quoted"'
        assert document == {"condition": "quarantined", "severity": "error", "module": "web", "generation": 7, "reason": reason,
                            "count": 1, "attempt": 1, "lost": 0}
        report(core, delivered=1, waiting=0, problem="")
        env = dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())
        for of_the_shell in ("PWD", "OLDPWD", "SHLVL", "_"):
            env.pop(of_the_shell, None)
        assert env.pop("PATH") and env.pop("LANG") == "C.UTF-8"
        assert env == {"GATEHOUSE_ALERT_ID": f"{core.hello['boot_id']}-1", "GATEHOUSE_ALERT_CONDITION": "quarantined",
                       "GATEHOUSE_ALERT_SEVERITY": "error", "GATEHOUSE_ALERT_MODULE": "web", "GATEHOUSE_ALERT_GENERATION": "7",
                       "GATEHOUSE_ALERT_REASON": reason, "GATEHOUSE_ALERT_ATTEMPT": "1"}
        assert (folder / "cwd").read_text().strip() == str(folder)
        assert (folder / "secrets").read_text() == "" and (folder / "core").read_text() == ""
        assert status["NoNewPrivs"] == "1" and {status["CapPrm"], status["CapEff"]} == {"0" * 16}
        if os.geteuid() == 0:
            assert status["CapBnd"] == "0" * 16 and (folder / "tmp").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change users")
def test_lif_14_the_program_of_alerts_runs_as_its_own_user():
    stack = hooked("#!/bin/sh\nid -u > uid\n" + WRITES.partition("\n")[2], user="nobody")
    stack.directory.chmod(0o711)
    with stack:
        core = stack.core()
        core.order(f"alert web {QUARANTINED} 1 x")
        wait_told(stack.run, 1)
        assert (stack.run / "alerts" / "uid").read_text().strip() == "65534"


def test_lif_8_what_lasts_is_told_once_and_again_after_it_ended():
    with hooked() as stack:
        core = stack.core()
        for condition in (QUARANTINED, QUARANTINED, RELEASED, QUARANTINED):
            core.order(f"alert web {condition} 1 x")
            core.processes()
        found = wait_told(stack.run, 3)
        report(core, delivered=3, waiting=0)
        assert [one["condition"] for one in found] == ["quarantined", "released", "quarantined"]


def test_lif_10_a_rollback_is_told_once_also_when_a_new_core_says_it_again():
    with hooked() as stack:
        core = stack.core()
        core.order(f"alert web {ROLLED_BACK} 4 slow")
        report(core, delivered=1)
        core.order("exit 1")
        again = stack.core()
        assert report(again)["delivered"] == 1  # the supervisor knows, also towards a new core
        again.order(f"alert web {ROLLED_BACK} 4 slow")
        again.order(f"alert web {ROLLED_BACK} 5 slow")
        report(again, delivered=2, waiting=0)
        assert [one["generation"] for one in told(stack.run)] == [4, 5]


def test_conditions_that_nobody_asked_for_are_not_told():
    with hooked(conditions=["degraded", "recovered"]) as stack:
        core = stack.core()
        for line in (f"{QUARANTINED} 1 x", f"{RECOVERED} 1 was-never-told", f"{DEGRADED} 1 first", f"{RECOVERED} 1 then", "99 1 x"):
            core.order(f"alert web {line}")
        report(core, delivered=2, waiting=0)
        assert [one["reason"] for one in told(stack.run)] == ["first", "then"]


def test_degraded_is_not_told_unless_it_is_asked_for():
    with hooked() as stack:
        core = stack.core()
        for condition in (DEGRADED, RECOVERED, FALLBACK):
            core.order(f"alert web {condition} 1 x")
        report(core, delivered=1, waiting=0)
        assert [one["condition"] for one in told(stack.run)] == ["fallback"]


def test_lif_8_a_program_that_fails_is_run_again_until_it_tells():
    hook = '#!/bin/sh\n[ "$GATEHOUSE_ALERT_ATTEMPT" = 3 ] || { echo "no network" >&2; exit 7; }\n' + WRITES.partition("\n")[2]
    with hooked(hook) as stack:
        core = stack.core()
        core.order(f"alert web {QUARANTINED} 1 x")
        assert report(core, waiting=1, problem="it ended with status 7: no network")["failed"] == 0
        report(core, delivered=1, waiting=0, problem="")
        assert told(stack.run)[0]["attempt"] == 3


def test_a_program_that_always_fails_is_given_up_and_the_next_alert_has_its_turn():
    with hooked("#!/bin/sh\necho $GATEHOUSE_ALERT_MODULE >> runs; exit 1\n", attempts=2) as stack:
        core = stack.core()
        core.order(f"alert web {QUARANTINED} 1 x")
        core.order(f"alert two {QUARANTINED} 1 x")
        assert report(core, failed=2, waiting=0)["delivered"] == 0
        assert (stack.run / "alerts" / "runs").read_text().split() == ["web", "web", "two", "two"]
        assert '"an alert was not told"' in stack.log()


@pytest.mark.parametrize("hook, problem", [(None, "it cannot be started: ENOENT in exec"),
                                           ("#!/no/such/shell\n", "it cannot be started: ENOENT in exec")])
def test_a_program_that_is_not_there_is_a_problem_that_is_shown(hook, problem):
    with hooked(hook, attempts=1) as stack:
        core = stack.core()
        core.order(f"alert web {QUARANTINED} 1 x")
        assert report(core, failed=1)["problem"] == problem


def test_lif_8_a_program_that_hangs_is_killed_with_all_that_it_started_and_delays_no_restart():
    hook = "#!/bin/sh\nsleep 1000 & echo $! > pids; echo $$ >> pids\ntrap '' TERM; while :; do sleep 1; done\n"
    with hooked(hook, [module("web", "ready", "serve", listeners=["web"])], timeout_ms=5000, attempts=1) as stack:
        core = stack.core()
        spawned = core.start("web")
        core.until("Notified")
        core.order(f"alert web {QUARANTINED} 1 x")
        pids = wait_until(lambda: (path := stack.run / "alerts" / "pids").exists() and len(found := path.read_text().split()) == 2 and
                          [int(pid) for pid in found], "the program to run", SLOW_MACHINE_S)
        began = time.monotonic()
        os.kill(spawned["pid"], 9)
        core.until("Spawned", module_id="web")
        assert time.monotonic() - began < 4 and all(map(alive, pids))  # it hangs meanwhile
        assert report(core, failed=1, waiting=0)["problem"] == "it took longer than 5000 ms"
        wait_until(lambda: not any(map(alive, pids)), "everything that the program started to be gone")


def test_lif_8_a_storm_of_alerts_is_bounded_told_in_order_and_says_what_was_lost():
    with hooked("#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done\n" + WRITES.partition("\n")[2], per_minute=6000, timeout_ms=LONG_MS) as stack:
        core = stack.core()
        core.order(f"alert first {QUARANTINED} 1 x")
        report(core, waiting=1)
        for number in range(100):
            core.order(f"alert m{number} {QUARANTINED} 1 x")
            core.order(f"alert same {ROLLED_BACK} {number + 1} x")
        report(core, waiting=32, lost=70)
        (stack.run / "alerts" / "go").touch()
        last = report(core, waiting=0)
        found = told(stack.run)
        assert len(found) == 32 == last["delivered"] and last["failed"] == 0
        assert [one["module"] for one in found] == ["first", "m0", "same", *(f"m{number}" for number in range(1, 30))]
        assert found[2]["count"] == 100 and found[2]["generation"] == 100  # one alert, with the newest of them
        assert last["lost"] == 70 and sum(one["lost"] for one in found) == 70
        core.order(f"alert m99 {QUARANTINED} 1 x")  # it was lost: it is not taken for told
        report(core, delivered=33)


def test_alerts_beyond_the_rate_wait():
    with hooked(per_minute=2) as stack:
        core = stack.core()
        for number in range(3):
            core.order(f"alert m{number} {QUARANTINED} 1 x")
        report(core, delivered=2, waiting=1)
        time.sleep(1)  # nothing is to happen in it
        assert len(told(stack.run)) == 2


def test_lif_8_a_core_that_dies_again_and_again_is_told_by_the_supervisor_and_so_is_its_recovery():
    with hooked() as stack:
        for _ in range(6):
            stack.core(ready=False).order("exit 1")
        core = stack.core()
        storm = wait_told(stack.run, 1)
        assert [(one["condition"], one["module"]) for one in storm] == [("restart-storm", "core")]
        assert "the last by status 1" in storm[0]["reason"]
        report(core, delivered=2)
        assert told(stack.run)[1]["condition"] == "recovered"


def test_a_fault_in_the_configuration_of_alerts_is_found_before_the_start():
    with hooked(conditions=["quarantaned"]) as stack:
        assert stack.process.child.wait(SLOW_MACHINE_S) == 100
        assert "no such condition" in stack.log()


def test_every_condition_is_in_the_document():
    table = pathlib.Path(__file__, "../../../sdk/config/alert_conditions.def").resolve().read_text()
    rows = re.findall(r'ALERT\(\w+, "([\w-]+)", "(\w+)", (\w+)\)', table)
    document = pathlib.Path(__file__, "../../../docs/operating.md").resolve().read_text()
    assert len(rows) == RECOVERED
    for name, severity, usual in rows:
        assert re.search(rf"\| `{name}` \| {severity} \|", document), name
        assert usual == "true" or name == "degraded"  # as the document says


# ---- the whole gateway ----------------------------------------------------------------------------------------------

@pytest.fixture
def gateway(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hook")
    hook = folder / "hook"
    hook.write_text(getattr(request, "param", WRITES))
    hook.chmod(0o755)
    config = gateways.quickstart_config()
    config["alerts"] = {"program": str(hook), "retry_ms": 50, "attempts": 1}
    with gateways.Gateway(config) as running:
        yield running


@pytest.mark.skipif(gateways.missing(), reason="not built")
def test_lif_8_a_quarantine_and_its_release_are_told(gateway):
    kill_until_quarantined(gateway, "rest")
    document = wait_condition(gateway.run, "quarantined")
    assert document["module"] == "rest" and "6 deaths in 60 s" in document["reason"]
    gateway.wait_restarted(gateway.kill("core"))
    wait_state(gateway, "rest", "quarantined")
    gateway.ctl("module", "release", "rest")
    assert "released by an operator" in wait_condition(gateway.run, "released")["reason"]
    conditions = [one["condition"] for one in told(gateway.run)]
    assert conditions[-2:] == ["quarantined", "released"] and conditions.count("quarantined") == 1  # the new core's word was no news
    wait_until(lambda: f'gatehouse_alerts{{outcome="delivered"}} {len(conditions)}' in gateway.ctl("metrics").stdout, "the metric")


@pytest.mark.skipif(gateways.missing(), reason="not built")
def test_lif_10_a_version_that_does_not_hold_is_told(gateway):
    odd = gateway.directory / "gatehouse-rest-odd"
    odd.write_text("#!/bin/sh\nexit 1\n")
    odd.chmod(0o755)
    gateway.ctl("module", "upgrade", "rest", "--to", odd)
    document = wait_told(gateway.run, 1)[0]
    assert (document["condition"], document["module"]) == ("rolled-back", "rest")
    assert document["reason"] == gateway.describe("rest")["versions"]["changes"][0]["cause"]


@pytest.mark.skipif(gateways.missing(), reason="not built")
@pytest.mark.parametrize("gateway", ["#!/bin/sh\necho the pager is gone; exit 3\n"], indirect=True)
def test_lif_8_a_program_that_fails_shows_in_the_status_the_log_and_the_metrics(gateway):
    kill_until_quarantined(gateway, "rest")
    wanted = r"the program of alerts.program fails: it ended with status 3: the pager is gone \(alerts waiting 0, not told (\d), lost 0\)"

    def shown():  # there may be one of the restarts before that of the quarantine
        found = re.search(wanted, gateway.ctl("status", check=False).stdout)
        return found and f'gatehouse_alerts{{outcome="failed"}} {found.group(1)}\n' in gateway.ctl("metrics").stdout
    wait_until(shown, "the warning, and the metric of the same number", SLOW_MACHINE_S)
    assert "an alert was not told" in gateway.log()


@pytest.mark.skipif(gateways.missing(), reason="not built")
def test_lif_11_a_fallback_is_told(tmp_path):
    hook = tmp_path / "hook"
    hook.write_text(WRITES)
    hook.chmod(0o755)
    config = gateways.quickstart_config(rest={"fallback": str(BIN / "gatehouse-rest"), "quarantine": {"deaths": 1}})
    broken = tmp_path / "gatehouse-rest"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    next(one for one in config["modules"] if one["id"] == "rest")["binary"] = str(broken)
    config["alerts"] = {"program": str(hook)}
    with gateways.Gateway(config) as running:
        document = wait_told(running.run, 1)[0]
        assert (document["condition"], document["module"]) == ("fallback", "rest"), document

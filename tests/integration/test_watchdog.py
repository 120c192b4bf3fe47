"""The loop watchdog inside each of our processes (LIF-4, LIF-7): a loop that hangs is found by the process itself, which says where and ends;
a process that could not run was not hanging."""
import json
import os
import signal
import time

import pytest

from harness import gateway as gateways, hang
from harness.processes import wait_until
from harness.supervised import alive

HANG_MS = 400
EXIT_HANG = 113
pytestmark = pytest.mark.skipif(hang.missing() is not None or gateways.missing() is not None, reason=f"{hang.missing()} {gateways.missing()}")


def watched(hang_ms):
    """The quick start whose loops may hang for so long, and where nobody else looks."""
    config = gateways.quickstart_config()
    config["supervisor"] = {"hang_ms": hang_ms}
    config["core"] = {"hang_ms": hang_ms, "watchdog_ms": 0}
    for module in config["modules"]:
        module |= {"hang_ms": hang_ms, "probes": {kind: {"interval_ms": 0} for kind in ("liveness", "readiness")}}
    return config


@pytest.fixture
def gateway():
    with gateways.Gateway(config=watched(HANG_MS)) as started:
        yield started


@pytest.mark.parametrize("module", ["mcp", "rest"])
def test_lif_4_a_module_whose_loop_hangs_says_where_and_is_back(gateway, module):
    before, began = gateway.processes()[module], time.monotonic()
    hang.hang(before["pid"])
    after = gateway.wait_restarted(before)
    assert time.monotonic() - began >= HANG_MS / 1000
    assert gateway.processes()["core"]["generation"] == "1", "only the module was replaced"
    death = json.loads(gateway.ctl("module", "describe", module, "--output", "json").stdout)["deaths"][-1]
    assert death["cause"] == "probe" and after["lastExit"] == "watchdog", (death, after)
    words = "\n".join(death["lastWords"])
    assert f"the loop has not turned for {HANG_MS} ms" in words and f'"stack":"gatehouse-{module}+0x' in words, words
    assert int(after["restarts"]) == 1


@pytest.mark.parametrize("thread, words", [(None, "the core thread"), ("core-io", "the core's I/O thread")])
def test_lif_12_a_core_of_which_a_loop_hangs_says_where_and_is_replaced(gateway, thread, words):
    before = gateway.processes()["core"]
    hang.hang(before["pid"], thread and hang.thread_named(before["pid"], thread))
    after = gateway.wait_restarted(before)
    gateway.wait_ready()
    log = gateway.log()
    assert f"{words} has not turned for {HANG_MS} ms" in log and '"stack":"gatehouse-core+0x' in log, log[-4000:]
    assert after["lastExit"] == "watchdog", after


def test_lif_13_a_supervisor_whose_loop_hangs_ends_with_its_children(gateway):
    children = [process["pid"] for process in gateway.processes().values()]
    hang.hang(gateway.process.pid)
    assert gateway.process.child.wait(20) == EXIT_HANG
    assert f"the supervisor has not turned for {HANG_MS} ms" in gateway.log()
    wait_until(lambda: not any(alive(pid) for pid in children), "the children to be gone")


def test_a_process_that_was_stopped_did_not_hang(gateway):
    def generations():
        return {name: process.get("generation") for name, process in gateway.processes().items()}
    before, generation = gateway.processes(), generations()
    for process in before.values():
        for _ in range(2):
            os.kill(process["pid"], signal.SIGSTOP)
            time.sleep(2 * HANG_MS / 1000)  # what is waited for is that nothing follows from it
            os.kill(process["pid"], signal.SIGCONT)
    gateway.wait_ready()
    assert generations() == generation
    assert "has not turned" not in gateway.log()


def test_a_watchdog_that_is_switched_off_sees_nothing():
    with gateways.Gateway(config=watched(0)) as gateway:
        before = gateway.processes()["mcp"]
        hang.hang(before["pid"])
        time.sleep(1)  # long enough for the others of this file
        assert alive(before["pid"]) and gateway.processes()["mcp"]["generation"] == before["generation"]
        os.kill(before["pid"], signal.SIGKILL)

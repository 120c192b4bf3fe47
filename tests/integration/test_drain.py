"""Long streams at the end of who serves them (LIF-5, LIF-9, LIF-12): they are told to reconnect in their protocol's way, so that nobody waits
for them, and they do not wait for nobody."""
import signal
import subprocess
import time

import pytest

from harness import BIN, gateway as gateways
from harness.processes import wait_until

GRACE_S = 5  # that a stream which is not told keeps the core for


@pytest.fixture
def gateway(worldclock, notes):
    if gateways.missing():
        pytest.skip(gateways.missing())
    with gateways.Gateway() as started:
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        yield started


# ---- the core: Watch of the modules, events that an operator follows ----

def test_lif_12_a_core_that_is_told_to_end_does_not_wait_for_who_watches_it(gateway):
    with subprocess.Popen([BIN / "gatehouse", "events", "--follow"], env=gateway.env, stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout.readline(), "it follows"
            before, began = gateway.kill("core", signal.SIGTERM), time.monotonic()
            gateway.wait_restarted(before)
            gateway.wait_ready()
            assert time.monotonic() - began < GRACE_S - 2
            lines = []
            wait_until(lambda: lines.append(follower.stdout.readline()) or any("ready" in line for line in lines),
                       "the events of the next core to be followed", 20)
        finally:
            follower.kill()
    assert {name: process.get("restarts", 0) for name, process in gateway.processes().items() if name in ("mcp", "rest")} == \
        {"mcp": 0, "rest": 0}, "the modules have attached again"

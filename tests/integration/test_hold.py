"""Invocations whose module is between two lives wait for it, within bounds, instead of being refused (LIF-7, SPI-9). The time between
two lives is as long as the test wants: a stopped supervisor starts nothing."""
import contextlib
import json
import os
import re
import signal
import threading
import time

import pytest

from harness import BIN, gateway as gateways
from harness.http1 import Connection
from harness.mcp import LegacyMcp, ModernMcp
from harness.processes import Stalls, wait_until
from test_dispatch import Upstream, code_of, tool
from test_kill import Load

HOLD_MS = 10000  # the longest
HOLD_MAX = 3
AT_ONCE_S = 5  # far below HOLD_MS, on any machine
DEFAULT_HOLD_S = 0.25


@pytest.fixture(scope="module")
def upstream():
    server = Upstream()
    yield server
    server.close()


def gateway_of(worldclock, notes, upstream, hold, **keys):
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    config = gateways.quickstart_config()
    config["dispatch"] = hold
    next(module for module in config["modules"] if module["id"] == "rest").update(keys)
    started = gateways.Gateway(config=config)
    started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
    started.apply(tool(upstream, "fast", "/fast") + tool(upstream, "soon", "/fast", timeoutMs=400))
    return started


@pytest.fixture(scope="module")
def patient(worldclock, notes, upstream):
    with gateway_of(worldclock, notes, upstream, {"hold_ms": HOLD_MS, "hold_max": HOLD_MAX}, quarantine={"deaths": 0}) as started:
        yield started


@contextlib.contextmanager
def between_lives(gateway, module="rest"):
    """The module is dead, the core knows, and nobody starts it again before the end of this."""
    before = gateway.processes()[module]
    os.kill(gateway.process.pid, signal.SIGSTOP)
    try:
        gateway.kill(module)
        wait_until(lambda: gateway.processes()[module]["state"] == "failed", "the core to notice")
        yield
    finally:
        os.kill(gateway.process.pid, signal.SIGCONT)
    gateway.wait_restarted(before)


def client(gateway, era=ModernMcp):
    return era(gateway.mcp_url, gateway.token(gateways.GUEST, "--team", "explorers"))


def holds(gateway, outcome):
    """How many invocations of rest waited and ended so."""
    name = f'gatehouse_invocation_holds_total{{family="rest-grpc",outcome="{outcome}"}} '
    lines = [line for line in gateway.ctl("metrics").stdout.splitlines() if line.startswith(name)]
    return int(lines[0].rpartition(" ")[2]) if lines else 0


def longest_hold_s(gateway):
    """What the longest wait of an invocation of rest was longer than."""
    buckets = re.findall(r'^gatehouse_invocation_hold_seconds_bucket{family="rest-grpc",le="([\d.]+)"} (\d+)$', gateway.ctl("metrics").stdout, re.M)
    return max((float(bound) for bound, count in buckets if count != buckets[-1][1]), default=0)


def invocations(gateway):
    """The ids of the newest invocations that the core has admitted, those that wait too."""
    lines = gateway.ctl("events", "--tail", "100", "--family", "runtime_execution", "--output", "json").stdout.splitlines()
    return {event["execution_id"] for event in map(json.loads, lines) if event["event_type"] == "execution_started"}


def wait_begun(gateway, before, count):
    wait_until(lambda: len(invocations(gateway) - before) >= count, "the calls to be with the core")


class Calls:
    """Calls of one tool, each in a thread with a client of its own."""

    def __init__(self, gateway, count, name="fast"):
        self.replies, self.lock = [], threading.Lock()
        self.threads = [threading.Thread(target=self.one, args=(client(gateway), name), daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def one(self, mcp, name):
        with mcp:
            reply = mcp.call(name)
        with self.lock:
            self.replies.append(reply)

    def join(self):
        for thread in self.threads:
            thread.join(20)
        return self.replies


@pytest.mark.parametrize("era", [LegacyMcp, ModernMcp])
def test_a_call_waits_for_its_module_and_goes_on_the_moment_it_serves(patient, era):
    served = holds(patient, "served")
    with client(patient, era) as mcp:
        assert not mcp.call("fast").result.get("isError")
        with between_lives(patient):
            before = invocations(patient)
            calls = Calls(patient, 2)
            wait_begun(patient, before, 2)
            assert not calls.replies
        assert [bool(reply.result.get("isError")) for reply in calls.join()] == [False, False]
        assert not mcp.call("fast").result.get("isError")
    assert holds(patient, "served") == served + 2
    assert 'gatehouse_invocation_hold_seconds_count{family="rest-grpc"}' in patient.ctl("metrics").stdout


def test_the_deadline_of_a_call_counts_while_it_waits(patient):
    """TRN-3."""
    with client(patient) as mcp:
        assert not mcp.call("soon").result.get("isError")
        with between_lives(patient):
            began = time.monotonic()
            reply = mcp.call("soon")
            took = time.monotonic() - began
    assert code_of(reply) == "deadline.exceeded", reply
    assert 0.35 < took < AT_ONCE_S
    assert holds(patient, "deadline") >= 1


def test_a_client_that_leaves_takes_its_waiting_call_along(patient):
    cancelled = holds(patient, "cancelled")
    with client(patient) as mcp:
        mcp.tools()
        with between_lives(patient):
            before = invocations(patient)
            body, headers = mcp.message("tools/call", {"name": "fast", "arguments": {}})
            connection = Connection(mcp.url)
            connection.send("POST", mcp.path, {**mcp.headers, **headers}, json.dumps(body).encode())
            wait_begun(patient, before, 1)
            connection.close()
            wait_until(lambda: holds(patient, "cancelled") == cancelled + 1, "the waiting call to be cancelled", AT_ONCE_S)


def test_the_number_that_waits_is_bounded(patient):
    with between_lives(patient):
        calls = Calls(patient, HOLD_MAX + 2)
        wait_until(lambda: len(calls.replies) == 2, "two to be refused at once", AT_ONCE_S)
        assert {code_of(reply) for reply in calls.replies} == {"invoke.module.unavailable"}
    codes = sorted("served" if "result" in reply.answer else code_of(reply) for reply in calls.join())
    assert codes == ["invoke.module.unavailable"] * 2 + ["served"] * HOLD_MAX


def test_a_revoked_caller_does_not_go_on(patient):
    """SPI-3: what was decided before the revocation is not carried out after it."""
    made = json.loads(patient.ctl("token", "create", "--user", gateways.GUEST, "--output", "json").stdout)
    replies = []
    with ModernMcp(patient.mcp_url, made["token"]) as mcp:
        assert not mcp.call("fast").result.get("isError")
        with between_lives(patient):
            thread = threading.Thread(target=lambda: replies.append(mcp.request("tools/call", {"name": "fast", "arguments": {}})), daemon=True)
            before = invocations(patient)
            thread.start()
            wait_begun(patient, before, 1)
            patient.ctl("token", "revoke", made.get("info", made).get("tokenId") or made["tokenId"])
        thread.join(20)
    assert replies and replies[0].status == 401, replies


def test_what_is_stopped_is_refused_at_once(patient):
    patient.ctl("module", "stop", "rest")
    try:
        wait_until(lambda: patient.processes()["rest"]["state"] == "stopped", "rest to be stopped")
        with client(patient) as mcp:
            began = time.monotonic()
            assert code_of(mcp.call("fast")) == "module.stopped"
            assert time.monotonic() - began < AT_ONCE_S
    finally:
        patient.ctl("module", "start", "rest")
        patient.wait_ready()


def test_calls_wait_for_a_restart_that_was_ordered(patient):
    with Load(patient.mcp_url, patient.token(gateways.GUEST, "--team", "explorers")) as load:
        for _ in range(3):
            before = patient.processes()["rest"]
            patient.ctl("module", "restart", "rest")
            patient.wait_restarted(before)
        good = load.good
        wait_until(lambda: load.good >= good + 10, "calls to go on", 20)
    assert not load.bad, load.bad[:5]


def test_what_is_quarantined_is_refused_at_once(worldclock, notes, upstream):
    with gateway_of(worldclock, notes, upstream, {"hold_ms": HOLD_MS}, quarantine={"deaths": 1}) as strict:
        strict.wait_restarted(strict.kill("rest"))
        strict.kill("rest")
        wait_until(lambda: strict.processes()["rest"]["state"] == "quarantined", "the quarantine", 20)
        with client(strict) as mcp:
            began = time.monotonic()
            assert code_of(mcp.call("fast")) == "module.quarantined"
            assert time.monotonic() - began < AT_ONCE_S


@pytest.mark.parametrize("hold_ms", [0, 300])
def test_a_call_waits_no_longer_than_it_may(worldclock, notes, upstream, hold_ms):
    with gateway_of(worldclock, notes, upstream, {"hold_ms": hold_ms}) as brisk, client(brisk) as mcp:
        assert not mcp.call("fast").result.get("isError")
        with between_lives(brisk):
            began = time.monotonic()
            reply = mcp.call("fast")
            took = time.monotonic() - began
        assert code_of(reply) == "invoke.module.unavailable" and reply.error["data"]["retryable"] is True
        assert hold_ms / 1000 - 0.01 <= took < AT_ONCE_S
        assert holds(brisk, "refused") == (1 if hold_ms else 0)


def test_no_call_is_refused_while_rest_is_killed_again_and_again(worldclock, notes, upstream):
    """Nor would be with the default, unless the machine stalls. Also what was in flight does not fail, since its tool is declared to be
    read-only."""
    with gateway_of(worldclock, notes, upstream, {"hold_ms": HOLD_MS}, quarantine={"deaths": 0}) as started, contextlib.ExitStack() as stack:
        stalls, began = stack.enter_context(Stalls()), time.monotonic()
        loads = [stack.enter_context(Load(started.mcp_url, started.token(gateways.GUEST, "--team", "explorers"))) for _ in range(3)]
        rounds = 0
        while rounds < 3 or not holds(started, "served"):  # that a call comes between two lives is chance
            started.wait_restarted(started.kill("rest"))
            good = [load.good for load in loads]
            wait_until(lambda: all(load.good >= before + 5 for load, before in zip(loads, good)), "calls to go on", 20)
            rounds += 1
            if rounds == 3:  # so many restarts follow without a pause
                assert longest_hold_s(started) < DEFAULT_HOLD_S + stalls.between(began, time.monotonic())
            assert rounds < 20, "no call waited"
        stack.close()
        bad = [text for load in loads for text in load.bad]
        assert not bad, bad[:5]


def test_a_call_waits_also_for_a_module_that_starts_after_a_pause(worldclock, notes, upstream, tmp_path):
    """Its process runs and its socket is not there yet: it died once before it was ready, which may be chance."""
    slow, gate = tmp_path / "slow-rest", tmp_path / "gate"
    slow.write_text(f"#!/bin/sh\nuntil [ -e {gate} ]; do sleep 0.05; done\nexec {BIN}/gatehouse-rest\n")
    slow.chmod(0o755)
    tmp_path.chmod(0o755)
    gate.touch()
    open_ = {"landlock": False, "mount_view": False, "seccomp": False}  # what the script executes is in no profile
    with gateway_of(worldclock, notes, upstream, {"hold_ms": HOLD_MS}, binary=str(slow), sandbox=open_) as gateway, client(gateway) as mcp:
        assert not mcp.call("fast").result.get("isError")

        def process(before):
            now = gateway.processes()["rest"]
            return now.get("pid") not in (None, 0, before["pid"]) and now
        gate.unlink()
        first = gateway.kill("rest")
        second = wait_until(lambda: process(first), "the next process")
        os.kill(second["pid"], signal.SIGKILL)
        third = wait_until(lambda: process(second), "the one after the pause")
        assert third["pid"] != first["pid"] and gateway.processes()["rest"]["state"] != "ready"
        before = invocations(gateway)
        calls = Calls(gateway, 1)
        wait_begun(gateway, before, 1)
        assert not calls.replies
        gate.touch()
        assert [bool(reply.result.get("isError")) for reply in calls.join()] == [False]
        assert holds(gateway, "served") == 1

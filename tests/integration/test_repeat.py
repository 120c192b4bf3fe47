"""What becomes of a call whose module, or whose core, dies under it (LIF-7, LIF-9, LIF-12, SPI-9): one that they never got goes to the next life or the
other version; one that it may have begun does so only where an operator has declared that twice is as once, and fails honestly elsewhere:
nobody cancelled it."""
import contextlib
import http.server
import os
import signal
import threading
import time

import pytest

from harness import gateway as gateways
from harness.mcp import ModernMcp
from harness.processes import wait_until
from test_dispatch import code_of, tool
from test_upgrade import program, settled, versions

HELD_S = 30
GONE = "rpc.peer.gone"


class Once:
    """An upstream that holds whoever comes first until told, or until HELD_S, and answers everybody else."""

    def __init__(self):
        self.paths, self.lock, self.holding, self.let_go = [], threading.Lock(), 0, threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                with outer.lock:
                    outer.paths.append(self.path)
                    held = outer.holding > 0
                    outer.holding -= held
                if held:
                    outer.let_go.wait(HELD_S)
                body = b'{"answered": true}'
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def hold(self, count):
        with self.lock:
            self.paths, self.holding = [], count

    def close(self):
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def upstream():
    once = Once()
    yield once
    once.close()


@pytest.fixture(scope="module")
def gateway(worldclock, notes, upstream):
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    config = gateways.quickstart_config()
    config["dispatch"] = {"hold_ms": 10000}
    next(module for module in config["modules"] if module["id"] == "rest").update(quarantine={"deaths": 0})
    next(module for module in config["modules"] if module["id"] == "mcp").update(config={"coreWaitMs": 10000})
    with gateways.Gateway(config=config) as started:
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        started.apply(tool(upstream, "plain", "/plain", timeoutMs=20000)
                      + tool(upstream, "idempotent", "/idempotent", timeoutMs=20000, annotationsJson={"idempotentHint": True})
                      + tool(upstream, "reads", "/reads", timeoutMs=20000, annotationsJson={"readOnlyHint": True})
                      + tool(upstream, "denies", "/denies", timeoutMs=20000, annotationsJson={"readOnlyHint": False, "idempotentHint": False}))
        yield started


@pytest.fixture(autouse=True)
def rested(gateway):
    """The pauses before restarts grow with every death; an operator's order begins anew."""
    yield
    gateway.wait_ready()
    before = gateway.processes()["rest"]
    gateway.ctl("module", "restart", "rest")
    gateway.wait_restarted(before)


class Calls:
    """Calls of one tool, each by a client of its own that the gateway knows already."""

    def __init__(self, gateway, name, count):
        self.replies, self.lock = [], threading.Lock()
        self.clients = [ModernMcp(gateway.mcp_url, gateway.token(gateways.GUEST, "--team", "explorers")) for _ in range(count)]
        for client in self.clients:
            assert name in client.tools()
        self.threads = [threading.Thread(target=self.one, args=(client, name), daemon=True) for client in self.clients]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def one(self, client, name):
        with client:
            reply = client.call(name)
        with self.lock:
            self.replies.append(reply)

    def outcomes(self):
        for thread in self.threads:
            thread.join(30)
        return ["answered" if "result" in reply.answer and not reply.result.get("isError") else code_of(reply) for reply in self.replies]


@pytest.mark.parametrize("victim", ["rest", "core"])
@pytest.mark.parametrize("name, outcome", [("plain", GONE), ("denies", GONE), ("idempotent", "answered"), ("reads", "answered")])
def test_lif_7_lif_12_a_call_that_was_begun_is_repeated_only_where_twice_is_as_once(gateway, upstream, name, outcome, victim):
    upstream.hold(3)
    calls = Calls(gateway, name, 3).start()
    wait_until(lambda: len(upstream.paths) == 3, "the calls to be under way at the upstream")
    before = gateway.kill(victim)
    assert calls.outcomes() == [outcome] * 3
    assert len(upstream.paths) == (6 if outcome == "answered" else 3)
    gateway.wait_restarted(before)


def test_lif_7_what_is_repeated_is_repeated_once(gateway, upstream):
    """A call that kills whoever carries it out."""
    upstream.hold(2)
    calls = Calls(gateway, "reads", 1).start()
    for count in (1, 2):
        wait_until(lambda count=count: len(upstream.paths) == count, "the call to be under way at the upstream")
        gateway.wait_restarted(gateway.kill("rest"))
    assert calls.outcomes() == [GONE] and len(upstream.paths) == 2


def test_lif_7_a_call_that_a_dead_module_never_got_goes_to_its_next_life(gateway, upstream):
    """It is no matter of luck what the core hears of first, the death or the call: it is stopped while both happen."""
    for _ in range(6):
        upstream.hold(0)
        calls, processes = Calls(gateway, "plain", 4), gateway.processes()
        os.kill(processes["core"]["pid"], signal.SIGSTOP)
        os.kill(processes["rest"]["pid"], signal.SIGKILL)
        calls.start()
        time.sleep(0.1)  # whether they have come as far as the core cannot be seen; it must be right either way
        os.kill(processes["core"]["pid"], signal.SIGCONT)
        assert calls.outcomes() == ["answered"] * 4 and len(upstream.paths) == 4
        gateway.wait_restarted(processes["rest"])


@pytest.mark.parametrize("name, outcome", [("plain", GONE), ("reads", "answered")])
def test_lif_9_a_candidate_that_dies_with_calls_in_it_costs_only_what_cannot_be_repeated(gateway, upstream, name, outcome):
    before = gateway.processes()["rest"]
    for _ in range(4):
        gateway.ctl("module", "upgrade", "rest", "--to", program(gateway, "gatehouse-rest-new", of="rest"), "--probation", "60s")
        wait_until(lambda: versions(gateway, "rest").get("phase") == "probation", "probation")
        candidate = next(process for process in gateway.processes().values() if process.get("role") == "candidate")
        upstream.hold(6)
        calls = Calls(gateway, name, 6).start()
        wait_until(lambda: len(upstream.paths) == 6, "the calls to be under way at the upstream")
        os.kill(candidate["pid"], signal.SIGKILL)
        wait_until(lambda: calls.replies, "what the candidate had to end")
        change = settled(gateway, "rest")[1]
        assert change["verdict"] == "rolled back", change
        upstream.let_go.set()  # what the other one has
        outcomes = calls.outcomes()
        died = outcomes.count(GONE) if outcome == GONE else len(upstream.paths) - 6
        assert 0 < died < 6 and sorted(outcomes) == sorted(["answered"] * (6 - died) + [outcome] * died), outcomes
        assert len(upstream.paths) == (6 if outcome == GONE else 6 + died)
        upstream.let_go.clear()
        assert gateway.processes()["rest"]["pid"] == before["pid"]

"""Long streams at the end of who serves them (LIF-5, LIF-9, LIF-12): they are told to reconnect in their protocol's way, so that nobody waits
for them, and they do not wait for nobody."""
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import BIN, clients, gateway as gateways
from harness.http1 import Connection
from harness.mcp import LegacyMcp, ModernMcp
from harness.processes import Stalls, end_listener, wait_until

GRACE_S = 5  # that a stream which is not told keeps the core for
OWN_DELAY_S = 60  # before a client comes back that was told nothing
OPEN = {"landlock": False, "mount_view": False, "seccomp": False}  # programs of a test lie where no sandbox looks


@pytest.fixture
def gateway(worldclock, notes):
    if gateways.missing():
        pytest.skip(gateways.missing())
    config = gateways.quickstart_config()
    for module in config["modules"]:
        module |= {"sandbox": OPEN, "upgrade": {"probation_ms": 300, "latency_percent": 0}}
    with gateways.Gateway(config) as started:
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        yield started


# ---- the core: Watch of the modules, events that an operator follows ----

def test_lif_12_a_core_that_is_told_to_end_does_not_wait_for_who_watches_it(gateway):
    with Stalls() as stalls, subprocess.Popen([BIN / "gatehouse", "events", "--follow"], env=gateway.env, stdout=subprocess.PIPE,
                                              text=True) as follower:
        try:
            assert follower.stdout.readline(), "it follows"
            before, began = gateway.kill("core", signal.SIGTERM), time.monotonic()
            gateway.wait_restarted(before)
            gateway.wait_ready()
            ended = time.monotonic()
            assert ended - began < GRACE_S - 2 + stalls.between(began, ended)
            lines = []
            wait_until(lambda: lines.append(follower.stdout.readline()) or any("ready" in line for line in lines),
                       "the events of the next core to be followed", 20)
        finally:
            follower.kill()
    assert {name: process.get("restarts", 0) for name, process in gateway.processes().items() if name in ("mcp", "rest")} == \
        {"mcp": 0, "rest": 0}, "the modules have attached again"


# ---- MCP: streams that wait for news, answers that are not finished ----

def stream_of(mcp):
    """The GET stream of a session, opened: (connection, headers)."""
    connection = Connection(mcp.url)
    connection.send("GET", mcp.path, {**mcp.headers, "Accept": "text/event-stream", "Content-Type": None})
    status, headers = connection.read_head()
    assert status == 200, (status, headers)
    return connection, headers


def restart(gateway):
    gateway.ctl("module", "restart", "mcp")


def upgrade(gateway):
    program = gateway.directory / "gatehouse-mcp"
    shutil.copy2(BIN / "gatehouse-mcp", program)
    gateway.ctl("module", "upgrade", "mcp", "--to", program)


@pytest.mark.parametrize("version, told", [("2025-11-25", True), ("2025-06-18", False)])
@pytest.mark.parametrize("end", [restart, upgrade])
def test_lif_5_a_stream_is_told_when_to_come_back_where_its_protocol_has_that(gateway, end, version, told):
    with LegacyMcp(gateway.mcp_url, gateway.token(), version) as mcp:
        connection, headers = stream_of(mcp)
        with connection:
            end(gateway)
            text = b"".join(connection.chunks(headers)).decode()  # to its regular end, or reading the chunks fails
        waits = [int(wait) for wait in re.findall(r"^retry: (\d+)$", text, re.M)]
        assert len(waits) == told and all(100 <= wait <= 101 for wait in waits), text
        assert text.endswith("\n\n") and "data:" not in text
        again, _ = stream_of(mcp)  # of the same session, which is the core's: on the next process
        again.close()


def test_lif_9_a_stream_that_is_opened_on_a_process_that_hands_over_is_sent_on(gateway):
    with LegacyMcp(gateway.mcp_url, gateway.token()) as mcp:
        waiting = Connection(mcp.url)  # it stays with the process that accepted it
        waiting.send("POST", mcp.path, mcp.headers, b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
        assert waiting.read().status == 200
        upgrade(gateway)
        wait_until(lambda: re.search(r'"message":"draining".*another process of the module takes over', gateway.log()), "the hand-over")
        try:
            waiting.send("GET", mcp.path, {**mcp.headers, "Accept": "text/event-stream", "Content-Type": None})
            status, headers = waiting.read_head()
            assert status == 200 and headers["connection"] == ["close"]
            assert re.search(r"^retry: \d+$", b"".join(waiting.chunks(headers)).decode(), re.M)
        finally:
            waiting.close()


class Silent:
    """An upstream that takes requests and never answers."""

    def __init__(self):
        self.listener, self.taken = socket.create_server(("127.0.0.1", 0)), []
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                self.taken.append(self.listener.accept()[0])
            except OSError:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end_listener(self.listener)
        for peer in self.taken:
            peer.close()


@pytest.mark.parametrize("era", [LegacyMcp, ModernMcp])
def test_lif_5_what_is_not_finished_in_time_is_answered_before_the_deadline(gateway, era):
    with Silent() as upstream, era(gateway.mcp_url, gateway.token()) as mcp:
        gateway.apply("---\nkind: Tool\nmetadata: {name: hold, visibility: public, owner: admin@example.com}\n"
                      "spec:\n  inputSchemaJson: {type: object}\n  timeoutMs: 30000\n"
                      f"  rest: {{method: GET, url: 'http://127.0.0.1:{upstream.port}/', "
                      f"egress: {{allow: ['127.0.0.1:{upstream.port}'], schemes: [http]}}}}\n")
        replies = []
        thread = threading.Thread(target=lambda: replies.append(mcp.call("hold")), daemon=True)
        thread.start()
        wait_until(lambda: upstream.taken, "the upstream to be called")
        before, began = gateway.processes()["mcp"], time.monotonic()
        gateway.ctl("module", "restart", "mcp", "--drain", "1s")
        thread.join(20)
        took = time.monotonic() - began
        assert replies and replies[0].error["code"] == -32000 and replies[0].error["data"]["code"] == "module.draining", replies
        assert replies[0].error["data"]["retryable"] is True and 0.8 < took < 15, (took, replies)  # the upstream never answers
        gateway.wait_restarted(before)
        assert not any("deadline passed" in str(line) for line in gateway.ctl("module", "describe", "mcp").stdout.splitlines())


class Tee:
    """A TCP relay that counts the requests of one kind."""

    def __init__(self, target):
        self.target, self.seen = target, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/mcp"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                outer, _ = self.listener.accept()
                inner = socket.create_connection(self.target)
            except OSError:
                return
            threading.Thread(target=self.carry, args=(outer, inner, True), daemon=True).start()
            threading.Thread(target=self.carry, args=(inner, outer, False), daemon=True).start()

    def carry(self, source, target, heard):
        try:
            while data := source.recv(65536):
                self.seen += data if heard else b""
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def count(self, request):
        return self.seen.count(request)


@pytest.mark.skipif(clients.missing() is not None, reason=str(clients.missing()))
def test_lif_5_a_client_that_others_wrote_opens_its_stream_again(gateway):
    tee = Tee(gateway.listener("mcp"))
    try:
        with clients.NodeClient("legacy", tee.url, gateway.token(), reconnect_ms=1000 * OWN_DELAY_S):
            wait_until(lambda: tee.count(b"GET /mcp") == 1, "the client to open its stream")
            before, began = gateway.processes()["mcp"], time.monotonic()
            restart(gateway)
            wait_until(lambda: tee.count(b"GET /mcp") >= 2, "the client to open its stream again")
            assert time.monotonic() - began < OWN_DELAY_S, "it comes back when it was told to, not when it would by itself"
            gateway.wait_restarted(before)
    finally:
        end_listener(tee.listener)

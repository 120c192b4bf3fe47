"""Kill -9 of each process while clients call in a loop: it is back by itself, the other protocols see nothing, status says why."""
import os
import select
import signal
import threading
import time

import pytest

from harness import BIN, gateway as gateways
from harness.mcp import ModernMcp
from harness.processes import Process, Stalls, wait_until
from harness.supervised import alive

ARGUMENTS = {"value": 5, "from_unit": "km", "to_unit": "m"}


class Load(threading.Thread):
    """Calls one tool again and again and counts right answers and failures."""

    def __init__(self, url, token, tool="convert_units", arguments=None):
        super().__init__(daemon=True)
        self.url, self.token, self.tool, self.arguments = url, token, tool, arguments or ARGUMENTS
        self.good, self.bad, self.done = 0, [], threading.Event()

    def once(self, mcp):
        result = mcp.call(self.tool, self.arguments).result
        assert not result.get("isError"), result
        if self.tool == "convert_units":
            assert result["structuredContent"]["result"] == 5000

    def run(self):
        mcp = ModernMcp(self.url, self.token)
        while not self.done.is_set():
            try:
                self.once(mcp)
                self.good += 1
            except (AssertionError, OSError, ValueError) as error:
                self.bad.append(repr(error)[:300])
                mcp.close()
                time.sleep(0.005)
        mcp.close()

    def __enter__(self):
        self.start()
        wait_until(lambda: self.good >= 5, "the load to run", 20)
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join(20)


@pytest.fixture
def two_doors(worldclock, notes):
    """The quick start with a second MCP module on a door of its own: another protocol, as far as the first one can tell."""
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    config = gateways.quickstart_config()
    config["listeners"].append({"name": "mcp2", "address": "127.0.0.1", "port": 0})
    config["modules"].append({"id": "mcp2", "family": "mcp", "binary": "gatehouse-mcp", "listeners": ["mcp2"],
                              "config": {"listener": "mcp2"}})
    with gateways.Gateway(config=config) as started:
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        yield started


def url_of(gateway, listener):
    host, port = gateway.listener(listener)
    return f"http://{host}:{port}/mcp"


def test_a_core_that_is_told_to_end_waits_for_no_stream(own_gateway):
    """As after a change of the configuration: modules that watch and an operator who follows the events would never end by themselves."""
    before = own_gateway.processes()["core"]
    follower = Process("follower", [BIN / "gatehouse", "events", "--follow"], own_gateway.directory, env=own_gateway.env)
    try:
        wait_until(lambda: own_gateway.apply("kind: Team\nmetadata: {name: seen}\nspec: {}\n") and follower.output(), "the events to be followed")
        handle = os.pidfd_open(before["pid"])
        with Stalls() as stalls:
            began = time.monotonic()
            os.kill(before["pid"], signal.SIGTERM)
            assert select.select([handle], [], [], 20)[0]
            ended = time.monotonic()
            assert ended - began < 2.5 + stalls.between(began, ended)  # half of what it grants to calls under way
        os.close(handle)
        own_gateway.wait_restarted(before)
    finally:
        follower.child.kill()
        follower.child.wait()


@pytest.mark.parametrize("victim", ["mcp", "rest", "core"])
def test_it_is_back_by_itself_and_status_says_why(own_gateway, victim):
    token = own_gateway.token(gateways.GUEST, "--team", "explorers")
    with Load(own_gateway.mcp_url, token) as load:
        for _ in range(3):
            before = own_gateway.kill(victim)
            after = own_gateway.wait_restarted(before)
            assert "9" in after["lastExit"] and "KILL" in after["lastExit"]
            good = load.good
            wait_until(lambda: load.good >= good + 20, "calls to succeed again", 20)
    assert int(after["restarts"]) >= 3


def test_the_other_door_sees_nothing(two_doors):
    token = two_doors.token(gateways.GUEST, "--team", "explorers")
    with Load(url_of(two_doors, "mcp2"), token) as other:
        for _ in range(5):
            two_doors.wait_restarted(two_doors.kill("mcp"))
        good = other.good
        wait_until(lambda: other.good >= good + 20, "calls on the other door", 20)
    assert not other.bad, other.bad[:5]


def test_mcp_upstream_calls_survive_the_death_of_rest(own_gateway):
    token = own_gateway.token(gateways.GUEST, "--team", "explorers")

    def discovered():
        with ModernMcp(own_gateway.mcp_url, token) as mcp:
            return "note_list" in mcp.tools()
    wait_until(discovered, "the tools of the notes server", 20)
    with Load(own_gateway.mcp_url, token, "word_count", {"text": "a b"}) as load:
        for _ in range(3):
            own_gateway.wait_restarted(own_gateway.kill("rest"))
    assert not load.bad, load.bad[:5]


def test_nothing_acknowledged_is_lost_when_the_core_dies(own_gateway):
    tokens = []
    for index in range(5):
        tokens.append(own_gateway.token(gateways.GUEST, "--team", "explorers", "--name", f"t{index}"))
        own_gateway.wait_restarted(own_gateway.kill("core"))
    own_gateway.wait_ready()
    for token in tokens:
        with ModernMcp(own_gateway.mcp_url, token) as mcp:
            assert "world_time" in mcp.tools()


def test_requests_wait_while_the_core_is_restarted(start_quickstart):
    """LIF-6: nothing is decided meanwhile, and hardly anybody is refused: what was under way. What comes when it takes longer than requests
    wait is refused too, so they wait for as long as they can be told to."""
    config = gateways.quickstart_config(mcp={"config": {"coreWaitMs": 10000}})
    config["dispatch"] = {"hold_ms": 10000}  # for rest, which attaches to the next core too
    with start_quickstart(config=config) as gateway:
        token = gateway.token(gateways.GUEST, "--team", "explorers")
        with Load(gateway.mcp_url, token) as load:
            for _ in range(3):
                gateway.wait_restarted(gateway.kill("core"))
                good = load.good
                wait_until(lambda: load.good >= good + 20, "calls to go on", 20)
        assert len(load.bad) <= 12, load.bad  # without waiting: some ten for each death


def test_sessions_outlive_the_module(own_gateway):
    from harness.mcp import LegacyMcp
    token = own_gateway.token(gateways.GUEST, "--team", "explorers")
    with LegacyMcp(own_gateway.mcp_url, token) as mcp:
        assert "world_time" in mcp.tools()
        own_gateway.wait_restarted(own_gateway.kill("mcp"))
        mcp.close()
        assert "world_time" in mcp.tools()


def test_while_the_core_is_gone_every_call_is_refused_in_protocol_form(own_gateway):
    """LIF-6, LIF-12: until the new core is there, 503 and nothing else; the modules live on."""
    token = own_gateway.token(gateways.GUEST, "--team", "explorers")
    seen = set()
    with ModernMcp(own_gateway.mcp_url, token) as mcp:
        for _ in range(3):
            before = own_gateway.kill("core")
            for _ in range(30):
                try:
                    reply = mcp.call("convert_units", ARGUMENTS)
                except (OSError, ValueError):
                    mcp.close()
                    continue
                seen.add(reply.status)
                if reply.status == 503:
                    assert "error" in reply.answer and reply.answer["error"]["data"]["retryable"] is True
            own_gateway.wait_restarted(before)
    assert seen <= {200, 503}, seen
    assert int(own_gateway.processes()["mcp"].get("restarts", 0)) == 0


def test_the_supervisor_takes_everything_with_it(own_gateway):
    """LIF-13: no orphan keeps a port."""
    pids = [int(process["pid"]) for process in own_gateway.processes().values()]
    own_gateway.kill("supervisor")

    wait_until(lambda: not any(alive(pid) for pid in pids), "every process to be gone")

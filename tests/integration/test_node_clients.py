"""Clients and servers of others, straight at each other: proves that what later tests lean on is real and works here."""
import pytest

from harness.clients import NodeClient, inspector

PROTOCOL = {"legacy": "2025-11-25", "modern": "2026-07-28"}


@pytest.fixture
def client(upstream, era):
    with NodeClient(era, upstream.url + "/mcp") as connected:
        assert connected.info["ok"], connected.info
        yield connected


def test_era(client, era):
    assert client.info["protocol"] == PROTOCOL[era]
    assert bool(client.info["session"]) == (era == "legacy")


def test_list_and_call(client):
    assert set(client.tools()) == {"echo", "add", "progress", "error"}
    assert client.call("add", {"a": 2, "b": 3})["result"]["structuredContent"] == {"sum": 5}


def test_progress(client):
    outcome = client.call("progress", {"steps": 3}, progress=True)
    assert [p["progress"] for p in outcome["progress"]] == [1, 2, 3]
    assert outcome["result"]["content"][0]["text"] == "took 3 steps"


def test_cancel_leaves_the_client_usable(client):
    outcome = client.call("progress", {"steps": 1000, "delay_ms": 20}, cancel_after=2)
    assert not outcome["ok"] and "cancelled" in outcome["error"]["message"]
    assert client.call("echo", {"text": "still here"})["result"]["content"][0]["text"] == "still here"


def test_tool_error(client):
    assert client.call("error", {"message": "on purpose"})["result"]["isError"]


def test_terminated_session_is_refused(node, notes):
    with NodeClient("legacy", notes.url + "/mcp") as connected:
        assert connected.step("ping")["ok"]
        assert connected.step("terminate")["ok"]
        assert not connected.step("ping")["ok"]


def test_probing_client_falls_back_to_the_session_era(node, notes):
    with NodeClient("modern", notes.url + "/mcp", negotiate="auto") as connected:
        assert connected.info["protocol"] == "2025-11-25"
        outcome = connected.call("word_count", {"text": "a b\nc"}, progress=True)
        assert outcome["result"]["structuredContent"] == {"lines": 2, "words": 3}
        assert len(outcome["progress"]) == 2


def test_inspector(node, notes, tmp_path):
    status, listed, errors = inspector(notes.url + "/mcp", "--method", "tools/list", home=tmp_path)
    assert status == 0, errors
    assert {tool["name"] for tool in listed["tools"]} == {"note_add", "note_list", "word_count", "slow_count"}
    status, called, errors = inspector(notes.url + "/mcp", "--method", "tools/call", "--tool-name", "word_count",
                                       "--tool-arg", "text=one two", home=tmp_path)
    assert status == 0, errors
    assert called["structuredContent"] == {"lines": 1, "words": 2}

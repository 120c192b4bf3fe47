"""The quick start's MCP upstream is a real server of the session era."""
import os
import socket
import subprocess

import pytest

from harness import PYTHON, QUICKSTART, http1
from harness.mcp import LegacyMcp, ModernMcp


@pytest.fixture
def url(notes):
    return notes.url + "/mcp"


@pytest.fixture
def session(url):
    with LegacyMcp(url) as opened:
        yield opened


@pytest.mark.parametrize("asked, answered", [
    ("2025-11-25", "2025-11-25"), ("2025-06-18", "2025-06-18"), ("2025-03-26", "2025-03-26"), ("1999-01-01", "2025-11-25"),
])
def test_version_negotiation(url, asked, answered):
    with LegacyMcp(url, version=asked) as session:
        assert session.initialized["protocolVersion"] == answered


def test_tools(session):
    assert set(session.tools()) == {"note_add", "note_list", "word_count", "slow_count"}


def test_notes_are_kept_across_sessions(session, url):
    number = session.call("note_add", {"text": "remember the milk"}).result["structuredContent"]["id"]
    with LegacyMcp(url) as other:
        listed = other.call("note_list", {"contains": "the milk"}).result["structuredContent"]["notes"]
    assert {"id": number, "text": "remember the milk"} in listed


def test_progress_comes_before_the_result(session):
    reply = session.call("word_count", {"text": "one two\nthree\n"}, progress_token="p")
    assert reply.headers["content-type"] == ["text/event-stream"]
    assert [(n["params"]["progressToken"], n["params"]["progress"], n["params"]["total"]) for n in reply.notifications] == [("p", 1, 2), ("p", 2, 2)]
    assert reply.messages[-1]["result"]["structuredContent"] == {"lines": 2, "words": 3}


def test_cancelled_call_ends_without_a_result(session):
    body, headers = session.message("tools/call", {"name": "slow_count", "arguments": {"steps": 1000}}, meta={"progressToken": 1})
    connection, status, received = session.start(body, headers)
    events = connection.events(received)
    next(events)
    assert session.cancel(body["id"]).status == 202
    assert status == 200
    assert not [event for event in events if b'"result"' in event]
    assert session.request("ping").result == {}


@pytest.mark.parametrize("arguments, text", [
    ({}, "missing"), ({"steps": "3"}, "type integer"), ({"steps": True}, "type integer"), ({"steps": 0}, "range"), ({"steps": 1, "x": 1}, "no argument"),
])
def test_bad_arguments_are_tool_errors(session, arguments, text):
    result = session.call("slow_count", arguments).result
    assert result["isError"] and text in result["content"][0]["text"]


def test_deleted_session_is_gone(session):
    assert session.delete().status == 204
    reply = session.request("ping")
    assert (reply.status, reply.error["code"]) == (404, -32001)


@pytest.mark.parametrize("body, headers, status, code", [
    (b"{", {}, 400, -32700), (b"[]", {}, 400, -32600), (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', {}, 400, -32600),
    (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', {}, 400, -32600), (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"Mcp-Session-Id": "nope"}, 404, -32001),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"MCP-Protocol-Version": "2026-07-28"}, 400, -32000),
    (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {"Accept": "application/json"}, 406, -32000),
    (b'{"jsonrpc":"2.0","id":1,"method":"tools/eat"}', {}, 200, -32601),
    (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"nope"}}', {}, 200, -32602),
    (b"{}", {"Content-Type": "text/plain"}, 415, -32700),
])
def test_protocol_errors(session, body, headers, status, code):
    reply = session.post(body, headers)
    assert (reply.status, reply.error["code"]) == (status, code)


def test_modern_opening_is_refused_so_that_clients_fall_back(url):
    with ModernMcp(url) as client:
        assert client.request("server/discover").status == 400


@pytest.mark.parametrize("origin, status", [("https://evil.example", 403), ("http://localhost:9", 400), ("null", 403)])
def test_origin(url, origin, status):
    reply = http1.request(url, method="POST", headers={"Origin": origin, "Accept": "application/json, text/event-stream"}, body={})
    assert reply.status == status


def test_no_stream_of_its_own(url):
    assert http1.request(url).status == 405


def test_takes_over_a_listening_socket():
    """The systemd convention: LISTEN_FDS, LISTEN_PID, the socket as descriptor 3."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def hand_over():
            os.dup2(listener.fileno(), 3, inheritable=True)

        # LISTEN_PID is known only in the child: a launcher sets it and becomes the server.
        launcher = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.argv[1], sys.argv[1:])"
        child = subprocess.Popen([PYTHON, "-c", launcher, PYTHON, "-B", QUICKSTART / "notes_mcp.py"], stdout=subprocess.PIPE, text=True,
                                 pass_fds=(3,), preexec_fn=hand_over, env={**os.environ, "LISTEN_FDS": "1"})
    try:
        assert child.stdout.readline() == f"LISTENING {port}\n"
        assert http1.request(f"http://127.0.0.1:{port}/healthz").status == 200
    finally:
        child.terminate()
        assert child.wait(20) == 0
        child.stdout.close()

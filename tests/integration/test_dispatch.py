"""What an invocation goes through on its way (SPI-9, TRN-3, BND-6): deadline, cancelling, limits, death of the owner, revocation,
visibility, the events it leaves, and what follows from a changed upstream."""
import http.server
import json
import os
import signal
import socket
import threading
import time

import pytest

from harness import BIN, gateway as gateways
from harness.http1 import Connection
from harness.mcp import LegacyMcp, ModernMcp
from harness.processes import Process, Stalls, end_listener, wait_until

PROMPT_S = 0.1  # a death and a revocation are noticed within this


class Upstream:
    """An HTTP server whose requests never end by themselves, but at /fast. It knows when it was called, and when each caller left."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.began, self.left = [], []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        with peer:
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = peer.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                if b" /fast" in head:
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"fast\":true}")
                    continue
                self.began.append(time.monotonic())
                try:
                    peer.recv(1)
                except OSError:
                    pass
                self.left.append(time.monotonic())
                return

    def close(self):
        end_listener(self.listener)


@pytest.fixture(scope="module")
def upstream():
    server = Upstream()
    yield server
    server.close()


def tool(upstream, name, path, visibility="public", **spec):
    more = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in spec.items())
    team = ", team: staff" if visibility == "team" else ""
    return (f"---\nkind: Tool\nmetadata: {{name: {name}, visibility: {visibility}, owner: admin@example.com{team}}}\n"
            f"spec:\n  inputSchemaJson: {{type: object}}\n{more}"
            f"  rest: {{method: GET, url: 'http://127.0.0.1:{upstream.port}{path}', "
            f"egress: {{allow: ['127.0.0.1:{upstream.port}'], schemes: [http]}}}}\n")


@pytest.fixture(scope="module")
def served(worldclock, notes, upstream):
    """A gateway of this file's own with tools of the upstream."""
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    with gateways.Gateway() as started:
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        started.apply(tool(upstream, "hold", "/hold", timeoutMs=30000) + tool(upstream, "short", "/hold", timeoutMs=300) +
                      tool(upstream, "fast", "/fast") + tool(upstream, "limited", "/fast", rateLimitPerMinute=12) +
                      tool(upstream, "moving", "/fast"))
        yield started


@pytest.fixture(params=[LegacyMcp, ModernMcp])
def client(request, served):
    with request.param(served.mcp_url, served.token(gateways.GUEST, "--team", "explorers")) as mcp:
        yield mcp


def code_of(reply):
    """The stable code of a refusal, in whichever of its protocol's forms it came."""
    answer = reply.answer
    if "error" in answer:
        return answer["error"]["data"]["code"]
    assert answer["result"].get("isError"), answer
    return next((value for key, value in answer["result"].get("_meta", {}).items() if key.endswith("error")), {}).get("code") \
        or json.dumps(answer["result"])


def held(upstream, act):
    """Runs act() in a thread once the upstream holds its call: (thread, results)."""
    results, calls = [], len(upstream.began)
    thread = threading.Thread(target=lambda: results.append(act()), daemon=True)
    thread.start()
    wait_until(lambda: len(upstream.began) > calls, "the upstream to be called")
    return thread, results


# ---- deadline and cancelling (TRN-3) ----

def test_the_deadline_ends_the_call_and_the_upstream_request(client, upstream):
    left, began = len(upstream.left), time.monotonic()
    reply = client.call("short")
    assert 0.25 < time.monotonic() - began < 15  # the upstream would hold it for ever
    assert "deadline" in code_of(reply) or "timeout" in code_of(reply), reply
    wait_until(lambda: len(upstream.left) > left, "the upstream request to be given up")


def test_a_client_that_leaves_takes_its_upstream_request_along(served, upstream):
    mcp = ModernMcp(served.mcp_url, served.token(gateways.GUEST))
    left, calls = len(upstream.left), len(upstream.began)
    body, headers = mcp.message("tools/call", {"name": "hold", "arguments": {}})
    connection = Connection(mcp.url)
    connection.send("POST", mcp.path, {**mcp.headers, **headers}, json.dumps(body).encode())
    wait_until(lambda: len(upstream.began) > calls, "the upstream to be called")
    connection.close()
    wait_until(lambda: len(upstream.left) > left, "the upstream request to be given up")

    def told():
        lines = served.ctl("events", "--tail", "20", "--output", "json").stdout
        return "cancelled" in lines
    wait_until(told, "the execution to be recorded as cancelled", pause_s=0.1)


def test_a_cancelled_call_of_a_session_leaves_its_upstream(served, upstream):
    with LegacyMcp(served.mcp_url, served.token(gateways.GUEST)) as mcp:
        left, calls = len(upstream.left), len(upstream.began)
        body, _ = mcp.message("tools/call", {"name": "hold", "arguments": {}})
        connection = Connection(mcp.url)
        connection.send("POST", mcp.path, mcp.headers, json.dumps(body).encode())
        wait_until(lambda: len(upstream.began) > calls, "the upstream to be called")
        assert mcp.cancel(body["id"]).status == 202
        wait_until(lambda: len(upstream.left) > left, "the upstream request to be given up")
        connection.close()


# ---- limits (SPI-18) ----

def test_a_tool_of_few_calls_a_minute_says_when_to_come_again(client):
    replies = [client.call("limited") for _ in range(4)]  # two at once are allowed
    assert not replies[0].result.get("isError")
    refused = replies[-1].error
    assert refused["data"]["code"] == "rate_limit.exceeded" and refused["data"]["retryable"] is True
    assert 0 < int(refused["data"]["retryAfterMs"]) <= 10000
    assert not client.call("fast").result.get("isError")  # another tool is another matter


# ---- death of the module that carries it out (LIF-7) ----

def test_calls_end_at_once_when_their_module_is_killed(served, upstream):
    for era in (LegacyMcp, ModernMcp):
        with era(served.mcp_url, served.token(gateways.GUEST)) as mcp, Stalls() as stalls:
            thread, results = held(upstream, lambda: (mcp.call("hold"), time.monotonic()))
            before = served.processes()["rest"]
            died = time.monotonic()
            os.kill(before["pid"], signal.SIGKILL)
            thread.join(15)
            assert results, "the call went on"
            (reply, ended), error = results[0], results[0][0].error
            assert error["data"]["retryable"] is True and error["data"]["category"] == "UNAVAILABLE", reply
            assert ended - died < PROMPT_S + 0.2 + stalls.between(died, ended)  # and the answer comes by three processes
            served.wait_restarted(before)
            assert not mcp.call("fast").result.get("isError")


# ---- revocation and visibility (SPI-3, BND-6) ----

def test_a_revoked_token_is_refused_by_the_next_call(served):
    made = json.loads(served.ctl("token", "create", "--user", gateways.GUEST, "--output", "json").stdout)
    sessions = [era(served.mcp_url, made["token"]) for era in (LegacyMcp, ModernMcp)]
    for mcp in sessions:
        assert not mcp.call("fast").result.get("isError")
    token_id = made.get("info", made).get("tokenId") or made["tokenId"]
    served.ctl("token", "revoke", token_id)
    for mcp in sessions:
        assert mcp.request("tools/call", {"name": "fast", "arguments": {}}).status == 401
        mcp.close()


def test_a_changed_visibility_counts_for_the_next_request(served, upstream, client):
    try:
        assert "moving" in client.tools()
        for visibility, seen in (("team", False), ("public", True), ("private", False)):
            served.apply(tool(upstream, "moving", "/fast", visibility))
            reply = client.call("moving")
            assert ("result" in reply.answer) is seen, (visibility, reply)
            assert ("moving" in client.tools()) is seen, visibility
            if not seen:
                assert code_of(reply) == code_of(client.call("no_such_tool"))
    finally:
        served.apply(tool(upstream, "moving", "/fast"))


# ---- what a refused call leaves (SPI-9, SPI-16, SPI-5) ----

REFUSALS = [("service_health", {}, (), "catalog.record.not_found", False), ("no_such_tool", {}, (), "catalog.record.not_found", False),
            ("fast", {}, ("--permission", "tools.read"), "auth.permission.denied", True),
            ("convert_units", {"value": "x"}, (), "invoke.arguments.invalid", True)]


def denials(gateway):
    """The audit lines of refused invocations, oldest first, without what differs in every line."""
    lines = [json.loads(line) for line in (gateway.state / "audit.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("sequence", "at", "hash", "previous", "trace_id")}
            for line in lines if line["action"] == "invoke.denied"]


def denied_count(gateway, code):
    found = [line for line in gateway.ctl("metrics").stdout.splitlines()
             if line.startswith("gatehouse_invocations_denied_total{") and f'code="{code}"' in line]
    return sum(int(line.rpartition(" ")[2]) for line in found)


@pytest.mark.parametrize("name,arguments,limits,code,visible", REFUSALS)
def test_a_refused_call_is_counted_and_written_down(served, name, arguments, limits, code, visible):
    token = served.token(gateways.GUEST, "--team", "explorers", *limits)
    counted, written = denied_count(served, code), len(denials(served))
    with ModernMcp(served.mcp_url, token) as mcp:
        mcp.call(name, arguments)
    assert denied_count(served, code) == counted + 1
    line = denials(served)[written:]
    assert len(line) == 1, line
    assert (line[0]["actor"], line[0]["outcome"], line[0]["details"]["code"]) == (gateways.GUEST, "denied", code)
    assert line[0]["details"]["asked"] == name
    assert bool(line[0]["target"]) is visible  # the record is named only where this caller sees it

    def event():
        lines = served.ctl("events", "--tail", "30", "--family", "runtime_execution", "--output", "json").stdout.splitlines()
        return [body for body in map(json.loads, lines) if body.get("event_type", body.get("type")) == "execution_denied"
                and name in json.dumps(body)]
    if visible:
        assert wait_until(event, "the event", pause_s=0.1)
    else:
        assert not event()


def test_nothing_tells_a_hidden_tool_from_one_that_is_not_there(served):
    """SPI-5: also not what is written down."""
    written = len(denials(served))
    with ModernMcp(served.mcp_url, served.token(gateways.GUEST, "--team", "explorers")) as mcp:
        mcp.call("service_health"), mcp.call("service_healthy")
    hidden, absent = denials(served)[written:]
    for line in (hidden, absent):
        line["details"].pop("asked")
    assert hidden == absent


def test_a_caller_cannot_fill_the_disk_with_refusals_and_what_was_passed_over_is_said_in_the_end(own_gateway):
    """In a minute that begins with the first of them: a gateway of its own."""
    with ModernMcp(own_gateway.mcp_url, own_gateway.token(gateways.GUEST, "--team", "explorers")) as mcp:
        for index in range(40):
            mcp.call(f"no_tool_{index}")
    assert denied_count(own_gateway, "catalog.record.not_found") == 40
    assert len(denials(own_gateway)) == 10
    own_gateway.stop()
    assert [line["details"] for line in denials(own_gateway)][10:] == [{"suppressed": 30}]


# ---- events as they happen ----

def test_events_are_followed_live(served):
    follower = Process("follower", [BIN / "gatehouse", "events", "--follow", "--tail", "1", "--family", "runtime_execution", "--output", "json"],
                       served.directory, env=served.env)
    try:
        with ModernMcp(served.mcp_url, served.token(gateways.GUEST)) as mcp:
            mcp.call("fast")  # or there is no last one
            wait_until(follower.output, "the events to be followed")

            def ended():
                lines = follower.output().splitlines(keepends=True)
                events = [json.loads(line) for line in lines if line.endswith("\n")]
                assert {event["event_family"] for event in events} == {"runtime_execution"}
                return {event["execution_id"] for event in events if event["event_type"] == "execution_completed"}
            for _ in range(3):
                before = ended()
                mcp.call("fast")
                wait_until(lambda: ended() - before, "the call to be told of")
    finally:
        follower.child.terminate()
        follower.child.wait(20)


# ---- federated tools follow their upstream ----

class McpUpstream(http.server.ThreadingHTTPServer):
    """A small MCP server of the session era whose tools can be changed."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            results = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                                      "serverInfo": {"name": "changing", "version": "1"}},
                       "tools/list": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self.server.tools]}}
            answer = {"jsonrpc": "2.0", "id": request.get("id")}
            if request["method"] in results:
                answer["result"] = results[request["method"]]
            else:
                answer["error"] = {"code": -32601, "message": "Method not found"}
            body = json.dumps(answer).encode() if "id" in request else b""
            self.send_response(200 if body else 202)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.tools = ["first"]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def document(self):
        address = f"127.0.0.1:{self.server_address[1]}"
        return (f"kind: Gateway\nmetadata: {{name: changing, visibility: public, owner: admin@example.com}}\n"
                f"spec: {{url: 'http://{address}/mcp', transport: streamable-http, refreshIntervalSeconds: 3600, "
                f"egress: {{allow: ['{address}'], schemes: [http]}}}}\n")


@pytest.fixture
def changing():
    servers = [McpUpstream(), McpUpstream()]
    yield servers
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_tools_of_a_gateway_follow_its_upstream(served, changing):
    one, two = changing
    two.tools = ["elsewhere"]
    names = {"first", "second", "elsewhere"}
    with ModernMcp(served.mcp_url, served.token(gateways.GUEST)) as mcp:
        def seen():
            mcp.call("no_such_tool")  # the module that keeps lists hears from the core in order: of changes before the answer to this
            return names & set(mcp.tools())
        served.apply(one.document())  # a new gateway is looked at by itself
        wait_until(lambda: seen() == {"first"}, "its tool")
        one.tools = ["second"]
        served.ctl("refresh", "changing")
        assert seen() == {"second"}
        served.apply(two.document())  # so is a changed one
        wait_until(lambda: seen() == {"elsewhere"}, "the tool of its other upstream")
        served.ctl("delete", "Gateway", "changing")
        assert not seen()

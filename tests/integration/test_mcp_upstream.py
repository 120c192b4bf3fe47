"""gatehouse-mcp as a client of upstream MCP servers that misbehave, driven alone by a scripted core: every flaw ends in an error value
with a stable code, and the module lives (MCP-1, ERR-3)."""
import http.server
import json
import socket
import threading
import types

import grpc
import pytest

from harness.processes import wait_until
from harness.scripted_core import Module, envelope, messages

DISCOVER, CALL = "server/discover", "tools/call"
RESULT = {"content": [{"type": "text", "text": "done"}]}


class Upstream:
    """An HTTP server whose answers a test writes: handler(method, message, headers) → (status, headers, body bytes)."""

    def __init__(self):
        self.handler = None
        self.seen = []
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                upstream.seen.append((message, {name.lower(): value for name, value in self.headers.items()}))
                status, headers, body = upstream.handler(message.get("method"), message, self.headers)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # clients that hang up are what some tests are about
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def methods(self):
        return [message.get("method") for message, _ in self.seen]


@pytest.fixture(scope="module")
def module():
    started = Module("gatehouse-mcp", "mcp", initialize=False)
    started.initialize("mcp", until="deny_path_proven")
    yield started
    assert started.process.running(), started.process.errors()
    assert started.stop() == 0, started.process.errors()


@pytest.fixture
def upstream():
    server = Upstream()
    yield server
    server.close()


def rpc(message, result=None, error=None, **headers):
    body = {"jsonrpc": "2.0", "id": message["id"], **({"error": error} if error else {"result": result})}
    return 200, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


def events(*bodies):
    return 200, {"Content-Type": "text/event-stream"}, b"".join(b"event: message\ndata: " + json.dumps(b).encode() + b"\n\n" for b in bodies)


def opening(method, message, session=None):
    """What an upstream of the session era answers before the first call; None: it is a call."""
    if method == DISCOVER:
        return 400, {}, b""
    if method == "initialize":
        return rpc(message, {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "u", "version": "1"}},
                   **({"Mcp-Session-Id": session} if session else {}))
    return (202, {}, b"") if method.startswith("notifications/") else None


def plan(upstream, name="tool", arguments="{}", deadline_ms=5000, **more):
    common = messages()[0]
    return common.InvocationPlan(
        plan_id="p", arguments_json=arguments.encode(), deadline_ms=deadline_ms, execution_id="e",
        egress=common.EgressPolicy(allow=[f"127.0.0.1:{upstream.port}"], schemes=["http"], **more.pop("egress", {})),
        mcp=common.McpPlan(url=f"http://127.0.0.1:{upstream.port}/mcp", transport=more.pop("transport", "streamable-http"),
                           original_name=name, gateway_id=more.pop("gateway", "g")), **more)


def failure(module, plan_):
    with pytest.raises(grpc.RpcError) as caught:
        module.invoke(plan_)
    return envelope(caught.value)


def test_a_legacy_upstream_is_opened_once_and_its_session_used(module, upstream):
    upstream.handler = lambda method, message, headers: opening(method, message, "s-1") or rpc(message, RESULT)
    common = messages()[0]
    for _ in range(3):
        result = module.invoke(plan(upstream, arguments='{"a" : 1.0}', headers=[common.Header(name="authorization", value="Bearer up")]))
        assert json.loads(result.content_json) == RESULT["content"]
    assert upstream.methods() == [DISCOVER, "initialize", "notifications/initialized", CALL, CALL, CALL]
    message, headers = upstream.seen[-1]
    assert headers["mcp-session-id"] == "s-1" and headers["mcp-protocol-version"] == "2025-06-18" and headers["authorization"] == "Bearer up"
    assert message["params"]["name"] == "tool" and message["params"]["arguments"] == {"a": 1.0}


def test_another_credential_gets_another_session(module, upstream):
    upstream.handler = lambda method, message, headers: opening(method, message, headers["Authorization"][-1]) or rpc(message, RESULT)
    common = messages()[0]
    for key in "abab":
        module.invoke(plan(upstream, headers=[common.Header(name="authorization", value=f"Bearer {key}")]))
    used = [(headers["authorization"][-1], headers["mcp-session-id"]) for message, headers in upstream.seen if message["method"] == CALL]
    assert used == [("a", "a"), ("b", "b"), ("a", "a"), ("b", "b")]
    assert upstream.methods().count("initialize") == 2 and upstream.methods().count(DISCOVER) == 1


def test_a_modern_upstream_gets_metadata_and_mirrored_headers(module, upstream):
    def handler(method, message, _headers):
        if method == DISCOVER:
            return rpc(message, {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0,
                                 "cacheScope": "private"})
        return rpc(message, {"resultType": "complete", **RESULT})
    upstream.handler = handler
    module.invoke(plan(upstream, name="grün"))
    message, headers = upstream.seen[-1]
    assert (headers["mcp-protocol-version"], headers["mcp-method"], headers["mcp-name"]) == ("2026-07-28", CALL, "=?base64?Z3LDvG4=?=")
    assert message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    assert upstream.methods() == [DISCOVER, CALL]


def test_a_forgotten_session_is_opened_anew_once(module, upstream):
    state = {"sessions": 0, "refused": 0}

    def handler(method, message, headers):
        if method == "initialize":
            state["sessions"] += 1
        if method == CALL and state["sessions"] == 1:
            state["refused"] += 1
            return 404, {}, b""
        return opening(method, message, f"s-{state['sessions']}") or rpc(message, RESULT)
    upstream.handler = handler
    assert module.invoke(plan(upstream)).content_json
    assert state == {"sessions": 2, "refused": 1}


def test_an_upstream_that_always_forgets_is_an_error(module, upstream):
    upstream.handler = lambda method, message, headers: opening(method, message, "s") or (404, {}, b"")
    assert failure(module, plan(upstream)).code == "invoke.upstream.failed"
    assert upstream.methods().count(CALL) == 2


def test_a_stream_is_read_past_what_is_not_for_us(module, upstream):
    def handler(method, message, headers):
        if (known := opening(method, message)) or "result" in message or "error" in message:
            return known or (202, {}, b"")
        token = message["params"]["_meta"]["progressToken"]
        return events({"jsonrpc": "2.0", "id": 999999, "result": {"content": [{"type": "text", "text": "of another"}]}}, {"junk": True}, [],
                      {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "other", "progress": 9}},
                      {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1, "total": 2, "message": "m"}},
                      {"jsonrpc": "2.0", "id": "q", "method": "sampling/createMessage", "params": {}},
                      {"jsonrpc": "2.0", "id": message["id"], "result": RESULT},
                      {"jsonrpc": "2.0", "id": message["id"], "result": {"content": [{"type": "text", "text": "twice"}]}})
    upstream.handler = handler
    _, module_pb, _ = messages()
    stream = module.channel.unary_stream("/core.module.v1.ModuleRuntime/Invoke", request_serializer=module_pb.InvokeRequest.SerializeToString,
                                         response_deserializer=messages()[0].InvokeItem.FromString)
    items = list(stream(module_pb.InvokeRequest(plan=plan(upstream), wants_progress=True), timeout=10))
    assert [item.WhichOneof("item") for item in items] == ["progress", "result"]
    assert (items[0].progress.progress, items[0].progress.total, items[0].progress.message) == (1, 2, "m")
    assert json.loads(items[1].result.content_json) == RESULT["content"]
    wait_until(lambda: any("error" in message for message, _ in upstream.seen), "the answer to what was asked back")
    answer = next(message for message, _ in upstream.seen if "error" in message)
    assert (answer["id"], answer["error"]["code"]) == ("q", -32601)


@pytest.mark.parametrize("answer, code", [
    (lambda m: (200, {"Content-Type": "application/json"}, b"{"), "invoke.upstream.failed"),
    (lambda m: (200, {"Content-Type": "application/json"}, b""), "invoke.upstream.failed"),
    (lambda m: (200, {"Content-Type": "application/json"}, b"[" * 100000), "invoke.upstream.failed"),
    (lambda m: (200, {"Content-Type": "text/html"}, b"<html>"), "invoke.upstream.failed"),
    (lambda m: (202, {}, b""), "invoke.upstream.failed"),
    (lambda m: (500, {}, b"Traceback (most recent call last)"), "invoke.upstream.failed"),
    (lambda m: (401, {}, b""), "invoke.upstream.failed"),
    (lambda m: (302, {"Location": "http://169.254.169.254/"}, b""), "invoke.upstream.failed"),
    (lambda m: events(), "invoke.upstream.failed"),
    (lambda m: events({"jsonrpc": "2.0", "id": m["id"] + 1, "result": RESULT}), "invoke.upstream.failed"),
    (lambda m: rpc(m, {}), "invoke.upstream.failed"),
    (lambda m: rpc(m, {"content": "text"}), "invoke.upstream.failed"),
    (lambda m: rpc(m, {"resultType": "input_required", "inputRequests": {}}), "invoke.upstream.failed"),
    (lambda m: rpc(m, error={"code": -32602, "message": "Unknown tool"}), "mcp.upstream.rpc_error"),
    (lambda m: rpc(m, error={"code": "x"}), "mcp.upstream.rpc_error"),
])
def test_a_bad_answer_is_an_error_value(module, upstream, answer, code):
    upstream.handler = lambda method, message, headers: opening(method, message) or answer(message)
    found = failure(module, plan(upstream))
    assert found.code == code
    assert "Traceback" not in found.message
    assert found.category == messages()[0].ERROR_CATEGORY_UPSTREAM_ERROR


def test_an_answer_over_the_limit_is_refused(module, upstream):
    upstream.handler = lambda method, message, headers: opening(method, message) or rpc(message, {"content": [], "x": "y" * 20000})
    assert failure(module, plan(upstream, egress={"response_bytes_max": 10000})).code == "http.upstream.too_large"


def test_an_event_over_the_limit_is_refused(module, upstream):
    upstream.handler = lambda method, message, headers: opening(method, message) or events(
        {"jsonrpc": "2.0", "id": message["id"], "result": {"content": [], "x": "y" * 20000}})
    assert failure(module, plan(upstream, egress={"response_bytes_max": 10000})).code == "http.upstream.too_large"


def test_a_slow_upstream_meets_the_deadline(module, upstream):
    release = threading.Event()

    def handler(method, message, headers):
        if known := opening(method, message):
            return known
        release.wait(10)
        return rpc(message, RESULT)
    upstream.handler = handler
    assert failure(module, plan(upstream, deadline_ms=300)).code == "http.upstream.timeout"
    release.set()


def test_giving_up_tells_the_upstream(module, upstream):
    release = threading.Event()

    def handler(method, message, headers):
        if known := opening(method, message):
            return known
        release.wait(10)
        return rpc(message, RESULT)
    upstream.handler = handler
    stream = module.invoke_start(plan(upstream))
    wait_until(lambda: CALL in upstream.methods(), "the call")
    stream.cancel()
    wait_until(lambda: "notifications/cancelled" in upstream.methods(), "the cancellation")
    release.set()
    cancelled = next(message for message, _ in upstream.seen if message["method"] == "notifications/cancelled")
    call = next(message for message, _ in upstream.seen if message["method"] == CALL)
    assert cancelled["params"]["requestId"] == call["id"]


@pytest.mark.parametrize("change, code", [
    ({"url": "http://127.0.0.1:1/mcp"}, "http.url.blocked"), ({"url": "http://169.254.169.254/mcp"}, "http.url.blocked"),
    ({"url": "https://example.com/"}, "http.url.blocked"), ({"url": "ftp://example.com/"}, "http.url.invalid"), ({"url": ""}, "http.url.invalid"),
    ({"transport": "sse"}, "unsupported"),
])
def test_a_plan_that_cannot_be_carried_out(module, upstream, change, code):
    asked = plan(upstream)
    for key, value in change.items():
        setattr(asked.mcp, key, value)
    assert failure(module, asked).code == code
    assert upstream.seen == []


def test_an_upstream_that_is_not_there(module):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen, but keeps others from the port
        asked = plan(types.SimpleNamespace(port=nobody.getsockname()[1]))
        assert failure(module, asked).code == "http.upstream.connect"


def test_an_upstream_of_no_known_revision(module, upstream):
    upstream.handler = lambda method, message, headers: (400, {}, b"") if method == DISCOVER else rpc(message, {"protocolVersion": "1990-01-01"})
    assert failure(module, plan(upstream)).code == "invoke.upstream.failed"


def test_discovery_walks_every_page(module, upstream):
    pages = {None: ("a", "p2"), "p2": ("b", "p3"), "p3": ("c", None)}

    def handler(method, message, headers):
        if known := opening(method, message):
            return known
        name, cursor = pages[message["params"].get("cursor")]
        tools = [{"name": name, "inputSchema": {"type": "object", "x-unknown": [1.0]}}, {"noname": 1}]
        return rpc(message, {"tools": tools, **({"nextCursor": cursor} if cursor else {})})
    upstream.handler = handler
    _, module_pb, _ = messages()
    stream = module.channel.unary_stream("/core.module.v1.ModuleRuntime/Discover", request_serializer=module_pb.DiscoverRequest.SerializeToString,
                                         response_deserializer=module_pb.DiscoverItem.FromString)
    items = list(stream(module_pb.DiscoverRequest(plan=plan(upstream)), timeout=10))
    assert items[0].upstream.protocol_version == "2025-06-18" and items[0].upstream.server_name == "u"
    assert [item.record.original_name for item in items[1:]] == ["a", "b", "c"]
    assert b'"x-unknown": [1.0]' in items[1].record.definition_json

"""The MCP endpoint's own words: what each era demands of a client, what a session is, what is refused and how; and upstreams of
others in both eras. Through the real gateway (MCP-1, MCP-2, MCP-4, BND-6; protocols 1.2 to 1.8)."""
import json
import socket

import pytest

from harness import gateway as gateways, http1
from harness.http1 import Connection
from harness.mcp import LEGACY, META, MODERN, LegacyMcp, ModernMcp
from harness.processes import wait_until

ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@pytest.fixture
def legacy(gateway, guest_token):
    with LegacyMcp(gateway.mcp_url, guest_token) as connected:
        yield connected


@pytest.fixture
def modern(gateway, guest_token):
    with ModernMcp(gateway.mcp_url, guest_token) as connected:
        yield connected


def post(gateway, token, body, headers=None):
    with LegacyMcp(gateway.mcp_url, token, initialize=False) as mcp:
        return mcp.post(body, headers)


# ---- malformed requests ----

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


@pytest.mark.parametrize("body, headers, status, code", [
    (b"", {}, 400, -32700), (b"{", {}, 400, -32700), (b'{"a":"\xff"}', {}, 400, -32700), (b"[" * 100_000, {}, 400, -32700),
    (b"null", {}, 400, -32600), (b"[]", {}, 400, -32600), (b"{}", {}, 400, -32600), (b'["x"]', {}, 400, -32600),
    (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', {}, 400, -32600), (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', {}, 400, -32600),
    (b"[" + b",".join([PING] * 51) + b"]", {}, 400, -32600),
    (PING, {"Content-Type": "text/plain"}, 415, -32000), (PING, {"Content-Type": None}, 415, -32000),
    (PING, {"Accept": "text/html"}, 406, -32000), (PING, {"MCP-Protocol-Version": "1999-01-01"}, 400, -32000),
    (PING, {"Host": "evil.example.com"}, 403, -32000), (PING, {"Origin": "https://evil.example.com"}, 403, -32000),
    (PING, {"Origin": "null"}, 403, -32000), (PING, {}, 400, -32000), (PING, {"Mcp-Session-Id": "nope"}, 404, -32001),
    (PING, {"Mcp-Session-Id": "x" * 1000}, 404, -32001), (PING, {"Mcp-Session-Id": "a b"}, 404, -32001),
])
def test_a_request_that_is_wrong_is_refused_as_the_table_says(gateway, guest_token, body, headers, status, code):
    reply = post(gateway, guest_token, body, headers)
    assert (reply.status, reply.error["code"]) == (status, code), reply
    assert reply.error["data"]["code"] and reply.error["data"]["category"]


def test_a_body_over_the_limit_is_refused(gateway, guest_token):
    with Connection(gateway.mcp_url) as connection:
        connection.send("POST", "/mcp", {**ACCEPT, "Content-Length": str(64 << 20)}, b"")
        assert connection.read("POST").status == 413


def test_a_truncated_body_harms_nobody(gateway, guest_token, modern):
    with Connection(gateway.mcp_url) as connection:
        connection.send("POST", "/mcp", {**ACCEPT, "Content-Length": "100"}, b'{"jsonrpc"')
    assert modern.tools()


@pytest.mark.parametrize("path", ["/", "/mcp/", "/servers//mcp", "/servers/a/b/mcp", "/sse", "/mcp/../healthz2"])
def test_other_paths_are_not_there(gateway, path):
    base = gateway.mcp_url.removesuffix("/mcp")
    assert http1.request(base + path, method="POST", body={}).status in (400, 404)


def test_other_methods_are_named(gateway):
    reply = http1.request(gateway.mcp_url, method="PUT", body={})
    assert (reply.status, reply.header("Allow")) == (405, "GET, POST, DELETE")


# ---- who ----

@pytest.mark.parametrize("token, error", [(None, False), ("nonsense", True), ("a.b.c", True)])
@pytest.mark.parametrize("client", [LegacyMcp, ModernMcp])
def test_without_a_good_token_there_is_a_challenge(gateway, client, token, error):
    method, options = ("initialize", {"initialize": False}) if client is LegacyMcp else ("server/discover", {})
    with client(gateway.mcp_url, token, **options) as mcp:
        reply = mcp.request(method, {"protocolVersion": LEGACY, "capabilities": {}})
    assert reply.status == 401
    assert reply.headers["www-authenticate"][0].startswith("Bearer")
    assert ("invalid_token" in reply.headers["www-authenticate"][0]) is error


def test_an_unknown_server_is_not_told_from_a_hidden_one(gateway, guest_token):
    with ModernMcp(gateway.mcp_url.removesuffix("/mcp") + "/servers/no-such-server/mcp", guest_token) as mcp:
        reply = mcp.request("tools/list")
    assert reply.status in (403, 404) or "error" in reply.answer


# ---- the legacy era ----

@pytest.mark.parametrize("asked, answered", [("2025-11-25", "2025-11-25"), ("2025-06-18", "2025-06-18"), ("2025-03-26", "2025-03-26"),
                                             ("2024-11-05", LEGACY), (MODERN, LEGACY), ("nonsense", LEGACY)])
def test_the_revision_is_negotiated(gateway, guest_token, asked, answered):
    with LegacyMcp(gateway.mcp_url, guest_token, version=asked) as mcp:
        assert mcp.initialized["protocolVersion"] == answered
        assert mcp.initialized["capabilities"] == {"tools": {}}
        assert mcp.request("ping").result == {}


def test_a_deleted_session_is_gone(gateway, guest_token):
    with LegacyMcp(gateway.mcp_url, guest_token) as mcp:
        assert all(0x21 <= ord(c) <= 0x7E for c in mcp.session_id)
        assert mcp.delete().status == 204
        reply = mcp.request("ping")
        assert (reply.status, reply.error["code"]) == (404, -32001)
        assert mcp.delete().status == 404


def test_a_session_belongs_to_one_caller(gateway, legacy):
    """MCP-2: another caller's use of the id finds nothing, and harms nothing."""
    other = gateway.token(gateways.GUEST, "--team", "explorers")
    for body in (PING, b'{"jsonrpc":"2.0","method":"notifications/initialized"}'):
        assert post(gateway, other, body, {"Mcp-Session-Id": legacy.session_id}).status == 404
    stranger = {**legacy.headers, "Authorization": f"Bearer {other}"}
    with Connection(gateway.mcp_url) as connection:
        connection.send("DELETE", "/mcp", stranger)
        assert connection.read("DELETE").status == 404
    assert legacy.request("ping").result == {}


@pytest.mark.parametrize("method", ["resources/list", "prompts/list", "logging/setLevel", "completion/complete", "tools/eat", "server/discover"])
def test_what_is_not_built_is_not_found(legacy, method):
    reply = legacy.request(method)
    assert (reply.status, reply.error["code"]) == (200, -32601)


def test_a_batch_belongs_to_one_revision(gateway, guest_token, legacy):
    batch = json.dumps([{"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"jsonrpc": "2.0", "method": "notifications/initialized"},
                        {"jsonrpc": "2.0", "id": "two", "method": "tools/list"}, {"jsonrpc": "2.0", "id": 3, "method": "no/such"},
                        {"jsonrpc": "2.0", "id": 4, "method": "tools/call",
                         "params": {"name": "convert_units", "arguments": {"value": 1, "from_unit": "km", "to_unit": "m"}}}]).encode()
    with LegacyMcp(gateway.mcp_url, guest_token, version="2025-03-26") as mcp:
        reply = mcp.post(batch)
        assert reply.status == 200
        answers = {answer["id"]: answer for answer in reply.messages[0]}
        assert set(answers) == {1, "two", 3, 4}
        assert answers[1]["result"] == {} and answers["two"]["result"]["tools"] and answers[3]["error"]["code"] == -32601
        assert "1000" in answers[4]["result"]["content"][0]["text"]
        assert mcp.post(b'[{"jsonrpc":"2.0","method":"notifications/initialized"}]').status == 202
    assert legacy.post(batch).status == 400


def test_a_stream_of_the_session_stays_open_until_the_session_ends(gateway, guest_token):
    with LegacyMcp(gateway.mcp_url, guest_token) as mcp, Connection(gateway.mcp_url) as stream:
        stream.send("GET", "/mcp", mcp.headers)
        status, headers = stream.read_head()
        assert status == 200 and headers["content-type"][0].startswith("text/event-stream")
        assert mcp.delete().status == 204
        assert list(stream.events(headers)) == []


@pytest.mark.parametrize("headers, status", [({"Mcp-Session-Id": None}, 400), ({"Mcp-Session-Id": "other"}, 404),
                                             ({"Accept": "application/json"}, 406), ({"MCP-Protocol-Version": MODERN}, 405)])
def test_a_stream_is_refused(gateway, legacy, headers, status):
    with Connection(gateway.mcp_url) as connection:
        connection.send("GET", "/mcp", {**legacy.headers, **headers})
        assert connection.read().status == status


def test_a_cancelled_call_ends_without_an_answer(legacy):
    body, headers = legacy.message("tools/call", {"name": "slow_count", "arguments": {"steps": 1000, "delay_ms": 20}},
                                   meta={"progressToken": "p"})
    connection, status, received = legacy.start(body, headers)
    assert status == 200
    events = connection.events(received)
    assert json.loads(next(events))["params"]["progressToken"] == "p"
    assert legacy.cancel(body["id"]).status == 202
    assert all(json.loads(event).get("method") == "notifications/progress" for event in events)


def test_a_lost_connection_is_no_cancellation(gateway, guest_token, notes):
    """1.8: the call goes on; that it does shows at the upstream."""
    with LegacyMcp(gateway.mcp_url, guest_token) as mcp:
        text = "written although nobody listens"
        body, headers = mcp.message("tools/call", {"name": "note_add", "arguments": {"text": text}})
        with Connection(gateway.mcp_url) as connection:
            connection.send("POST", "/mcp", {**mcp.headers, **(headers or {})}, json.dumps(body).encode())
        wait_until(lambda: mcp.call("note_list", {"contains": text}).result["structuredContent"]["notes"], "the note")


@pytest.mark.parametrize("accept, kind", [("application/json", "application/json"), ("text/event-stream", "text/event-stream"),
                                          ("*/*", "application/json")])
def test_the_answer_has_a_form_that_the_client_takes(legacy, accept, kind):
    reply = legacy.post(*legacy.message("tools/list", None, {"Accept": accept}))
    assert reply.result["tools"] and reply.headers["content-type"][0].startswith(kind)


# ---- the modern era ----

def test_discover_says_what_is_served(modern):
    reply = modern.request("server/discover")
    assert "mcp-session-id" not in reply.headers
    result = reply.result
    assert result["supportedVersions"] == [MODERN] and result["capabilities"] == {"tools": {}}
    assert result["resultType"] == "complete" and result["cacheScope"] == "private" and result["ttlMs"] >= 0
    assert result["_meta"][META + "serverInfo"]["name"] == "gatehouse"


def test_the_list_may_be_kept_by_nobody_else(modern):
    first, second = modern.request("tools/list").result, modern.request("tools/list").result
    assert first["cacheScope"] == "private" and isinstance(first["ttlMs"], int) and first["ttlMs"] >= 0
    assert first["tools"] == second["tools"]


@pytest.mark.parametrize("method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe",
                                    "subscriptions/listen", "resources/list", "no/such"])
def test_what_the_era_does_not_have_is_404(modern, method):
    reply = modern.request(method, {"protocolVersion": LEGACY})
    assert (reply.status, reply.error["code"]) == (404, -32601)


@pytest.mark.parametrize("meta, headers, code", [
    ({META + "protocolVersion": "2030-01-01"}, {"MCP-Protocol-Version": "2030-01-01"}, -32022),
    ({META + "protocolVersion": "2030-01-01"}, {}, -32020), ({}, {"MCP-Protocol-Version": LEGACY}, -32020),
    ({}, {"MCP-Protocol-Version": None}, -32020), ({META + "clientCapabilities": None}, {}, -32602),
    ({META + "logLevel": "loud"}, {}, -32602), ({}, {"Mcp-Method": None}, -32020), ({}, {"Mcp-Method": "TOOLS/LIST"}, -32020),
    ({"progressToken": 1.5}, {}, -32602),
])
def test_metadata_and_headers_are_checked(modern, meta, headers, code):
    reply = modern.request("tools/list", headers=headers, meta=meta)
    assert (reply.status, reply.error["code"]) == (400, code)
    if code == -32022:
        assert reply.error["data"]["supported"] == [MODERN] and reply.error["data"]["requested"] == "2030-01-01"


def test_the_name_is_mirrored(modern):
    assert modern.call("convert_units", headers={"Mcp-Name": "world_time"}).status == 400
    assert modern.call("convert_units", headers={"Mcp-Name": None}).status == 400
    assert modern.request("tools/list", headers={"mcp-METHOD": None, "mcp-method": "  tools/list  ", "Mcp-Method": None}).result["tools"]


def test_a_session_id_means_nothing(modern):
    reply = modern.request("tools/list", headers={"Mcp-Session-Id": "anything", "Last-Event-ID": "7"})
    assert reply.result["tools"]


def test_a_notification_is_taken(modern):
    assert modern.post({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}},
                       {"MCP-Protocol-Version": MODERN, "Mcp-Method": "notifications/progress"}).status == 202


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_there_is_post_only(gateway, method):
    reply = http1.request(gateway.mcp_url, method=method, headers={"MCP-Protocol-Version": MODERN, "Accept": "text/event-stream"})
    assert (reply.status, reply.header("Allow")) == (405, "POST")


def test_closing_the_stream_cancels(gateway, guest_token):
    """1.4: the invocation ends as cancelled, which the state graph's events tell."""
    def cancelled():
        return gateway.ctl("events", "--after", "0", "--family", "runtime_execution", "--output", "json").stdout.count("call.cancelled")
    before = cancelled()
    with ModernMcp(gateway.mcp_url, guest_token) as mcp:
        body, headers = mcp.message("tools/call", {"name": "slow_count", "arguments": {"steps": 1000, "delay_ms": 50}},
                                    meta={"progressToken": 7})
        connection, status, received = mcp.start(body, headers)
        assert status == 200
        assert json.loads(next(connection.events(received)))["params"]["progressToken"] == 7
        connection.socket.shutdown(socket.SHUT_RDWR)
        mcp.close()
    wait_until(lambda: cancelled() > before, "the invocation to end as cancelled")


# ---- tools ----

@pytest.mark.parametrize("name", ["no_such_tool", "service_health", "", "\u0000"])
def test_a_tool_that_is_not_seen_does_not_exist(legacy, modern, name):
    for mcp in (legacy, modern):
        headers = {"Mcp-Name": name if name and name.isprintable() else "=?base64??=" if not name else "=?base64?AA==?="}
        reply = mcp.call(name, headers=headers if mcp is modern else None)
        assert "error" in reply.answer and reply.error["code"] in (-32602, -32020), reply


def test_an_invalid_cursor_is_an_error(legacy):
    for cursor in ("", "nonsense", "AAAA"):
        assert legacy.request("tools/list", {"cursor": cursor}).error["code"] == -32602


def test_a_changed_catalog_is_seen_at_once(own_gateway):
    """BND-6: a list that was cached is dropped when the catalog changes."""
    token = own_gateway.token(gateways.GUEST, "--team", "explorers")
    document = """kind: Tool
metadata: {name: added_now, visibility: public, owner: admin@example.com}
spec:
  inputSchemaJson: {type: object}
  rest: {method: GET, url: "http://127.0.0.1:1/", egress: {allow: ["127.0.0.1:1"], schemes: [http]}}
"""
    with LegacyMcp(own_gateway.mcp_url, token) as mcp:
        assert "added_now" not in mcp.tools()
        own_gateway.apply(document)
        wait_until(lambda: "added_now" in mcp.tools(), "the new tool")
        assert mcp.call("added_now").error["data"]["category"] == "UPSTREAM_ERROR"


def test_a_revoked_token_is_refused_at_once(own_gateway):
    """SPI-3, BND-6: also where the answer is cached, and on streams that are open."""
    made = json.loads(own_gateway.ctl("token", "create", "--user", gateways.GUEST, "--team", "explorers", "--output", "json").stdout)
    with LegacyMcp(own_gateway.mcp_url, made["token"]) as mcp, Connection(own_gateway.mcp_url) as stream:
        assert mcp.tools()
        stream.send("GET", "/mcp", mcp.headers)
        status, headers = stream.read_head()
        assert status == 200
        own_gateway.ctl("token", "revoke", made["info"]["tokenId"])
        wait_until(lambda: mcp.request("tools/list").status == 401, "the refusal")
        assert list(stream.events(headers)) == []


# ---- upstreams of others ----

@pytest.fixture
def federated(own_gateway, upstream, era):
    """A gateway that also federates an upstream that others wrote, in one era."""
    own_gateway.apply(f"""kind: Gateway
metadata: {{name: other, visibility: public, owner: admin@example.com}}
spec:
  url: http://127.0.0.1:{upstream.port}/mcp
  transport: streamable-http
  egress: {{allow: ["127.0.0.1:{upstream.port}"], schemes: [http]}}
""")
    token = own_gateway.token(gateways.GUEST, "--team", "explorers")
    with LegacyMcp(own_gateway.mcp_url, token) as mcp:
        wait_until(lambda: {"echo", "add"} <= set(mcp.tools()), f"the tools of the {era} upstream")
        yield own_gateway, token


@pytest.mark.parametrize("client", [LegacyMcp, ModernMcp])
def test_every_client_reaches_every_upstream(federated, client):
    gateway, token = federated
    with client(gateway.mcp_url, token) as mcp:
        assert mcp.tools()["add"]["annotations"]["idempotentHint"] is True
        assert mcp.call("add", {"a": 2, "b": 3}).result["structuredContent"] == {"sum": 5}
        assert mcp.call("error", {"message": "on purpose"}).result["isError"] is True
        reply = mcp.call("progress", {"steps": 3, "delay_ms": 5}, progress_token="t")
        assert [n["params"]["progress"] for n in reply.notifications] == [1, 2, 3]
        assert all(n["params"]["progressToken"] == "t" for n in reply.notifications)
        assert reply.result["content"][0]["text"] == "took 3 steps"

"""Bad input at the public door, row by row: what is sent, and the status, JSON-RPC code and stable code that come back. After every row
the same gateway, in the same processes, serves a good call (MCP-1 to MCP-3, BND-7; ERR-4: the protocol's own form, with the stable code in its data)."""
import base64
import json
import socket
import time

import pytest

from harness import gateway as gateways
from harness.http1 import Connection, exchange, request
from harness.jwt import jwt
from harness.mcp import LEGACY, META, MODERN, LegacyMcp, ModernMcp

GOOD = ("convert_units", {"value": 1, "from_unit": "km", "to_unit": "m"})


@pytest.fixture(scope="module")
def before(gateway):
    return {name: (p["pid"], p.get("generation")) for name, p in gateway.processes().items()}


@pytest.fixture(autouse=True)
def still_serving(gateway, guest_token, before):
    """The verdict on every row: the gateway is as it was and serves."""
    yield
    with ModernMcp(gateway.mcp_url, guest_token) as mcp:
        assert mcp.call(*GOOD).result["structuredContent"]["result"] == 1000
    assert {name: (p["pid"], p.get("generation")) for name, p in gateway.processes().items()} == before


@pytest.fixture(scope="module")
def door(gateway):
    return gateway.listener("mcp")


@pytest.fixture(scope="module")
def session(gateway, guest_token):
    with LegacyMcp(gateway.mcp_url, guest_token) as connected:
        yield connected


@pytest.fixture
def modern(gateway, guest_token):
    with ModernMcp(gateway.mcp_url, guest_token) as connected:
        yield connected


def said(response):
    """(status, JSON-RPC code, stable code) of a response; None where it has none."""
    assert response is not None, "closed without an answer"
    try:
        error = response.json().get("error", {})
    except ValueError:
        return response.status, None, None
    return response.status, error.get("code"), error.get("data", {}).get("code")


# ---- HTTP ----

HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /mcp HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"

HTTP = {
    "rubbish": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", 400),
    "no version": (b"GET /mcp\r\n\r\n", 400),
    "no host": (b"GET /mcp HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /mcp HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "another version": (b"GET /mcp HTTP/3.7\r\n" + HOST + b"\r\n", 505),
    "a method with a space before it": (b" GET /mcp HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "connect": (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "a broken escape": (b"GET /mcp%zz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "an escaped NUL": (b"GET /mcp%00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "dots": (b"GET /servers/../mcp HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a space before the colon": (b"GET /mcp HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "a folded header": (b"GET /mcp HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", 400),
    "a NUL in a header": (b"GET /mcp HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", 400),
    "a bare LF": (b"GET /mcp HTTP/1.1\n" + HOST + b"\r\n", 400),
    "length and coding": (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "a negative length": (POST + b"Content-Length: -2\r\n\r\n{}", 400),
    "a length beyond 64 bits": (POST + b"Content-Length: 99999999999999999999\r\n\r\n{}", 400),
    "a length beyond the limit": (POST + b"Content-Length: 4194305\r\n\r\n{}", 413),
    "another coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "a bad chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk size beyond 64 bits": (POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
    "a chunk longer than said": (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}}}}\r\n0\r\n\r\n", 400),
    "an unknown expectation": (POST + b"Expect: a miracle\r\nContent-Length: 2\r\n\r\n{}", 417),
    "a target too long": (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "a header too long": (b"GET /mcp HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70000 + b"\r\n\r\n", 431),
    "too many headers": (b"GET /mcp HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 9000 + b"\r\n", 431),
}


@pytest.mark.parametrize("row", HTTP)
def test_malformed_http(door, row):
    data, status = HTTP[row]
    answer = exchange(door, data)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert json.loads(body)["error"]["data"]["code"].startswith("http.")


@pytest.mark.parametrize("data", [b"", b"P", b"POST /mcp HTTP/1.1\r\nHos", POST + b"Content-Length: 500\r\n\r\n{\"jsonrpc\":",
                                  POST + b"Transfer-Encoding: chunked\r\n\r\n20\r\n{\"json"])
def test_a_truncated_request_is_never_carried_out(door, data):
    answer = exchange(door, data)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:300]


def test_a_body_too_large_without_a_length(door):
    with Connection(door) as connection:
        connection.send_bytes(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(80):
                connection.send_bytes(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except OSError:
            pass  # refused while still sending
        status, _ = connection.read_head()
    assert status == 413


def test_slow_clients_are_not_waited_for():
    """A gateway that gives a request 400 ms: half a head, half a body, one byte at a time."""
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    config = gateways.quickstart_config()
    config["limits"] = {"request_timeout_ms": 400}
    with gateways.Gateway(config) as slow:
        address = slow.listener("mcp")
        for data in (b"POST /mcp HTTP/1.1\r\nHost: 127", POST + b"Content-Length: 100\r\n\r\n{"):
            with Connection(address) as connection:
                began = time.monotonic()
                connection.send_bytes(data)
                assert connection.read_head()[0] == 408
                assert 0.3 < time.monotonic() - began < 15
        with Connection(address) as connection:
            began, drip = time.monotonic(), POST + b"Content-Length: 1000\r\n\r\n" + b" " * 1000
            connection.socket.settimeout(0.02)
            ended = None
            for byte in drip:
                try:
                    connection.send_bytes(bytes([byte]))
                    ended = connection.socket.recv(100)
                    break
                except socket.timeout:
                    continue
                except OSError:
                    ended = b""
                    break
            assert ended is not None and time.monotonic() - began < 15  # all of it takes longer


def test_many_idle_connections_do_no_harm(door, modern):
    idle = [Connection(door) for _ in range(200)]
    try:
        assert modern.call(*GOOD).result["structuredContent"]["result"] == 1000
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/", 404), ("POST", "/mc", 404), ("POST", "/mcp/", 404), ("POST", "/servers//mcp", 404), ("POST", "/servers/a/b/mcp", 404),
    ("PUT", "/mcp", 405), ("PATCH", "/mcp", 405), ("POST", "/healthz", 404)])
def test_there_is_nothing_else(door, method, path, status):
    with Connection(door) as connection:
        connection.send(method, path, {"Content-Type": "application/json"}, b"{}")
        assert connection.read(method).status == status


# ---- bodies ----

def ping(more=b""):
    return b'{"jsonrpc":"2.0","id":1,"method":"ping"' + more + b"}"


JSON = {
    "nothing": (b"", -32700, "json.malformed"),
    "no JSON": (b"hello", -32700, "json.malformed"),
    "two values": (ping() + ping(), -32700, "json.malformed"),
    "a trailing comma": (b'{"jsonrpc":"2.0",}', -32700, "json.malformed"),
    "a comment": (b"/* */" + ping(), -32700, "json.malformed"),
    "a byte order mark": (b"\xef\xbb\xbf" + ping(), -32700, "json.malformed"),
    "NaN": (ping(b',"params":{"a":NaN}'), -32700, "json.malformed"),
    "a leading zero": (ping(b',"params":{"a":01}'), -32700, "json.malformed"),
    "a bomb of arrays": (b"[" * 100000, -32700, "json.too_deep"),
    "a bomb of objects": (b'{"a":' * 100000 + b"1" + b"}" * 100000, -32700, "json.too_deep"),
    "a bomb in the arguments": (ping(b',"params":{"a":' + b"[" * 70 + b"]" * 70 + b"}"), -32700, "json.too_deep"),
    "overlong UTF-8": (ping(b',"params":{"a":"\xc0\x80"}'), -32700, "json.malformed"),
    "a surrogate in UTF-8": (ping(b',"params":{"a":"\xed\xa0\x80"}'), -32700, "json.malformed"),
    "a raw NUL": (ping(b',"params":{"a":"\0"}'), -32700, "json.malformed"),
    "a raw line feed": (ping(b',"params":{"a":"\n"}'), -32700, "json.malformed"),
    "UTF-16": (ping().decode().encode("utf-16"), -32700, "json.malformed"),
    "a text": (b'"hello"', -32600, "argument.invalid"),
    "null": (b"null", -32600, "argument.invalid"),
    "an empty object": (b"{}", -32600, "argument.invalid"),
    "no version": (b'{"id":1,"method":"ping"}', -32600, "argument.invalid"),
    "another version": (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600, "argument.invalid"),
    "a method that is no text": (b'{"jsonrpc":"2.0","id":1,"method":7}', -32600, "argument.invalid"),
    "an id that is an object": (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600, "argument.invalid"),
    "an id that is null": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, "argument.invalid"),
    "an id that is true": (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, "argument.invalid"),
    "an id too long": (b'{"jsonrpc":"2.0","id":"' + b"a" * 5000 + b'","method":"ping"}', -32600, "argument.invalid"),
    "neither method nor result": (b'{"jsonrpc":"2.0","id":1}', -32600, "argument.invalid"),
    "the id twice": (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32600, "argument.invalid"),
    "the method twice": (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', -32600, "argument.invalid"),
    "an empty batch": (b"[]", -32600, "argument.invalid"),
    "a batch of numbers": (b"[1,2]", -32600, "argument.invalid"),
}


@pytest.mark.parametrize("row", JSON)
def test_a_body_that_is_no_message(session, row):
    data, code, stable = JSON[row]
    with Connection(session.url) as connection:
        connection.send("POST", session.path, session.headers, data)
        assert said(connection.read("POST")) == (400, code, stable)


@pytest.mark.parametrize("params", ["[]", "7", '"a"', "null"])
def test_params_that_are_no_object(session, params):
    reply = session.post(ping(b',"params":' + params.encode()))
    assert reply.error["code"] == -32602 and reply.error["data"]["code"] == "argument.invalid"


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1" + "0" * 400, '"\\ud800"', '"\\u0000"', '{"a":1,"a":2}'])
def test_extreme_arguments_are_judged_by_the_schema_or_carried(session, text):
    body = (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"convert_units","arguments":{"value":' + text.encode() +
            b',"from_unit":"km","to_unit":"m"}}}')
    reply = session.post(body)
    assert reply.status in (200, 400)
    assert reply.answer.get("error") or reply.answer["result"]["isError"], reply


@pytest.mark.parametrize("headers, status, stable", [
    ({"Content-Type": "text/plain"}, 415, "argument.invalid"),
    ({"Content-Type": "application/xml"}, 415, "argument.invalid"),
    ({"Content-Type": "application/json2"}, 415, "argument.invalid"),
    ({"Content-Type": None}, 415, "argument.invalid"),
    ({"Accept": "text/html"}, 406, "argument.invalid"),
    ({"Accept": "application/json;q=0"}, 406, "argument.invalid"),
    ({"Content-Encoding": "gzip"}, 415, "argument.invalid"),
])
def test_wrong_media_types(session, headers, status, stable):
    with Connection(session.url) as connection:
        connection.send("POST", session.path, {**session.headers, **headers}, ping())
        assert said(connection.read("POST"))[::2] == (status, stable)


# ---- JSON-RPC ----

@pytest.mark.parametrize("method", ["resources/list", "resources/read", "resources/templates/list", "prompts/list", "prompts/get",
                                    "completion/complete", "logging/setLevel", "resources/subscribe", "tasks/list", "rpc.discover",
                                    "TOOLS/LIST", "tools/call ", "", "a" * 10000])
def test_a_method_that_is_not_there(session, method):
    reply = session.request(method, {"uri": "a:b", "name": "x", "level": "info"})
    assert reply.error["code"] == -32601 and reply.error["data"]["code"] == "unsupported"
    assert reply.status == 200


@pytest.mark.parametrize("method, legacy_only", [("resources/list", False), ("prompts/list", False), ("no/such", False), ("ping", True),
                                                 ("logging/setLevel", True), ("initialize", True)])
def test_a_method_that_is_not_there_in_the_modern_era(modern, method, legacy_only):
    del legacy_only
    reply = modern.request(method, {"protocolVersion": LEGACY, "level": "info"})
    assert (reply.status, reply.error["code"]) == (404, -32601)


def test_batches(gateway, guest_token, session, modern):
    one = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    reply = session.post([one])
    assert (reply.status, reply.error["code"] if isinstance(reply.messages[0], dict) else None) == (400, -32600)
    reply = modern.post([modern.message("tools/list")[0]], {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/list"})
    assert (reply.status, reply.error["code"]) == (400, -32600)
    with LegacyMcp(gateway.mcp_url, guest_token, version="2025-03-26") as old:
        reply = old.post([one, {"jsonrpc": "2.0", "method": "notifications/progress"}, {**one, "id": "b"}])
        assert reply.status == 200 and {answer["id"] for answer in reply.messages[0]} == {1, "b"}
        reply = old.post([{**one, "id": n} for n in range(1000)])
        assert (reply.status, reply.error["code"]) == (400, -32600)


def test_answers_nobody_asked_for_are_taken_and_dropped(session):
    assert session.post({"jsonrpc": "2.0", "id": 99, "result": {}}).status == 202
    assert session.post({"jsonrpc": "2.0", "id": "x", "error": {"code": 1, "message": "no"}}).status == 202
    assert session.notify("notifications/nothing").status == 202
    assert session.notify("notifications/cancelled", {"requestId": 12345}).status == 202


# ---- eras (protocols.md 1.2 to 1.5) ----

def _drop_meta(key):
    def change(body, headers):
        del body["params"]["_meta"][META + key]
    return change


def _set_meta(key, value):
    def change(body, headers):
        body["params"]["_meta"][META + key] = value
    return change


def _set_header(name, value):
    def change(body, headers):
        headers[name] = value
    return change


def _both_versions(value):
    def change(body, headers):
        body["params"]["_meta"][META + "protocolVersion"] = headers["MCP-Protocol-Version"] = value
    return change


ERAS = {
    "no capabilities": (_drop_meta("clientCapabilities"), 400, -32602),
    "capabilities that are no object": (_set_meta("clientCapabilities", []), 400, -32602),
    "no version in _meta": (_drop_meta("protocolVersion"), 400, -32602),
    "a version that is no text": (_set_meta("protocolVersion", 7), 400, -32602),
    "an unknown log level": (_set_meta("logLevel", "loud"), 400, -32602),
    "no version header": (_set_header("MCP-Protocol-Version", None), 400, -32020),
    "another version header": (_set_header("MCP-Protocol-Version", LEGACY), 400, -32020),
    "no method header": (_set_header("Mcp-Method", None), 400, -32020),
    "another method header": (_set_header("Mcp-Method", "tools/list"), 400, -32020),
    "a method header in capitals": (_set_header("Mcp-Method", "TOOLS/CALL"), 400, -32020),
    "no name header": (_set_header("Mcp-Name", None), 400, -32020),
    "another name header": (_set_header("Mcp-Name", "world_time"), 400, -32020),
    "a broken base64 name": (_set_header("Mcp-Name", "=?base64?!!!?="), 400, -32020),
    "a base64 name without padding": (_set_header("Mcp-Name", "=?base64?Y29udmVydF91bml0cw?="), 400, -32020),
    "a version of the future": (_both_versions("2099-01-01"), 400, -32022),
    "an empty version": (_both_versions(""), 400, -32022),
}


@pytest.mark.parametrize("row", ERAS)
def test_metadata_and_headers_that_disagree(modern, row):
    change, status, code = ERAS[row]
    body, headers = modern.message("tools/call", {"name": GOOD[0], "arguments": GOOD[1]})
    change(body, headers)
    reply = modern.post(body, headers)
    assert (reply.status, reply.error["code"]) == (status, code)
    if code == -32022:
        assert reply.error["data"]["supported"] == [MODERN]
        assert reply.error["data"]["requested"] == body["params"]["_meta"][META + "protocolVersion"]


def test_a_base64_name_that_is_right(modern):
    name = "=?base64?" + base64.b64encode(GOOD[0].encode()).decode() + "?="
    assert modern.call(*GOOD, headers={"Mcp-Name": name}).result["structuredContent"]["result"] == 1000


@pytest.mark.parametrize("version, status", [("2024-01-01", 400), ("banana", 400), ("2025-06-18", 200)])
def test_the_version_header_of_a_session(session, version, status):
    reply = session.post(*session.message("ping", headers={"MCP-Protocol-Version": version}))
    assert reply.status == status


def test_an_initialize_for_an_unknown_version_is_answered_with_ours(gateway, guest_token):
    with LegacyMcp(gateway.mcp_url, guest_token, version="1999-01-01") as connected:
        assert connected.initialized["protocolVersion"] == LEGACY


@pytest.mark.parametrize("params", [None, {}, {"protocolVersion": 7, "capabilities": {}}])
def test_an_initialize_that_lacks_something_opens_no_door(gateway, guest_token, params):
    with LegacyMcp(gateway.mcp_url, guest_token, initialize=False) as connected:
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
        if params is not None:
            body["params"] = params
        reply = connected.post(body)
    assert reply.error["code"] == -32602


# ---- tokens ----

CLAIMS = {"sub": gateways.ADMIN, "jti": "1", "is_admin": True, "teams": None}

TOKENS = {
    "missing": (None, "auth.token.missing"),
    "no scheme": (["abc"], "auth.token.invalid"),
    "another scheme": (["Basic YTpi"], "auth.token.invalid"),
    "empty": (["Bearer "], "auth.token.invalid"),
    "unknown": (["Bearer gh_0123456789abcdef0123456789abcdef0123456789abcdef"], "auth.token.invalid"),
    "with a space": (["Bearer a b"], "auth.token.invalid"),
    "no text": (["Bearer \xff\xfe"], "auth.token.invalid"),
    "long": (["Bearer " + "a" * 9000], "auth.token.invalid"),
    "a JWT without a signature": (["Bearer " + jwt(CLAIMS, "none")], "auth.token.invalid"),
    "a JWT with another key": (["Bearer " + jwt({**CLAIMS, "exp": 4102444800}, key=b"x" * 32)], "auth.token.invalid"),
    "two": (["Bearer {good}", "Bearer {good}"], "auth.token.invalid"),
    "a good and a bad one": (["Bearer {good}", "Bearer bad"], "auth.token.invalid"),
    "a list": (["Bearer {good}, Bearer {good}"], "auth.token.invalid"),
}


def with_authorization(url, era, values):
    """Posts a tools/list with these Authorization headers."""
    with era(url, **({"initialize": False} if era is LegacyMcp else {})) as mcp:
        body, headers = mcp.message("tools/list")
        data = json.dumps(body).encode()
        with Connection(url) as connection:
            lines = {**mcp.headers, **(headers or {}), "Host": connection.authority, "Content-Length": len(data)}
            head = f"POST {mcp.path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())
            head += "".join(f"Authorization: {value}\r\n" for value in values or [])
            connection.send_bytes(head.encode("latin-1") + b"\r\n" + data)
            return connection.read("POST")


@pytest.mark.parametrize("row", TOKENS)
@pytest.mark.parametrize("era", [LegacyMcp, ModernMcp])
def test_bad_tokens(gateway, guest_token, era, row):
    values, stable = TOKENS[row]
    response = with_authorization(gateway.mcp_url, era, values and [value.replace("{good}", guest_token) for value in values])
    assert (response.status, said(response)[2]) == (401, stable)
    assert response.header("www-authenticate").startswith("Bearer")
    assert guest_token.encode() not in response.body


def test_a_revoked_token_is_refused_at_once(gateway):
    made = json.loads(gateway.ctl("token", "create", "--user", gateways.GUEST, "--output", "json").stdout)
    with ModernMcp(gateway.mcp_url, made["token"]) as mcp:
        assert "world_time" in mcp.tools()
        gateway.ctl("token", "revoke", made["info"]["tokenId"])
        reply = mcp.request("tools/list")
        assert (reply.status, reply.error["data"]["code"]) == (401, "auth.token.invalid")


def test_an_expired_token_is_refused(gateway):
    url, token = gateway.mcp_url, gateway.token(gateways.GUEST, "--ttl", "4s")
    with ModernMcp(url, token) as mcp:
        assert mcp.request("tools/list").status == 200
        end = time.monotonic() + 30
        while (reply := mcp.request("tools/list")).status == 200 and time.monotonic() < end:
            time.sleep(0.05)
        assert (reply.status, reply.error["data"]["code"]) == (401, "auth.token.invalid")


# ---- DNS rebinding ----

@pytest.mark.parametrize("headers", [{"Host": "evil.example.com"}, {"Host": "127.0.0.1.evil.example.com"}, {"Host": "localhost.evil:80"},
                                     {"Origin": "http://evil.example.com"}, {"Origin": "null"}, {"Origin": "http://localhost.evil.com"},
                                     {"Origin": "http://127.0.0.1@evil.com"}, {"Origin": "file://"}, {"Origin": ""}])
@pytest.mark.parametrize("era", [LegacyMcp, ModernMcp])
def test_hosts_and_origins_of_others_are_refused(gateway, guest_token, era, headers):
    with era(gateway.mcp_url, guest_token, **({"initialize": False} if era is LegacyMcp else {})) as mcp:
        body, mirrored = mcp.message("tools/list")
        reply = mcp.post(body, {**(mirrored or {}), **headers})
    assert reply.status == 403 and reply.error["data"]["code"] == "auth.permission.denied"


def test_origins_of_this_machine_are_taken(modern):
    for origin in ("http://localhost:5173", "http://127.0.0.1:1", "http://[::1]:9"):
        assert modern.post(*modern.message("tools/list", headers={"Origin": origin})).status == 200


# ---- tools ----

TOOL_CALLS = {
    "unknown": ({"name": "no_such_tool", "arguments": {}}, "catalog.record.not_found"),
    "no name": ({"arguments": {}}, "argument.invalid"),
    "a name that is no text": ({"name": 7}, "argument.invalid"),
    "an empty name": ({"name": ""}, None),
    "a name with a NUL": ({"name": "world\0time"}, None),
    "a huge name": ({"name": "a" * 20000}, None),
    "arguments that are a list": ({"name": "world_time", "arguments": []}, "argument.invalid"),
    "arguments that are text": ({"name": "world_time", "arguments": "zone"}, "argument.invalid"),
}


@pytest.mark.parametrize("row", TOOL_CALLS)
def test_tool_calls_that_cannot_be(session, row):
    params, stable = TOOL_CALLS[row]
    reply = session.request("tools/call", params)
    assert reply.error["code"] == -32602, reply
    assert stable is None or reply.error["data"]["code"] == stable


@pytest.mark.parametrize("arguments", [
    {}, {"value": "1", "from_unit": "km", "to_unit": "m"}, {"value": None, "from_unit": "km", "to_unit": "m"},
    {"value": 1, "from_unit": 2, "to_unit": "m"}, {"value": [1], "from_unit": "km", "to_unit": "m"},
    {"value": 1, "from_unit": "km", "to_unit": "m", "extra": True}, {"value": 1, "from_unit": "km"}])
@pytest.mark.parametrize("era", [LegacyMcp, ModernMcp])
def test_wrong_argument_types_are_tool_errors(gateway, guest_token, era, arguments):
    with era(gateway.mcp_url, guest_token) as mcp:
        reply = mcp.call("convert_units", arguments)
    assert reply.status == 200 and reply.result["isError"] is True
    assert reply.result["content"][0]["type"] == "text" and reply.result["content"][0]["text"]


@pytest.mark.parametrize("cursor", ["", "x", "!" * 5000, 7, {}])
def test_bad_cursors(session, cursor):
    reply = session.request("tools/list", {"cursor": cursor})
    assert reply.error["code"] == -32602


# ---- sessions (MCP-2) ----

def unknown_session(reply):
    return (reply.status, reply.error["code"], reply.error["data"]["code"]) == (404, -32001, "session.not_found")


def test_a_session_is_needed(gateway, guest_token):
    with LegacyMcp(gateway.mcp_url, guest_token, initialize=False) as mcp:
        reply = mcp.request("tools/list")
    assert (reply.status, reply.error["data"]["code"]) == (400, "argument.missing")


@pytest.mark.parametrize("value", ["nothing", "0" * 32, "a" * 5000, "a b", "../../x", "\xe4"])
def test_an_unknown_session(session, value):
    assert unknown_session(session.request("tools/list", headers={"Mcp-Session-Id": value}))


def test_the_session_of_another_caller_does_not_exist(gateway, session):
    for token in (gateway.token(gateways.GUEST), gateway.token(gateways.ADMIN)):
        stolen = {**session.headers, "Authorization": f"Bearer {token}"}
        assert unknown_session(session.request("tools/list", headers=stolen))
        for method in ("GET", "DELETE"):
            assert said(request(session.url, method, {**stolen, "Accept": "text/event-stream"}))[::2] == (404, "session.not_found")
    assert session.request("ping").result == {}


def test_a_deleted_session_is_gone(gateway, guest_token):
    with LegacyMcp(gateway.mcp_url, guest_token) as mcp:
        assert mcp.delete().status in (200, 204)
        assert unknown_session(mcp.request("tools/list"))
        assert mcp.delete().status == 404


def test_a_session_id_means_nothing_in_the_modern_era(modern):
    reply = modern.post(*modern.message("tools/list", headers={"Mcp-Session-Id": "whatever"}))
    assert reply.status == 200 and "mcp-session-id" not in reply.headers

"""gatehouse-rest alone, driven by a scripted core, against the world clock and an upstream that misbehaves (RST-1, RST-2, DSC-2,
DSC-4, LIF-5)."""
import base64
import contextlib
import http.server
import json
import os
import pathlib
import socket
import subprocess
import threading
import time

import pytest

grpc = pytest.importorskip("grpc", reason="python3-grpcio is not installed")

from harness import BIN, scripted_core
from harness.processes import ALMANAC_KEY, end_listener, wait_until
from harness.sanitizers import sanitized


class Rough(http.server.BaseHTTPRequestHandler):
    """An upstream that does what its path says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def reply(self, status=200, body=b"", content_type="application/json", **headers):
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.seen.append(self.path)
        action = getattr(self, "on_" + path.split("/")[1], None)
        if action:
            action(path, query, body)
        else:
            self.reply(404)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def on_echo(self, _path, _query, body):
        seen = {"method": self.command, "path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()},
                "body": body.decode("utf-8", "replace")}
        self.reply(body=json.dumps(seen).encode())

    def on_to(self, _path, query, _body):
        self.reply(302, location=query)

    def on_status(self, path, _query, _body):
        self.reply(int(path.split("/")[2]), b"" if path.endswith("/204") else json.dumps(
            {"title": "Sorry", "detail": "Because " + "x" * 600, "secret": "upstream-secret"}).encode(), "application/problem+json")

    def on_html(self, _path, _query, _body):
        self.reply(500, b"<html>upstream-secret trace</html>", "text/html")

    def on_big(self, path, _query, _body):
        self.reply(body=b'"' + b"x" * int(path.split("/")[2]) + b'"')

    def on_slow(self, _path, _query, _body):
        self.server.release.wait(20)
        self.close_connection = True

    def on_gate(self, _path, _query, _body):
        self.server.gate.wait(60)
        self.close_connection = True

    def on_cut(self, _path, _query, _body):
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"half\":")
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def on_pretty(self, _path, _query, _body):
        self.reply(body=b'\xef\xbb\xbf {\n  "a b": [1, 2.50, "x \\" y"],\r\n "big": 12345678901234567890 }\n')

    def on_list(self, _path, _query, _body):
        self.reply(body=b'[{"id":1,"name":"a"},{"id":2,"name":"b"}]')

    def on_image(self, _path, _query, _body):
        self.reply(body=b"\x89PNG\x00\xff", content_type="image/png")

    def on_text(self, _path, _query, _body):
        self.reply(body=b"plain \xff words", content_type="text/plain")


@pytest.fixture(scope="module")
def rough():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rough)
    server.daemon_threads = True
    server.seen, server.release, server.gate = [], threading.Event(), threading.Event()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.release.set()
    server.gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def rest():
    if not (BIN / "gatehouse-rest").exists():
        pytest.skip("not built: gatehouse-rest")
    module = scripted_core.Module("gatehouse-rest", "rest")
    yield module
    assert module.stop() == 0


def plan(url, arguments=None, method="GET", allow=("127.0.0.0/8",), headers=None, deadline_ms=5000, redirects=0, limit=0,
         schemes=(), schema=b"", **rest_fields):
    common, _, _ = scripted_core.messages()
    mappings = {key: [common.NameMapping(argument=a, target=t) for a, t in rest_fields.pop(key, {}).items()]
                for key in ("query_mapping", "header_mapping")}
    return common.InvocationPlan(
        plan_id="p", execution_id="e", arguments_json=json.dumps(arguments or {}).encode(), deadline_ms=deadline_ms,
        headers=[common.Header(name=name, value=value) for name, value in (headers or {}).items()],
        egress=common.EgressPolicy(allow=allow, schemes=schemes, redirects_max=redirects, response_bytes_max=limit),
        rest=common.RestPlan(method=method, url_template=url, **mappings, **rest_fields), output_schema_json=schema,
        trace=common.TraceContext(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))


def text_of(result):
    content = json.loads(result.content_json)
    assert [block["type"] for block in content] == ["text"]
    return content[0]["text"]


def code_of(rest, *arguments, timeout_s=20, **options):
    with pytest.raises(grpc.RpcError) as caught:
        rest.invoke(plan(*arguments, **options), timeout_s)
    found = scripted_core.envelope(caught.value)
    return found.code if found else caught.value.code()


# ---- the module ----

def test_the_descriptor_is_there_without_starting():
    described = json.loads(subprocess.run([BIN / "gatehouse-rest", "--describe"], capture_output=True, check=True).stdout)
    capabilities = {c["name"]: c.get("supported", False) for c in described["capabilities"]}
    assert (described["moduleId"], described["protocolFamily"]) == ("rest", "rest-grpc")
    assert capabilities["tools.invoke"] and not capabilities["reflection"] and not capabilities["openapiImport"]


def test_discovery_is_not_declared_and_not_served(rest):
    common, module, _ = scripted_core.messages()
    with pytest.raises(grpc.RpcError) as caught:
        rest.call("Discover", module.DiscoverRequest(plan=common.InvocationPlan()), module.DiscoverItem)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_deny_path_was_proven_with_the_secret(rest):
    method, metadata = rest.spi.calls[0]
    assert method == "/core.spi.auth.v1.AuthPolicyService/ResolveCaller"
    assert "gatehouse-channel-secret" in metadata or "gatehouse-channel-secret-bin" in metadata


# ---- the quick start's tools ----

def test_a_tool_of_the_quick_start(rest, worldclock):
    result = rest.invoke(plan(worldclock.url + "/v1/time/{zone}", {"zone": "Europe/Berlin", "at": "2026-11-21T09:30:00Z", "no": 1},
                              query_mapping={"at": "at", "format": "format"}))
    assert not result.is_error and result.upstream_status == 200 and result.upstream_duration_us > 0
    assert json.loads(result.structured_content_json)["time"] == "2026-11-21T10:30:00+01:00"
    assert json.loads(text_of(result)) == json.loads(result.structured_content_json)


def test_a_post_tool_and_a_credential(rest, worldclock):
    meeting = {"zones": ["Pacific/Auckland"], "zone": "Europe/Berlin", "time": "2026-11-20T15:30"}
    result = rest.invoke(plan(worldclock.url + "/v1/meeting", meeting, method="POST"))
    assert json.loads(result.structured_content_json)["start"] == "2026-11-20T14:30:00Z"
    almanac = worldclock.url + "/v1/almanac"
    result = rest.invoke(plan(almanac, {"date": "2026-11-21"}, headers={"authorization": "Bearer " + ALMANAC_KEY}))
    assert json.loads(result.structured_content_json)["day_of_year"] == 325
    result = rest.invoke(plan(almanac, {"date": "2026-11-21"}))
    assert result.is_error and text_of(result) == "HTTP 401 Unauthorized"


def test_an_upstreams_problem_is_a_tool_error(rest, worldclock):
    result = rest.invoke(plan(worldclock.url + "/v1/time/{zone}", {"zone": "Mars/Olympus"}))
    assert result.is_error and result.upstream_status == 404
    assert text_of(result) == "HTTP 404 Not Found: There is no time zone named 'Mars/Olympus'."
    assert json.loads(result.structured_content_json)["status_code"] == 404


# ---- requests ----

def echo(rest, rough, path="/echo", *arguments, **options):
    result = rest.invoke(plan(rough.url + path, *arguments, **options))
    assert not result.is_error, text_of(result)
    return json.loads(result.structured_content_json)


def test_an_argument_stays_one_segment(rest, rough):
    seen = echo(rest, rough, "/echo/{a}/x?k={b}", {"a": "../.. /?#é".replace("../..", "a/b"), "b": "1&c=2", "d": True})
    assert seen["path"] == "/echo/a%2Fb%20%2F%3F%23%C3%A9/x?k=1%26c%3D2&d=true"


@pytest.mark.parametrize("value", ["..", ".", "", "a/../b", "..\\x", "%2e%2e/..", None, ["x"], {"x": 1}, "a\0b"])
def test_what_cannot_be_a_segment_is_refused(rest, rough, value):
    before = len(rough.seen)
    assert code_of(rest, rough.url + "/echo/{a}", {"a": value}) in ("argument.invalid", "argument.missing")
    assert len(rough.seen) == before


def test_headers_travel_and_the_trace_goes_on(rest, rough):
    seen = echo(rest, rough, "/echo", {"tenant": "t1", "page": 2.0}, headers={"x-tool": "fixed", "authorization": "Bearer x"},
                header_mapping={"tenant": "X-Tenant"}, query_mapping={"page": "p"})
    assert seen["path"] == "/echo?p=2"
    assert seen["headers"]["x-tenant"] == "t1" and seen["headers"]["x-tool"] == "fixed"
    assert seen["headers"]["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c")


@pytest.mark.parametrize("target", ["authorization", "Cookie", "x-auth-token", "host", "content-length", "x-tool"])
def test_arguments_set_no_header_that_matters(rest, rough, target):
    assert code_of(rest, rough.url + "/echo", {"v": "1"}, headers={"x-tool": "a"}, header_mapping={"v": target}) == "argument.invalid"


def test_a_header_value_cannot_start_another_header(rest, rough):
    assert code_of(rest, rough.url + "/echo", {"v": "a\r\nx-evil: 1"}, header_mapping={"v": "x-v"}) == "argument.invalid"


def test_bodies(rest, rough):
    arguments = {"a": 1, "b": ["x", "y z"], "c": "é&="}
    seen = echo(rest, rough, "/echo", arguments, method="POST")
    assert json.loads(seen["body"]) == arguments and seen["headers"]["content-type"] == "application/json"
    seen = echo(rest, rough, "/echo/{a}", arguments, method="PUT")
    assert json.loads(seen["body"]) == {"b": ["x", "y z"], "c": "é&="} and seen["path"] == "/echo/1"
    seen = echo(rest, rough, "/echo", arguments, method="POST", content_type="application/x-www-form-urlencoded")
    assert seen["body"] == "a=1&b=x&b=y%20z&c=%C3%A9%26%3D"
    seen = echo(rest, rough, "/echo", {"a": 1, "b": {"x": 2}}, method="PATCH", content_type="multipart/form-data")
    boundary = seen["headers"]["content-type"].split("boundary=")[1]
    assert seen["body"].split("--" + boundary)[1:] == [
        '\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n',
        '\r\nContent-Disposition: form-data; name="b"\r\nContent-Type: application/json\r\n\r\n{"x": 2}\r\n', "--\r\n"]
    seen = echo(rest, rough, "/echo", {"a": 1}, method="DELETE")
    assert (seen["path"], seen["body"]) == ("/echo?a=1", "")


# ---- answers ----

def test_json_keeps_its_bytes_but_the_white_space(rest, rough):
    result = rest.invoke(plan(rough.url + "/pretty"))
    assert text_of(result) == '{"a b":[1,2.50,"x \\" y"],"big":12345678901234567890}'
    assert result.structured_content_json.decode() == text_of(result)


def test_other_kinds_of_answers(rest, rough):
    result = rest.invoke(plan(rough.url + "/list"))
    assert result.structured_content_json == b"" and text_of(result).startswith("[{")
    assert text_of(rest.invoke(plan(rough.url + "/text"))) == "plain \ufffd words"
    block = json.loads(rest.invoke(plan(rough.url + "/image")).content_json)[0]
    assert (block["type"], block["mimeType"], base64.b64decode(block["data"])) == ("image", "image/png", b"\x89PNG\x00\xff")
    result = rest.invoke(plan(rough.url + "/status/204"))
    assert not result.is_error and text_of(result) == "Request completed successfully (No Content)"


def test_a_declared_object_that_does_not_come_is_an_error(rest, rough):
    for path in ("/list", "/text", "/status/204"):
        assert rest.invoke(plan(rough.url + path, schema=b'{"type":"object"}')).is_error


@pytest.mark.parametrize("status", [300, 400, 403, 418, 500, 503])
def test_error_bodies_are_bounded_and_kept_back(rest, rough, status):
    result = rest.invoke(plan(f"{rough.url}/status/{status}"))
    assert result.is_error and result.upstream_status == status
    assert "upstream-secret" not in result.content_json.decode() and len(text_of(result)) < 600
    assert ("Because" in text_of(result)) == (status != 403)
    assert "upstream-secret" not in rest.invoke(plan(rough.url + "/html")).content_json.decode()


# ---- where it may go (RST-2) ----

@pytest.mark.parametrize("host, allow, allowed", [
    ("127.0.0.1", [], False), ("127.0.0.1", ["127.0.0.1:{port}"], True), ("127.0.0.1", ["127.0.0.1"], True),
    ("127.0.0.1", ["127.0.0.1:1"], False), ("localhost", [], False), ("localhost", ["127.0.0.1:{port}"], False),
    ("localhost", ["localhost:{port}"], True), ("localhost", ["127.0.0.0/8", "::1/128"], True), ("2130706433", [], False),
    ("0x7f.1", [], False), ("[::ffff:127.0.0.1]", [], False), ("[::1]", [], False), ("0.0.0.0", [], False),
    ("169.254.169.254", ["127.0.0.1"], False), ("10.0.0.1", [], False),
])
def test_only_where_the_plan_allows(rest, rough, host, allow, allowed):
    allow = [entry.format(port=rough.server_port) for entry in allow]
    url = f"http://{host}:{rough.server_port}/list"
    if allowed:
        assert rest.invoke(plan(url, allow=allow)).upstream_status == 200
    else:
        assert code_of(rest, url, allow=allow) == "http.url.blocked"


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/", "http://localhost:{port}/list", "http://[::1]:{port}/list"])
def test_a_redirect_is_checked_like_a_call(rest, rough, target):
    url = f"{rough.url}/to?{target.format(port=rough.server_port)}"
    assert code_of(rest, url, allow=[f"127.0.0.1:{rough.server_port}"], redirects=3) == "http.url.blocked"


def test_redirects_are_counted(rest, rough):
    assert rest.invoke(plan(rough.url + "/to?/list")).upstream_status == 302
    assert rest.invoke(plan(rough.url + "/to?/list", redirects=1)).upstream_status == 200
    assert code_of(rest, rough.url + "/to?/to?/to?/list", redirects=1) == "http.upstream.redirects"


def test_no_header_of_the_plan_follows_to_another_origin(rest, rough):
    url = f"{rough.url}/to?http://localhost:{rough.server_port}/echo"
    headers = {"x-my-credential": "s3cret", "authorization": "Bearer s3cret"}
    result = rest.invoke(plan(url, allow=["127.0.0.0/8", "::1"], redirects=1, headers=headers))
    assert result.upstream_status == 200 and b"s3cret" not in result.structured_content_json


@pytest.mark.parametrize("url, schemes, code", [
    ("file:///etc/passwd", (), "http.url.invalid"), ("gopher://127.0.0.1/", (), "http.url.invalid"), ("127.0.0.1/x", (), "http.url.invalid"),
    ("http://{host}/x", (), "http.url.invalid"), ("http://127.0.0.1:{port}/", (), "http.url.invalid"),
    ("http://a:b@127.0.0.1/", (), "http.url.invalid"), ("http://127.0.0.1:1/{a", (), "http.url.invalid"),
    ("http://127.0.0.1:1/", ("https",), "http.url.blocked"), ("https://127.0.0.1:1/", ("http",), "http.url.blocked"),
    ("http://127.0.0.1:1/", ("ftp",), "http.url.blocked"), ("http://127.0.0.1:1/", (), "http.upstream.connect"),
    ("http://name.invalid/", (), "http.upstream.connect"),
])
def test_urls_that_lead_nowhere(rest, url, schemes, code):
    assert code_of(rest, url, {"host": "127.0.0.1", "port": "80"}, schemes=schemes) == code


def test_a_policy_that_cannot_be_read_denies(rest, rough):
    assert code_of(rest, rough.url + "/list", allow=["10.0.0.0/99"]) == "argument.invalid"


# ---- limits ----

def test_size_limits(rest, rough):
    assert not rest.invoke(plan(rough.url + "/big/998", limit=1000)).is_error
    assert code_of(rest, rough.url + "/big/999", limit=1000) == "http.upstream.too_large"
    assert code_of(rest, rough.url + f"/big/{9 << 20}") == "http.upstream.too_large"
    assert code_of(rest, rough.url + f"/big/{5 << 20}") == "http.upstream.too_large"  # more than one message to the core


def test_a_slow_upstream_costs_its_time_only(rest, rough):
    began = time.monotonic()
    assert code_of(rest, rough.url + "/slow", deadline_ms=200) == "http.upstream.timeout"
    assert time.monotonic() - began < 15  # the upstream takes 20


def test_the_calls_own_deadline_counts(rest, rough):
    assert code_of(rest, rough.url + "/slow", timeout_s=0.3) in ("http.upstream.timeout", grpc.StatusCode.DEADLINE_EXCEEDED)


def test_an_upstream_that_closes_in_the_middle(rest, rough):
    assert code_of(rest, rough.url + "/cut") == "http.upstream.protocol"


@pytest.fixture
def forgetful():
    """An upstream that answers the first request of a connection and closes at the second without a word; it keeps what it read."""
    listener, seen = socket.create_server(("127.0.0.1", 0)), []

    def read_request(connection):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return False
            data += piece
        seen.append(data.split(b" ")[0].decode())
        return True

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                current.append(connection)
                if read_request(connection):
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                    read_request(connection)

    current = []
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    for connection in current:
        with contextlib.suppress(OSError):  # all but the last are closed
            connection.shutdown(socket.SHUT_RDWR)
    end_listener(listener)
    thread.join(20)


def test_what_may_have_been_done_is_not_done_again(rest, forgetful):
    url, seen = forgetful
    assert rest.invoke(plan(url + "/", method="POST")).upstream_status == 200
    assert code_of(rest, url + "/", method="POST") == "http.upstream.protocol"
    assert seen == ["POST", "POST"]


def test_a_get_may_be_sent_again_when_a_kept_connection_was_closed(rest, forgetful):
    url, seen = forgetful
    assert [rest.invoke(plan(url + "/")).upstream_status for _ in range(2)] == [200, 200]
    assert seen == ["GET"] * 3


def in_flight(rest):
    _, module, _ = scripted_core.messages()
    return rest.call("GetStats", module.GetStatsRequest(), module.ModuleStats).in_flight


def test_a_cancelled_call_is_let_go(rest, rough):
    stream = rest.invoke_start(plan(rough.url + "/slow"))
    wait_until(lambda: in_flight(rest) == 1, "the call to be in flight")
    stream.cancel()
    wait_until(lambda: in_flight(rest) == 0, "the call to be gone")


@pytest.mark.parametrize("arguments", [b"[1]", b"{", b'{"a":1,"a":2}', b'{"a":"\xff"}', b"[" * 5000])
def test_arguments_that_are_no_object(rest, rough, arguments):
    request = plan(rough.url + "/echo/{a}")
    request.arguments_json = arguments
    with pytest.raises(grpc.RpcError) as caught:
        rest.invoke(request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_plan_for_another_protocol_is_not_carried_out(rest):
    common, _, _ = scripted_core.messages()
    with pytest.raises(grpc.RpcError) as caught:
        rest.invoke(common.InvocationPlan(mcp=common.McpPlan(url="http://127.0.0.1/")))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


# ---- filters ----

@pytest.mark.parametrize("program, expected", [
    (".[0]", {"id": 1, "name": "a"}), ("map(.name)", ["a", "b"]), (".[].id", [1, 2]), ("empty", []), ("[.[]|.id]|add", 3),
])
def test_a_filter_shapes_the_answer(rest, rough, program, expected):
    result = rest.invoke(plan(rough.url + "/list", response_filter=program))
    assert not result.is_error, text_of(result)
    assert json.loads(text_of(result)) == expected
    assert bool(result.structured_content_json) == isinstance(expected, dict)


@pytest.mark.parametrize("program", [
    ".[", ".a.b", "env", "$ENV.PATH", "input", "halt", "debug", 'import "a" as a; .', 'include "a"; .', ".[9]", '"a" | halt_error',
    "input_filename", "modulemeta",
])
def test_a_filter_that_may_not_or_cannot(rest, rough, program):
    assert rest.invoke(plan(rough.url + "/list", response_filter=program)).is_error


@pytest.mark.parametrize("program", [
    "def f: f; f", "[range(1e9)]", "reduce range(1000000) as $i (0; [.])", '"x" | until(false; . + .)', "repeat(1)", "[limit(1e8; repeat(1))]",
])
def test_a_filter_that_runs_away_is_stopped_and_the_next_one_works(rest, rough, program):
    assert rest.invoke(plan(rough.url + "/list", response_filter=program)).is_error
    assert text_of(rest.invoke(plan(rough.url + "/list", response_filter="length"))) == "2"


def test_what_cannot_be_filtered_is_not_handed_on(rest, rough):
    assert rest.invoke(plan(rough.url + "/text", response_filter=".")).is_error


def children(pid):
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.skipif(sanitized(), reason="a sanitizer's runtime needs system calls that the filter's worker may not make")
def test_filters_run_in_confined_children(rest, rough):
    rest.invoke(plan(rough.url + "/list", response_filter="length"))
    workers = children(rest.process.pid)
    assert 1 <= len(workers) <= 2
    for worker in workers:
        if os.geteuid() == 0:
            assert {os.path.basename(fd) for fd in os.listdir(f"/proc/{worker}/fd")} == {"0", "1", "2", "3"}
        status = pathlib.Path(f"/proc/{worker}/status").read_text()
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status


# ---- the end of it ----

def held_call(rest, rough):
    """A call that is in flight until the gate opens, and ends with an error then: its stream."""
    rough.gate.clear()
    stream = rest.invoke_start(plan(rough.url + "/gate", deadline_ms=50000), 60)
    wait_until(lambda: in_flight(rest) == 1, "the call to be in flight")
    return stream


def is_draining(rest):
    return any(not condition.met for condition in rest.readiness().conditions if condition.name == "not_draining")


def drain(rest):
    """An order to drain that the module has got: its future."""
    _, module, _ = scripted_core.messages()
    order = rest.channel.unary_unary(scripted_core.RUNTIME + "Drain", request_serializer=module.DrainRequest.SerializeToString,
                                     response_deserializer=module.DrainResponse.FromString)
    drained = order.future(module.DrainRequest(deadline_ms=40000, reason="test"), timeout=60)
    rest.readiness()  # asked on the same connection after the order, so that is there when this is answered
    assert is_draining(rest)
    return drained


def test_a_drain_waits_for_what_is_in_flight(rough):
    _, module, _ = scripted_core.messages()
    rest = scripted_core.Module("gatehouse-rest", "rest")
    try:
        stream, began = held_call(rest, rough), time.monotonic()
        drained = drain(rest)
        assert not drained.done()
        rough.gate.set()
        assert drained.result().in_flight == 0 and time.monotonic() - began < 35
        with pytest.raises(grpc.RpcError):
            list(stream)
        assert code_of(rest, rough.url + "/list") == "module.draining"
        rest.call("Shutdown", module.ShutdownRequest(reason="test"), module.ShutdownResponse)
        assert rest.process.child.wait(20) == 0
    finally:
        rest.close()


@pytest.mark.parametrize("first", ["signal", "call"])
def test_a_drain_by_signal_and_by_call_answers_and_ends(rough, first):
    rest = scripted_core.Module("gatehouse-rest", "rest")
    try:
        stream = held_call(rest, rough)
        if first == "signal":
            rest.process.child.terminate()
            wait_until(lambda: is_draining(rest), "the drain")
        drained = drain(rest)
        rough.gate.set()
        assert drained.result().in_flight == 0
        if first == "call":
            rest.process.child.terminate()
        with pytest.raises(grpc.RpcError):
            list(stream)
        assert rest.process.child.wait(20) == 0
    finally:
        rest.close()


def test_its_children_end_with_it(rough):
    rest = scripted_core.Module("gatehouse-rest", "rest")
    try:
        rest.invoke(plan(rough.url + "/list", response_filter="length"))
        workers = children(rest.process.pid)
        rest.process.child.kill()
        rest.process.child.wait()
        wait_until(lambda: not any(alive(worker) for worker in workers), "the workers to end")
    finally:
        rest.close()


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_lif_6_a_core_that_comes_while_the_canary_waits_for_another_try_finds_it_well():
    """It follows no changes of the catalog, and a wait for another try must not make it ask for them."""
    if not (BIN / "gatehouse-rest").exists():
        pytest.skip("not built: gatehouse-rest")
    module = scripted_core.Module("gatehouse-rest", "rest", initialize=False)
    try:
        scripted_core.messages()
        from core.spi.catalog.v1 import catalog_pb2
        refusals = []

        def watch(_request, _context):
            yield catalog_pb2.WatchEvent(revision=1, snapshot=catalog_pb2.SnapshotMarker()).SerializeToString()

        def resolve(_request, context):
            refusals.append(1)
            context.abort(grpc.StatusCode.UNAVAILABLE if len(refusals) == 1 else grpc.StatusCode.UNAUTHENTICATED, "no")
        module.spi.script = {"Watch": watch, "ResolveCaller": resolve}
        module.initialize("rest", until="config_accepted")
        wait_until(lambda: refusals, "a first try")
        module.initialize("rest", until="deny_path_proven")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            module.readiness()
        assert not [method for method, _ in module.spi.calls if method.endswith("/Watch")]
    finally:
        assert module.stop() == 0

"""gatehouse-mcp beside a core that is slow, wrong or gone, driven alone by a scripted core: the client gets an answer in the
protocol's form, the module lives, and nothing is permitted that was not (LIF-5, LIF-6, CNF-2, BND-6)."""
import contextlib
import json
import socket
import threading
import time

import grpc
import pytest

from harness.http1 import Connection
from harness.mcp import LegacyMcp, ModernMcp
from harness.processes import end_listener, wait_until
from harness.scripted_core import Module, messages

GOOD = "good-token"


class Core:
    """The good case; tests overwrite single answers of its script."""

    def __init__(self, module):
        self.module, self.resolved = module, 0
        self.common, _, self.auth = messages()
        self.script = module.spi.script
        self.script["ResolveCaller"] = self.resolve
        self.script["Invoke"] = lambda request, context: iter([self.result('[{"type":"text","text":"ok"}]')])

    def resolve(self, request, context):
        asked = self.auth.ResolveCallerRequest.FromString(request)
        if not any(header.value == f"Bearer {GOOD}" for header in asked.headers):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        self.resolved += 1
        return self.context(f"ref-{self.resolved}")

    def context(self, reference, ttl_ms=60000):
        return self.auth.ResolveCallerResponse(
            context=self.common.AuthContext(reference=reference, expires_at_ms=int(time.time() * 1000) + ttl_ms,
                                            subject=self.common.Subject(user_email="a@b", token_id="t")),
            lease=self.common.Lease(ttl_ms=ttl_ms)).SerializeToString()

    def result(self, content, **more):
        return self.common.InvokeItem(result=self.common.InvokeResult(content_json=content.encode(), **more)).SerializeToString()


@pytest.fixture
def core():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        module = Module("gatehouse-mcp", "mcp", listener=listener)
        try:
            found = Core(module)
            found.url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            yield found
            assert module.process.running(), module.process.errors()
            assert module.stop() == 0
        finally:
            module.close()


@pytest.fixture
def mcp(core):
    with ModernMcp(core.url, GOOD) as client:
        yield client


def status_details(code, envelope):
    """google.rpc.Status with one detail, by hand."""
    from google.protobuf import any_pb2
    packed = any_pb2.Any()
    packed.Pack(envelope)
    detail = packed.SerializeToString()

    def varint(value):
        out = b""
        while value > 0x7F:
            out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
        return out + bytes([value])
    return b"\x08" + varint(code) + b"\x1a" + varint(len(detail)) + detail


def fail(code, text="no"):
    def answer(_request, context):
        context.abort(code, text)
    return answer


def test_the_good_case(core, mcp):
    assert mcp.call("tool").result["content"][0]["text"] == "ok"
    assert mcp.call("tool").result["resultType"] == "complete"
    assert core.resolved == 1


def test_a_caller_is_asked_about_again_when_the_lease_is_over(core, mcp):
    core.script["ResolveCaller"] = lambda request, context: core.context(f"r-{len(core.module.spi.calls)}", ttl_ms=50)
    mcp.call("tool")
    before = len(core.module.spi.calls)
    time.sleep(0.08)
    mcp.call("tool")
    names = [name.rpartition("/")[2] for name, _ in core.module.spi.calls[before:]]
    assert [name for name in names if name != "Watch"] == ["ResolveCaller", "Invoke"]


@pytest.mark.parametrize("answer", [b"\xff\xff\xff", b"", "empty reference"])
def test_a_core_that_answers_nonsense_about_a_caller_permits_nothing(core, mcp, answer):
    core.script["ResolveCaller"] = lambda request, context: core.context("") if answer == "empty reference" else answer
    reply = mcp.call("tool")
    assert reply.status == 503 and reply.error["data"]["retryable"] is True
    assert not any(name.endswith("/Invoke") for name, _ in core.module.spi.calls)


@pytest.mark.parametrize("items, code", [
    (lambda core: [], "invoke.result.missing"),
    (lambda core: [b"\xff\xff"], "module.answer.malformed"),
    (lambda core: [core.result("not json")], "invoke.upstream.failed"),
    (lambda core: [core.result('{"a":1}')], "invoke.upstream.failed"),
    (lambda core: [core.result('[1],"isError":true,"x":[2]')], "invoke.upstream.failed"),
])
def test_an_invocation_that_ends_wrongly_is_an_error(core, mcp, items, code):
    core.script["Invoke"] = lambda request, context: iter(items(core))
    reply = mcp.call("tool")
    assert (reply.status, reply.error["data"]["code"]) == (200, code)


def test_what_follows_a_result_is_of_no_interest(core, mcp):
    core.script["Invoke"] = lambda request, context: iter([core.result("[]"), core.result("[1]"), b"\xff"])
    assert mcp.call("tool").result["content"] == []
    assert mcp.call("tool").result["content"] == []


def test_structured_content_that_is_no_json_is_left_out(core, mcp):
    core.script["Invoke"] = lambda request, context: iter([core.result("[]", structured_content_json=b"{", meta_json=b"[]")])
    result = mcp.call("tool").result
    assert "structuredContent" not in result and list(result["_meta"]) == ["io.modelcontextprotocol/serverInfo"]


@pytest.mark.parametrize("status, code, category", [
    (grpc.StatusCode.PERMISSION_DENIED, -32003, "PERMISSION_DENIED"), (grpc.StatusCode.NOT_FOUND, -32602, "NOT_FOUND"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, -32000, "RATE_LIMITED"), (grpc.StatusCode.UNAVAILABLE, -32603, "UNAVAILABLE"),
    (grpc.StatusCode.INTERNAL, -32603, "INTERNAL"), (grpc.StatusCode.UNIMPLEMENTED, -32603, "UNSUPPORTED"),
])
def test_a_refusal_has_the_code_of_its_category(core, mcp, status, code, category):
    core.script["Invoke"] = fail(status)
    reply = mcp.call("tool")
    assert (reply.status, reply.error["code"], reply.error["data"]["category"]) == (200, code, category)


def test_a_context_that_died_is_replaced_once(core, mcp):
    """The core may forget a context before its lease is over: the client does not notice, unless it happens again."""
    state = {"refusals": 1}

    def invoke(request, context):
        if state["refusals"] > 0:
            state["refusals"] -= 1
            details = core.common.ErrorEnvelope(category=core.common.ERROR_CATEGORY_UNAUTHENTICATED, code="auth.context.expired", message="gone")
            context.set_trailing_metadata((("grpc-status-details-bin", status_details(16, details)),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "gone")
        return iter([core.result("[]")])
    core.script["Invoke"] = invoke
    assert mcp.call("tool").result["content"] == []
    assert core.resolved == 2
    state["refusals"] = 2
    assert mcp.call("tool").status == 401
    assert core.resolved == 3


def test_progress_flows_only_where_it_was_asked_for(core, mcp):
    progress = core.common.InvokeItem(progress=core.common.InvokeProgress(progress=1, total=2, message="half")).SerializeToString()
    core.script["Invoke"] = lambda request, context: iter([progress, core.result("[]")])
    assert mcp.call("tool").notifications == []
    reply = mcp.call("tool", progress_token="t")
    assert reply.headers["content-type"][0].startswith("text/event-stream")
    assert [n["params"] for n in reply.notifications] == [{"progressToken": "t", "progress": 1, "total": 2, "message": "half"}]


def test_a_client_that_leaves_takes_its_invocation_along(core, mcp):
    began, ended = threading.Event(), threading.Event()

    def invoke(_request, context):
        context.add_callback(ended.set)
        began.set()
        ended.wait(60)
        return iter([])
    core.script["Invoke"] = invoke
    body, headers = mcp.message("tools/call", {"name": "tool", "arguments": {}})
    with Connection(core.url) as connection:
        connection.send("POST", "/mcp", {**mcp.headers, **headers}, json.dumps(body).encode())
        assert began.wait(20)
    assert ended.wait(20)


def test_a_core_that_is_gone_is_unavailable_in_both_eras(core, mcp):
    mcp.call("tool")
    core.module.server.stop(None).wait()
    with LegacyMcp(core.url, GOOD, initialize=False) as legacy:
        for client, method in ((mcp, "tools/list"), (legacy, "initialize")):
            def refused():
                reply = client.request(method, {"protocolVersion": "2025-11-25"})
                return reply.status == 503 and reply
            reply = wait_until(refused, "the refusal")
            assert reply.error["code"] == -32000 and reply.error["data"]["code"] == "unavailable"
            assert int(reply.headers["retry-after"][0]) >= 1


def test_readiness_that_finds_no_room_at_the_supervisor_is_said_again(tmp_path):
    """LIF-3: who is not heard to be ready is ended for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as above, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler, \
            socket.create_server(("127.0.0.1", 0)) as listener:
        path = str(tmp_path / "notify")
        above.bind(path)
        above.settimeout(20)
        filler.connect(path)
        filler.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                filler.send(b"STATUS=full")
        module = Module("gatehouse-mcp", "mcp", listener=listener, env={"NOTIFY_SOCKET": path})
        try:
            while b"READY=1" not in above.recv(1000):
                pass
            assert module.stop() == 0
        finally:
            module.close()


# ---- a core that comes back ----

@pytest.fixture
def patient():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        module = Module("gatehouse-mcp", "mcp", listener=listener, config={"coreWaitMs": 8000})
        try:
            found = Core(module)
            found.url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            yield found
        finally:
            module.close()


def core_lost(core):
    core.module.server.stop(None).wait()
    wait_until(lambda: "detached from the core" in core.module.process.errors(), "the module to notice")


def test_a_request_waits_for_a_core_that_comes_back_and_is_decided_by_that_one(patient):
    with ModernMcp(patient.url, GOOD) as mcp, ModernMcp(patient.url, "bad-token") as stranger:
        mcp.call("tool")
        resolved, replies = patient.resolved, {}
        core_lost(patient)
        threads = [threading.Thread(target=lambda name=name, client=client: replies.update({name: client.request(
            "tools/call", {"name": "tool", "arguments": {}})}), daemon=True) for name, client in (("good", mcp), ("bad", stranger))]
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # that they wait shows in nothing but that they are not answered
        assert not replies
        patient.module.serve()
        patient.module.initialize("mcp")
        for thread in threads:
            thread.join(20)
        assert replies["good"].result["content"][0]["text"] == "ok"
        assert replies["bad"].status == 401
        assert patient.resolved == resolved + 1  # LIF-6: nothing that was known before counts


def test_a_request_waits_no_longer_than_it_may(core, mcp):
    mcp.call("tool")
    core_lost(core)
    began = time.monotonic()
    reply = mcp.call("tool")
    assert reply.status == 503 and reply.error["data"]["code"] == "unavailable"
    assert 0.24 < time.monotonic() - began < 15
    assert int(reply.headers["retry-after"][0]) >= 1


def test_a_client_that_leaves_does_not_wait_on(patient):
    with ModernMcp(patient.url, GOOD) as mcp:
        mcp.call("tool")
        core_lost(patient)
        body, headers = mcp.message("tools/call", {"name": "tool", "arguments": {}})
        for _ in range(3):
            with Connection(patient.url) as connection:
                connection.send("POST", "/mcp", {**mcp.headers, **headers}, json.dumps(body).encode())
                time.sleep(0.05)
        calls = len(patient.module.spi.calls)
        patient.module.serve()
        patient.module.initialize("mcp")
        assert mcp.call("tool").result["content"][0]["text"] == "ok"
        made = [name for name, _ in patient.module.spi.calls[calls:] if name.endswith("/Invoke")]
        assert len(made) == 1, made


def test_a_call_under_way_fails_when_the_core_dies(core, mcp):
    def invoke(_request, context):
        threading.Thread(target=lambda: core.module.server.stop(0)).start()
        time.sleep(5)
        return iter([])
    core.script["Invoke"] = invoke
    reply = mcp.call("tool")
    assert reply.error["data"]["category"] == "UNAVAILABLE" and reply.error["data"]["retryable"] is True


class Relay:
    """Stands between a module and its core, so that the core can be gone from one moment to the next, as one that dies is."""

    def __init__(self, target):
        self.path, self.target, self.ends = target.with_name("relay.sock"), target, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, far = self.listener.accept()[0], socket.socket(socket.AF_UNIX)
                self.ends += [near, far]
                far.connect(str(self.target))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    @staticmethod
    def carry(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def cut(self):
        """For good: nobody is there any more."""
        self.path.unlink()
        end_listener(self.listener)
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def lose_with_a_call_under_way(core, mcp):
    """The thread of a call that the core has taken along, and the list that gets its answer."""
    relay, begun, replies, over = Relay(core.module.spi_socket), threading.Event(), [], threading.Event()

    def invoke(_request, _context):
        begun.set()
        over.wait(20)
        return iter([])
    core.script["Invoke"] = invoke
    core.module.initialize("mcp", spi_socket=str(relay.path))
    caller = threading.Thread(target=lambda: replies.append(mcp.call("tool")), daemon=True)
    caller.start()
    assert begun.wait(20)
    relay.cut()
    over.set()
    return caller, replies


def test_lif_12_a_call_that_may_have_been_begun_is_never_told_to_come_again_by_http(core, mcp):
    """Clients repeat a 503 by themselves, and what was begun must not be carried out twice for that."""
    caller, replies = lose_with_a_call_under_way(core, mcp)
    caller.join(20)  # no core comes in the time that it waits
    assert replies[0].status == 200 and replies[0].error["data"]["code"] == "rpc.peer.gone"


@pytest.mark.parametrize("knows", [True, False])
def test_lif_12_the_next_core_is_told_what_may_have_been_begun_if_it_knows_the_word(patient, knows):
    from core.spi.catalog.v1 import catalog_pb2  # made by messages()
    asked = []

    def invoke(request, _context):
        asked.append(catalog_pb2.InvokeRequest.FromString(request).invocation.may_have_begun)
        return iter([patient.result('[{"type":"text","text":"ok"}]')])
    with ModernMcp(patient.url, GOOD) as mcp:
        caller, replies = lose_with_a_call_under_way(patient, mcp)
        patient.script["Invoke"] = invoke
        patient.module.initialize("mcp", knows_may_have_begun=knows)
        caller.join(20)
        if knows:
            assert replies[0].result["content"][0]["text"] == "ok" and asked == [True]
            assert mcp.call("tool").result and asked == [True, False]
        else:
            assert replies[0].status == 200 and replies[0].error["data"]["code"] == "rpc.peer.gone" and not asked


def test_lif_12_a_code_that_the_core_hands_on_is_no_loss_of_the_core(patient):
    """Another module met it, and that module's call may have been carried out."""
    asked = []

    def invoke(_request, context):
        asked.append(1)
        threading.Thread(target=lambda: patient.module.server.stop(5), daemon=True).start()
        time.sleep(0.3)  # the module has heard that the core ends
        details = patient.common.ErrorEnvelope(code="rpc.refused", category=patient.common.ERROR_CATEGORY_UNAVAILABLE, message="no", retryable=True)
        context.set_trailing_metadata((("grpc-status-details-bin", status_details(14, details)),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "no")
    patient.script["Invoke"] = invoke
    with ModernMcp(patient.url, GOOD) as mcp:
        assert mcp.call("tool").error["data"]["code"] == "rpc.refused" and len(asked) == 1


@pytest.mark.parametrize("name", ["mcp", "hello"])
def test_lif_9_a_process_that_drains_before_it_is_attached_opens_no_door(name):
    """A candidate whose core dies is sent away by the next one, and attached by it as well. Whoever it let in would be lost with it; whoever waits
    at the door is for the other process, which is this test here."""
    proof = threading.Event()

    def resolve(_request, context):
        proof.wait(20)
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        module = Module(f"gatehouse-{name}", name, initialize=False, listener=listener)
        try:
            module.spi.script["ResolveCaller"] = resolve
            module.initialize(name, until="not_draining")
            contract = messages()[1]
            module.call("Drain", contract.DrainRequest(deadline_ms=5000, hand_over=True), contract.DrainResponse)
            with socket.create_connection(listener.getsockname()) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                proof.set()
                wait_until(lambda: "attached to the core" in module.process.errors(), "it to be attached")
                assert module.stop() == 0
                listener.settimeout(10)
                with listener.accept()[0] as waiting:
                    assert waiting.recv(3) == b"GET"
        finally:
            module.close()

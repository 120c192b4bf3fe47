"""A core without a supervisor, with modules that attach by themselves: the same phases and the same rules (LIF-1, TRN-3, SPI-9)."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import grpc
import pytest
from google.protobuf import json_format

from harness import BIN, BUILD, gateway as gateways, traced
from harness.attached import AttachedModule, BEHIND_A_WIRE, HEALTH_SERVING, Wire
from harness.http1 import Connection
from harness.processes import Process, Stalls, wait_until
from harness.sanitizers import reports
from harness.scripted_core import envelope

COMMON = ["auth", "catalog", "config", "observability"]
DOCUMENTS = """
kind: Role
metadata: {name: caller}
spec: {permissions: [servers.use, tools.read, tools.execute]}
---
kind: User
metadata: {name: guest@example.com}
spec: {roles: [caller]}
---
kind: Tool
metadata: {name: stream, visibility: public, owner: guest@example.com}
spec:
  inputSchemaJson: {type: object}
  rest: {method: GET, url: 'http://127.0.0.1:9/x'}
"""


class Core:
    """gatehouse-core alone, and the operator CLI beside it."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="gh"))
        self.run = self.directory / "run"
        self.env = {"GATEHOUSE_RUN": str(self.run), "GATEHOUSE_STATE": str(self.directory / "state"), "PATH": "/usr/bin:/bin"}
        config = self.directory / "gatehouse.yaml"
        # Each test ends its modules by letting the connection go, which is a death as far as a core alone can tell.
        config.write_text("modules:\n" + "".join(
            f"  - {{id: {name}, family: {family}, quarantine: {{deaths: 0}}, config: {{mark: of-{name}}}}}\n"
            for name, family in (("owner", "rest-grpc"), ("owner2", "rest-grpc"), ("asker", "echo"))))
        self.process = Process("core", [BIN / "gatehouse-core", "--config", config], self.directory, env=self.env)
        wait_until(lambda: (self.run / "core" / "admin.sock").exists() or not self.process.running(), "the core's socket")

    def ctl(self, *arguments):
        out = subprocess.run([BIN / "gatehouse", *arguments], env=self.env, capture_output=True, text=True, timeout=60, check=False)
        assert out.returncode in (0, 3), (arguments, out.stdout, out.stderr, self.process.errors()[-4000:])
        return out.stdout

    def state(self, module_id):
        processes = json.loads(self.ctl("status", "--output", "json"))["processes"]
        return next((process for process in processes if process["id"] == module_id), {}).get("state")

    def history(self, module_id):
        return json.loads(self.ctl("module", "describe", module_id, "--output", "json"))["history"]

    def wait_ready(self, *modules):
        """A state from before the core came to this one, of one with the same id that is gone, does not count."""
        for module in modules:
            wait_until(lambda: module.initialized and self.state(module.module_id) == "ready", f"{module.module_id} to be ready", pause_s=0.05)

    @contextlib.contextmanager
    def stalls(self):
        """Stalls of this machine, and of the core."""
        with Connection(str(self.run / "core" / "admin.http.sock"), 60) as connection:
            def ask():
                connection.send("POST", "/grpc.health.v1.Health/Check", {"Content-Type": "application/json"}, b"{}")
                assert connection.read("POST").status == 200
            with Stalls(ask) as stalls:
                yield stalls

    def close(self):
        try:
            status = self.process.stop()
            assert status == 0 and not reports(self.process.errors()), (status, self.process.errors()[-8000:])
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture(scope="module")
def core():
    if gateways.missing():
        pytest.skip(gateways.missing())
    started = Core()
    try:
        documents = started.directory / "documents.yaml"
        documents.write_text(DOCUMENTS)
        started.ctl("apply", "-f", str(documents))
        started.token = json.loads(started.ctl("token", "create", "--user", "guest@example.com", "--output", "json"))["token"]
        yield started
    finally:
        started.close()


def partial(module, number, size):
    return module.common.InvokeItem(partial=module.common.InvokePartial(content_json=b"%08d" % number + b"x" * size))


def result(module):
    return module.common.InvokeItem(result=module.common.InvokeResult(content_json=b"[]"))


@pytest.mark.parametrize("size, count", [(700_000, 12), (10_000, 1000), (1_500_000, 6)])
def test_a_slow_reader_gets_every_item_in_order(core, size, count):
    """Items that find no room in a stream's queue wait: none is lost, and the core lives."""
    def invoke(_request, _context):
        for number in range(count):
            yield partial(owner, number, size)
        yield result(owner)

    with AttachedModule(core.run, "owner", "rest-grpc", COMMON, invoke) as owner, \
            AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker:
        core.wait_ready(owner, asker)
        got = []
        for item in asker.call_tool(asker.resolve(core.token), "stream"):
            if not got:
                time.sleep(0.3)  # what is sent meanwhile fills every buffer on the way
            got.append(int(item.partial.content_json[:8]) if item.WhichOneof("item") == "partial" else item.WhichOneof("item"))
        assert got == [*range(count), "result"]


def test_cancelling_reaches_the_owner(core):
    began, ended = threading.Event(), threading.Event()

    def invoke(_request, context):
        context.add_callback(ended.set)
        began.set()
        yield partial(owner, 0, 1)
        ended.wait(60)

    with AttachedModule(core.run, "owner", "rest-grpc", COMMON, invoke) as owner, \
            AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker:
        core.wait_ready(owner, asker)
        call = asker.call_tool(asker.resolve(core.token), "stream")
        next(call)
        assert began.is_set() and not ended.is_set()
        call.cancel()
        assert ended.wait(20)


@pytest.mark.parametrize("items, code", [(lambda m: [partial(m, 0, 1)], grpc.StatusCode.UNKNOWN),
                                         (lambda m: [result(m), result(m)], None), (lambda m: [result(m), partial(m, 0, 1)], None)])
def test_a_stream_has_one_result_which_ends_it(core, items, code):
    with AttachedModule(core.run, "owner", "rest-grpc", COMMON, lambda *_: items(owner)) as owner, \
            AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker:
        core.wait_ready(owner, asker)
        kinds, call = [], asker.call_tool(asker.resolve(core.token), "stream")
        try:
            for item in call:
                kinds.append(item.WhichOneof("item"))
            assert code is None and kinds == ["result"]
        except grpc.RpcError as error:
            assert code is not None and kinds == ["partial"], error


def test_spi_9_a_stream_that_stays_open_behind_its_result_is_cut_after_a_second(core):
    """The caller has its answer at once, so at least one of three is not held up by this machine; the module cannot keep the call for as long
    as it likes."""
    ended, took = [], []

    def invoke(_request, context):
        began = time.monotonic()
        over = threading.Event()
        context.add_callback(lambda: (ended.append(time.monotonic() - began), over.set()))
        yield result(owner)
        over.wait(60)

    with AttachedModule(core.run, "owner", "rest-grpc", COMMON, invoke) as owner, \
            AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker:
        core.wait_ready(owner, asker)
        reference = asker.resolve(core.token)
        for _ in range(3):
            began = time.monotonic()
            assert [item.WhichOneof("item") for item in asker.call_tool(reference, "stream")] == ["result"]
            took.append(time.monotonic() - began)
        assert min(took) < 0.9, "the caller does not wait for the end of the module's stream"
        wait_until(lambda: len(ended) == 3, "the module's streams to be cut")
        assert all(0.9 < time_s < 30 for time_s in ended), ended
        assert core.state("owner") == "ready"


@pytest.mark.parametrize("bad, code", [
    (lambda m: b"\xff\xfe\xfd" * 50, "module.answer.malformed"), (lambda m: result(m).SerializeToString()[:-1], "module.answer.malformed"),
    (lambda m: b"\x32\x05\x0a\x7f", "module.answer.malformed"), (lambda m: bytes(5 << 20), "invoke.result.too_large")],
                         ids=["garbage", "truncated", "a length beyond the end", "too large"])
def test_err_2_an_answer_that_cannot_be_read_is_told_of_as_the_modules(core, bad, code):
    with AttachedModule(core.run, "owner", "rest-grpc", COMMON, lambda *_: [bad(owner)]) as owner, \
            AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker:
        core.wait_ready(owner, asker)
        with pytest.raises(grpc.RpcError) as failed:
            list(asker.call_tool(asker.resolve(core.token), "stream"))
        problem = envelope(failed.value)
        assert problem.code == code and not problem.retryable
        assert problem.category == asker.common.ERROR_CATEGORY_UPSTREAM_ERROR and problem.origin == asker.common.ERROR_ORIGIN_MODULE
        assert core.state("owner") == "ready"


def test_two_modules_of_a_family_take_turns(core):
    served = []

    def invoke_as(name):
        def invoke(_request, _context):
            served.append(name)
            yield result(asker)
        return invoke

    with AttachedModule(core.run, "owner", "rest-grpc", COMMON, invoke_as("owner")) as owner, \
            AttachedModule(core.run, "owner2", "rest-grpc", COMMON, invoke_as("owner2")) as second, \
            AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker:
        core.wait_ready(owner, second, asker)
        reference = asker.resolve(core.token)
        for _ in range(6):
            assert [item.WhichOneof("item") for item in asker.call_tool(reference, "stream")] == ["result"]
    assert sorted(served) == ["owner"] * 3 + ["owner2"] * 3


def test_no_module_is_an_operator_by_its_name(core):
    with AttachedModule(core.run, "admin", "echo", ["auth", "catalog"]) as named:
        core.wait_ready(named)
        with pytest.raises(grpc.RpcError) as refused:
            named.spi.unary_unary("/core.admin.v1.StatusService/GetStatus")(b"", timeout=60, metadata=named.metadata)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_socket_that_nobody_listens_to_is_not_dialled_for_ever(core):
    with AttachedModule(core.run, "left", "echo", ["auth"]) as module:
        core.wait_ready(module)
    with socket.socket(socket.AF_UNIX) as bound:  # a file without a listener, as a killed process leaves it
        bound.bind(str(module.path))
        wait_until(lambda: core.state("left") == "failed", "the end to be noticed", pause_s=0.05)
        seen = core.history("left")
        time.sleep(2.5)  # longer than a round of dialling takes
        assert core.history("left") == seen
    module.path.unlink()


# ---- a connection that is lost while the module lives (TRN-6) ----

def wait_held(core, module):
    """Until the core has had the connection for so long that its end is not one of many."""
    core.wait_ready(module)
    ready = time.monotonic()
    wait_until(lambda: time.monotonic() - ready > 1.1, "the connection to have held")


def test_trn_6_a_lost_connection_is_dialled_again_at_once(core):
    with AttachedModule(core.run, "cut", "echo", ["auth"], served_at=BEHIND_A_WIRE) as module, Wire(module) as wire, core.stalls() as stalls:
        wait_until(lambda: wire.accepted, "the core to come by the wire")
        for _ in range(3):
            wait_held(core, module)
            count, cut = len(wire.accepted), time.monotonic()
            wire.cut()
            wait_until(lambda: len(wire.accepted) > count, "the core to come back")
            assert wire.accepted[count] - cut < 0.2 + stalls.between(cut, wire.accepted[count]), "not half a second later"
            core.wait_ready(module)


def test_trn_6_one_that_is_lost_again_and_again_is_dialled_with_back_off(core):
    with AttachedModule(core.run, "cut-often", "echo", ["auth"], served_at=BEHIND_A_WIRE) as module, Wire(module) as wire, core.stalls() as stalls:
        wait_until(lambda: wire.accepted, "the core to come by the wire")
        wait_held(core, module)
        first, wire.shut = len(wire.accepted), True
        wire.cut()
        wait_until(lambda: len(wire.accepted) >= first + 8, "the core to come back eight times")
        spans = list(zip(wire.accepted[first:], wire.accepted[first + 1:]))
        waits = [(later - earlier, stalls.between(earlier, later)) for earlier, later in spans]
        middles = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
        assert all(middle * 0.8 - stalled <= wait < middle * 1.2 + 0.2 + stalled for (wait, stalled), middle in zip(waits, middles)), waits
        wire.shut = False
        core.wait_ready(module)


@pytest.mark.skipif(not traced.STRACE or os.geteuid() != 0, reason="needs strace and root")
def test_lif_1_a_socket_that_takes_the_place_of_one_that_is_being_dialled_is_dialled_too(core):
    slowly = [traced.STRACE, "-f", "-o", "/dev/null", "-e", "trace=connect", "-e", "inject=connect:delay_exit=300000", "-p", str(core.process.pid)]
    with AttachedModule(core.run, "changed", "echo", ["auth"], served_at=BEHIND_A_WIRE) as module, \
            AttachedModule(core.run, "changed", "echo", ["auth"], served_at="second.sock") as second, \
            subprocess.Popen(slowly, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            if "attached" not in tracer.stderr.readline():
                pytest.skip("this machine does not let us trace")
            with Wire(module) as wire:
                wait_until(lambda: wire.accepted, "the core to be connected, which it does not know yet")
                second.path.rename(wire.path)
                wait_until(lambda: second.initialized, "the core to come to the second one")
                core.wait_ready(second)
        finally:
            tracer.terminate()


@pytest.mark.skipif(not traced.STRACE or os.geteuid() != 0, reason="needs strace and root")
def test_lif_1_a_socket_is_waited_for_as_long_as_any_other_whatever_was_there_before(core, tmp_path):
    """The core tries for a moment where nobody listens. A new socket may be bound, and not listen yet, when that moment is over."""
    path, calls = core.run / "modules" / "slow" / "runtime.sock", tmp_path / "calls"
    slowly = [traced.STRACE, "-f", "-o", calls, "-e", "trace=connect", "-e", "inject=connect:delay_exit=10000", "-p", str(core.process.pid)]
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left, socket.socket(socket.AF_UNIX) as late, \
            subprocess.Popen(slowly, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            if "attached" not in tracer.stderr.readline():
                pytest.skip("this machine does not let us trace")
            left.bind(str(path))  # as a killed process leaves it
            wait_until(lambda: calls.read_text().count("slow/runtime") >= 420, "the core to try")
            path.unlink()
            late.settimeout(60)
            late.bind(str(path))
            wait_until(lambda: calls.read_text().count("slow/runtime") >= 520, "the core to try the new one")
            late.listen()
            late.accept()[0].close()
        finally:
            tracer.terminate()
        path.unlink()


class Leaving(AttachedModule):
    """One that drains when it is told to, reports what is in flight, and ends when it is told to: without a supervisor."""

    def __init__(self, *arguments, **options):
        self.told, self.finish, self.alive = [], threading.Event(), True
        super().__init__(*arguments, **options)

    def service(self, details):
        name = details.method.rpartition("/")[2]
        answer = {"Drain": self.drain, "GetStats": self.stats, "Shutdown": self.shut_down}.get(name)
        if name == "Check":
            return grpc.unary_unary_rpc_method_handler(lambda *_: HEALTH_SERVING if self.alive else time.sleep(5) or b"")
        return grpc.unary_unary_rpc_method_handler(lambda request, _: answer(request)) if answer else super().service(details)

    def drain(self, data):
        self.told.append(("drain", self.module.DrainRequest.FromString(data).deadline_ms))
        self.finish.wait(60)
        return self.module.DrainResponse(in_flight=0).SerializeToString()

    def stats(self, _):
        return self.module.ModuleStats(in_flight=0 if self.finish.is_set() else 3).SerializeToString()

    def shut_down(self, _):
        self.told.append("shutdown")
        threading.Thread(target=self.server.stop, args=(0.1,)).start()
        return b""


def described(core, module_id):
    return json.loads(core.ctl("module", "describe", module_id, "--output", "json"))


def status_of(core, module_id):
    processes = json.loads(core.ctl("status", "--output", "json"))["processes"]
    return next(process for process in processes if process["id"] == module_id)


@pytest.mark.parametrize("order,state", [("restart", "stopped"), ("stop", "stopped"), ("drain", "draining")])
def test_lif_5_an_attached_module_drains_and_is_asked_to_end(core, order, state):
    """The same states as under a supervisor; whoever started it starts it again."""
    name = f"leaving-{order}"
    with Leaving(core.run, name, "echo", ["auth"]) as module:
        core.wait_ready(module)
        core.ctl("module", order, name)
        wait_until(lambda: status_of(core, name).get("inFlight") == 3, "the status to show what is in flight", pause_s=0.05)
        wait_until(lambda: module.told, "the module to be told")  # what it is asked meanwhile another thread of it may answer first
        assert core.state(name) == "draining" and module.told == [("drain", 10000)]
        module.finish.set()
        wait_until(lambda: core.state(name) == state and "nothing in flight" in str(described(core, name)), "the end", pause_s=0.05)
        assert module.told[1:] == ([] if order == "drain" else ["shutdown"])
        assert not described(core, name).get("deaths")
    with AttachedModule(core.run, name, "echo", ["auth"]) as again:
        if order == "stop":
            time.sleep(0.5)
            assert core.state(name) == "stopped"  # it came back by itself, and is not wanted
            core.ctl("module", "start", name)
        core.wait_ready(again)


def test_lif_8_an_attached_module_that_keeps_going_is_not_dialled_any_more(core):
    for _ in range(6):
        with AttachedModule(core.run, "looping", "echo", ["auth"]) as module:
            core.wait_ready(module)
    wait_until(lambda: core.state("looping") == "quarantined", "the quarantine", pause_s=0.05)
    told = described(core, "looping")
    assert {(death["kind"], death["cause"]) for death in told["deaths"]} == {("incident", "connection")}
    with AttachedModule(core.run, "looping", "echo", ["auth"]) as module:
        time.sleep(0.5)
        assert module.initialized is None and core.state("looping") == "quarantined"
        core.ctl("module", "release", "looping")
        core.wait_ready(module)


def test_lif_4_an_attached_module_that_hangs_gets_no_more_work(core):
    with Leaving(core.run, "hanging", "echo", ["auth"]) as module:
        core.wait_ready(module)
        module.alive = False
        wait_until(lambda: any("it hangs: no answer" in step["cause"] for step in core.history("hanging")), "the probe to fail", pause_s=0.1)
        assert described(core, "hanging")["deaths"][0]["cause"] == "probe"
        module.alive = True
        core.wait_ready(module)
        module.finish.set()


# ---- what a module is told, and what it tells (LIF-2, DSC-1) ----

def test_lif_2_a_module_is_told_what_it_needs_and_nothing_of_others(core):
    with AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker:
        core.wait_ready(asker)
        told = asker.initialized
        assert (told.module_id, json.loads(told.config_json), told.spi_version) == ("asker", {"mark": "of-asker"}, "1")
        assert told.spi_socket == str(core.run / "core" / "spi" / "asker.sock") and len(told.channel_secret) == 64
        assert sorted(told.granted_families) == ["auth", "catalog"] and told.generation > 0 and told.canary_credential
        assert told.runtime_mode == asker.module.RUNTIME_MODE_SIDECAR and told.ingress_mode == asker.module.INGRESS_MODE_DIRECT
        assert told.log_level and told.in_flight_max > 0 and told.core_version
        assert b"owner" not in told.SerializeToString() and core.token.encode() not in told.SerializeToString()


def test_dsc_1_every_field_of_a_descriptor_reaches_the_operator_as_it_was_declared(core):
    with AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker:
        core.wait_ready(asker)
        shown = described(core, "asker")["descriptor"]
        declared = asker.module.ModuleDescriptor.FromString(asker.describe(b""))
        assert json_format.ParseDict(shown, asker.module.ModuleDescriptor()) == declared


# ---- requests back to the caller, in the middle of a call (SPI-9, CallerRequest and AnswerRequest) ----

ASKING = BUILD / "tests" / "asking"


@pytest.fixture
def asking(core):
    """The module in C that asks two questions for each call (tests/fixtures/asking.c)."""
    if not ASKING.exists():
        pytest.skip("not built: asking")
    (core.run / "modules" / "owner").mkdir(parents=True, exist_ok=True)
    process = Process("owner", [ASKING], core.directory, env=core.env)
    try:
        wait_until(lambda: core.state("owner") == "ready", "the module that asks", pause_s=0.05)
        yield process
    finally:
        process.stop()
        wait_until(lambda: core.state("owner") != "ready", "its end", pause_s=0.05)


def questions(call):
    """(execution id, {question: request id}) of what the call is asked first."""
    items = [next(call) for _ in range(3)]
    assert [item.WhichOneof("item") for item in items] == ["started", "request", "request"]
    assert {item.request.method for item in items[1:]} == {"elicitation/create"}
    return items[0].started.execution_id, {json.loads(item.request.params_json)["question"]: item.request.request_id for item in items[1:]}


def test_spi_9_a_call_is_answered_in_the_middle_of_it(core, asking):
    with AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker, \
            AttachedModule(core.run, "stranger", "echo", ["auth", "catalog"]) as stranger:
        core.wait_ready(asker, stranger)
        reference, foreign = asker.resolve(core.token), stranger.resolve(core.token)
        call = asker.call_tool(reference, "stream", answers=["elicitation"])
        execution, asked = questions(call)
        good = {"result_json": b'{"action":"accept"}'}
        unknown = "invoke.request.unknown"
        assert asker.answer(reference, execution, "no-such-request", **good) == unknown
        assert asker.answer(reference, "00000000-0000-4000-8000-000000000000", asked["first"], **good) == unknown
        assert asker.answer(reference, "", "", **good) == unknown
        assert stranger.answer(foreign, execution, asked["first"], **good) == unknown, "another module, of the same user"
        assert stranger.answer(reference, execution, asked["first"], **good) is not None, "a context of another module"
        assert asker.answer(reference, execution, asked["second"], **good) is None
        assert asker.answer(reference, execution, asked["second"], **good) == unknown, "answered twice"
        refusal = asker.common.ErrorEnvelope(code="call.cancelled", message="no")
        assert asker.answer(reference, execution, asked["first"], error=refusal) is None
        last = list(call)
        assert [item.WhichOneof("item") for item in last] == ["result"]
        assert json.loads(last[0].result.content_json) == [{"action": "accept"}, "call.cancelled"]
        assert asker.answer(reference, execution, asked["first"], **good) == unknown, "after the end"


def cancelled(core):
    found = re.search(r'^gatehouse_invocations_total{[^}]*outcome="cancelled"} (\d+)$', core.ctl("metrics"), re.MULTILINE)
    return int(found.group(1)) if found else 0


def test_an_answer_to_a_call_that_was_given_up_is_refused(core, asking):
    with AttachedModule(core.run, "asker", "echo", ["auth", "catalog"]) as asker:
        core.wait_ready(asker)
        reference, before = asker.resolve(core.token), cancelled(core)
        call = asker.call_tool(reference, "stream", answers=["elicitation"])
        execution, asked = questions(call)
        call.cancel()
        wait_until(lambda: cancelled(core) > before, "the end of the call")
        assert asker.answer(reference, execution, asked["first"], result_json=b"{}") == "invoke.request.unknown"
        again = asker.call_tool(reference, "stream", answers=["elicitation"])
        assert questions(again)[0] != execution
        again.cancel()

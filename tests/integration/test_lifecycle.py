"""What the core does with modules that die, hang or are told to leave (LIF-4, LIF-5, LIF-7, LIF-8), on the real stack."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import threading
import time

import pytest

from harness import ROOT, gateway as gateways
from harness.mcp import ModernMcp
from harness.processes import Stalls, end_listener, wait_until
from harness.supervised import alive

ARGUMENTS = {"value": 5, "from_unit": "km", "to_unit": "m"}


class Upstream:
    """An HTTP server that answers each request when the test lets it."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.waiting, self.go_on = 0, threading.Event()
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
            peer.recv(65536)
            self.waiting += 1
            self.go_on.wait(60)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{\"late\":true}")

    def close(self):
        self.go_on.set()
        end_listener(self.listener)


@pytest.fixture
def upstream():
    server = Upstream()
    yield server
    server.close()


def wait_state(gateway, name, state, timeout_s=20):
    def there():
        process = gateway.processes().get(name, {})
        return process.get("state") == state and process
    try:
        return wait_until(there, f"{name} to be {state}", timeout_s, pause_s=0.02)
    except AssertionError as error:
        raise AssertionError(f"{error}; now {gateway.processes().get(name)}\n{gateway.log()[-4000:]}") from None


def kill_until_quarantined(gateway, name):
    seen = None
    for _ in range(6):
        before = wait_until(lambda: (now := gateway.processes().get(name, {})).get("state") == "ready" and
                            now["generation"] != seen and now, f"{name} to be ready again", 30, pause_s=0.02)
        seen = before["generation"]
        os.kill(before["pid"], signal.SIGKILL)
    return wait_state(gateway, name, "quarantined")


def error_code(reply):
    """The stable code of a refusal, wherever the protocol's form has it."""
    found = re.search(r'"code"\s*:\s*"([a-z_.]+)"', json.dumps(reply.answer))
    assert found, reply.answer
    return found.group(1)


# ---- quarantine (LIF-8) ----

def test_lif_8_a_module_that_keeps_dying_is_held_down_until_it_is_released(start_quickstart):
    with start_quickstart() as gateway:
        token = gateway.token(gateways.GUEST, "--team", "explorers")
        first = gateway.processes()
        process = kill_until_quarantined(gateway, "rest")
        assert re.search(r"6 deaths in 60 s; last: incident after [\d.]+ s ready: signal 9 \(KILL\) \(module\.exited\)", process["reason"])
        told = gateway.describe("rest")
        assert [(death["kind"], death["cause"]) for death in told["deaths"]] == [("incident", "signal")] * 6
        assert told["deathCounts"] == [{"cause": "signal", "count": 6}]

        def refused():
            with ModernMcp(gateway.mcp_url, token) as mcp:
                return error_code(mcp.call("convert_units", ARGUMENTS))
        assert refused() == "module.quarantined"
        assert gateway.processes()["mcp"]["pid"] == first["mcp"]["pid"]
        wait_until(lambda: "6 deaths in 60 s" in gateway.ctl("events", "--tail", "200", "--output", "json").stdout,
                   "the state graph to know it", pause_s=0.1)
        refusal = gateway.ctl("module", "start", "rest", check=False)
        assert refusal.returncode == 1 and "module release" in refusal.stderr and "module.phase.wrong" in refusal.stderr

        gateway.wait_restarted(gateway.kill("core"))
        assert "6 deaths in 60 s" in wait_state(gateway, "rest", "quarantined")["reason"]
        assert gateway.stop() == 0
        gateway.start(wait=False)  # a new supervisor, which was never told
        wait_state(gateway, "mcp", "ready")
        assert "6 deaths in 60 s" in wait_state(gateway, "rest", "quarantined")["reason"]
        time.sleep(0.5)
        assert gateway.processes()["rest"].get("pid", 0) == 0 and refused() == "module.quarantined"

        gateway.ctl("module", "release", "rest")
        gateway.wait_ready()
        with ModernMcp(gateway.mcp_url, token) as mcp:
            assert mcp.call("convert_units", ARGUMENTS).result["structuredContent"]["result"] == 5000
        assert "not quarantined" in gateway.ctl("module", "release", "rest", check=False).stderr
        before = gateway.kill("rest")  # forgiven: one more death is only one
        gateway.wait_restarted(before)


def test_lif_8_clients_of_a_quarantined_module_are_answered_and_not_left_waiting(start_quickstart):
    with start_quickstart() as gateway:
        token, url = gateway.token(gateways.GUEST, "--team", "explorers"), gateway.mcp_url
        kill_until_quarantined(gateway, "mcp")
        with ModernMcp(url, token) as mcp:
            reply = mcp.call("convert_units", ARGUMENTS)
        assert reply.status == 503 and reply.error["data"] == {"code": "module.quarantined", "category": "UNAVAILABLE", "retryable": True}
        gateway.ctl("module", "release", "mcp")
        gateway.wait_ready()
        with ModernMcp(url, token) as mcp:
            assert mcp.call("convert_units", ARGUMENTS).result["structuredContent"]["result"] == 5000


def test_lif_8_the_configuration_says_how_many_deaths_are_too_many(start_quickstart):
    config = gateways.quickstart_config(rest={"quarantine": {"deaths": 0}})
    with start_quickstart(config=config) as gateway:
        for _ in range(8):
            gateway.wait_restarted(gateway.kill("rest"))
        assert gateway.processes()["rest"]["state"] == "ready"


def test_lif_8_one_that_had_been_ready_is_tried_again_by_itself_and_held_longer_when_that_fails(start_quickstart):
    config = gateways.quickstart_config(rest={"quarantine": {"deaths": 1, "window_ms": 5000, "retry_ms": 3000}})
    with start_quickstart(config=config) as gateway:
        def kill_when_ready(after=0):
            before = wait_until(lambda: (now := gateway.processes()["rest"])["state"] == "ready" and int(now["generation"]) > after and now,
                                "rest to be ready", 30, pause_s=0.02)
            os.kill(before["pid"], signal.SIGKILL)
            return int(before["generation"])

        def pause_ms():
            return int(gateway.describe("rest")["quarantine"]["pauseMs"])
        generation = kill_when_ready(kill_when_ready())
        held = wait_state(gateway, "rest", "quarantined")
        assert re.search(r"2 deaths in 5 s.*; a trial start in [0-3] s", held["reason"]) and pause_ms() == 3000
        generation = kill_when_ready(generation)  # on trial one is enough
        assert "failed again after its quarantine" in wait_state(gateway, "rest", "quarantined")["reason"] and pause_ms() == 6000
        assert "until a trial start at" in gateway.ctl("module", "describe", "rest").stdout
        gateway.wait_restarted(gateway.kill("core"))  # which remembers the pause, and when it ends
        assert pause_ms() == 6000
        process = wait_until(lambda: (now := gateway.processes().get("rest", {})).get("state") == "ready" and now, "the second trial", 20,
                             pause_s=0.02)
        told = gateway.describe("rest")
        assert told["quarantine"]["onTrial"] and any(step["cause"] == "started on trial" for step in told["history"])
        assert "on trial: one more death" in gateway.ctl("module", "describe", "rest").stdout
        gateway.wait_restarted(gateway.kill("core"))  # and that it is on trial
        assert gateway.describe("rest").get("quarantine", {}).get("onTrial"), (gateway.describe("rest"), gateway.log()[-6000:])
        wait_until(lambda: "quarantine" not in gateway.describe("rest"), "the trial to be over", 20, pause_s=0.1)
        assert gateway.processes()["rest"]["pid"] == process["pid"]
        gateway.wait_restarted(gateway.kill("rest"))  # all is forgotten: one death is only one


def test_lif_8_one_that_never_was_ready_waits_for_an_operator():
    config = gateways.quickstart_config(rest={"quarantine": {"deaths": 2, "retry_ms": 200}})
    config["modules"].append({"id": "never", "binary": "/bin/false", "quarantine": {"deaths": 2, "retry_ms": 200}})
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    with gateways.Gateway(config=config, wait=False) as gateway:
        assert "held until it is released" in wait_state(gateway, "never", "quarantined", 30)["reason"]
        generation = gateway.processes()["never"]["generation"]
        assert "pauseMs" not in gateway.describe("never")["quarantine"]
        for _ in range(3):  # the other one is held and comes back in the meantime
            before = wait_state(gateway, "rest", "ready")
            os.kill(before["pid"], signal.SIGKILL)
            gateway.wait_restarted(before)
        assert any(step["cause"] == "started on trial" for step in gateway.describe("rest")["history"])
        now = gateway.processes()["never"]
        assert (now["state"], now["generation"]) == ("quarantined", generation)
        assert "until `gatehouse module release`" in gateway.ctl("module", "describe", "never").stdout


# ---- drain, stop, start, restart (LIF-5) ----

@pytest.mark.parametrize("order,after", [("restart", "ready"), ("stop", "stopped"), ("drain", "draining")])
def test_lif_5_what_is_in_flight_is_finished_first(start_quickstart, upstream, order, after):
    with start_quickstart(config=gateways.quickstart_config(rest={"drain_timeout_ms": 60000})) as gateway:
        gateway.apply("---\nkind: Tool\nmetadata: {name: late, visibility: public, owner: admin@example.com}\n"
                      "spec:\n  inputSchemaJson: {type: object}\n  timeoutMs: 30000\n"
                      f"  rest: {{method: GET, url: 'http://127.0.0.1:{upstream.port}/late', "
                      f"egress: {{allow: ['127.0.0.1:{upstream.port}'], schemes: [http]}}}}\n")
        token, replies = gateway.token(gateways.GUEST, "--team", "explorers"), []

        def call():
            with ModernMcp(gateway.mcp_url, token) as mcp:
                replies.append(mcp.call("late"))
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        wait_until(lambda: upstream.waiting == 1, "the upstream to be called")
        before = gateway.processes()["rest"]
        gateway.ctl("module", order, "rest")
        draining = wait_until(lambda: (now := gateway.processes()["rest"])["state"] == "draining" and now.get("inFlight") == 1 and now,
                              "the drain to show what is in flight", pause_s=0.02)
        assert "1 in flight" in draining["reason"] and f"{order} ordered by an operator" in draining["reason"]
        with ModernMcp(gateway.mcp_url, token) as mcp:
            refused = mcp.call("convert_units", ARGUMENTS)
        assert error_code(refused) in ("invoke.module.unavailable", "module.stopped"), refused.answer
        upstream.go_on.set()
        thread.join(20)
        assert replies and not replies[0].result.get("isError"), replies
        now = wait_state(gateway, "rest", after)
        if order == "restart":
            assert int(now["generation"]) > int(before["generation"])
            assert "stopping" in [step["toState"] for step in gateway.describe("rest")["history"]]
        elif order == "stop":
            now = wait_until(lambda: "pid" not in (process := gateway.processes()["rest"]) and process, "its end, after that of its connection")
            assert now["state"] == "stopped" and "by an operator" in now["reason"]
        else:
            wait_until(lambda: "nothing in flight" in gateway.processes()["rest"]["reason"], "the drain to end")
            assert gateway.processes()["rest"]["pid"] == before["pid"]
        assert not gateway.describe("rest").get("deaths")
        if order != "restart":
            gateway.ctl("module", "start", "rest")
            assert int(wait_state(gateway, "rest", "ready")["generation"]) > int(before["generation"])
        with ModernMcp(gateway.mcp_url, token) as mcp:
            assert mcp.call("convert_units", ARGUMENTS).result["structuredContent"]["result"] == 5000


def test_lif_5_a_deadline_ends_the_drain_and_the_process(start_quickstart, upstream):
    with start_quickstart(config=gateways.quickstart_config(rest={"stop_grace_ms": 60000})) as gateway:
        gateway.apply("---\nkind: Tool\nmetadata: {name: late, visibility: public, owner: admin@example.com}\n"
                      "spec:\n  inputSchemaJson: {type: object}\n  timeoutMs: 30000\n"
                      f"  rest: {{method: GET, url: 'http://127.0.0.1:{upstream.port}/late', "
                      f"egress: {{allow: ['127.0.0.1:{upstream.port}'], schemes: [http]}}}}\n")
        token, replies = gateway.token(gateways.GUEST, "--team", "explorers"), []

        def call():
            with ModernMcp(gateway.mcp_url, token) as mcp:
                replies.append(mcp.call("late"))
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        wait_until(lambda: upstream.waiting == 1, "the upstream to be called")
        before, began = gateway.processes()["rest"], time.monotonic()
        gateway.ctl("module", "restart", "rest", "--drain", "300ms")
        gateway.wait_restarted(before)
        assert 0.3 <= time.monotonic() - began < 20  # neither for its call nor to be killed
        thread.join(10)
        assert replies and error_code(replies[0])
        assert any("the drain deadline passed, 1 in flight" in step["cause"] for step in gateway.describe("rest")["history"])


def test_lif_5_a_module_that_does_not_drain_is_ended_all_the_same(start_quickstart):
    config = gateways.quickstart_config(rest={"stop_grace_ms": 300, "probes": {"liveness": {"interval_ms": 0}}})
    with start_quickstart(config=config) as gateway:
        before = gateway.kill("rest", signal.SIGSTOP)
        gateway.ctl("module", "restart", "rest", "--drain", "200ms")
        gateway.wait_restarted(before)
        history = gateway.describe("rest")["history"]
        assert any("it did not drain" in step["cause"] and step["toState"] == "stopping" for step in history), history


def test_a_stop_outlives_the_core_and_other_orders_are_refused(start_quickstart):
    with start_quickstart() as gateway:
        assert "is running" in gateway.ctl("module", "start", "rest", check=False).stderr
        gateway.ctl("module", "stop", "rest")
        wait_state(gateway, "rest", "stopped")
        for order, said in (("stop", "stopped already"), ("restart", "start it"), ("drain", "not serving"), ("release", "not quarantined")):
            out = gateway.ctl("module", order, "rest", check=False)
            assert out.returncode == 1 and said in out.stderr and "module.phase.wrong" in out.stderr
        gateway.wait_restarted(gateway.kill("core"))
        wait_state(gateway, "rest", "stopped")
        gateway.ctl("module", "start", "rest")
        gateway.wait_ready()


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_a_program_that_was_replaced_on_disk_is_the_one_that_starts(start_quickstart, tmp_path, how):
    program = tmp_path / "gatehouse-rest"
    shutil.copy2(gateways.BIN / "gatehouse-rest", program)
    with start_quickstart(config=gateways.quickstart_config(rest={"binary": str(program)})) as gateway:
        first = gateway.processes()["rest"]
        assert os.stat(f"/proc/{first['pid']}/exe").st_ino == program.stat().st_ino
        fresh = tmp_path / "fresh"
        shutil.copy2(program, fresh)
        fresh.rename(program)
        if how == "restart":
            gateway.ctl("module", "restart", "rest")
        else:
            gateway.kill("rest")
        second = gateway.wait_restarted(first)
        assert os.stat(f"/proc/{second['pid']}/exe").st_ino == program.stat().st_ino
        assert "another program is in the place of a module's" in gateway.log()
        token = gateway.token(gateways.GUEST, "--team", "explorers")
        with ModernMcp(gateway.mcp_url, token) as mcp:
            assert mcp.call("convert_units", ARGUMENTS).result["structuredContent"]["result"] == 5000
        if os.geteuid() != 0:
            return  # only a view of the files remembers
        program.unlink()  # half of an exchange: what was there is still to be had
        third = gateway.wait_restarted(gateway.kill("rest"))
        assert int(third["generation"]) > int(second["generation"])


# ---- probes (LIF-4) and last words ----

QUICK = {"interval_ms": 200, "timeout_ms": 1000, "failures": 2}
TRACE_S = 0.5  # that one that hangs has for its last words


def test_lif_4_a_module_that_hangs_is_found_says_where_and_is_back(start_quickstart):
    config = gateways.quickstart_config(mcp={"probes": {"liveness": QUICK}})
    with start_quickstart(config=config) as gateway:
        with Stalls() as stalls:
            before, began = gateway.kill("mcp", signal.SIGSTOP), time.monotonic()
            after = gateway.wait_restarted(before)
            stalled_s = stalls.between(began, time.monotonic())
        death = gateway.describe("mcp")["deaths"][0]
        assert death["cause"] == "probe" and death["kind"] == "incident"
        assert "no answer to 2 liveness probes" in death["detail"] and "module.probe.failed" in death["detail"]
        assert any("gatehouse-mcp+0x" in line for line in death["lastWords"]) or not gateways_have_stacks() or stalled_s > TRACE_S, death
        assert "6" in after["lastExit"] or "9" in after["lastExit"]
        token = gateway.token(gateways.GUEST, "--team", "explorers")
        with ModernMcp(gateway.mcp_url, token) as mcp:
            assert "world_time" in mcp.tools()


def test_lif_4_the_first_missing_answer_shows_at_once_and_a_paused_module_is_ready_again(start_quickstart):
    config = gateways.quickstart_config(mcp={"probes": {"liveness": {"interval_ms": 200, "timeout_ms": 300, "failures": 1000},
                                         "readiness": {"interval_ms": 0}}})
    with start_quickstart(config=config) as gateway:
        before = gateway.kill("mcp", signal.SIGSTOP)
        process = wait_state(gateway, "mcp", "degraded")
        assert re.search(r"no answer in 300 ms to \d+ liveness probes? in a row \(module\.probe\.failed\)", process["reason"])
        status = gateway.ctl("status", check=False)
        assert status.returncode == 3 and "no answer in 300 ms" in status.stdout
        os.kill(before["pid"], signal.SIGCONT)
        after = wait_state(gateway, "mcp", "ready")
        assert (after["generation"], after["pid"]) == (before["generation"], before["pid"])
        assert "deaths" not in gateway.describe("mcp")


def test_lif_4_a_module_that_hangs_is_gone_in_eight_seconds_by_default(start_quickstart):
    def default(key):
        line = re.search(rf"^.*`probes.liveness.{key}`.*$", (ROOT / "docs" / "configuration.md").read_text(), re.M)[0]
        return int(line.split("|")[3].strip(" `"))
    with start_quickstart() as gateway:
        before, began = gateway.kill("mcp", signal.SIGSTOP), time.monotonic()
        wait_until(lambda: not alive(before["pid"]), "a hanging module to be killed", pause_s=0.02)
        assert time.monotonic() - began < 16  # twice, for a machine that stalls
        gateway.wait_restarted(before)
        death = gateway.describe("mcp")["deaths"][0]
        assert death["cause"] == "probe" and f"no answer to {default('failures')} liveness probes" in death["detail"]
        assert default("failures") * (default("interval_ms") + default("timeout_ms")) / 1000 + TRACE_S <= 8


def test_lif_8_a_module_that_hangs_while_the_core_is_replaced_is_an_incident(start_quickstart):
    """What the core that is gone saw counts: such a death is no late start, and two of them are no quarantine."""
    config = gateways.quickstart_config(mcp={"start_timeout_ms": 4000})
    with start_quickstart(config=config) as gateway:
        for _ in range(2):
            before = gateway.kill("mcp", signal.SIGSTOP)
            gateway.wait_restarted(gateway.kill("core"))
            gateway.wait_restarted(before)
            death = gateway.describe("mcp")["deaths"][0]
            assert (death["generation"], death["kind"], death["cause"]) == (before["generation"], "incident", "probe"), death
            assert int(death["readyMs"]) > 0 and "not ready in time" in death["detail"]


def gateways_have_stacks():
    """Not where a sanitizer's runtime reports instead."""
    return b"__asan_init" not in (gateways.BIN / "gatehouse-mcp").read_bytes()


def test_lif_4_a_module_that_does_not_answer_is_degraded_with_its_reason_and_comes_back(start_quickstart):
    config = gateways.quickstart_config(rest={"probes": {"liveness": {"interval_ms": 0}, "readiness": QUICK}})
    with start_quickstart(config=config) as gateway:
        before = gateway.kill("rest", signal.SIGSTOP)
        process = wait_state(gateway, "rest", "degraded")
        assert "no answer to 2 readiness probes in a row (module.probe.failed)" in process["reason"]
        status = gateway.ctl("status", check=False)
        assert status.returncode == 3 and "no answer to 2 readiness probes" in status.stdout
        os.kill(before["pid"], signal.SIGCONT)
        assert wait_state(gateway, "rest", "ready")["generation"] == before["generation"]


def test_a_crash_leaves_its_stack_for_the_operator(own_gateway):
    if not gateways_have_stacks():
        pytest.skip("a sanitizer's runtime reports instead")
    own_gateway.wait_restarted(own_gateway.kill("mcp", signal.SIGSEGV))
    death = own_gateway.describe("mcp")["deaths"][0]
    assert (death["kind"], death["cause"]) == ("incident", "signal")
    words = death["lastWords"]
    assert any("signal 11 (SEGV), sent" in line for line in words) and any("gatehouse-mcp+0x" in line for line in words), words
    shown = own_gateway.ctl("module", "describe", "mcp").stdout
    assert re.search(r"incident +signal", shown) and "last words of generation" in shown and "gatehouse-mcp+0x" in shown
    own_gateway.wait_restarted(own_gateway.kill("core", signal.SIGSEGV))
    assert re.search(r'"process":"core","room":"crash","stack":"[^"]*gatehouse-core\+0x', own_gateway.log())


def test_the_status_waits_for_no_module_that_is_stopped(own_gateway):
    """Not for its probe's answer (1.5 s), nor for its numbers (2 s): it says what is known."""
    before = own_gateway.processes()
    os.kill(before["rest"]["pid"], signal.SIGSTOP)
    took = []
    while own_gateway.processes()["rest"]["generation"] == before["rest"]["generation"]:  # until it is given up
        for words in (["status"], ["module", "list"], ["module", "describe", "rest"], ["metrics"]):
            began = time.monotonic()
            own_gateway.ctl(*words, check=False)
            took.append(time.monotonic() - began)
    slow = [one for one in took if one > 1]  # by a stall of the machine, hardly ever; else one in four or more of what is asked
    assert len(took) > 8 and len(slow) <= max(1, len(took) // 10), took


def test_lif_5_a_module_that_is_told_to_end_leaves_before_it_is_killed(start_quickstart, upstream):
    """With a call in flight that does not end: it is given up within nine tenths of the grace."""
    config = gateways.quickstart_config(rest={"stop_grace_ms": 6000}, mcp={"stop_grace_ms": 6000})
    with start_quickstart(config=config) as gateway:
        gateway.apply("---\nkind: Tool\nmetadata: {name: late, visibility: public, owner: admin@example.com}\n"
                      "spec:\n  inputSchemaJson: {type: object}\n  timeoutMs: 30000\n"
                      f"  rest: {{method: GET, url: 'http://127.0.0.1:{upstream.port}/late', "
                      f"egress: {{allow: ['127.0.0.1:{upstream.port}'], schemes: [http]}}}}\n")
        token = gateway.token(gateways.GUEST, "--team", "explorers")

        def call():
            try:
                with ModernMcp(gateway.mcp_url, token) as mcp:
                    mcp.call("late")
            except (OSError, ValueError, AssertionError):
                pass  # the door closes under it
        threading.Thread(target=call, daemon=True).start()
        wait_until(lambda: upstream.waiting == 1, "the upstream to be called")
        assert gateway.process.stop(grace_s=40) == 0
        ended = [json.loads(line) for line in gateway.log().splitlines() if '"message":"ended"' in line]
        assert {one["module"]: one["signal"] for one in ended} == {"rest": 0, "mcp": 0, "core": 0}


def test_no_thread_of_the_core_blocks_the_signal_of_its_own_crash(own_gateway):
    crashes = sum(1 << number - 1 for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS))
    folder = f"/proc/{own_gateway.processes()['core']['pid']}/task"
    blocked = {}
    for thread in os.listdir(folder):
        with contextlib.suppress(OSError):  # some come and go
            with open(f"{folder}/{thread}/status", encoding="utf-8") as lines:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in lines if ":\t" in line)
            blocked[fields["Name"]] = int(fields["SigBlk"], 16)
    assert len(blocked) >= 3 and not any(mask & crashes for mask in blocked.values()), blocked
    assert any(mask >> signal.SIGTERM - 1 & 1 for mask in blocked.values())  # which is for one of them only

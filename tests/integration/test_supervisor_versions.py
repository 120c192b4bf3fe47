"""The second process of a module, as the supervisor keeps it for upgrades (LIF-9): staged, promoted, retired."""
import os
import shutil
import signal
import socket

import pytest

from harness.processes import wait_until
from harness.supervised import (CHILD, DOWN, HELD, MISSING, NOW, RUNNING, SIGNAL, STALE, STAY_DOWN, STOPPED, Stack, UNKNOWN_MODULE, UP,
                                alive, ask, module)

pytestmark = pytest.mark.skipif(MISSING, reason="not built")
INVALID, PROGRAM = 7, 8
CURRENT, CANDIDATE, RETIRED = 1, 2, 3


def other_program(stack):
    path = stack.directory / "other"
    shutil.copy2(CHILD, path)
    return path


def start(core, process):
    spawned = core.start(process)
    assert core.until("Notified", module_id=process)["ready"] == 1
    return spawned


def stage(core, process, program, of="web"):
    core.order(f"stage {of} {process} {program}")
    while (answer := core.next())["body"] not in ("Accepted", "Refused"):
        pass
    return answer.get("reason")


def serving(*steps):
    return module("web", "report", "report", "ready", *steps, listeners=["web"])


def test_lif_9_a_second_process_has_the_same_listener_and_configuration_and_sockets_of_its_own():
    with Stack([module("web", "report", "report", "ready", "serve", listeners=["web"], env={"EXTRA": "yes"},
                       rlimits={"open_files": 77})]) as stack:
        core = stack.core()
        first = start(core, "web")
        program = other_program(stack)
        assert stage(core, "web@2", program) is None
        told = core.until("ConfiguredModule")
        assert (told["module_id"], told["process_of"], told["binary"]) == ("web@2", "web", str(program))
        assert told["listener.web"] == stack.port(core)
        second = start(core, "web@2")
        assert second["generation"] > first["generation"]
        report = stack.read("run/modules/web@2/report")
        env = dict(item.split("=", 1) for item in report["env"])
        assert (env["GATEHOUSE_MODULE_ID"], env["EXTRA"], env["LISTEN_FDNAMES"]) == ("web", "yes", "web")
        assert env["GATEHOUSE_RUNTIME_SOCKET"] == f"{stack.run}/modules/web@2/runtime.sock"
        assert env["GATEHOUSE_SPI_SOCKET"] == f"{stack.run}/core/spi/web@2.sock"
        assert report["files"] == ["77"]
        assert os.readlink(f"/proc/{second['pid']}/exe") == str(program)
        port = stack.port(core)
        wait_until(lambda: {ask(port) for _ in range(50)} == {first["pid"], second["pid"]}, "both to accept")
        listed = core.processes()
        assert [(listed[name]["role"], listed[name]["state"]) for name in ("web", "web@2")] == [(CURRENT, UP), (CANDIDATE, UP)]
        assert listed["web@2"]["program"] == str(program) and listed["web"]["program"] == ""
        os.kill(second["pid"], signal.SIGKILL)
        died = core.until("Exited", module_id="web@2")
        assert (died["cause"], died["next_step"]) == (SIGNAL, STAY_DOWN)  # a candidate gets no second chance by itself
        assert {ask(port) for _ in range(10)} == {first["pid"]}
        assert stack.process.stop() == 0


def test_lif_9_the_promoted_program_is_restarted_and_the_retired_one_is_not():
    with Stack([serving("serve")]) as stack:
        core = stack.core()
        first = start(core, "web")
        stage(core, "web@2", other_program(stack))
        second = start(core, "web@2")
        core.order("promote web@2")
        core.until("Accepted")
        listed = core.processes()
        assert (listed["web"]["role"], listed["web@2"]["role"]) == (RETIRED, CURRENT)
        assert listed["web"]["pid"] == first["pid"]  # it goes on until it is stopped
        core.order(f"stop web {first['generation']} 1000")
        assert core.until("Exited", module_id="web")["next_step"] == STAY_DOWN
        core.order(f"module_ready web@2 {second['generation']}")
        os.kill(second["pid"], signal.SIGKILL)
        assert core.until("Exited", module_id="web@2")["next_step"] == NOW
        again = core.until("Spawned", module_id="web@2")
        assert os.readlink(f"/proc/{again['pid']}/exe") == str(stack.directory / "other")
        core.order("start web")
        assert core.until("Refused")["reason"] == HELD
        assert stage(core, "web", "-") is None  # and back: the first one, as configured
        third = start(core, "web")
        assert os.readlink(f"/proc/{third['pid']}/exe") == os.path.realpath(CHILD)
        core.order("promote web")
        core.until("Accepted")
        assert {name: core.processes()[name]["role"] for name in ("web", "web@2")} == {"web": CURRENT, "web@2": RETIRED}
        assert stack.process.stop() == 0


def test_lif_9_a_new_core_hears_of_the_second_process():
    with Stack([serving("serve"), module("plain", "ready", "sleep")]) as stack:
        core = stack.core()
        start(core, "web")
        stage(core, "web@2", other_program(stack))
        second = start(core, "web@2")
        core.order(f"module_ready web@2 {second['generation']} 7")
        core.order("promote web@2")
        core.until("Accepted")
        assert (core.processes()["web@2"]["config"], core.processes()["web"]["config"]) == (7, 0)
        core.order("exit 1")
        core = stack.core()
        assert core.modules["web@2"]["process_of"] == "web" and core.modules["web"]["process_of"] == ""
        entry = core.list["web@2"]
        assert entry["config"] == 7  # the revision that it became ready with, until it dies
        assert (entry["pid"], entry["role"], entry["program"]) == (second["pid"], CURRENT, str(stack.directory / "other"))
        assert (core.list["web"]["role"], core.list["plain"]["role"], core.list["core"]["role"]) == (RETIRED, CURRENT, 0)
        assert stack.process.stop() == 0
        assert not alive(second["pid"])


def test_clients_of_a_held_module_are_refused_although_it_has_a_second_process_that_is_down():
    with Stack([serving("serve")]) as stack:
        core = stack.core()
        first = start(core, "web")
        stage(core, "web@2", other_program(stack))
        second = start(core, "web@2")
        core.order(f"stop web@2 {second['generation']} 1000")
        assert core.until("Exited", module_id="web@2")["cause"] == STOPPED
        core.order("refuse web 1 module.quarantined")
        core.until("Accepted")
        core.order(f"kill web {first['generation']}")
        core.until("Exited", module_id="web")
        wait_until(lambda: core.processes()["web"]["state"] == DOWN, "it to be down")
        with socket.create_connection(("127.0.0.1", stack.port(core)), timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"503" in client.recv(4096)
        assert stack.process.stop() == 0


@pytest.mark.parametrize("of, process, program, reason", [
    ("nosuch", "nosuch@2", "other", UNKNOWN_MODULE), ("core", "core@2", "other", UNKNOWN_MODULE),
    ("web", "web@3", "other", INVALID), ("web", "plain", "other", INVALID), ("web", "web@2@2", "other", INVALID),
    ("web@2", "web@2", "other", UNKNOWN_MODULE), ("web", "web", "other", RUNNING),
    ("web", "web@2", "nosuch", PROGRAM), ("web", "web@2", "plain.txt", PROGRAM), ("web", "web@2", ".", PROGRAM)])
def test_what_cannot_be_staged_is_refused_and_changes_nothing(of, process, program, reason):
    with Stack([serving("serve"), module("plain", "ready", "sleep")]) as stack:
        core = stack.core()
        first = start(core, "web")
        other_program(stack)
        (stack.directory / "plain.txt").write_text("no program")
        assert stage(core, process, stack.directory / program, of) == reason
        listed = core.processes()
        assert set(listed) == {"core", "web", "plain"} and listed["web"]["pid"] == first["pid"] and listed["web"]["role"] == CURRENT
        core.order("promote nosuch")
        assert core.until("Refused")["reason"] == UNKNOWN_MODULE
        core.order("stop web 1 0")
        assert core.until("Refused")["reason"] == STALE
        assert stack.process.stop() == 0


def test_a_process_can_be_staged_again_and_again():
    with Stack([serving("serve")]) as stack:
        core = stack.core()
        start(core, "web")
        program = other_program(stack)
        descriptors = None
        for _ in range(20):
            assert stage(core, "web@2", program) is None
            second = start(core, "web@2")
            core.order(f"kill web@2 {second['generation']}")
            core.until("Exited", module_id="web@2")
            core.processes()  # it has done with the death, of which it told in the middle
            supervisor = os.readlink(f"/proc/{stack.process.child.pid}/cwd") and len(os.listdir(f"/proc/{stack.process.child.pid}/fd"))
            descriptors = descriptors or supervisor
        assert supervisor == descriptors  # none is left behind
        assert stack.process.stop() == 0

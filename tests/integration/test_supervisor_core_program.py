"""Another program in the core's place, as the supervisor does it (LIF-9, LIF-10, LIF-12): exchanged, watched, kept or taken back, and
remembered. The core is a double that says what the test wants; the real one is in test_core_upgrade.py."""
import os
import re
import shutil
import signal
import subprocess

import pytest

from harness.processes import Process, wait_until
from harness.supervised import CLEAN, FAKE_CORE, MISSING, NOT_RUNNING, RUNNING, START_TIMEOUT, STATUS, Stack, alive, ask, module

pytestmark = pytest.mark.skipif(MISSING, reason="not built")
PROGRAM, UNWRITTEN = 8, 9
NONE, NEW_STARTING, PROBATION, CONFIRMING, KEPT, TAKEN_BACK = range(6)  # CoreChange
OPEN = {"sandbox": {"seccomp": False, "landlock": False}}  # wrappers execute what no profile names


def stacked(**core):
    return Stack([module("web", "ready", "serve", listeners=["web"])], core={**OPEN, "upgrade": {"modules_ms": 500}, **core})


def program(stack, name, script=None):
    path = stack.directory / name
    if script is None:
        shutil.copy2(FAKE_CORE, path)
    else:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return str(path)


def replace(core, path, probation_ms=0, final=0, before=()):
    """The reason of a refusal; None: accepted. before: orders that the core carries out in the same breath."""
    core.order("\n".join([*before, f"replace {path} {probation_ms} {final}"]))
    while (answer := core.next())["body"] not in ("Accepted", "Refused"):
        pass
    return answer.get("reason")


def executable(core_pid):
    return os.readlink(f"/proc/{core_pid}/exe")


def pid_of(core):
    return core.processes()["core"]["pid"]


def kept(stack):
    path = stack.directory / "state" / "core.program"
    return path.read_text().splitlines()[0] if path.exists() else None


def confirmed(core):
    core.until("CoreProgram", change=CONFIRMING)
    core.order("holds 1")
    told = core.until("CoreProgram")
    assert told["change"] == KEPT, told
    return told


def test_lif_9_the_core_is_replaced_in_place_and_the_new_program_is_kept():
    with stacked() as stack:
        old = stack.core()
        old.start("web")
        old.until("Notified", module_id="web")
        path, first = program(stack, "core2"), old.hello["core_generation"]
        port, web = stack.port(old), old.processes()["web"]["pid"]
        assert old.hello["change"] == NONE and replace(old, path, 200) is None
        assert old.gone()
        new = stack.core()
        assert (new.hello["change"], new.hello["to_program"], new.hello["program"]) == (NEW_STARTING, path, path)
        assert new.hello["core_generation"] > first and executable(pid_of(new)) == path
        assert new.list["web"]["pid"] == web == ask(port)  # a module goes on
        assert kept(stack) is None
        told = confirmed(new)
        assert told["why"] == "held for 200 ms" and told["changed_generation"] == new.hello["core_generation"]
        assert kept(stack) == path
        new.order("exit 3")  # from now on it is the core's program, like any
        assert executable(pid_of(again := stack.core())) == path and again.hello["change"] == KEPT
        # and back to what is configured
        assert replace(again, "-") is None
        back = stack.core()
        confirmed(back)
        assert executable(pid_of(back)) == os.path.realpath(FAKE_CORE) and kept(stack) == ""
        assert stack.process.stop() == 0
        assert not alive(web)


@pytest.mark.parametrize("script, why, timeout", [
    ("exit 100", "ended by status 100", 60000), ("exit 111", "ended by status 111", 60000), ("exit 125", "ended by status 125", 60000),
    ("kill -9 $$", "ended by signal 9", 60000), ("exec sleep 1000", "not ready in its start timeout", 2500)])
def test_lif_9_a_core_that_does_not_become_ready_is_taken_back(script, why, timeout):
    with stacked(start_timeout_ms=timeout) as stack:
        old = stack.core()
        assert replace(old, program(stack, "bad", script), 60000) is None
        back = stack.core()
        assert back.hello["change"] == TAKEN_BACK and why in back.hello["why"] and back.hello["program"] == ""
        assert back.hello["changed_generation"] > old.hello["core_generation"]
        assert executable(pid_of(back)) == os.path.realpath(FAKE_CORE) and kept(stack) is None
        assert stack.process.stop() == 0


def end_by(order):
    return lambda stack, core: core.order(order)


@pytest.mark.parametrize("probation, deed, why", [
    (60000, end_by("exit 0"), "ended by status 0 on probation"), (60000, end_by("exit 125"), "ended by status 125 on probation"),
    (60000, end_by("abort"), "ended by signal 6 on probation"), (60000, end_by("holds 0 modules are missing"), "modules are missing"),
    (60000, end_by("hangup"), "ended by status 0"), (0, end_by("exit 1"), "at the end of its probation"),
    (0, end_by("holds 0 modules are missing"), "modules are missing")],
    ids=["leaves", "says never again", "crashes", "gives up", "hangs up", "dies when asked", "says no when asked"])
def test_lif_9_a_core_that_does_not_hold_its_probation_is_taken_back(probation, deed, why):
    with stacked() as stack:
        old = stack.core()
        assert replace(old, program(stack, "core2"), probation) is None
        new = stack.core()
        new.until("CoreProgram", change=PROBATION if probation else CONFIRMING)  # it was seen ready
        deed(stack, new)
        back = stack.core()
        assert back.hello["change"] == TAKEN_BACK and why in back.hello["why"], back.hello
        assert executable(pid_of(back)) == os.path.realpath(FAKE_CORE) and kept(stack) is None
        back.order("exit 1")  # an incident of the program before is one as ever
        assert stack.core().hello["change"] == TAKEN_BACK
        assert stack.process.stop() == 0


def test_lif_9_a_core_that_hangs_on_probation_is_taken_back():
    with stacked(watchdog_ms=300) as stack:
        old, path = stack.core(ready=False), program(stack, "core2")
        assert replace(old, path, 60000, before=("ready", "heartbeat")) is None
        new = stack.core()  # which never gives a sign of life
        back = stack.core(ready=False)
        assert back.hello["change"] == TAKEN_BACK and "no sign of life" in back.hello["why"]
        assert new.gone()
        assert stack.process.stop() == 0


def test_lif_9_a_core_that_does_not_answer_whether_it_can_stay_is_taken_back():
    with stacked(upgrade={"modules_ms": 100}) as stack:
        old = stack.core()
        assert replace(old, program(stack, "core2"), 100) is None
        stack.core()
        back = stack.core()  # after five seconds of patience
        assert back.hello["change"] == TAKEN_BACK and "did not answer" in back.hello["why"]
        assert stack.process.stop() == 0


def test_lif_9_the_way_back_allocates_nothing():
    if not shutil.which("strace") or os.geteuid() != 0:
        pytest.skip("needs strace and root")
    with stacked() as stack:
        core, path = stack.core(), program(stack, "core2")
        for traced in (False, True):  # once before: tables of the event loop have grown to their size
            assert replace(core, path, 60000) is None
            new, trace = stack.core(), stack.directory / "trace"
            pid = pid_of(new)
            with subprocess.Popen(["strace", "-o", trace, "-p", str(stack.process.pid)], stderr=subprocess.PIPE, text=True) as tracer:
                if "attached" not in tracer.stderr.readline():
                    pytest.skip("this machine does not let us trace")
                os.kill(pid, signal.SIGKILL)
                core = stack.core()
                tracer.send_signal(signal.SIGINT)
            assert core.hello["change"] == TAKEN_BACK
            calls = re.findall(r"^(\w+)\(", trace.read_text(), re.MULTILINE)
            assert calls.count("clone") == 1, calls
            assert not traced or not {"brk", "mmap", "munmap", "mremap", "fork", "vfork", "open", "openat"} & set(calls), calls
        assert stack.process.stop() == 0


def test_a_word_that_it_can_stay_counts_only_when_it_was_asked():
    with stacked() as stack:
        old = stack.core()
        assert replace(old, program(stack, "core2"), 60000) is None
        new = stack.core()
        new.order("holds 1")
        new.processes()
        assert kept(stack) is None
        new.order("exit 1")
        assert stack.core().hello["change"] == TAKEN_BACK


def test_what_cannot_take_its_place_is_refused_and_changes_nothing():
    with stacked() as stack:
        core = stack.core(ready=False)
        path = program(stack, "core2")
        assert replace(core, path) == NOT_RUNNING
        core.order("ready")
        (stack.directory / "plain.txt").write_text("no program")
        for name in ("nosuch", "plain.txt", "."):
            assert replace(core, stack.directory / name) == PROGRAM
        state = stack.directory / "state"
        shutil.rmtree(state)
        state.write_text("")  # a file in the way: nothing can be written down
        assert replace(core, path, 0, final=1) == UNWRITTEN
        state.unlink()
        state.mkdir(mode=0o700)
        assert replace(core, path, 60000) is None
        new = stack.core()
        assert replace(new, path) == RUNNING  # one is under way
        stack.process.child.send_signal(signal.SIGHUP)
        stack.config.write_text(stack.config.read_text() + " ")
        wait_until(lambda: "the core is being upgraded; ask again" in stack.log(), "the reload to be refused")
        assert stack.process.stop() == 0


def test_a_program_without_a_way_back_is_kept_from_the_start():
    with stacked() as stack:
        old = stack.core()
        path = program(stack, "core2", f'test -e {stack.directory}/broken && exit 111\nexec {FAKE_CORE} "$@"')
        (stack.directory / "broken").touch()
        assert replace(old, path, 60000, final=1) is None
        wait_until(lambda: '"status":111' in stack.log(), "the new one to fail")
        assert kept(stack) == path
        (stack.directory / "broken").unlink()  # the new program is tried again and again; the old one could not run any more
        new = stack.core()
        assert (new.hello["change"], new.hello["program"]) == (KEPT, path) and "no way back" in new.hello["why"]
        assert stack.process.stop() == 0


def restarted(stack):
    stack.process = Process("supervisor", stack.arguments, stack.directory, env=stack.env)
    return stack.core()


def test_lif_13_a_later_supervisor_starts_what_was_kept_unless_the_configuration_changed():
    with stacked() as stack:
        old = stack.core()
        path = program(stack, "core2")
        assert replace(old, path) is None
        confirmed(stack.core())
        stack.process.child.kill()
        stack.process.child.wait()
        core = restarted(stack)
        assert core.hello["program"] == path and executable(pid_of(core)) == path and core.hello["change"] == NONE
        assert stack.process.stop() == 0
        os.rename(path, path + ".gone")  # what is not there cannot be started
        core = restarted(stack)
        assert core.hello["program"] == "" and executable(pid_of(core)) == os.path.realpath(FAKE_CORE)
        assert "cannot be executed" in stack.log() and stack.process.stop() == 0
        os.rename(path + ".gone", path)
        third = program(stack, "core3")
        stack.config.write_text(stack.config.read_text().replace(str(FAKE_CORE), third))
        core = restarted(stack)
        assert core.hello["program"] == "" and executable(pid_of(core)) == third
        assert stack.process.stop() == 0


def test_lif_13_a_supervisor_that_dies_on_probation_leaves_the_program_before():
    with stacked() as stack:
        old = stack.core()
        assert replace(old, program(stack, "core2"), 60000) is None
        stack.core()
        stack.process.child.kill()
        stack.process.child.wait()
        core = restarted(stack)
        assert core.hello["program"] == "" and executable(pid_of(core)) == os.path.realpath(FAKE_CORE)
        assert stack.process.stop() == 0


def test_a_file_that_is_not_the_supervisors_names_no_program():
    with stacked() as stack:
        stack.core()
        assert stack.process.stop() == 0
        path = program(stack, "core2")
        real = stack.directory / "elsewhere"
        real.write_text(f"{path}\n{FAKE_CORE}\n")
        (stack.directory / "state" / "core.program").symlink_to(real)
        core = restarted(stack)
        assert core.hello["program"] == ""
        assert stack.process.stop() == 0
        for text in ("", path, f"{path}\n", "\0" * 600, "x" * 5000):
            (stack.directory / "state" / "core.program").unlink()
            (stack.directory / "state" / "core.program").write_text(text)
            core = restarted(stack)
            assert core.hello["program"] == ""
            assert stack.process.stop() == 0


def test_a_program_is_asked_what_it_is_before_anything_depends_on_it():
    with stacked() as stack:
        core = stack.core()
        for name, script, cause, text in [("good", None, CLEAN, '{"fake":true}'), ("fails", "echo why >&2; exit 3", STATUS, "why"),
                                          ("silent", "exit 0", CLEAN, ""), ("loud", "seq 100000; echo end", CLEAN, "end"),
                                          ("hangs", "exec sleep 1000", START_TIMEOUT, "")]:
            core.order(f"describe {program(stack, name, script)}")
            if name == "hangs":
                core.order(f"describe {program(stack, 'good')}")
                assert core.until("Refused")["reason"] == RUNNING
            told = core.until("ProgramDescribed")
            assert (told["cause"], told["text"]) == (cause, text), name
        core.order("describe /nosuch/program")
        assert core.until("Refused")["reason"] == PROGRAM
        (stack.directory / "garbage").write_bytes(b"\x7fELF nonsense")
        (stack.directory / "garbage").chmod(0o755)
        core.order(f"describe {stack.directory}/garbage")
        assert core.until("Refused")["reason"] == PROGRAM
        core.order(f"describe {program(stack, 'lingers', 'sleep 1000 & exit 0')}")
        core.until("ProgramDescribed")
        assert stack.process.stop() == 0

"""How the supervisor begins and ends: stop, listeners and readiness of a service manager, its own death, wrong arguments."""
import json
import os
import signal
import socket
import subprocess
import tempfile

import pytest

from harness.processes import Process, own_address, wait_until
from harness.supervised import (MISSING, STARTING, SUPERVISOR, Stack, WATCHDOG, alive, ask, module)

pytestmark = pytest.mark.skipif(MISSING, reason="not built")


def test_stop_ends_modules_then_the_core_then_the_supervisor():
    with Stack([module("web", "ready", "sleep"), module("two", "ready", "sleep")]) as stack:
        core = stack.core()
        pids = [core.start(name)["pid"] for name in ("web", "two")]
        core.until("Notified", module_id="two")
        stack.process.child.send_signal(signal.SIGTERM)
        ended = {core.until("Exited")["module_id"] for _ in range(2)}  # the core is still there to hear it
        assert ended == {"web", "two"}
        assert stack.process.child.wait(20) == 0
        assert not any(map(alive, pids))
        names = [json.loads(line)["module"] for line in stack.log().splitlines() if '"message":"ended"' in line]
        assert names[-1] == "core" and set(names[:-1]) == {"web", "two"}
        assert not (stack.run / "notify.sock").exists()


def test_a_second_signal_hurries():
    with Stack([module("web", "deaf", "ready", "sleep", stop_grace_ms=60000)]) as stack:
        core = stack.core()
        core.start("web")
        core.until("Notified")
        stack.process.child.send_signal(signal.SIGTERM)
        wait_until(lambda: '"stopping"' in stack.log(), "the stop to begin")
        stack.process.child.send_signal(signal.SIGTERM)
        assert stack.process.child.wait(20) == 0


def test_the_core_can_ask_for_the_end():
    with Stack([module("web", "ready", "sleep")]) as stack:
        core = stack.core()
        core.start("web")
        core.order("shutdown maintenance")
        assert stack.process.child.wait(20) == 0
        assert "maintenance" in stack.log()


def test_lif_13_no_orphan_is_left_by_a_killed_supervisor_and_the_next_one_goes_on():
    listener = {"name": "web", "address": own_address(), "port": 0}
    with Stack([module("web", "deaf", "ready", "serve", listeners=["web"])], listeners=[listener]) as stack:
        core = stack.core()
        spawned, port = core.start("web"), stack.port(core)
        core.until("Notified")
        stack.process.child.kill()
        stack.process.child.wait()
        wait_until(lambda: not alive(spawned["pid"]), "the module to die with its supervisor")
        core.gone()
        stack.process = Process("again", stack.arguments + ["--set", f"listeners.web.port={port}"], stack.directory,
                                env=stack.env)
        core = stack.core()
        assert core.start("web")["generation"] > spawned["generation"]
        assert stack.port(core) == port


def test_a_process_that_dies_leaves_no_socket_under_whatever_name():
    with Stack([module("web", "ready", "sleep", restart="never")]) as stack:
        core = stack.core()
        pid = core.start("web")["pid"]
        files = [stack.run / "modules" / "web" / name for name in ("runtime.sock", "runtime.sock~")]  # the second until it listens
        for file in files:
            file.touch()
        os.kill(pid, signal.SIGKILL)
        core.until("Exited", module_id="web")
        assert not any(file.exists() for file in files)


def test_two_supervisors_do_not_share_a_run_directory():
    with Stack([]) as stack:
        stack.core()
        second = subprocess.run(stack.arguments, env=stack.env, capture_output=True, text=True, timeout=20, check=False)
        assert second.returncode == 111 and "supervisor.running" in second.stderr
        assert stack.process.running()


def test_listeners_of_a_service_manager_are_taken():
    with socket.create_server(("127.0.0.1", 0)) as handed:
        port = handed.getsockname()[1]
        with Stack([module("web", "ready", "serve", listeners=["web"])]) as stack:
            core = stack.core()
            assert stack.process.stop() == 0
            script = f'import os; os.dup2({handed.fileno()}, 3); os.environ["LISTEN_PID"] = str(os.getpid()); ' \
                     f'os.execv("{SUPERVISOR}", {[str(a) for a in stack.arguments]!r})'
            stack.process = Process("again", ["/usr/bin/python3", "-c", script], stack.directory,
                                    pass_fds=(handed.fileno(),),
                                    env={**stack.env, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"})
            core = stack.core()
            assert stack.port(core) == port
            pid = core.start("web")["pid"]
            assert ask(port) == pid


def test_readiness_goes_upward():
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as above:
        above.bind(f"{directory}/above")
        above.settimeout(20)

        def said():
            while (text := above.recv(4096)) == b"WATCHDOG=1":  # while the core is started
                pass
            return text
        with Stack([], env={"NOTIFY_SOCKET": f"{directory}/above", "WATCHDOG_USEC": "1000000"}) as stack:
            core = stack.core()
            assert said() == b"STATUS=starting: the core is being started"
            assert said() == b"READY=1\nSTATUS=serving"
            core.order("heartbeat")
            above.settimeout(0.1)
            for _ in range(200):
                try:
                    assert above.recv(4096) == b"WATCHDOG=1"
                    return
                except TimeoutError:
                    core.order("heartbeat")
            raise AssertionError("no sign of life")


def test_a_notification_of_a_stranger_is_not_heard():
    with Stack([module("web", "sleep")]) as stack:
        core = stack.core()
        core.start("web")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            for text in (b"READY=1", b"", os.urandom(2000), b"x" * 60000):
                stranger.sendto(text, str(stack.run / "notify.sock"))
        assert core.processes()["web"]["state"] == STARTING


@pytest.mark.parametrize("arguments,status,says", [
    (["--help"], 0, "usage: gatehouse-supervisor"), (["--version"], 0, "gatehouse-supervisor "),
    (["--nonsense"], 100, "Try --help"), (["extra"], 100, "unexpected argument"),
    (["--config", "/nonexistent.yaml"], 100, "/nonexistent.yaml: no such file [config.read]"),
    (["--set", "log.levle=info"], 100, 'did you mean "log.level"?'),
    (["--check", "--set", "core.binary=/nonexistent/core"], 111, "/nonexistent/core")])
def test_arguments(arguments, status, says, tmp_path):
    out = subprocess.run([SUPERVISOR, *arguments], capture_output=True, text=True, timeout=20, check=False, cwd=tmp_path)
    assert out.returncode == status and says in out.stdout + out.stderr, out


def test_a_bad_file_is_refused_with_line_and_column(tmp_path):
    path = tmp_path / "gatehouse.yaml"
    path.write_text("version: 1\nmodules:\n  - id: web\n    restrat: never\n")
    out = subprocess.run([SUPERVISOR, "--config", path], capture_output=True, text=True, timeout=20, check=False)
    assert out.returncode == 100
    assert out.stderr == f'{path}:4:5: modules[0].restrat: unknown key; did you mean "restart"? [config.key.unknown]\n'


def test_a_taken_port_and_a_missing_core_are_environment_errors():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with Stack([], sets=[f"listeners.web.port={taken.getsockname()[1]}"]) as stack:
            assert stack.process.child.wait(20) == 111
            assert "supervisor.listener.failed" in stack.log() and "EADDRINUSE" in stack.log()
    with Stack([], core={"binary": "/nonexistent/core"}) as stack:
        assert stack.process.child.wait(20) == 111
        assert "ENOENT" in stack.log()


def test_an_unknown_user_is_a_configuration_error():
    if os.geteuid() != 0:
        pytest.skip("only root changes users")
    with Stack([module("web", "sleep", user="no-such-user-here")]) as stack:
        assert stack.process.child.wait(20) == 100
        assert "no such user" in stack.log()

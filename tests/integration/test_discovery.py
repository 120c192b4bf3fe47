"""How the core finds a module by its socket, whatever comes first: the socket, or the supervisor's word of the process behind it (LIF-1)."""
import os
import pathlib
import signal

import pytest

from harness import hang
from harness.processes import wait_until


@pytest.mark.skipif(hang.missing(), reason=str(hang.missing()))
def test_lif_1_a_new_socket_with_the_number_of_the_one_before_is_found(own_gateway):
    """A look at the sockets waits for the core's turn, and comes to it before the news of a death: the new socket, whose file has got the
    number of the old one, is taken for that. Nobody tells of it once more."""
    before = own_gateway.processes()
    sockets = {name: own_gateway.run / "modules" / name / "runtime.sock" for name in ("mcp", "rest")}
    first = sockets["rest"].stat()
    with hang.stopped(before["core"]["pid"]):
        sockets["mcp"].chmod(sockets["mcp"].stat().st_mode & 0o777)  # a reason to look
        os.kill(before["rest"]["pid"], signal.SIGKILL)
        wait_until(lambda: sockets["rest"].exists() and sockets["rest"].stat().st_ctime_ns != first.st_ctime_ns, "the next process's socket")
    after = own_gateway.wait_restarted(before["rest"])
    assert int(after["generation"]) == int(before["rest"]["generation"]) + 1, own_gateway.describe("rest")


def test_lif_12_a_module_that_dies_with_the_core_costs_no_other_module_its_name(own_gateway):
    """The supervisor hears of both deaths in one turn: the news of the module's next process comes to the next core before the list of all that
    run. Nobody is looked for before that list, since it says whose socket is whose."""
    for _ in range(3):
        before = own_gateway.processes()
        supervisor = own_gateway.process.child.pid
        os.kill(supervisor, signal.SIGSTOP)
        try:
            for name in ("core", "mcp"):
                os.kill(before[name]["pid"], signal.SIGKILL)
            wait_until(lambda: all("Z" in pathlib.Path(f"/proc/{before[name]['pid']}/stat").read_text().rpartition(")")[2] for name in ("core", "mcp")),
                       "both to be dead")
        finally:
            os.kill(supervisor, signal.SIGCONT)
        own_gateway.wait_restarted(before["mcp"])
        own_gateway.wait_ready()
        after = own_gateway.processes()["rest"]
        assert (after["pid"], after["generation"]) == (before["rest"]["pid"], before["rest"]["generation"])

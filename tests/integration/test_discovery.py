"""How the core finds a module by its socket, whatever comes first: the socket, or the supervisor's word of the process behind it (LIF-1)."""
import os
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

"""Fixtures of the integration tests. One gateway is shared by all tests that only use it; those that break things take `own_gateway`."""
import pytest

from harness import clients, gateway as gateways, processes, stubs as contract
from harness.mcp import ModernMcp


@pytest.fixture(scope="session")
def worldclock(tmp_path_factory):
    service = processes.start_worldclock(tmp_path_factory.mktemp("worldclock"))
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="session")
def notes(tmp_path_factory):
    service = processes.start_notes(tmp_path_factory.mktemp("notes"))
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """The contract as Python modules, below this directory."""
    return contract.make(tmp_path_factory.mktemp("stubs"))


@pytest.fixture(scope="session")
def node():
    """The MCP clients that others wrote; skips, and says why, where the registries are out of reach."""
    reason = clients.missing()
    if reason:
        pytest.skip(reason)
    return clients


@pytest.fixture(scope="session", params=["legacy", "modern"])
def era(request):
    return request.param


@pytest.fixture(scope="session")
def upstream(node, era, tmp_path_factory):
    """An MCP server of one era, written by others."""
    service = node.start_upstream(era, tmp_path_factory.mktemp("upstream"))
    yield service
    service.stop()


@pytest.fixture(scope="session")
def start_quickstart(worldclock, notes):
    """start_quickstart(**options of Gateway): the quick start, running, with its catalog. Who starts one ends it: `with`."""
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)

    def start(**options):
        started = gateways.Gateway(**options)
        try:
            started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        except BaseException:
            started.close()
            raise
        return started
    return start


@pytest.fixture(scope="session")
def gateway(start_quickstart):
    """The quick start, running, with its catalog and the tools of its upstream. Shared: leave it as it was."""
    with start_quickstart() as started:
        with ModernMcp(started.mcp_url, started.token(gateways.GUEST, "--team", "explorers")) as mcp:
            processes.wait_until(lambda: "note_add" in mcp.tools(), "the tools of the notes server")
        yield started


@pytest.fixture
def own_gateway(start_quickstart):
    """The same for one test alone, which may kill and change what it likes."""
    with start_quickstart() as started:
        yield started


@pytest.fixture(scope="session")
def guest_token(gateway):
    """The quick start's token: a guest of the team explorers."""
    return gateway.token(gateways.GUEST, "--team", "explorers")

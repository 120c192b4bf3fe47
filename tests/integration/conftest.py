"""Fixtures of the integration tests. One gateway is shared by all tests that only use it; those that break things take `own_gateway`."""
import pytest

from harness import clients, gateway as gateways, processes


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


def start_quickstart(worldclock, notes, **options):
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    started = gateways.Gateway(**options)
    try:
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
    except BaseException:
        started.close()
        raise
    return started


@pytest.fixture(scope="session")
def gateway(worldclock, notes):
    """The quick start, running, with its catalog. Shared: leave it as it was."""
    with start_quickstart(worldclock, notes) as started:
        yield started


@pytest.fixture
def own_gateway(worldclock, notes):
    """The same for one test alone, which may kill and change what it likes."""
    with start_quickstart(worldclock, notes) as started:
        yield started


@pytest.fixture(scope="session")
def guest_token(gateway):
    """The quick start's token: a guest of the team explorers."""
    return gateway.token(gateways.GUEST, "--team", "explorers")

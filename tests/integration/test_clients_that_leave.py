"""Clients that leave in the middle of a streamed answer: nobody else notices, and no process dies of it (LIF-7, BND-7).

The next write, or the one after it, finds the connection broken: that is when a finished answer and its connection are easiest to mix up."""
import json
import socket
import struct

import pytest

from harness.http1 import Connection
from harness.mcp import LegacyMcp, ModernMcp
from harness.processes import wait_until

TIMES = 20
GOOD = ("convert_units", {"value": 1, "from_unit": "km", "to_unit": "m"})


def reset(connection):
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture(autouse=True)
def nobody_died(gateway, guest_token):
    before = {name: process["pid"] for name, process in gateway.processes().items()}
    yield
    with ModernMcp(gateway.mcp_url, guest_token) as mcp:
        assert mcp.call(*GOOD).result["structuredContent"]["result"] == 1000
    assert {name: process["pid"] for name, process in gateway.processes().items()} == before


@pytest.mark.parametrize("leave", [reset, Connection.close])
@pytest.mark.parametrize("steps_left", [1, 2, 3])
@pytest.mark.parametrize("client", [LegacyMcp, ModernMcp])
def test_in_the_middle_of_a_call_with_progress(gateway, guest_token, client, steps_left, leave):
    with client(gateway.mcp_url, guest_token) as mcp:
        for _ in range(TIMES):
            body, headers = mcp.message("tools/call", {"name": "slow_count", "arguments": {"steps": 1 + steps_left, "delay_ms": 20}},
                                        meta={"progressToken": "p"})
            connection, status, received = mcp.start(body, headers)
            assert status == 200
            events = connection.events(received)
            assert json.loads(next(events))["method"] == "notifications/progress"
            leave(connection)
            mcp.connection = None
            assert mcp.call(*GOOD).result  # what the call that was left does meanwhile


STREAMS = {"core/admin.http.sock": [("/grpc.health.v1.Health/Watch", {}),
                                    ("/core.admin.v1.EventAdminService/ReadEvents", {"follow": True})],
           "core/spi/mcp.http.sock": [("/grpc.health.v1.Health/Watch", {})]}


@pytest.mark.parametrize("path, method, request_json", [(path, *stream) for path, streams in STREAMS.items() for stream in streams])
def test_in_the_middle_of_a_stream_of_the_core(gateway, path, method, request_json):
    for _ in range(TIMES):
        connection = Connection(str(gateway.run / path))
        connection.send("POST", method, {"Content-Type": "application/json"}, json.dumps(request_json).encode())
        status, _ = connection.read_head()
        assert status == 200
        reset(connection)
    wait_until(lambda: (gateway.status() or {}).get("health") == "ok", "the gateway's health")

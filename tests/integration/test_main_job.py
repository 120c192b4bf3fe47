"""The main job: clients that others wrote list and call real tools through supervisor, core and modules, in both eras."""
import contextlib
import json
import mmap
import os
import pathlib
import re

import pytest

from harness import gateway as gateways
from harness.clients import NodeClient, inspector
from harness.http1 import Connection
from harness.mcp import LegacyMcp, ModernMcp
from harness.processes import wait_until

GUEST_SEES = {"world_time", "convert_units", "plan_meeting", "almanac", "note_add", "note_list", "word_count", "slow_count"}
STAFF_ONLY = "service_health"
RAW = {"legacy": LegacyMcp, "modern": ModernMcp}


@pytest.fixture
def mcp(gateway, guest_token, era):
    with RAW[era](gateway.mcp_url, guest_token) as connected:
        yield connected


# ---- what a token sees (SPI-5, SPI-6, MCP-3) ----

def test_rst_3_the_guest_sees_its_tools_and_no_others(mcp):
    """Records made of REST endpoints and of an upstream's tools alike: what is another team's does not exist."""
    assert set(mcp.tools()) == GUEST_SEES


def test_a_public_only_token_sees_no_team_tool(gateway, era):
    token = gateway.token(gateways.GUEST)
    with RAW[era](gateway.mcp_url, token) as mcp:
        seen = set(mcp.tools())
    assert "world_time" in seen and "plan_meeting" not in seen and STAFF_ONLY not in seen


def test_a_hidden_tool_answers_like_an_absent_one(mcp):
    hidden, absent = mcp.call(STAFF_ONLY).error, mcp.call("no_such_tool").error
    assert hidden["code"] == absent["code"] == -32602
    assert hidden["message"].replace(STAFF_ONLY, "X") == absent["message"].replace("no_such_tool", "X")
    assert hidden["data"]["code"] == absent["data"]["code"]


def test_definitions_travel_unchanged(mcp):
    tool = mcp.tools()["convert_units"]
    assert tool["inputSchema"]["required"] == ["value", "from_unit", "to_unit"]
    assert tool["inputSchema"]["additionalProperties"] is False
    assert tool["annotations"]["readOnlyHint"] is True
    assert "127.0.0.1" not in json.dumps(mcp.tools())


# ---- calls (SPI-8 to SPI-10, RST-1, MCP-1) ----

def test_a_rest_tool_is_called(mcp):
    result = mcp.call("convert_units", {"value": 26.2, "from_unit": "mi", "to_unit": "km"}).result
    assert not result.get("isError")
    assert abs(result["structuredContent"]["result"] - 42.165) < 0.01
    assert json.loads(result["content"][0]["text"]) == result["structuredContent"]


def test_a_path_argument_is_one_segment(mcp):
    assert mcp.call("world_time", {"zone": "Europe/Berlin"}).result["structuredContent"]["zone"] == "Europe/Berlin"
    assert mcp.call("world_time", {"zone": "../healthz"}).result["isError"]


def test_a_body_is_sent_as_json(mcp):
    result = mcp.call("plan_meeting", {"zones": ["Asia/Tokyo"], "zone": "Europe/Berlin", "time": "2026-11-21T09:30"}).result
    assert not result.get("isError"), result


def test_the_credential_is_added_by_the_core(mcp):
    result = mcp.call("almanac", {"date": "2026-11-21"}).result
    assert not result.get("isError"), result
    assert "quickstart-almanac-key" not in json.dumps(result)


def test_a_tool_of_another_mcp_server_is_called(mcp):
    text = json.dumps(mcp.call("word_count", {"text": "one two three"}).result)
    assert "3" in text


def test_an_upstream_error_is_a_tool_error(mcp):
    assert mcp.call("world_time", {"zone": "Nowhere/Atall"}).result["isError"]


@pytest.mark.parametrize("arguments", [{}, {"value": "x", "from_unit": "mi", "to_unit": "km"},
                                       {"value": 1, "from_unit": "mi", "to_unit": "km", "more": 1}])
def test_wrong_arguments_are_a_tool_error_that_names_the_place(mcp, arguments):
    result = mcp.call("convert_units", arguments).result
    assert result["isError"]


def test_progress_comes_before_the_result(mcp):
    reply = mcp.call("slow_count", {"steps": 3, "delay_ms": 10}, progress_token="p1")
    steps = [n["params"] for n in reply.notifications if n["method"] == "notifications/progress"]
    assert [s["progress"] for s in steps] == [1, 2, 3]
    assert all(s["progressToken"] == "p1" for s in steps)
    assert "result" in reply.messages[-1]


# ---- clients of others ----

def test_clients_of_others(node, gateway, guest_token, era):
    with NodeClient(era, gateway.mcp_url, guest_token) as client:
        assert client.info["ok"], client.info
        assert client.info["protocol"] == {"legacy": "2025-11-25", "modern": "2026-07-28"}[era]
        assert set(client.tools()) == GUEST_SEES
        outcome = client.call("convert_units", {"value": 1, "from_unit": "km", "to_unit": "m"})
        assert outcome["result"]["structuredContent"]["result"] == 1000
        outcome = client.call("slow_count", {"steps": 2, "delay_ms": 10}, progress=True)
        assert [p["progress"] for p in outcome["progress"]] == [1, 2]
        outcome = client.call("slow_count", {"steps": 500, "delay_ms": 20}, cancel_after=1)
        assert not outcome["ok"]
        assert client.call("note_list")["ok"]


def test_the_inspector_lists_and_calls(node, gateway, guest_token, tmp_path):
    status, answer, errors = inspector(gateway.mcp_url, "--method", "tools/list", token=guest_token, home=tmp_path)
    assert status == 0, errors
    assert {tool["name"] for tool in answer["tools"]} == GUEST_SEES
    status, answer, errors = inspector(gateway.mcp_url, "--method", "tools/call", "--tool-name", "convert_units", "--tool-arg",
                                       "value=2", "--tool-arg", "from_unit=km", "--tool-arg", "to_unit=m", token=guest_token,
                                       home=tmp_path)
    assert status == 0, errors
    assert answer["structuredContent"]["result"] == 2000


# ---- operators ----

def test_status_shows_every_process(gateway):
    processes = gateway.processes()
    assert set(processes) == {"supervisor", "core", "mcp", "rest"}
    for process in processes.values():
        assert process["state"] == "ready" and int(process["pid"]) > 0 and process["version"]
        pages = int(pathlib.Path(f"/proc/{process['pid']}/statm").read_text().split()[1])
        assert abs(int(process["memoryResidentBytes"]) - pages * mmap.PAGESIZE) < 8 << 20, "what the kernel says, a moment earlier"
        assert int(process.get("memoryPssBytes", 0)) <= int(process["memoryResidentBytes"])


def sockets(pid):
    """The inodes of the sockets that a process has open."""
    found = set()
    for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            link = os.readlink(descriptor)
            if link.startswith("socket:["):
                found.add(link[len("socket:["):-1])
    return found


def tcp(pid, listening_only):
    """{inode: local address} of the TCP sockets in a process's network."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in pathlib.Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    return {row[9]: row[1] for row in rows if not listening_only or row[3] == "0A"}


def test_trn_5_nothing_but_the_declared_doors_listens_on_tcp_and_the_core_has_no_tcp_at_all(gateway):
    processes = gateway.processes()
    own = {name: sockets(process["pid"]) for name, process in processes.items()}
    assert not own["core"] & set(tcp(processes["core"]["pid"], listening_only=False))
    doors = {int(listener["address"].rpartition(":")[2]) for listener in gateway.status()["listeners"]}
    listening = tcp(processes["supervisor"]["pid"], listening_only=True)
    found = {int(address.rpartition(":")[2], 16) for inode, address in listening.items() if any(inode in inodes for inodes in own.values())}
    assert found == doors and doors


def test_bnd_2_every_module_is_a_process_of_its_own(gateway):
    processes = gateway.processes()
    assert len({process["pid"] for process in processes.values()}) == len(processes)
    assert {os.readlink(f"/proc/{processes[name]['pid']}/exe").rpartition("/")[2] for name in ("mcp", "rest")} == {
        "gatehouse-mcp", "gatehouse-rest"}


def test_dsc_3_what_is_not_there_is_declared_absent_to_the_core_and_not_offered_to_clients(gateway, guest_token):
    descriptor = json.loads(gateway.ctl("module", "describe", "mcp", "--output", "json").stdout)["descriptor"]
    declared = {capability["name"]: capability.get("supported", False) for capability in descriptor["capabilities"]}
    assert True in declared.values() and False in declared.values(), declared
    with LegacyMcp(gateway.mcp_url, guest_token) as mcp:
        offered = set(mcp.initialized["capabilities"])
    assert "tools" in offered and not offered & {"resources", "prompts", "completions"}


def test_events_show_an_invocation(gateway, mcp):
    mcp.call("convert_units", {"value": 3, "from_unit": "km", "to_unit": "m"})

    def told():
        events = [json.loads(line) for line in gateway.ctl("events", "--tail", "50", "--output", "json").stdout.splitlines()]
        return "runtime_execution" in {event.get("event_family") for event in events} and events
    events = wait_until(told, "the invocation to be told of")
    stamps = [event["timestamp"] for event in events]
    assert stamps == sorted(stamps) and len(set(stamps)) == len(stamps)


def test_health_needs_no_token(gateway):
    host, port = gateway.listener("mcp")
    with Connection((host, port)) as connection:
        connection.send("GET", "/healthz")
        assert connection.read("GET").status == 200


def test_apply_again_changes_nothing(gateway, worldclock, notes):
    out = gateway.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
    assert "created" not in out.stdout and "updated" not in out.stdout


def test_exports_hold_no_credential(gateway):
    exported = gateway.ctl("export").stdout
    assert "world_time" in exported and "quickstart-almanac-key" not in exported


def test_no_credential_on_disk_or_in_logs(gateway, guest_token):
    for path in gateway.state.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # the store puts files away
            data = path.read_bytes() if path.is_file() else b""
            assert b"quickstart-almanac-key" not in data, path
            assert guest_token.encode() not in data, path
    assert "quickstart-almanac-key" not in gateway.log() and guest_token not in gateway.log()


def published(gateway, name, module):
    """The value of a module's metric; 0 while it was not published."""
    found = re.search(rf'^gatehouse_module_{name}{{module="{module}"}} (\S+)$', gateway.ctl("metrics").stdout, re.M)
    return float(found[1]) if found else 0


PUBLISHED = [("mcp", "requests_total"), ("mcp", "request_seconds_count"), ("mcp", "http_connections_total"), ("rest", "requests_total"),
             ("rest", "request_seconds_count")]


@pytest.fixture(scope="module")
def before_a_call(gateway, guest_token):
    """What was published before one more call was made; of the calls before, all is."""
    def all_now():
        return {(module, name): published(gateway, name, module) for module, name in PUBLISHED}

    def call():
        with ModernMcp(gateway.mcp_url, guest_token) as mcp:
            mcp.call("convert_units", {"value": 1, "from_unit": "km", "to_unit": "m"})
    first = all_now()
    call()
    wait_until(lambda: all(all_now()[key] > first[key] for key in (("mcp", "requests_total"), ("rest", "requests_total"))), "the first", 40,
               pause_s=0.2)
    before = all_now()
    call()
    return before


@pytest.mark.parametrize("module, name", PUBLISHED)
def test_modules_publish_what_they_count(gateway, before_a_call, module, name):
    """SPI-16: some seconds after it happened."""
    wait_until(lambda: published(gateway, name, module) > before_a_call[module, name], f"{name} of {module}", 40, pause_s=0.2)

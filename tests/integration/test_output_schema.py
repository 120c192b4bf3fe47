"""A tool that declares the form of its result keeps to it, or its caller gets an error: REST tools and tools of upstream MCP servers,
whatever the upstream answers."""
import json

import pytest

from harness import gateway as gateways
from harness.clients import inspector
from harness.mcp import LegacyMcp, ModernMcp
from harness.processes import wait_until
from test_dispatch import McpUpstream, Upstream, code_of, tool

FITS = {"type": "object", "properties": {"fast": {"type": "boolean"}}, "required": ["fast"]}
FITS_NOT = {"type": "object", "properties": {"fast": {"type": "string"}}, "required": ["fast"]}
MISSES = {"type": "object", "required": ["missing"]}


class CountingUpstream(McpUpstream):
    """Its tools count words, and have an output schema; `answers` says what a call is answered with."""

    SCHEMA = {"type": "object", "properties": {"words": {"type": "integer"}}, "required": ["words"]}

    class Handler(McpUpstream.Handler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            request = json.loads(body)
            results = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                                      "serverInfo": {"name": "counting", "version": "1"}},
                       "tools/list": {"tools": [{"name": name, "inputSchema": {"type": "object"}, "outputSchema": CountingUpstream.SCHEMA}
                                                for name in CountingUpstream.ANSWERS]}}
            if request["method"] == "tools/call":
                results["tools/call"] = {"content": [{"type": "text", "text": "as asked"}],
                                         **CountingUpstream.ANSWERS[request["params"]["name"]]}
            body = json.dumps({"jsonrpc": "2.0", "id": request.get("id"), "result": results.get(request["method"], {})}).encode()
            body = body if "id" in request else b""
            self.send_response(200 if body else 202)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    ANSWERS = {"count_right": {"structuredContent": {"words": 3}}, "count_wrong": {"structuredContent": {"words": "three"}},
               "count_nothing": {}, "count_failed": {"isError": True, "structuredContent": {"words": "three"}}}


@pytest.fixture(scope="module")
def served(worldclock, notes):
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    rest, mcp = Upstream(), CountingUpstream()
    with gateways.Gateway() as started:
        started.apply(gateways.quickstart_catalog(worldclock.port, notes.port))
        started.apply(tool(rest, "plain", "/fast") + tool(rest, "fits", "/fast", outputSchemaJson=FITS) +
                      tool(rest, "fits_not", "/fast", outputSchemaJson=FITS_NOT) + tool(rest, "misses", "/fast", outputSchemaJson=MISSES) +
                      tool(rest, "bends", "/fast", outputSchemaJson=FITS) + "---\n" + mcp.document())
        started.rest = rest
        yield started
    rest.close()
    mcp.shutdown()
    mcp.server_close()


@pytest.fixture(params=[LegacyMcp, ModernMcp])
def client(request, served):
    with request.param(served.mcp_url, served.token(gateways.GUEST, "--team", "explorers")) as mcp:
        wait_until(lambda: "count_right" in mcp.tools(), "the upstream's tools")
        yield mcp


@pytest.mark.parametrize("name", ["plain", "fits", "count_right"])
def test_a_result_that_fits_is_handed_on(client, name):
    result = client.call(name).result
    assert not result.get("isError") and result["structuredContent"] in ({"fast": True}, {"words": 3})


@pytest.mark.parametrize("name", ["fits_not", "misses", "count_wrong", "count_nothing"])
def test_a_result_that_does_not_fit_is_an_error_with_its_code(client, served, name):
    reply = client.call(name)
    assert code_of(reply) == "invoke.result.invalid", reply
    assert reply.error["data"]["retryable"] is False
    assert "three" not in json.dumps(reply.answer)  # the rule is named, never the value

    def recorded():
        events = served.ctl("events", "--tail", "10", "--family", "runtime_execution", "--output", "json").stdout
        return "invoke.result.invalid" in events
    wait_until(recorded, "the execution to be recorded as failed", pause_s=0.1)


def test_a_tool_that_says_that_it_failed_need_not_fit(client):
    assert client.call("count_failed").result["isError"] is True


def test_a_changed_schema_counts_for_the_next_call(client, served):
    try:
        assert not client.call("bends").result.get("isError")
        served.apply(tool(served.rest, "bends", "/fast", outputSchemaJson=FITS_NOT))
        assert code_of(client.call("bends")) == "invoke.result.invalid"
    finally:
        served.apply(tool(served.rest, "bends", "/fast", outputSchemaJson=FITS))


def test_the_inspector_is_given_no_result_that_it_would_choke_on(node, served, tmp_path):
    token = served.token(gateways.GUEST, "--team", "explorers")
    status, answer, errors = inspector(served.mcp_url, "--method", "tools/call", "--tool-name", "misses", token=token, home=tmp_path)
    assert "must have required property" not in errors and "does not match the tool's output schema" in errors, (status, answer, errors)
    status, answer, errors = inspector(served.mcp_url, "--method", "tools/call", "--tool-name", "fits", token=token, home=tmp_path)
    assert status == 0 and answer["structuredContent"] == {"fast": True}, (status, answer, errors)

"""What a module knows of stored credentials (BND-5): that of a call it was given, while the call lasts. Its memory is read and
searched, as the kernel shows it to root."""
import concurrent.futures
import os
import pathlib
import re
import threading

import pytest

from harness import gateway as gateways
from harness.mcp import ModernMcp
from harness.processes import wait_until

LARGE = {"text": "one two three " * 4000}  # its plan comes in several pieces
OF_THE_ALMANAC, OF_THE_NOTES = "quickstart-almanac-key", "a-key-for-the-notes"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to read the memory of other processes")


def holds(pid, text):
    """How often a process's memory has a text."""
    found, readable = 0, re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r\S+ \S+ \S+ \S+\s*(?!\[v)", re.M)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for begin, end in readable.findall(pathlib.Path(f"/proc/{pid}/maps").read_text()):
            try:
                found += os.pread(memory.fileno(), int(end, 16) - int(begin, 16), int(begin, 16)).count(text.encode())
            except (OSError, OverflowError):  # reserved, and nothing behind it
                continue
    return found


@pytest.fixture(scope="module")
def guarded(worldclock, notes):
    """The quick start, whose upstream MCP server wants a credential too."""
    reason = gateways.missing()
    if reason:
        pytest.skip(reason)
    catalog, upstream = gateways.quickstart_catalog(worldclock.port, notes.port), "  transport: streamable-http\n"
    assert catalog.count(upstream) == 1 and OF_THE_ALMANAC in catalog
    with gateways.Gateway() as started:
        started.apply(catalog.replace(upstream, upstream + f"  credential: {{bearerToken: {OF_THE_NOTES}}}\n"))
        yield started


def test_bnd_5_no_module_holds_a_credential_beyond_its_call(guarded):
    pids = {name: process["pid"] for name, process in guarded.processes().items() if name != "core"}
    seen = threading.Event()

    def nobody_holds_any():
        """A call is over a moment after its answer has left."""
        for name, pid in pids.items():
            wait_until(lambda: holds(pid, OF_THE_ALMANAC) == holds(pid, OF_THE_NOTES) == 0, f"{name} to have forgotten both")

    def call_until_seen():
        while not seen.is_set():
            assert mcp.call("slow_count", {"steps": 10, "delay_ms": 100}).result["structuredContent"]["counted"] == 10

    with ModernMcp(guarded.mcp_url, guarded.token(gateways.GUEST, "--team", "explorers")) as mcp:
        wait_until(lambda: {"almanac", "word_count"} <= set(mcp.tools()), "the tools of both upstreams", 30)
        for _ in range(20):
            for tool, arguments in (("almanac", {"date": "2026-11-21"}), ("word_count", {"text": "one two three"}), ("word_count", LARGE)):
                assert not mcp.call(tool, arguments).result.get("isError")
        nobody_holds_any()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            calls = pool.submit(call_until_seen)
            try:
                wait_until(lambda: holds(pids["mcp"], OF_THE_NOTES), "a call under way, with its credential", 30)  # so it would be seen
            finally:
                seen.set()
        calls.result()
        nobody_holds_any()

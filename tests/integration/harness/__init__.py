"""What integration tests are made of: processes, raw HTTP, MCP in both eras, clients of others, and the gateway itself.

Rules: only real binaries and loopback or Unix sockets; wait for a condition (wait_until), never for a fixed time; ports are ephemeral;
every process is started by the harness and ended by its own id.
"""
import pathlib
import os

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = pathlib.Path(os.environ.get("GATEHOUSE_BUILD", ROOT / "build"))
BIN = BUILD / "bin"
TOOLS = BUILD / "tools"
QUICKSTART = ROOT / "deploy" / "examples" / "quickstart"
PYTHON = "/usr/bin/python3"

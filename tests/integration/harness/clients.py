"""MCP clients and servers that others wrote, on Node.js: see tests/clients. They come from registries by `./dev tools`."""
import json
import os
import shutil
import subprocess

from . import ROOT, TOOLS
from .processes import Service

NODE = TOOLS / "bin" / "node"
CLIENTS = TOOLS / "clients"


def missing():
    """Why these cannot be used here, or None. Brings the scripts beside their packages, where Node.js looks for imports."""
    if not NODE.exists() or not (CLIENTS / ".installed").exists():
        return "the MCP clients are not installed: the package registries could not be reached (./dev tools)"
    for script in (ROOT / "tests" / "clients").glob("*.mjs"):
        shutil.copy2(script, CLIENTS / script.name)
    return None


def start_upstream(era, directory):
    """era: "legacy" or "modern"; the tools are echo, add, progress and error."""
    return Service(f"{era}_upstream", [NODE, CLIENTS / f"{era}_upstream.mjs"], directory)


class NodeClient:
    """A client script of tests/clients, steered step by step; see drive.mjs there."""

    def __init__(self, era, url, token=None, negotiate=None, reconnect_ms=None):
        """reconnect_ms: how long one of the session era waits before it opens a stream again, where it was told nothing."""
        env = {**os.environ, **({"MCP_NEGOTIATE": negotiate} if negotiate else {}),
               **({"MCP_RECONNECT_MS": str(reconnect_ms)} if reconnect_ms else {})}
        self.child = subprocess.Popen([NODE, CLIENTS / f"{era}_client.mjs", url, *([token] if token else [])],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.info = self._outcome()

    def _outcome(self):
        line = self.child.stdout.readline()
        assert line, "the client ended"
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.child.stdin.close()
            self.child.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()

    def step(self, op, **arguments):
        """The outcome as it is: {ok, …}."""
        self.child.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self.child.stdin.flush()
        return self._outcome()

    def tools(self):
        outcome = self.step("list")
        assert outcome["ok"], outcome
        return {tool["name"]: tool for tool in outcome["tools"]}

    def call(self, name, arguments=None, **options):
        return self.step("call", name=name, arguments=arguments or {}, **options)


def inspector(url, *arguments, token=None, home):
    """The MCP Inspector's command line. (exit status, parsed JSON or None, stderr)"""
    command = [NODE, CLIENTS / "node_modules" / ".bin" / "mcp-inspector", "--cli", url, "--transport", "http", *arguments]
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
                         env={**os.environ, "HOME": str(home)})
    try:
        return out.returncode, json.loads(out.stdout), out.stderr
    except ValueError:
        return out.returncode, None, out.stdout + out.stderr

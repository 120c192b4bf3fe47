"""The gateway under measurement: the real supervisor, core and modules, one REST tool, nginx in front of the same upstream."""
import json
import pathlib
import socket
import subprocess
import time

import common  # puts the integration harness on the path
from common import Child, Failure, program
from harness import BIN
from harness.gateway import Gateway, GUEST
from harness.mcp import LegacyMcp, ModernMcp

TOOL = "item"
MARK = "@@@@@@@@"

CATALOG = """
kind: Role
metadata: {{name: tool-user}}
spec: {{permissions: [servers.use, tools.read, tools.execute]}}
---
kind: User
metadata: {{name: {user}}}
spec: {{fullName: Guest, roles: [tool-user]}}
---
kind: Tool
metadata: {{name: {tool}, title: An item, description: One item of the store., visibility: public, owner: {user}}}
spec:
  inputSchemaJson:
    type: object
    additionalProperties: false
    required: [number]
    properties:
      number: {{type: string, minLength: 1, maxLength: 16}}
  outputSchemaJson:
    type: object
    required: [item, stock, text]
    properties:
      item: {{type: string}}
      stock: {{type: integer}}
      text: {{type: string}}
  annotationsJson: {{readOnlyHint: true}}
  timeoutMs: 5000
  rest:
    method: GET
    url: http://127.0.0.1:{port}/items/{{number}}
    egress: {{allow: ["127.0.0.1:{port}"], schemes: [http]}}
"""

NGINX = """
daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s; tcp_nodelay on;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  upstream store {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://store; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def missing():
    """Which programs of the gateway are not built, or None."""
    names = ["gatehouse", "gatehouse-supervisor", "gatehouse-core", "gatehouse-mcp", "gatehouse-rest"]
    absent = [name for name in names if not (BIN / name).exists()]
    return ", ".join(absent) or None


class Upstream(Child):
    """The fast REST service."""

    def __init__(self):
        self.port = free_port()
        super().__init__([program("bench_upstream"), self.port], ready=True)


class Nginx(Child):
    """nginx, one process, kept-alive connections to the upstream."""

    def __init__(self, directory, upstream_port):
        self.port = free_port()
        config = pathlib.Path(directory) / "nginx.conf"
        config.write_text(NGINX.format(directory=directory, port=self.port, upstream=upstream_port))
        super().__init__(["nginx", "-p", directory, "-c", config], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            if time.monotonic() > end or self.process.poll() is not None:
                raise Failure("nginx did not start")
            time.sleep(0.01)


class BenchModule:
    """The connection to the benchmark module of a running gateway."""

    def __init__(self, address, token, pids):
        self.socket = socket.create_connection(address, 60)
        self.file = self.socket.makefile("rw")
        self.pids, self.core_pid, self.token = pids, pids[1], token

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def line(self, *words):
        self.file.write(" ".join(map(str, words)) + "\n")
        self.file.flush()
        return self.file.readline()

    def ask(self, outstanding, pace_us, milliseconds, word):
        # Anew for each measurement, as a module does: a context lives for a minute only.
        if json.loads(self.line("caller", self.token, TOOL)) != {"ok": True}:
            raise Failure("the benchmark module could not resolve its caller")
        return common.checked(self.line(outstanding, pace_us, milliseconds, self.core_pid, word), "bench_module")


class Stack(Gateway):
    """A gateway with two MCP modules on listeners of their own, the REST module and the benchmark module."""

    def __init__(self, upstream_port, wait=True, log_level="warn"):
        listeners = [{"name": name, "address": "127.0.0.1", "port": 0} for name in ("mcp", "mcp2", "bench")]
        modules = [{"id": "mcp", "family": "mcp", "binary": "gatehouse-mcp", "listeners": ["mcp"]},
                   {"id": "mcp2", "family": "mcp", "binary": "gatehouse-mcp", "listeners": ["mcp2"],
                    "config": {"listener": "mcp2"}},
                   {"id": "rest", "family": "rest-grpc", "binary": "gatehouse-rest"},
                   {"id": "bench", "family": "bench", "binary": str(program("bench_module")), "listeners": ["bench"]}]
        for module in modules:
            module["quarantine"] = {"deaths": 0}  # they are killed again and again
        super().__init__(config={"version": 1, "store": {"backend": "sqlite"}, "listeners": listeners, "modules": modules},
                         env={"GATEHOUSE_LOG_LEVEL": log_level}, wait=wait)
        self.upstream_port = upstream_port
        self.bearer = None

    def fill(self):
        """Applies the catalog and makes a token. Both survive a restart of anything."""
        self.apply(CATALOG.format(user=GUEST, tool=TOOL, port=self.upstream_port))
        self.bearer = self.token(GUEST)
        return self

    def pid(self, name):
        return self.processes()[name]["pid"]

    def pids(self):
        return {name: process["pid"] for name, process in self.processes().items()}

    def url(self, listener):
        host, port = self.listener(listener)
        return f"http://{host}:{port}/mcp"

    def bench_module(self):
        return BenchModule(self.listener("bench"), self.bearer, [self.pid("bench"), self.pid("core")])

    def modern(self, listener="mcp"):
        return ModernMcp(self.url(listener), self.bearer)

    def request_text(self, era, listener="mcp", method="tools/call"):
        """One whole HTTP request as text, with MARK for its id and, in tools/call, for the number that is asked for."""
        host, port = self.listener(listener)
        client = (ModernMcp if era == "modern" else LegacyMcp)(self.url(listener), self.bearer)
        params = {"name": TOOL, "arguments": {"number": MARK}} if method == "tools/call" else {}
        body, headers = client.message(method, params)
        client.close()
        body["id"] = MARK
        data = json.dumps(body)
        fields = {"Host": f"{host}:{port}", **client.headers, **(headers or {}), "Content-Length": len(data)}
        return "POST /mcp HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n" + data

"""Something of everything that our modules do in their lives, for tests of what they need: calls in both eras, streams, filters, names,
TLS, refusals, a core that dies, a drain."""
import http.client
import json
import signal
import socket
import ssl
import subprocess
import threading

from . import gateway as gateways
from .http1 import Connection
from .mcp import LegacyMcp, ModernMcp
from .processes import end_listener, wait_until

UNITS = {"value": 5, "from_unit": "km", "to_unit": "m"}


def configuration():
    """The quick start with the console and the example module."""
    config = gateways.quickstart_config()
    config["listeners"] += [{"name": "metrics", "port": 0}, {"name": "hello", "port": 0}]
    config["modules"] += [{"id": "console", "listeners": ["metrics"]}, {"id": "hello", "listeners": ["hello"]}]
    return config


class TlsServer:
    """Answers TLS handshakes with a certificate that nobody trusts."""

    def __init__(self, directory):
        key, certificate = directory / "key.pem", directory / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-subj",
                        "/CN=localhost", "-days", "2"], check=True, capture_output=True, timeout=60)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            try:
                self.context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()

    def close(self):
        end_listener(self.listener)


def tool(name, url, allow, more=None):
    return json.dumps({"kind": "Tool", "metadata": {"name": name, "visibility": "public", "owner": gateways.ADMIN}, "spec": {
        "inputSchemaJson": {"type": "object"}, "timeoutMs": 5000,
        "rest": {"method": "GET", "url": url, "egress": {"allow": allow}, **(more or {})}}})


def catalog(worldclock_port, notes_port, tls_port):
    loopback = ["127.0.0.0/8", "::1/128"]
    documents = [gateways.quickstart_catalog(worldclock_port, notes_port),
                 tool("filtered", f"http://127.0.0.1:{worldclock_port}/v1/convert?value=1&from=km&to=m", loopback, {"responseFilter": ".result"}),
                 tool("endless", f"http://127.0.0.1:{worldclock_port}/v1/convert?value=1&from=km&to=m", loopback,
                      {"responseFilter": "[range(1e9)] | length"}),
                 tool("by_name", f"http://localhost:{worldclock_port}/healthz", loopback),
                 tool("over_tls", f"https://localhost:{tls_port}/", loopback),
                 tool("by_hosts_name", f"http://{socket.gethostname()}:{worldclock_port}/healthz", loopback),
                 tool("nowhere", "http://127.0.0.1:1/", loopback),
                 json.dumps({"kind": "Gateway", "metadata": {"name": "tls", "visibility": "public", "owner": gateways.ADMIN},
                             "spec": {"url": f"https://localhost:{tls_port}/mcp", "egress": {"allow": loopback}}})]
    return "\n---\n".join(documents)


def get(gateway, listener, path, headers=None):
    connection = http.client.HTTPConnection(*gateway.listener(listener), timeout=20)
    try:
        connection.request("GET", path, headers=headers or {})
        return connection.getresponse().read()
    finally:
        connection.close()


def ask_admin(gateway, method, body):
    """One call of the HTTP face of the core, in two pieces: the status line."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(gateway.run / "core" / "admin.http.sock"))
        head = (f"POST /{method} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n")
        connection.sendall(head.encode())
        connection.sendall(body.encode())
        reply = b""
        while part := connection.recv(65536):
            reply += part
    return reply.split(b"\r\n", 1)[0].decode()


COMMANDS = (("status",), ("export",), ("token", "list"), ("events",), ("module", "list"), ("module", "describe", "core"), ("metrics",), ("psg", "query"),
            ("psg", "hash"), ("module", "restart", "rest"), ("module", "stop", "hello"), ("module", "start", "hello"))


def operate(gateway):
    """What operators do with the core: every kind of command, the HTTP face, large documents, a token's life; then the core writes where it
    was, and is back. Leaves the gateway running."""
    for command in COMMANDS:
        gateway.ctl(*command)
    gateway.ctl("refresh", check=False)  # one of the gateways has a certificate that nobody trusts
    many = "---\n".join(f"kind: Team\nmetadata: {{name: many-{number}, description: {'x' * 900}}}\nspec: {{}}\n" for number in range(400))
    assert gateway.apply(many, "--dry-run").returncode == 0
    gateway.apply(many)
    gateway.ctl("delete", "Team", "many-1")
    token = json.loads(gateway.ctl("token", "create", "--user", gateways.GUEST, "--output", "json").stdout)
    gateway.ctl("token", "revoke", token["info"]["tokenId"])
    assert ask_admin(gateway, "core.admin.v1.StatusService/GetStatus", "{}") == "HTTP/1.1 200 OK"
    assert ask_admin(gateway, "core.admin.v1.StatusService/Absent", "{}").startswith("HTTP/1.1 404")
    gateway.wait_ready(60)
    gateway.wait_restarted(gateway.kill("core", signal.SIGABRT), timeout_s=60)
    gateway.wait_ready(60)


def run(gateway, text):
    """Applies the catalog `text`, then does it all. Leaves the gateway running."""
    gateway.apply(text)
    token = gateway.token(gateways.GUEST, "--team", "explorers")
    with ModernMcp(gateway.mcp_url, token) as mcp:
        wait_until(lambda: "word_count" in mcp.tools(), "the upstream's tools")
        assert mcp.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000
        assert mcp.call("word_count", {"text": "a b"}).result
        assert mcp.call("filtered").result["content"]
        mcp.call("by_name")
        for name in ("endless", "over_tls", "by_hosts_name", "nowhere"):
            mcp.call(name)
        mcp.call("word_count", {"text": "a b " * 200000})
    with LegacyMcp(gateway.mcp_url, token) as mcp, Connection(gateway.mcp_url) as stream:
        stream.send("GET", mcp.path, {**mcp.headers, "Accept": "text/event-stream"})
        assert stream.read_head()[0] == 200
        assert mcp.call("convert_units", UNITS).result
        mcp.delete()
    with Connection(gateway.mcp_url) as refused:
        refused.send_bytes(b"NOT HTTP\r\n\r\n")
        refused.read()
    for path in ("/metrics", "/healthz", "/absent"):
        get(gateway, "metrics", path)
    for headers in ({}, {"Authorization": f"Bearer {token}"}):
        get(gateway, "hello", "/hello", headers)
    gateway.wait_restarted(gateway.kill("core"), timeout_s=60)
    gateway.wait_ready(60)
    with ModernMcp(gateway.mcp_url, token) as mcp:
        assert mcp.call("convert_units", UNITS).result["structuredContent"]["result"] == 5000

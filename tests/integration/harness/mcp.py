"""MCP as bytes on the wire, in both eras: LegacyMcp (sessions, 2025-11-25) and ModernMcp (stateless, 2026-07-28).

These see what client libraries hide: statuses, headers, the order of events. The clients of others are in clients.py.
"""
import itertools
import json
import urllib.parse

from .http1 import Connection

LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = "io.modelcontextprotocol/"


class Reply:
    """What came back for one POST."""

    def __init__(self, status, headers, messages):
        self.status, self.headers, self.messages = status, headers, messages

    @property
    def notifications(self):
        return [m for m in self.messages if "method" in m and "id" not in m]

    @property
    def answer(self):
        """The one JSON-RPC response."""
        found = [m for m in self.messages if "result" in m or "error" in m]
        assert len(found) == 1, (self.status, self.messages)
        return found[0]

    @property
    def result(self):
        assert "result" in self.answer, (self.status, self.answer)
        return self.answer["result"]

    @property
    def error(self):
        assert "error" in self.answer, (self.status, self.answer)
        return self.answer["error"]

    def __repr__(self):
        return f"<{self.status} {self.messages!r:.500}>"


class Mcp:
    """What both eras share. One connection, kept alive, re-opened when the other side closed it."""

    def __init__(self, url, token=None, headers=None):
        self.url, self.path = url, urllib.parse.urlsplit(url).path or "/"
        self.headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", **(headers or {})}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        self.ids = itertools.count(1)
        self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def start(self, body, headers=None):
        """Posts and reads the head: (connection, status, headers). For tests that act while a call is under way."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        for attempt in (1, 2):
            fresh = self.connection is None
            self.connection = self.connection or Connection(self.url)
            try:
                self.connection.send("POST", self.path, {**self.headers, **(headers or {})}, data)
                status, received = self.connection.read_head()
            except (BrokenPipeError, ConnectionResetError):
                if fresh:
                    raise
                status, received = None, {}
            if status is not None:
                return self.connection, status, received
            self.close()
            if fresh or attempt == 2:
                raise ConnectionError("closed without an answer")
        raise AssertionError("not reached")

    def post(self, body, headers=None):
        connection, status, received = self.start(body, headers)
        if (received.get("content-type") or [""])[0].startswith("text/event-stream"):
            messages = [json.loads(data) for data in connection.events(received)]
        else:
            text = b"".join(connection.chunks(received)) if status not in (204, 304) else b""
            messages = [json.loads(text)] if text and "json" in (received.get("content-type") or [""])[0] else []
        if "close" in (received.get("connection") or [""])[0].lower():
            self.close()
        return Reply(status, received, messages)

    def request(self, method, params=None, headers=None, meta=None):
        return self.post(*self.message(method, params, headers, meta))

    def call(self, name, arguments=None, progress_token=None, headers=None):
        meta = {} if progress_token is None else {"progressToken": progress_token}
        return self.request("tools/call", {"name": name, "arguments": arguments or {}}, headers, meta)

    def tools(self):
        """{name: tool} over all pages."""
        found, cursor = {}, None
        while True:
            page = self.request("tools/list", {} if cursor is None else {"cursor": cursor}).result
            found.update((tool["name"], tool) for tool in page["tools"])
            cursor = page.get("nextCursor")
            if cursor is None:
                return found

    def message(self, method, params=None, headers=None, meta=None):
        raise NotImplementedError


class LegacyMcp(Mcp):
    """Opens a session when made; delete() ends it."""

    def __init__(self, url, token=None, version=LEGACY, headers=None, initialize=True):
        super().__init__(url, token, headers)
        if not initialize:
            return
        reply = self.request("initialize", {"protocolVersion": version, "capabilities": {},
                                            "clientInfo": {"name": "raw-legacy", "version": "1"}})
        self.initialized = reply.result
        self.headers["MCP-Protocol-Version"] = self.initialized["protocolVersion"]
        self.session_id = (reply.headers.get("mcp-session-id") or [None])[0]
        if self.session_id:
            self.headers["Mcp-Session-Id"] = self.session_id
        assert self.notify("notifications/initialized").status == 202

    def message(self, method, params=None, headers=None, meta=None):
        params = dict(params or {})
        if meta:
            params["_meta"] = meta
        return {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}, headers

    def notify(self, method, params=None):
        return self.post({"jsonrpc": "2.0", "method": method, "params": params or {}})

    def cancel(self, request_id):
        """On a connection of its own: the call to cancel occupies ours."""
        with type(self)(self.url, headers=self.headers, initialize=False) as other:
            return other.notify("notifications/cancelled", {"requestId": request_id, "reason": "test"})

    def delete(self):
        with Connection(self.url) as connection:
            connection.send("DELETE", self.path, self.headers)
            return connection.read("DELETE")


class ModernMcp(Mcp):
    """Every request carries its own metadata and the headers that mirror it."""

    def message(self, method, params=None, headers=None, meta=None):
        params = dict(params or {})
        params["_meta"] = {META + "protocolVersion": MODERN, META + "clientCapabilities": {},
                           META + "clientInfo": {"name": "raw-modern", "version": "1"}, **(meta or {})}
        mirrored = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        if method in ("tools/call", "prompts/get"):
            mirrored["Mcp-Name"] = params["name"]
        elif method == "resources/read":
            mirrored["Mcp-Name"] = params["uri"]
        return {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}, {**mirrored, **(headers or {})}

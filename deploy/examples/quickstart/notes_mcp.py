#!/usr/bin/python3
"""Notes: a small real MCP server over streamable HTTP, the quick start's upstream MCP server.

Speaks the session era of the protocol (2025-11-25, 2025-06-18, 2025-03-26) at /mcp: initialize, ping, tools/list,
tools/call, notifications/cancelled, DELETE. A call that carries a progress token, or whose tool takes its time, is answered as an event
stream, the others as JSON. Notes live in memory and are shared by all sessions. There is no stream from the server on its
own account: GET answers 405. A lost connection ends the call it carried. Options and life cycle: service.py.
"""
import json
import secrets
import sys
import threading
import urllib.parse

import service
from service import Problem

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26")
SESSIONS_LIMIT = 1000
NOTES_LIMIT = 1000
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
SESSION_ERROR, SESSION_NOT_FOUND = -32000, -32001
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def schema(properties, *required):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


NOTE = schema({"id": {"type": "integer"}, "text": {"type": "string"}}, "id", "text")
TOOLS = [
    {"name": "note_add", "title": "Add a note", "description": "Keeps a note; answers its number.",
     "inputSchema": schema({"text": {"type": "string", "minLength": 1, "maxLength": 10000, "description": "The note."}}, "text"),
     "outputSchema": schema({"id": {"type": "integer"}}, "id"),
     "annotations": {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": False}},
    {"name": "note_list", "title": "List notes", "description": "The notes kept so far, oldest first.",
     "inputSchema": schema({"contains": {"type": "string", "description": "Only notes that contain this text."}}),
     "outputSchema": schema({"notes": {"type": "array", "items": NOTE}}, "notes"),
     "annotations": {"readOnlyHint": True, "openWorldHint": False}},
    {"name": "word_count", "title": "Count words", "description": "Counts the words of a text, line by line, with progress.",
     "inputSchema": schema({"text": {"type": "string", "description": "The text."}}, "text"),
     "outputSchema": schema({"lines": {"type": "integer"}, "words": {"type": "integer"}}, "lines", "words"),
     "annotations": {"readOnlyHint": True, "openWorldHint": False}},
    {"name": "slow_count", "title": "Count slowly", "description": "Counts to `steps` with a pause before each; can be cancelled.",
     "inputSchema": schema({"steps": {"type": "integer", "minimum": 1, "maximum": 1000},
                            "delay_ms": {"type": "integer", "minimum": 0, "maximum": 60000, "default": 100}}, "steps"),
     "outputSchema": schema({"counted": {"type": "integer"}}, "counted"),
     "annotations": {"readOnlyHint": True, "openWorldHint": False}},
]


class RpcError(Exception):
    """A JSON-RPC error reply."""

    def __init__(self, code, message, status=200):
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class ToolError(Exception):
    """The tool itself says no: a result with isError."""


class Cancelled(Exception):
    """The client cancelled the call: no reply is sent."""


class Session:
    """One client: its calls in progress can be cancelled by request id."""

    def __init__(self):
        self.id = secrets.token_urlsafe(24)
        self.lock = threading.Lock()
        self.running = {}

    def start(self, request_id):
        with self.lock:
            if request_id in self.running:
                raise RpcError(INVALID_REQUEST, "a request with this id is in progress")
            self.running[request_id] = threading.Event()
            return self.running[request_id]

    def end(self, request_id):
        with self.lock:
            self.running.pop(request_id, None)

    def cancel(self, request_id=None):
        """One call, or all of them."""
        with self.lock:
            for key, event in self.running.items():
                if request_id is None or key == request_id:
                    event.set()


class Store:
    """What all sessions share."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sessions = {}
        self.notes = []

    def open_session(self):
        with self.lock:
            if len(self.sessions) >= SESSIONS_LIMIT:
                oldest = next(iter(self.sessions))
                self.sessions.pop(oldest).cancel()
            session = Session()
            self.sessions[session.id] = session
            return session

    def close_session(self, session):
        with self.lock:
            self.sessions.pop(session.id, None)
        session.cancel()

    def add(self, text):
        with self.lock:
            if len(self.notes) >= NOTES_LIMIT:
                raise ToolError(f"there are {NOTES_LIMIT} notes already")
            self.notes.append(text)
            return len(self.notes)

    def list(self, contains):
        with self.lock:
            return [{"id": number, "text": text} for number, text in enumerate(self.notes, 1) if contains in text]


STORE = Store()


def check_arguments(tool, arguments):
    """The part of JSON Schema that TOOLS uses."""
    properties = tool["inputSchema"]["properties"]
    for name in tool["inputSchema"]["required"]:
        if name not in arguments:
            raise ToolError(f"the argument {name!r} is missing")
    for name, value in arguments.items():
        rule = properties.get(name)
        if rule is None:
            raise ToolError(f"there is no argument named {name!r}")
        kind = {"string": str, "integer": int}[rule["type"]]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ToolError(f"the argument {name!r} has to be of type {rule['type']}")
        size = len(value) if kind is str else value
        low, high = (rule.get("minLength"), rule.get("maxLength")) if kind is str else (rule.get("minimum"), rule.get("maximum"))
        if (low is not None and size < low) or (high is not None and size > high):
            raise ToolError(f"the argument {name!r} is out of range")


def note_add(arguments, _progress, _cancelled):
    return {"id": STORE.add(arguments["text"])}


def note_list(arguments, _progress, _cancelled):
    return {"notes": STORE.list(arguments.get("contains", ""))}


def word_count(arguments, progress, cancelled):
    lines, words = arguments["text"].splitlines(), 0
    for number, line in enumerate(lines, 1):
        if cancelled.is_set():
            raise Cancelled
        words += len(line.split())
        progress(number, len(lines), f"{words} words in {number} lines")
    return {"lines": len(lines), "words": words}


def slow_count(arguments, progress, cancelled):
    steps, delay_s = arguments["steps"], arguments.get("delay_ms", 100) / 1000
    for number in range(1, steps + 1):
        if cancelled.wait(delay_s) or cancelled.is_set():
            raise Cancelled
        progress(number, steps, f"counted to {number}")
    return {"counted": steps}


RUN = {"note_add": note_add, "note_list": note_list, "word_count": word_count, "slow_count": slow_count}
SLOW = {"slow_count"}


def call_tool(tool, arguments, progress, cancelled):
    """The CallToolResult."""
    try:
        check_arguments(tool, arguments)
        value = RUN[tool["name"]](arguments, progress, cancelled)
    except ToolError as error:
        return {"content": [{"type": "text", "text": str(error)}], "isError": True}
    return {"content": [{"type": "text", "text": json.dumps(value, ensure_ascii=False)}], "structuredContent": value}


def check_id(value):
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise RpcError(INVALID_REQUEST, "the id has to be a string or an integer", 400)
    return value


class Handler(service.Handler):
    server_version = "notes/1"

    def answer(self, method):
        if self.path.partition("?")[0] == "/healthz":
            self.send_json(200, {"status": "ok"})
            return
        if self.path.partition("?")[0] != "/mcp":
            raise Problem(404, "path_unknown", "There is nothing at this path; the server is at /mcp.")
        self.check_origin()
        if method == "POST":
            self.post()
        elif method == "DELETE":
            try:
                STORE.close_session(self.session())
                self.send_bytes(204, b"")
            except RpcError as error:
                self.send_error_reply(None, error)
        else:
            self.send_bytes(405, b"", headers={"Allow": "POST, DELETE"})

    def check_origin(self):
        origin = self.headers.get("Origin")
        if origin is not None:
            try:
                host = urllib.parse.urlsplit(origin).hostname
            except ValueError:
                host = None
            if host not in LOOPBACK:
                raise Problem(403, "origin_refused", "Requests from this origin are refused.")

    def session(self):
        name = self.headers.get("Mcp-Session-Id")
        if not name:
            raise RpcError(SESSION_ERROR, "Bad Request: Mcp-Session-Id header is required", 400)
        found = STORE.sessions.get(name)
        if found is None:
            raise RpcError(SESSION_NOT_FOUND, "Session not found", 404)
        return found

    def post(self):
        request_id = None
        try:
            version = self.headers.get("MCP-Protocol-Version")
            if version is not None and version not in VERSIONS:
                raise RpcError(SESSION_ERROR, f"Bad Request: Unsupported protocol version (supported: {', '.join(VERSIONS)})", 400)
            accept = self.headers.get("Accept", "")
            if "application/json" not in accept or "text/event-stream" not in accept:
                raise RpcError(SESSION_ERROR, "Not Acceptable: accept application/json and text/event-stream", 406)
            try:
                message = self.read_json()
            except Problem as problem:
                raise RpcError(PARSE_ERROR, problem.body["detail"], problem.body["status"]) from None
            if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
                raise RpcError(INVALID_REQUEST, "not one JSON-RPC 2.0 message", 400)
            if "method" not in message:  # a response: this server asks for nothing
                self.session()
                self.send_bytes(202, b"")
                return
            method, params = message["method"], message.get("params", {})
            if not isinstance(method, str) or not isinstance(params, dict):
                raise RpcError(INVALID_REQUEST, "method has to be a string and params an object", 400)
            if "id" not in message:
                self.notification(method, params)
                return
            request_id = check_id(message["id"])
            self.serve_request(request_id, method, params)
        except RpcError as error:
            self.send_error_reply(request_id, error)

    def send_error_reply(self, request_id, error):
        self.send_json(error.status, {"jsonrpc": "2.0", "id": request_id, "error": {"code": error.code, "message": error.message}})

    def notification(self, method, params):
        session = self.session()
        if method == "notifications/cancelled" and params.get("requestId") is not None:
            session.cancel(params["requestId"])
        self.send_bytes(202, b"")

    def serve_request(self, request_id, method, params):
        if method == "initialize":
            asked = params.get("protocolVersion")
            if not isinstance(asked, str):
                raise RpcError(INVALID_PARAMS, "protocolVersion is missing")
            session = STORE.open_session()
            result = {"protocolVersion": asked if asked in VERSIONS else VERSIONS[0], "capabilities": {"tools": {}},
                      "serverInfo": {"name": "notes", "title": "Notes", "version": "1.0.0"},
                      "instructions": "Keeps short notes and counts words."}
            self.reply(request_id, result, {"Mcp-Session-Id": session.id})
            return
        session = self.session()
        if method == "ping":
            self.reply(request_id, {})
        elif method == "tools/list":
            if params.get("cursor") is not None:
                raise RpcError(INVALID_PARAMS, "invalid cursor")
            self.reply(request_id, {"tools": TOOLS})
        elif method == "tools/call":
            self.call(session, request_id, params)
        else:
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method}"[:200])

    def reply(self, request_id, result, headers=None):
        self.send_json(200, {"jsonrpc": "2.0", "id": request_id, "result": result}, headers=headers)

    def call(self, session, request_id, params):
        tool = next((tool for tool in TOOLS if tool["name"] == params.get("name")), None)
        if tool is None:
            raise RpcError(INVALID_PARAMS, f"Unknown tool: {params.get('name')}"[:200])
        arguments, meta = params.get("arguments") or {}, params.get("_meta") or {}
        if not isinstance(arguments, dict) or not isinstance(meta, dict):
            raise RpcError(INVALID_PARAMS, "arguments and _meta have to be objects")
        token = meta.get("progressToken")
        cancelled = session.start(request_id)
        try:
            if token is None and tool["name"] not in SLOW:
                self.reply(request_id, call_tool(tool, arguments, lambda *_: None, cancelled))
            else:
                self.call_streaming(request_id, tool, arguments, token, cancelled)
        except Cancelled:
            self.close_connection = True
        finally:
            session.end(request_id)

    def call_streaming(self, request_id, tool, arguments, token, cancelled):
        """Progress and then the result, as one event stream that ends without a result when the call is cancelled."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Accel-Buffering", "no")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

        def progress(done, total, message):
            if token is not None:
                self.send_event({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
                    "progressToken": token, "progress": done, "total": total, "message": message}})

        try:
            self.send_event({"jsonrpc": "2.0", "id": request_id, "result": call_tool(tool, arguments, progress, cancelled)})
        except Cancelled:
            pass
        self.wfile.write(b"0\r\n\r\n")

    def send_event(self, message):
        event = f"event: message\ndata: {json.dumps(message, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
        self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        self.wfile.flush()


if __name__ == "__main__":
    sys.exit(service.run(Handler, service.parser(__doc__.partition("\n")[0]).parse_args()))

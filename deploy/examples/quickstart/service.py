"""What the two example services share: an HTTP/1.1 server on loopback with keep-alive, limits and a clean end.

run(handler, description, ...) reads --host and --port (0: any free port), or takes over a listening socket passed by the
systemd convention (LISTEN_FDS, LISTEN_PID); it prints `LISTENING <port>` once it accepts connections, and ends with status
0 on SIGTERM or SIGINT. Only Python's standard library is used.
"""
import argparse
import http.server
import json
import os
import signal
import socket
import sys
import threading

BODY_LIMIT_BYTES = 1 << 20
IDLE_TIMEOUT_S = 60
FIRST_PASSED_FD = 3


class Problem(Exception):
    """An error that the client is to see, as RFC 9457 application/problem+json."""

    def __init__(self, status, code, detail, **members):
        super().__init__(detail)
        self.status = status
        self.headers = {}
        self.body = {"type": f"urn:problem:{code}", "title": http.HTTPStatus(status).phrase, "status": status,
                     "code": code, "detail": detail, **members}


class Handler(http.server.BaseHTTPRequestHandler):
    """Reads bodies within limits and writes JSON; subclasses answer in `answer(method)`."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one segment
    quiet = True

    def answer(self, method):
        raise NotImplementedError

    def _dispatch(self):
        self._body = None
        try:
            self.read_body()
            self.answer(self.command)
        except Problem as problem:
            self.send_json(problem.status, problem.body, "application/problem+json", problem.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        try:
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _dispatch

    def read_body(self):
        """The request's body, read once: also when nobody wants it, so that the connection stays in step."""
        if self._body is None:
            if self.headers.get("Transfer-Encoding"):
                self.close_connection = True
                raise Problem(411, "length_required", "Chunked bodies are not accepted; send Content-Length.")
            text = self.headers.get("Content-Length", "0")
            if not (text.isascii() and text.isdigit()):
                self.close_connection = True
                raise Problem(400, "length_invalid", "Content-Length is not a number.")
            if int(text) > BODY_LIMIT_BYTES:
                self.close_connection = True
                raise Problem(413, "body_too_large", f"The body may have {BODY_LIMIT_BYTES} bytes at most.")
            self._body = self.rfile.read(int(text))
            if len(self._body) != int(text):
                self.close_connection = True
                raise Problem(400, "body_truncated", "The connection ended inside the body.")
        return self._body

    def read_json(self):
        if self.headers.get_content_type() != "application/json":
            raise Problem(415, "media_type", "The body has to be application/json.")
        try:
            return json.loads(self.read_body())
        except (ValueError, RecursionError):
            raise Problem(400, "json_malformed", "The body is not valid JSON.") from None

    def send_json(self, status, value, content_type="application/json", headers=None):
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        self.send_bytes(status, body, content_type, headers)

    def send_bytes(self, status, body, content_type=None, headers=None):
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        if content_type:
            self.send_header("Content-Type", content_type)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args):  # the base class's name
        if not self.quiet:
            super().log_message(format, *args)


class Server(http.server.ThreadingHTTPServer):
    """The listening socket: our own, or one passed by whoever started us."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, handler, passed=None):
        super().__init__(address, handler, bind_and_activate=passed is None)
        if passed is not None:
            self.socket.close()
            self.socket = passed
            self.server_address = passed.getsockname()
            self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def passed_socket():
    """The first socket of LISTEN_FDS when it is meant for this process, else None."""
    count, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if not count.isdigit() or int(count) < 1 or (pid and pid != str(os.getpid())):
        return None
    return socket.socket(fileno=FIRST_PASSED_FD)


def parser(description):
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    made.add_argument("--port", type=int, default=0, help="port to listen on; 0: any free one (default)")
    made.add_argument("--verbose", action="store_true", help="log requests on stderr")
    return made


def run(handler, options):
    handler.quiet = not options.verbose
    server = Server((options.host, options.port), handler, passed_socket())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"LISTENING {server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.socket.close()
    return 0

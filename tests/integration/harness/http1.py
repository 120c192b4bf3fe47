"""HTTP/1.1 by hand: exact bytes out, everything back; and server-sent events. No library that would tidy up what a test means."""
import json
import socket
import urllib.parse


class Response:
    """A parsed response; header names in lower case, values of repeated headers in a list."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name):
        values = self.headers.get(name.lower())
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class Connection:
    """One TCP (or Unix, when the target is a path) connection."""

    def __init__(self, target, timeout_s=20):
        """target: "http://host:port/…", (host, port) or the path of a Unix socket."""
        self.timeout_s = timeout_s
        if isinstance(target, str) and target.startswith("http://"):
            parts = urllib.parse.urlsplit(target)
            target = (parts.hostname, parts.port or 80)
        if isinstance(target, tuple):
            self.socket = socket.create_connection(target, timeout_s)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.authority = f"{target[0]}:{target[1]}"
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout_s)
            self.socket.connect(str(target))
            self.authority = "localhost"
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def is_over(self):
        """Whether the other side has closed it, as servers do with what was idle for long."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(self.timeout_s)

    def send_bytes(self, data):
        self.socket.sendall(data)

    def send(self, method, path, headers=None, body=None):
        """headers: {name: value}; a value None leaves that header out, also Host and Content-Length."""
        fields = {"Host": self.authority}
        if body is not None:
            fields["Content-Length"] = str(len(body))
        fields.update(headers or {})
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items() if v is not None)
        self.send_bytes(head.encode("latin-1") + b"\r\n" + (body or b""))

    def read_head(self):
        """(status, headers); status None when the other side closed instead of answering. 1xx responses are skipped."""
        while True:
            line = self.file.readline()
            if not line:
                return None, {}
            version, status = line.split(b" ", 2)[:2]
            assert version == b"HTTP/1.1", line
            headers = {}
            while (line := self.file.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers.setdefault(name.strip().lower(), []).append(value.strip())
            if int(status) >= 200:
                return int(status), headers

    def chunks(self, headers):
        """The body, piece by piece as it comes."""
        if "chunked" in (headers.get("transfer-encoding") or [""])[0].lower():
            while True:
                size = int(self.file.readline().split(b";")[0], 16)
                data = self.file.read(size)
                self.file.readline()
                if size == 0:
                    return
                yield data
        elif "content-length" in headers:
            yield self.file.read(int(headers["content-length"][0]))
        else:
            while data := self.file.read1(65536):
                yield data

    def read(self, method="GET"):
        """The whole response, or None when the other side closed instead."""
        status, headers = self.read_head()
        if status is None:
            return None
        body = b"" if method == "HEAD" or status in (204, 304) else b"".join(self.chunks(headers))
        return Response(status, headers, body)

    def events(self, headers):
        """The data of each server-sent event, as it comes; comments and empty events are left out."""
        pending = b""
        for data in self.chunks(headers):
            pending += data
            while b"\n\n" in (pending := pending.replace(b"\r\n", b"\n")):
                event, _, pending = pending.partition(b"\n\n")
                text = b"\n".join(line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
                if text:
                    yield text


def request(url, method="GET", headers=None, body=None, timeout_s=20):
    """One request on a connection of its own."""
    parts = urllib.parse.urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if isinstance(body, (dict, list)):
        body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
    with Connection(url, timeout_s) as connection:
        connection.send(method, path, headers, body)
        return connection.read(method)


def exchange(target, data, timeout_s=20):
    """Sends exact bytes, half-closes, and returns everything that comes back."""
    with Connection(target, timeout_s) as connection:
        connection.send_bytes(data)
        connection.socket.shutdown(socket.SHUT_WR)
        return connection.file.read()

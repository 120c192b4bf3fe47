#!/usr/bin/python3
"""The slim wire against grpcio: grpcio as client of our server, and our client against a grpcio server."""
import os
import subprocess
import sys
import tempfile
import threading

try:
    import grpc
except ImportError:
    print("SKIP: python3-grpcio is not installed")
    sys.exit(77)

from concurrent import futures

peer = sys.argv[1]
directory = tempfile.mkdtemp(prefix="rpc_interop_")
failures = 0
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def expect(condition, what):
    global failures
    print("ok" if condition else "FAILED", what)
    failures += not condition


def status_of(action):
    try:
        action()
    except grpc.RpcError as error:
        return error
    return None


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


ENVELOPE = (field(1, 7) + field(2, b"rate_limit.exceeded") + field(3, b"Slow down") + field(4, 3) + field(5, 1)
            + field(6, 1500))
DETAILS = (field(1, 8) + field(2, b"Slow down")
           + field(3, field(1, b"type.googleapis.com/core.common.v1.ErrorEnvelope") + field(2, ENVELOPE)))


def client():
    path = os.path.join(directory, "ours.sock")
    server = subprocess.Popen([peer, "server", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"ready\n"
        channel = grpc.insecure_channel("unix:" + path, options=LARGE)
        unary = channel.unary_unary("/test.Echo/Unary")
        expect(unary(b"hello", timeout=10) == b"hello", "client: unary")
        large = b"l" * ((4 << 20) - 100)
        expect(unary(large, timeout=10) == large, "client: large message")
        error = status_of(lambda: unary(b"l" * ((4 << 20) + 1), timeout=10))
        expect(error is not None and error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, "client: too large")
        error = status_of(lambda: channel.unary_unary("/test.Echo/Fail")(b"", timeout=10))
        details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
        expect(error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and b"rate_limit.exceeded" in details
               and "core.common.v1.ErrorEnvelope" in details.decode("latin-1") and "\u00fc" in error.details(),
               "client: status details")
        error = status_of(lambda: channel.unary_unary("/test.Echo/Nope")(b"", timeout=10))
        expect(error.code() == grpc.StatusCode.UNIMPLEMENTED, "client: unknown method")
        error = status_of(lambda: unary(b"z" * 1000, timeout=10, compression=grpc.Compression.Gzip))
        expect(error is not None and error.code() == grpc.StatusCode.UNIMPLEMENTED, "client: gzip is refused")
        error = status_of(lambda: channel.unary_unary("/test.Echo/Hang")(b"", timeout=0.2))
        expect(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, "client: deadline")
        hanging = channel.unary_unary("/test.Echo/Hang").future(b"", timeout=10)
        hanging.cancel()
        expect(hanging.cancelled() and unary(b"x", timeout=10) == b"x", "client: cancellation")
        messages = list(channel.unary_stream("/test.Echo/Stream")(b"1000 100", timeout=10))
        expect(len(messages) == 1000 and all(len(m) == 100 for m in messages), "client: server stream")
        messages = list(channel.stream_stream("/test.Echo/Bidi")(iter([b"a", b"b", b"", b"d" * 100000]), timeout=10))
        expect(messages == [b"a", b"b", b"", b"d" * 100000], "client: bidirectional stream")
        reply, call = channel.unary_unary("/test.Echo/Metadata").with_call(
            b"", timeout=10, metadata=[("x-test", "one"), ("x-test-bin", b"\0\1\xff")])
        received = dict(call.initial_metadata())
        expect(received.get("x-test") == "one" and received.get("x-test-bin") == b"\0\1\xff" and 5000 < int(reply) <= 10100,
               "client: metadata and deadline")
        expect(channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01", "client: health")
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=10)
        expect(next(watch) == b"\x08\x01", "client: health watch")
        watch.cancel()
        channel.close()
    finally:
        server.stdin.close()
        expect(server.wait(10) == 0, "client: server left in order")


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method
        if name == "/test.Echo/Unary":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        if name == "/test.Echo/Fail":
            return grpc.unary_unary_rpc_method_handler(self.fail)
        if name == "/test.Echo/Hang":
            return grpc.unary_unary_rpc_method_handler(self.hang)
        if name == "/test.Echo/Gzip":
            return grpc.unary_unary_rpc_method_handler(self.gzip)
        if name == "/test.Echo/Stream":
            return grpc.unary_stream_rpc_method_handler(self.stream)
        if name == "/test.Echo/Bidi":
            return grpc.stream_stream_rpc_method_handler(lambda requests, context: requests)
        return None

    def fail(self, request, context):
        context.set_trailing_metadata([("grpc-status-details-bin", DETAILS)])
        context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
        context.set_details("Slow down")
        return b""

    def hang(self, request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(10)
        return b""

    def gzip(self, request, context):
        context.set_compression(grpc.Compression.Gzip)
        return b"z" * 1000

    def stream(self, request, context):
        count, size = map(int, request.split())
        for _ in range(count):
            yield b"s" * size


def server():
    path = os.path.join(directory, "theirs.sock")
    theirs = grpc.server(futures.ThreadPoolExecutor(8), options=LARGE)
    theirs.add_generic_rpc_handlers((Service(),))
    theirs.add_insecure_port("unix:" + path)
    theirs.start()
    try:
        outcome = subprocess.run([peer, "client", path], timeout=60)
        expect(outcome.returncode == 0, "server: all of our client's calls")
    finally:
        theirs.stop(0).wait(5)


client()
server()
for name in os.listdir(directory):
    os.unlink(os.path.join(directory, name))
os.rmdir(directory)
sys.exit(1 if failures else 0)

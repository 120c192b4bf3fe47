"""Interoperability of core/rpc with Debian's python3-grpcio, both ways, and with grpcurl where it is installed.

usage: interop_test.py <core_rpc_interop binary> <descriptor set with grpc/health/v1/health.proto>

Raw bytes on both sides, so that no generated code is needed; health and reflection are encoded by hand.
Skipped parts print their reason and are counted.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from concurrent import futures

import grpc

BINARY, DESCRIPTORS = sys.argv[1], sys.argv[2]
SERVICE = "/test.v1.Test/"
RAW = {"request_serializer": None, "response_deserializer": None}


def field(number, payload):
    """One length-delimited protobuf field."""
    length, size = b"", len(payload)
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


class Served(unittest.TestCase):
    """Python's client against our server."""

    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        cls.path = os.path.join(cls.directory.name, "core.sock")
        cls.server = subprocess.Popen([BINARY, "serve", cls.path, DESCRIPTORS], stdout=subprocess.PIPE)
        assert cls.server.stdout.readline() == b"ready\n"
        cls.channel = grpc.insecure_channel("unix:" + cls.path)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.server.send_signal(signal.SIGTERM)
        code = cls.server.wait(timeout=10)
        cls.server.stdout.close()
        cls.directory.cleanup()
        assert code == 0, f"the server ended with {code}"

    def unary(self, method, data, **options):
        return self.channel.unary_unary(SERVICE + method, **RAW)(data, timeout=options.pop("timeout", 10), **options)

    def test_unary(self):
        for data in (b"", b"x", b"y" * 100000):
            self.assertEqual(self.unary("Echo", data), data)

    def test_gzip_request(self):
        self.assertEqual(self.unary("Echo", b"z" * 10000, compression=grpc.Compression.Gzip), b"z" * 10000)

    def test_identity_and_metadata(self):
        words = self.unary("Who", b"", metadata=(("x-test", "seven"),)).decode().split()
        self.assertEqual(words[:4], ["interop", str(os.getuid()), str(os.getgid()), str(os.getpid())])
        self.assertEqual(words[5], "seven")

    def test_unknown_method(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.unary("Nothing", b"")
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_status_details(self):
        for data, code in ((b"x", grpc.StatusCode.ABORTED), (b"", grpc.StatusCode.ALREADY_EXISTS)):
            with self.assertRaises(grpc.RpcError) as caught:
                self.unary("Fail", data)
            self.assertEqual(caught.exception.code(), code)
            self.assertEqual(caught.exception.details(), 'it is "there" already: café')
            details = dict(caught.exception.trailing_metadata())["grpc-status-details-bin"]
            self.assertIn(b"type.googleapis.com/core.common.v1.ErrorEnvelope", details)
            self.assertIn(b"catalog.record.conflict", details)

    def test_deadline(self):
        began = time.monotonic()
        with self.assertRaises(grpc.RpcError) as caught:
            self.unary("Hold", b"", timeout=0.2)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.assertLess(time.monotonic() - began, 2)

    def test_message_too_large(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.unary("Echo", b"x" * (5 << 20))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    def test_server_stream_and_cancel(self):
        count = self.channel.unary_stream(SERVICE + "Count", **RAW)
        self.assertEqual(list(count(b"1000 10", timeout=10)), [b"x" * 10] * 1000)
        endless = count(b"100000000 10", timeout=10)
        self.assertEqual(next(endless), b"x" * 10)
        endless.cancel()
        with self.assertRaises(grpc.RpcError) as caught:
            list(endless)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)

    def test_bidi(self):
        chat = self.channel.stream_stream(SERVICE + "Chat", **RAW)
        self.assertEqual(list(chat(iter([b"a", b"", b"c"]), timeout=10)), [b"a", b"", b"c"])

    def test_health(self):
        check = self.channel.unary_unary("/grpc.health.v1.Health/Check", **RAW)
        self.assertEqual(check(b"", timeout=5), b"\x08\x01")
        self.assertEqual(check(field(1, b"test.v1.Test"), timeout=5), b"\x08\x02")
        with self.assertRaises(grpc.RpcError) as caught:
            check(field(1, b"unknown"), timeout=5)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        with self.assertRaises(grpc.RpcError) as caught:
            check(b"\x0a\xff", timeout=5)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        watch = self.channel.unary_stream("/grpc.health.v1.Health/Watch", **RAW)(field(1, b"unknown"), timeout=5)
        self.assertEqual(next(watch), b"\x08\x03")
        watch.cancel()

    def test_reflection(self):
        for version in ("v1", "v1alpha"):
            ask = self.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", **RAW
            )
            questions = [field(7, b""), field(4, b"grpc.health.v1.Health.Check"), field(4, b"no.such.Symbol"),
                         field(3, b"grpc/health/v1/health.proto")]
            answers = list(ask(iter(questions), timeout=5))
            self.assertIn(b"test.v1.Test", answers[0])
            self.assertIn(b"grpc.health.v1.Health", answers[0])
            self.assertIn(b"HealthCheckRequest", answers[1])
            self.assertIn(b"not found", answers[2])
            self.assertIn(b"HealthCheckRequest", answers[3])
            with self.assertRaises(grpc.RpcError) as caught:
                list(ask(iter([b"\xff\xff\xff"]), timeout=5))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    @unittest.skipUnless(shutil.which("grpcurl"), "grpcurl is not installed")
    def test_grpcurl(self):
        def run(*arguments):
            command = ["grpcurl", "-plaintext", "-unix", "-authority", "localhost", *arguments]
            return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout

        self.assertIn("grpc.health.v1.Health", run(self.path, "list"))
        self.assertIn("rpc Check", run(self.path, "describe", "grpc.health.v1.Health"))
        self.assertIn("SERVING", run(self.path, "grpc.health.v1.Health/Check"))


class Called(unittest.TestCase):
    """Our client against Python's server."""

    def test_every_step(self):
        def fail(request, context):
            context.set_trailing_metadata((("grpc-status-details-bin", ENVELOPE),))
            context.abort(grpc.StatusCode.ABORTED, "there already")

        def hold(request, context):
            stopped = threading.Event()
            context.add_callback(stopped.set)
            stopped.wait(10)
            return b""

        def count(request, context):
            number, size = map(int, request.split())
            for _ in range(number):
                yield b"x" * size

        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
            "Fail": grpc.unary_unary_rpc_method_handler(fail),
            "Hold": grpc.unary_unary_rpc_method_handler(hold),
            "Count": grpc.unary_stream_rpc_method_handler(count),
            "Chat": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
        }
        envelope = b"\x08\x05" + field(2, b"catalog.record.conflict") + field(3, b"there already")
        detail = field(1, b"type.googleapis.com/core.common.v1.ErrorEnvelope") + field(2, envelope)
        ENVELOPE = b"\x08\x0a" + field(2, b"there already") + field(3, detail)
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.v1.Test", handlers),))
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "python.sock")
            server.add_insecure_port("unix:" + path)
            server.start()
            ended = subprocess.run([BINARY, "call", path], capture_output=True, text=True, timeout=60)
            server.stop(None)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=1)

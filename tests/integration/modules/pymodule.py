#!/usr/bin/python3
"""A module written in Python with the stock gRPC library, good or bad: the SPI is language-neutral, and hostile modules are too.

Usage (by the supervisor): pymodule.py BEHAVIOUR. Environment: what every module gets, PYMODULE_STUBS (protoc's Python output) and
PYMODULE_REPORT (a file for what the probes found: JSON). BEHAVIOUR is "good" or one of those in this file that names a fault; the
configuration's "behaviour" wins over it, its "refuse" is what Initialize is refused with. PYMODULE_VERSION: what it says that it is. One that
regrets does so when there is PYMODULE_REPORT.regret.
What a process was given as configuration is in PYMODULE_REPORT.config.PID, a line for each Initialize.
"""
import concurrent.futures
import json
import os
import socket
import subprocess
import sys
import threading
import time

BEHAVIOUR = sys.argv[1] if len(sys.argv) > 1 else "good"
RUNTIME_SOCKET = os.environ["GATEHOUSE_RUNTIME_SOCKET"]
MODULE_ID = os.environ["GATEHOUSE_MODULE_ID"]
SPI_SOCKET = os.environ["GATEHOUSE_SPI_SOCKET"]
FAMILY = os.environ.get("PYMODULE_FAMILY", "echo")
ON_PROBATION = ("lies_on_probation", "hangs_on_probation", "errs_on_probation", "slow_on_probation", "leaks_on_probation", "dies_on_probation", "degrades_on_probation")
SECRET_KEY = "gatehouse-channel-secret"
RESOLVE = "/core.spi.auth.v1.AuthPolicyService/ResolveCaller"


def serve_raw(answer):
    """A runtime socket that speaks no gRPC: writes `answer` to whoever connects, and keeps the connection."""
    listener = socket.socket(socket.AF_UNIX)
    if os.path.exists(RUNTIME_SOCKET):
        os.unlink(RUNTIME_SOCKET)
    listener.bind(RUNTIME_SOCKET)
    listener.listen()
    kept = []
    while True:
        peer, _ = listener.accept()
        peer.sendall(answer)
        kept.append(peer)


if BEHAVIOUR == "exits":
    sys.exit(3)
if BEHAVIOUR == "hangs":
    time.sleep(3600)
if BEHAVIOUR == "garbage_socket":
    serve_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" + b"\xff" * 4096)
if BEHAVIOUR == "silent_socket":
    serve_raw(b"")

# pylint: disable=wrong-import-position
import grpc  # noqa: E402

STUBS = os.environ["PYMODULE_STUBS"]
sys.path.insert(0, STUBS)
grpc.__path__.append(os.path.join(STUBS, "grpc"))
from core.common.v1 import common_pb2  # noqa: E402
from core.module.v1 import module_pb2  # noqa: E402
from core.spi.auth.v1 import auth_pb2  # noqa: E402
from core.spi.catalog.v1 import catalog_pb2  # noqa: E402
from core.spi.config.v1 import config_pb2  # noqa: E402
from grpc.health.v1 import health_pb2  # noqa: E402


class Spi:
    """Calls to the core. Every result is (status name, stable code or "")."""

    def __init__(self, path, secret):
        self.path, self.secret = path, secret
        self.channel = grpc.insecure_channel(f"unix:{path}")

    def call(self, method, request=b"", secret=..., reply=None):
        secret = self.secret if secret is ... else secret
        metadata = () if secret is None else ((SECRET_KEY, secret),)
        data = request if isinstance(request, bytes) else request.SerializeToString()
        ask = self.channel.unary_unary(method, lambda x: x, lambda x: x)
        try:
            answer = ask(data, timeout=5, metadata=metadata)
            if reply is not None:
                reply.ParseFromString(answer)
            return "OK", ""
        except grpc.RpcError as error:
            return error.code().name, stable_code(error)


def stable_code(error):
    """The code in the envelope of grpc-status-details-bin; protobuf by hand is not needed: it is the only text with this form."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            at = value.find(b"core.common.v1.ErrorEnvelope")
            envelope = common_pb2.ErrorEnvelope()
            if at >= 0:
                rest = value[at + len(b"core.common.v1.ErrorEnvelope"):]
                length, used = varint(rest[1:])
                envelope.ParseFromString(rest[1 + used:1 + used + length])
                return envelope.code
    return ""


def status_details(envelope):
    """google.rpc.Status with this envelope among its details; its stubs are not installed everywhere."""
    def field(number, value):
        assert len(value) < 16384
        length = bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 0x7F | 0x80, len(value) >> 7])
        return bytes([number << 3 | 2]) + length + value
    details = field(1, b"type.googleapis.com/core.common.v1.ErrorEnvelope") + field(2, envelope.SerializeToString())
    return bytes([8, 3]) + field(3, details)


def varint(data):
    value = shift = used = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift, used = shift + 7, used + 1
        if not byte & 0x80:
            break
    return value, used


class Module:
    """State of this module and the handlers of its runtime API."""

    def __init__(self):
        self.proven = False
        self.serving, self.sampled = threading.Event(), threading.Event()
        self.initialize = None
        self.report = {"pid": os.getpid(), "behaviour": BEHAVIOUR}
        self.stats = module_pb2.ModuleStats(latency_counts=[0] * 70)
        self.leak = []

    def describe(self, _request, _context):
        if BEHAVIOUR == "garbage_descriptor":
            return b"\xff\xff\xff\xff not protobuf"
        descriptor = module_pb2.ModuleDescriptor(
            module_id="mcp" if BEHAVIOUR == "lies_about_id" else MODULE_ID,
            protocol_family="other" if BEHAVIOUR == "lies_about_family" else FAMILY,
            implementation_language="python", module_version=os.environ.get("PYMODULE_VERSION", "1.0.0"),
            spi_versions=["99"] if BEHAVIOUR == "other_spi_version" else ["1"],
            runtime_modes=[module_pb2.RUNTIME_MODE_SIDECAR], ingress_modes=[module_pb2.INGRESS_MODE_DIRECT],
            health=module_pb2.HealthSupport(readiness=True, liveness=True),
            config_schema_json=b'{"type":"object","required":["needed"]}' if BEHAVIOUR == "needs_configuration" else b"",
            spi_families=["auth", "config"] + (["psg"] if BEHAVIOUR == "wants_too_much" else ["root"] if BEHAVIOUR == "wants_unknown" else []) +
            ([] if FAMILY == "echo" else ["catalog", "observability"]))
        return descriptor.SerializeToString()

    def initialize_(self, data, context):
        request = module_pb2.InitializeRequest.FromString(data)
        self.configure(request, context)
        if BEHAVIOUR == "dies_in_initialize":
            os._exit(4)
        if BEHAVIOUR == "refuses_initialize":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "I do not like this configuration")
        if BEHAVIOUR == "garbage_initialize":
            return b"\xff\xff"
        self.initialize = request
        spi = Spi(request.spi_socket, bytes(request.channel_secret).decode())
        self.probe_early(spi)
        threading.Thread(target=self.attach, args=(spi,), daemon=True).start()
        return module_pb2.InitializeResponse(spi_version=request.spi_version).SerializeToString()

    def configure(self, request, context):
        global BEHAVIOUR
        config = json.loads(request.config_json)
        BEHAVIOUR = config.get("behaviour", BEHAVIOUR)
        self.tell_config(how="initialize", config=config, revision=request.config_revision)
        if "refuse" in config:
            envelope = common_pb2.ErrorEnvelope(category=common_pb2.ERROR_CATEGORY_INVALID_ARGUMENT, code="echo.config",
                                                message=config["refuse"])
            context.set_trailing_metadata((("grpc-status-details-bin", status_details(envelope)),))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, config["refuse"])

    def tell_config(self, **line):
        with open(f"{os.environ['PYMODULE_REPORT']}.config.{os.getpid()}", "a", encoding="utf-8") as file:
            print(json.dumps(line), file=file)

    def watch_config(self, spi):
        """GetModuleConfig, and every message of WatchModuleConfig."""
        service, metadata = "/core.spi.config.v1.ConfigSecretsService/", ((SECRET_KEY, spi.secret),)
        answer = spi.channel.unary_unary(service + "GetModuleConfig")(b"", timeout=5, metadata=metadata)
        now = config_pb2.ModuleConfig.FromString(answer)
        self.tell_config(how="get", config=json.loads(now.config_json), revision=now.revision)
        for message in spi.channel.unary_stream(service + "WatchModuleConfig")(b"", metadata=metadata):
            now = config_pb2.ModuleConfig.FromString(message)
            self.tell_config(how="watch", config=json.loads(now.config_json), revision=now.revision)
        self.tell_config(how="watch ended")

    def canary_request(self):
        return auth_pb2.ResolveCallerRequest(
            transport="canary", client_address="127.0.0.1", protocol_family=FAMILY,
            headers=[common_pb2.Header(name="authorization", value="Bearer " + self.initialize.canary_credential)])

    def attach(self, spi):
        if BEHAVIOUR in ("good", "probes", "regrets") + ON_PROBATION:
            self.report["canary"] = spi.call(RESOLVE, self.canary_request())
            self.proven = self.report["canary"][0] == "UNAUTHENTICATED"
        elif BEHAVIOUR == "http_json":
            self.report["canary"] = self.curl("ResolveCaller", {
                "transport": "canary", "clientAddress": "127.0.0.1", "protocolFamily": "echo",
                "headers": [{"name": "authorization", "value": "Bearer " + self.initialize.canary_credential}]})
            self.proven = self.report["canary"][0] == 401 and "auth.token.invalid" in self.report["canary"][1]
        elif BEHAVIOUR == "proves_nothing":
            self.proven = True
        if BEHAVIOUR == "probes":
            self.probe(spi)
        if BEHAVIOUR == "good":
            threading.Thread(target=self.watch_config, args=(spi,), daemon=True).start()
        self.write_report()
        if self.proven:
            self.serving.set()
        if self.proven and BEHAVIOUR in ("dies_on_probation", "degrades_on_probation"):
            self.sampled.wait()  # it is on probation when its numbers are asked for
            time.sleep(0.5)
        if self.proven and BEHAVIOUR == "dies_on_probation":
            os._exit(7)
        if self.proven and BEHAVIOUR == "degrades_on_probation":
            self.proven = False
            self.serving.clear()

    def curl(self, method, message):
        """One call by curl on the HTTP/JSON socket: (HTTP status, stable code)."""
        out = subprocess.run(["curl", "-s", "--unix-socket", self.initialize.spi_socket.replace(".sock", ".http.sock"),
                              "-H", f"{SECRET_KEY}: {bytes(self.initialize.channel_secret).decode()}",
                              "-H", "Content-Type: application/json", "-d", json.dumps(message), "-w", "\n%{http_code}",
                              f"http://localhost/core.spi.auth.v1.AuthPolicyService/{method}"],
                             capture_output=True, text=True, timeout=10, check=False)
        body, _, status = out.stdout.rpartition("\n")
        self.report["curl_body"] = body
        return int(status or 0), body

    def probe_early(self, spi):
        if BEHAVIOUR == "probes":
            self.report["before its phase"] = spi.call("/core.spi.auth.v1.AuthPolicyService/CheckPermission",
                                                       auth_pb2.CheckPermissionRequest(permission="tools.read"))

    def probe(self, spi):
        folder = os.path.dirname(SPI_SOCKET)
        admin = os.path.join(os.path.dirname(folder), "admin.sock")
        canary = self.canary_request()
        old = self.old_secret(spi.secret)
        self.report.update({
            "wrong secret": spi.call(RESOLVE, canary, secret="0" * len(spi.secret)),
            "short secret": spi.call(RESOLVE, canary, secret=spi.secret[:-1]),
            "empty secret": spi.call(RESOLVE, canary, secret=""),
            "missing secret": spi.call(RESOLVE, canary, secret=None),
            "old secret": spi.call(RESOLVE, canary, secret=old) if old else None,
            "family not granted": spi.call("/core.spi.catalog.v1.CatalogService/List", catalog_pb2.ListRequest()),
            "garbage request": spi.call(RESOLVE, b"\xff\xff\xff"),
            "unknown method": spi.call("/core.spi.auth.v1.AuthPolicyService/Nothing"),
            "unknown service": spi.call("/no.such.Service/Method"),
            "admin method on the SPI socket": spi.call("/core.admin.v1.StatusService/GetStatus"),
            "another module's socket": Spi(os.path.join(folder, "mcp.sock"), spi.secret).call(RESOLVE, canary),
            "SPI method on the admin socket": Spi(admin, spi.secret).call(RESOLVE, canary),
        })

    def old_secret(self, secret):
        """The secret of the generation before, which this file remembers for the test."""
        path = os.environ["PYMODULE_REPORT"] + ".secret"
        old = None
        if os.path.exists(path):
            with open(path, encoding="ascii") as file:
                old = file.read()
        with open(path, "w", encoding="ascii") as file:
            file.write(secret)
        return old

    def write_report(self):
        path = os.environ["PYMODULE_REPORT"]
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(self.report, file)
        os.rename(path + ".new", path)

    def readiness(self, _request, _context):
        if BEHAVIOUR == "garbage_readiness":
            return b"\xff\xff"
        if BEHAVIOUR == "regrets" and os.path.exists(os.environ["PYMODULE_REPORT"] + ".regret"):
            doubt = module_pb2.ReadinessCondition(name="holds", met=False, message="replies are not what they should be")
            return module_pb2.Readiness(ready=False, conditions=[doubt]).SerializeToString()
        condition = module_pb2.ReadinessCondition(name="warm_up", met=self.proven, message="the kettle is cold")
        return module_pb2.Readiness(ready=self.proven, conditions=[condition]).SerializeToString()

    def get_stats(self, _request, _context):
        """As if it had served a hundred requests since it was asked last."""
        self.sampled.set()
        self.stats.requests_total += 100
        self.stats.errors_total += 5 if BEHAVIOUR == "errs_on_probation" else 0
        self.stats.latency_counts[60 if BEHAVIOUR == "slow_on_probation" else 40] += 100
        if BEHAVIOUR == "leaks_on_probation":
            self.leak.append(bytearray(os.urandom(1) * (8 << 20)))
        return self.stats.SerializeToString()

    def invoke(self, _request, context):
        """It counts well and does nothing."""
        if BEHAVIOUR == "hangs_on_probation":
            while context.is_active():
                time.sleep(0.1)
        context.abort(grpc.StatusCode.INTERNAL, "I can not")
        yield b""

    def health_watch(self, _request, context):
        status = health_pb2.HealthCheckResponse.SERVING
        if not self.serving.is_set():
            yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING).SerializeToString()
            while not self.serving.wait(0.1):
                if not context.is_active():
                    return
        yield health_pb2.HealthCheckResponse(status=status).SerializeToString()
        while context.is_active():
            time.sleep(0.2)
            if not self.serving.is_set():
                yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING).SerializeToString()
                self.serving.wait()

    def shutdown(self, _request, _context):
        threading.Timer(0.1, os._exit, (0,)).start()
        return b""


def main():
    module = Module()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64))
    unary = {"Describe": module.describe, "Initialize": module.initialize_, "GetReadiness": module.readiness,
             "Drain": lambda *_: b"", "Shutdown": module.shutdown, "GetStats": module.get_stats}
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("core.module.v1.ModuleRuntime", {
            **{name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in unary.items()},
            "Invoke": grpc.unary_stream_rpc_method_handler(module.invoke)}),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Watch": grpc.unary_stream_rpc_method_handler(module.health_watch)})))
    server.add_insecure_port(f"unix:{RUNTIME_SOCKET}")
    server.start()
    server.wait_for_termination()


main()

"""A core that follows a script, for one module alone: it serves the module's SPI socket, proves that the canary is refused, and
calls ModuleRuntime. Messages are made from proto/ with protoc when the tests run."""
import functools
import json
import os
import pathlib
import shutil
import sys
import tempfile
from concurrent import futures

import grpc

from . import BIN, stubs
from .processes import Process, wait_until

RUNTIME = "/core.module.v1.ModuleRuntime/"
CANARY = "canary-that-must-be-refused"
LARGE = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


@functools.cache
def messages():
    """The generated Python modules: common, module and auth."""
    out = pathlib.Path(tempfile.mkdtemp(prefix="ghpb"))
    try:
        stubs.make(out)
        sys.path.insert(0, str(out))
        from core.common.v1 import common_pb2
        from core.module.v1 import module_pb2
        from core.spi.auth.v1 import auth_pb2
        from core.spi.catalog.v1 import catalog_pb2  # noqa: F401 (for attached.py: loaded while the files are there)
        return common_pb2, module_pb2, auth_pb2
    finally:
        if str(out) in sys.path:
            sys.path.remove(str(out))
        shutil.rmtree(out)


class Spi(grpc.GenericRpcHandler):
    """Every method of the SPI: callers are refused, anything else is not there. `script` says otherwise: the last part of a method's
    name to a function (request bytes, context) that returns the reply's bytes, or yields them where its name is in `STREAMS`."""

    STREAMS = ("Invoke", "Watch", "ReplayEvents")

    def __init__(self):
        self.calls = []
        self.script = {}

    def service(self, details):
        self.calls.append((details.method, dict(details.invocation_metadata)))
        name = details.method.rpartition("/")[2]
        if name in self.script:
            make = grpc.unary_stream_rpc_method_handler if name in self.STREAMS else grpc.unary_unary_rpc_method_handler
            return make(lambda request, context: self.script[name](request, context))
        if not details.method.endswith("/ResolveCaller"):
            return None
        def refuse(_request, context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "The credential is not valid.")
        return grpc.unary_unary_rpc_method_handler(refuse)


def envelope(error):
    """The ErrorEnvelope in the details of a failed call, or None."""
    common = messages()[0]
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        from google.protobuf import any_pb2  # google.rpc.Status is code, message and details: read by hand
        from google.protobuf.internal import decoder
        position = 0
        while position < len(value):
            tag, position = decoder._DecodeVarint(value, position)
            size, position = decoder._DecodeVarint(value, position)
            if tag & 7 == 0:
                continue
            if tag >> 3 == 3:
                found = common.ErrorEnvelope()
                any_pb2.Any.FromString(value[position:position + size]).Unpack(found)
                return found
            position += size
    return None


class Module:
    """One module's process, initialized by this core."""

    def __init__(self, binary, module_id, initialize=True, listener=None, config=None, env=()):
        """listener: a listening socket that the module takes over under its id as the name. config: its configuration. env: more variables."""
        self.config = json.dumps(config or {}).encode()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="gh"))
        self.runtime_socket, self.spi_socket = self.directory / "runtime.sock", self.directory / "spi.sock"
        self.spi = Spi()
        self.serve()
        passed = {}
        environment = {"GATEHOUSE_RUNTIME_SOCKET": self.runtime_socket, "GATEHOUSE_MODULE_ID": module_id, "GATEHOUSE_GENERATION": "1", **dict(env)}
        if listener:
            environment.update({"LISTEN_FDS": "1", "LISTEN_FDNAMES": module_id})
            passed = {"preexec_fn": lambda: os.dup2(listener.fileno(), 3, inheritable=True), "pass_fds": (3,)}
        self.process = Process(module_id, [BIN / binary], self.directory, env=environment, **passed)
        self.channel = None
        try:
            wait_until(lambda: self.runtime_socket.exists() or not self.process.running(), "the runtime socket")
            assert self.process.running(), self.process.errors()
            self.channel = grpc.insecure_channel(f"unix:{self.runtime_socket}", options=LARGE)
            if initialize:
                self.initialize(module_id)
        except BaseException:
            self.close()
            raise

    def serve(self):
        """The core's SPI; once more after `self.server.stop()`."""
        self.server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[self.spi])
        self.server.add_insecure_port(f"unix:{self.spi_socket}")
        self.server.start()

    def call(self, method, request, reply, timeout_s=60):
        return self.channel.unary_unary(RUNTIME + method, request_serializer=type(request).SerializeToString,
                                        response_deserializer=reply.FromString)(request, timeout=timeout_s)

    def initialize(self, module_id, until="ready", **more):
        """until: the name of a condition that is enough, for a module that has no listener here. more: fields of the request."""
        _, module, _ = messages()
        self.call("Initialize", module.InitializeRequest(**{
            "module_id": module_id, "generation": 1, "spi_version": "1", "spi_socket": str(self.spi_socket), "channel_secret": b"s" * 32,
            "granted_families": ["auth"], "canary_credential": CANARY, "config_json": self.config, **more}), module.InitializeResponse)
        wait_until(lambda: (found := self.readiness()).ready or any(c.met and c.name == until for c in found.conditions), f"the module: {until}")

    def readiness(self):
        _, module, _ = messages()
        return self.call("GetReadiness", module.GetReadinessRequest(), module.Readiness)

    def invoke_start(self, plan, timeout_s=20):
        """The stream of items."""
        common, module, _ = messages()
        return self.channel.unary_stream(
            RUNTIME + "Invoke", request_serializer=module.InvokeRequest.SerializeToString,
            response_deserializer=common.InvokeItem.FromString)(module.InvokeRequest(plan=plan), timeout=timeout_s)

    def invoke(self, plan, timeout_s=20):
        """The result."""
        items = list(self.invoke_start(plan, timeout_s))
        assert [item.WhichOneof("item") for item in items] == ["result"]
        return items[0].result

    def stop(self):
        """Asks it to end, as an operator would; the exit status."""
        status = self.process.stop()
        self.close()
        return status

    def close(self):
        if self.channel:
            self.channel.close()
        if self.process.running():
            self.process.child.kill()
            self.process.child.wait()
        self.server.stop(None).wait()
        shutil.rmtree(self.directory, ignore_errors=True)

#!/usr/bin/python3
"""A module of the family rest-grpc that does what a file says: it lingers in every state, and answers as badly as one can.

Usage (by the supervisor): odd_module.py STUBS STEERING. STUBS is protoc's Python output of proto/; STEERING a folder whose behaviour.json
is read at every step:

  hold     "socket", "describe", "initialize" or "drain": that step waits until the file says otherwise
  unready  true: not healthy and not ready
  deaf     true: neither Shutdown nor SIGTERM ends it, until it is not deaf any more
  deafen   true: the runtime socket is closed, the process stays
  leave    N: leaves at once with status N
  invoke   how an invocation is answered: see INVOKE; nothing: rightly
"""
import concurrent.futures
import json
import os
import pathlib
import signal
import sys
import threading
import time

STUBS, STEERING = sys.argv[1], pathlib.Path(sys.argv[2]) / "behaviour.json"
RUNTIME_SOCKET, MODULE_ID = os.environ["GATEHOUSE_RUNTIME_SOCKET"], os.environ["GATEHOUSE_MODULE_ID"]
RESOLVE = "/core.spi.auth.v1.AuthPolicyService/ResolveCaller"


def behaviour():
    try:
        return json.loads(STEERING.read_text())
    except (OSError, ValueError):
        return {}


def hold(step):
    while behaviour().get("hold") == step:
        time.sleep(0.01)


if "leave" in behaviour():
    os._exit(behaviour()["leave"])
hold("socket")

# pylint: disable=wrong-import-position
import grpc  # noqa: E402

sys.path.insert(0, STUBS)
from core.common.v1 import common_pb2  # noqa: E402
from core.module.v1 import module_pb2  # noqa: E402
from core.spi.auth.v1 import auth_pb2  # noqa: E402

FAMILIES = ["auth", "catalog", "config", "observability"]
HEALTHY, UNHEALTHY = b"\x08\x01", b"\x08\x02"


def good_result(plan):
    """What the world clock would have said: the value in the URL's query, times a thousand."""
    value = json.loads(plan.arguments_json or b"{}").get("value")
    structured = {"value": value, "from": "km", "to": "m", "quantity": "length", "result": value * 1000}
    text = json.dumps(structured)
    return common_pb2.InvokeResult(content_json=json.dumps([{"type": "text", "text": text}]).encode(),
                                   structured_content_json=text.encode(), upstream_status=200)


def item(result):
    return common_pb2.InvokeItem(result=result).SerializeToString()


def truncated(result):
    yield item(result)[:-7]


def garbage(_result):
    yield b"\xff\xfe\xfd" * 50


def empty(_result):
    yield b""


def nothing(_result):
    return iter(())


def two_results(result):
    yield item(result)
    yield item(result)


def no_json(result):
    result.content_json, result.structured_content_json = b'[{"type": "text", "te', b'{"value": '
    yield item(result)


def huge(result):
    result.content_json = json.dumps([{"type": "text", "text": "x" * (5 << 20)}]).encode()
    yield item(result)


def partial_then_death(result):
    yield common_pb2.InvokeItem(partial=common_pb2.InvokePartial(content_json=result.content_json)).SerializeToString()
    os._exit(7)


INVOKE = {answer.__name__: answer for answer in (truncated, garbage, empty, nothing, two_results, no_json, huge, partial_then_death)}


class Module(grpc.GenericRpcHandler):
    def __init__(self):
        self.initialize, self.proven, self.told, self.ending = None, threading.Event(), threading.Event(), threading.Event()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), handlers=[self])
        self.server.add_insecure_port(f"unix:{RUNTIME_SOCKET}")
        self.server.start()

    def service(self, details):
        name = details.method.rpartition("/")[2]
        streams = {"Watch": self.watch, "Invoke": self.invoke}
        unary = {"Describe": self.describe, "Initialize": self.on_initialize, "GetReadiness": self.readiness, "Drain": self.drain,
                 "Shutdown": self.shutdown, "Check": lambda *_: HEALTHY}
        if name in streams:
            return grpc.unary_stream_rpc_method_handler(streams[name])
        return grpc.unary_unary_rpc_method_handler(unary[name]) if name in unary else None

    def describe(self, _request, _context):
        hold("describe")
        return module_pb2.ModuleDescriptor(
            module_id=MODULE_ID, protocol_family="rest-grpc", implementation_language="python", module_version="1.0.0", spi_versions=["1"],
            runtime_modes=[module_pb2.RUNTIME_MODE_SIDECAR], ingress_modes=[module_pb2.INGRESS_MODE_DIRECT], spi_families=FAMILIES,
            health=module_pb2.HealthSupport(readiness=True, liveness=True)).SerializeToString()

    def on_initialize(self, data, context):
        hold("initialize")
        if not context.is_active():
            return b""  # the core that asked is gone: the next one has asked anew
        self.initialize = module_pb2.InitializeRequest.FromString(data)
        self.proven.clear()
        threading.Thread(target=self.prove, args=(self.initialize,), daemon=True).start()
        return module_pb2.InitializeResponse(spi_version="1").SerializeToString()

    def prove(self, initialize):
        """The deny path: the canary is refused."""
        request = auth_pb2.ResolveCallerRequest(
            transport="canary", client_address="127.0.0.1", protocol_family="rest-grpc",
            headers=[common_pb2.Header(name="authorization", value="Bearer " + initialize.canary_credential)])
        metadata = (("gatehouse-channel-secret", initialize.channel_secret.decode()),)
        while initialize is self.initialize:
            with grpc.insecure_channel(f"unix:{initialize.spi_socket}") as channel:
                try:
                    channel.unary_unary(RESOLVE)(request.SerializeToString(), timeout=5, metadata=metadata)
                except grpc.RpcError as error:
                    if error.code() is grpc.StatusCode.UNAUTHENTICATED and "channel" not in (error.details() or ""):
                        self.proven.set()
                        return
            time.sleep(0.05)

    def ready(self):
        return self.proven.is_set() and not behaviour().get("unready")

    def readiness(self, _request, _context):
        return module_pb2.Readiness(ready=self.ready()).SerializeToString()

    def watch(self, _request, context):
        last = None
        while context.is_active() and not self.ending.is_set():
            now = HEALTHY if self.ready() else UNHEALTHY
            if now != last:
                yield now
                last = now
            time.sleep(0.01)

    def invoke(self, data, _context):
        result = good_result(module_pb2.InvokeRequest.FromString(data).plan)
        yield from INVOKE.get(behaviour().get("invoke"), lambda right: iter([item(right)]))(result)

    def drain(self, _request, _context):
        hold("drain")
        return b""

    def shutdown(self, _request, _context):
        self.end()
        return b""

    def end(self, *_):
        self.told.set()


def main():
    module = Module()
    signal.signal(signal.SIGTERM, module.end)
    deafened = False
    while not module.ending.wait(0.02):
        if module.told.is_set() and not behaviour().get("deaf"):
            module.ending.set()
        wanted = bool(behaviour().get("deafen"))
        if wanted and not deafened:
            module.server.stop(None)
            deafened = True
        elif deafened and not wanted:
            os._exit(0)
    os._exit(0)


main()

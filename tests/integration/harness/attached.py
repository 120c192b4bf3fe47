"""Modules that live in the test itself and attach to a core without a supervisor: the socket appears, the core does the rest."""
import socket
import sys
import threading
import time
from concurrent import futures

import grpc

from .processes import end_listener, wait_until
from .scripted_core import RUNTIME, envelope, messages

HEALTH_SERVING = b"\x08\x01"
RESOLVE = "/core.spi.auth.v1.AuthPolicyService/ResolveCaller"
INVOKE = "/core.spi.catalog.v1.CatalogService/Invoke"
ANSWER = "/core.spi.catalog.v1.CatalogService/AnswerRequest"


def catalog_messages():
    messages()
    return sys.modules["core.spi.catalog.v1.catalog_pb2"]


RUNTIME_SOCKET = "runtime.sock"  # where the core looks for a module
BEHIND_A_WIRE = "inner.sock"  # where it does not


class Wire:
    """Between the core and a module that serves BEHIND_A_WIRE: the runtime socket is the wire's, so the core comes by the wire or not at all,
    and what connects is carried to the module. It can be cut, and accept nobody for longer than a moment, while the module lives."""

    def __init__(self, module):
        self.path, self.inner = module.path.with_name(RUNTIME_SOCKET), module.path
        assert self.inner.name == BEHIND_A_WIRE
        self.accepted, self.open, self.shut = [], [], False  # when somebody connected; who is; whether each is cut at once
        self.listener = socket.socket(socket.AF_UNIX)
        unseen = self.path.with_suffix(".new")  # until somebody listens
        self.listener.bind(str(unseen))
        self.listener.listen()
        unseen.rename(self.path)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                outer, _ = self.listener.accept()
            except OSError:
                return
            self.accepted.append(time.monotonic())
            if self.shut:
                outer.close()
                continue
            inner = socket.socket(socket.AF_UNIX)
            inner.connect(str(self.inner))
            self.open += [outer, inner]
            for source, target in ((outer, inner), (inner, outer)):
                threading.Thread(target=self.carry, args=(source, target), daemon=True).start()

    @staticmethod
    def carry(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        while self.open:
            try:
                self.open.pop().shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end_listener(self.listener)
        self.cut()
        self.path.unlink(missing_ok=True)


class AttachedModule(grpc.GenericRpcHandler):
    """Serves ModuleRuntime and health below `run`; proves its deny path; then it is ready. `invoke` (InvokeRequest, context) yields
    InvokeItems, or the bytes of what is none. served_at: the name of its socket, which the core finds only by the first one's."""

    def __init__(self, run, module_id, family, spi_families, invoke=None, served_at=RUNTIME_SOCKET):
        self.common, self.module, self.auth = messages()
        self.module_id, self.family, self.spi_families, self.invoke = module_id, family, spi_families, invoke
        self.initialized, self.proven, self.spi = None, False, None
        folder = run / "modules" / module_id
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / served_at
        self.server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[self])
        self.server.add_insecure_port(f"unix:{self.path}")
        self.server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.spi:
            self.spi.close()
        self.server.stop(0).wait()
        self.path.unlink(missing_ok=True)

    def service(self, details):
        name = details.method.rpartition("/")[2]
        if name == "Watch":
            return grpc.unary_stream_rpc_method_handler(self.health)
        if name == "Invoke" and self.invoke:
            return grpc.unary_stream_rpc_method_handler(self.carry_out)
        answer = {"Describe": self.describe, "Initialize": self.initialize, "GetReadiness": self.readiness}.get(name)
        known = details.method.startswith(RUNTIME) and answer
        return grpc.unary_unary_rpc_method_handler(lambda request, _: answer(request)) if known else None

    def describe(self, _):
        return self.module.ModuleDescriptor(
            module_id=self.module_id, protocol_family=self.family, implementation_language="python", module_version="1.0.0",
            spi_versions=["1"], runtime_modes=[self.module.RUNTIME_MODE_SIDECAR], ingress_modes=[self.module.INGRESS_MODE_DIRECT],
            health=self.module.HealthSupport(readiness=True, liveness=True), spi_families=self.spi_families).SerializeToString()

    def initialize(self, data):
        self.initialized = self.module.InitializeRequest.FromString(data)
        self.spi = grpc.insecure_channel(f"unix:{self.initialized.spi_socket}")
        return self.module.InitializeResponse(spi_version="1").SerializeToString()

    def health(self, _request, context):
        credential = self.initialized.canary_credential
        self.proven = self.resolve(credential) is None
        yield HEALTH_SERVING
        while context.is_active():
            try:
                wait_until(lambda: not context.is_active(), "the end of the watch", 1, pause_s=0.05)
            except AssertionError:
                pass

    def readiness(self, _):
        return self.module.Readiness(ready=self.proven).SerializeToString()

    def carry_out(self, data, context):
        for item in self.invoke(self.module.InvokeRequest.FromString(data), context):
            yield item if isinstance(item, bytes) else item.SerializeToString()

    # ---- calling the core ----

    @property
    def metadata(self):
        return (("gatehouse-channel-secret", self.initialized.channel_secret.decode()),)

    def resolve(self, token):
        """The reference of a caller, or None when it is refused."""
        request = self.auth.ResolveCallerRequest(transport="test", client_address="127.0.0.1", protocol_family=self.family, headers=[
            self.common.Header(name="authorization", value=f"Bearer {token}")])
        call = self.spi.unary_unary(RESOLVE)
        try:
            answer = call(request.SerializeToString(), timeout=60, metadata=self.metadata)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error
            return None
        return self.auth.ResolveCallerResponse.FromString(answer).context.reference

    def call_tool(self, reference, name, arguments=b"{}", timeout_s=60, answers=()):
        """The stream of InvokeItems of Catalog.Invoke. answers: kinds of requests that can be answered in the middle of it."""
        envelope = self.common.InvocationEnvelope(
            target=self.common.RecordReference(kind=self.common.ENTITY_KIND_TOOL, name=name), arguments_json=arguments,
            caller=self.common.CallerContext(reference=reference), wants_progress=True, answers=answers)
        request = catalog_messages().InvokeRequest(invocation=envelope)
        return self.spi.unary_stream(INVOKE, response_deserializer=self.common.InvokeItem.FromString)(
            request.SerializeToString(), timeout=timeout_s, metadata=self.metadata)

    def answer(self, reference, execution_id, request_id, timeout_s=60, **answer):
        """Answers a request back, by result_json or error: None, or the code of the refusal."""
        request = self.common.AnswerRequestRequest(execution_id=execution_id, request_id=request_id,
                                                   caller=self.common.CallerContext(reference=reference), **answer)
        try:
            self.spi.unary_unary(ANSWER)(request.SerializeToString(), timeout=timeout_s, metadata=self.metadata)
        except grpc.RpcError as error:
            return envelope(error).code
        return None

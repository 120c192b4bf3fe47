"""The admin services of a core that does what a test says: for answers that a real core gives rarely or never. Messages come from
the descriptor set that the build made of proto/."""
import concurrent.futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from . import BUILD

SERVICES = "core.admin.v1."


def load_pool():
    files = descriptor_pb2.FileDescriptorSet.FromString((BUILD / "wire" / "gatehouse.desc").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


class AdminDouble:
    """Serves core.admin.v1 on <run>/core/admin.sock. `answers` maps "StatusService/GetStatus" to a function of the request that
    answers a dict of fields, an exception made by `error`, or for streams an iterator of dicts."""

    def __init__(self, run, answers):
        self.pool = load_pool()
        self.factory = message_factory.MessageFactory(self.pool)
        self.answers = answers
        self.requests = []
        self.path = run / "core" / "admin.sock"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.server = None
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def message(self, name, fields=None):
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(name))(**(fields or {}))

    def error(self, category, code, message):
        """An error as the core sends it: google.rpc.Status with an envelope."""
        envelope = self.message("core.common.v1.ErrorEnvelope", {"category": category, "code": code, "message": message})
        status = self.message("google.rpc.Status", {"code": 3, "message": message})
        status.details.add(type_url="type.googleapis.com/core.common.v1.ErrorEnvelope", value=envelope.SerializeToString())
        return Refusal(message, status.SerializeToString())

    def start(self):
        self.path.unlink(missing_ok=True)
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        for file in ("core/admin/v1/admin.proto",):
            for service in self.pool.FindFileByName(file).services_by_name.values():
                methods = {method.name: self.handler(service, method) for method in service.methods}
                self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, methods),))
        self.server.add_insecure_port(f"unix:{self.path}")
        self.server.start()

    def stop(self):
        if self.server:
            self.server.stop(0).wait()
            self.server = None

    def handler(self, service, method):
        request_type = self.factory.GetPrototype(method.input_type)
        reply_type = self.factory.GetPrototype(method.output_type)
        name = f"{service.name}/{method.name}"

        def answer(request, context):
            self.requests.append((name, request))
            result = self.answers[name](request) if name in self.answers else {}
            if isinstance(result, Refusal):
                context.set_trailing_metadata((("grpc-status-details-bin", result.details),))
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(result))
            return result

        options = {"request_deserializer": request_type.FromString, "response_serializer": reply_type.SerializeToString}
        proto = descriptor_pb2.MethodDescriptorProto()
        method.CopyToProto(proto)
        if proto.server_streaming:
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: (reply_type(**fields) for fields in answer(request, context)), **options)
        return grpc.unary_unary_rpc_method_handler(lambda request, context: reply_type(**answer(request, context)), **options)


class Refusal(Exception):
    def __init__(self, message, details):
        super().__init__(message)
        self.details = details

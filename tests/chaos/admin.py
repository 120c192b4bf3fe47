"""The operators' HTTP/JSON socket of a core: one connection, opened anew after a loss, and when it was closed for being idle. Faster than the command line, and nothing retries
behind the caller's back: what was acknowledged, refused or lost is told apart."""
import base64
import json

import common  # noqa: F401  puts the harness on the path
from harness.http1 import Connection

PACKAGE = "/core.admin.v1."


class Refused(Exception):
    """The core's answer was an error envelope."""

    def __init__(self, status, envelope):
        super().__init__(f"{status} {envelope.get('code')}: {envelope.get('message')}")
        self.category, self.code = envelope.get("category"), envelope.get("code")


class Admin:
    """One thread each. OSError and ValueError: the connection broke, and whether the request had an effect is unknown."""

    def __init__(self, run, timeout_s=20):
        self.path, self.timeout_s, self.connection = str(run / "core" / "admin.http.sock"), timeout_s, None

    def close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def post(self, method, message):
        if self.connection and self.connection.is_over():
            self.close()
        try:
            self.connection = self.connection or Connection(self.path, self.timeout_s)
            self.connection.send("POST", PACKAGE + method, {"Content-Type": "application/json"}, json.dumps(message or {}).encode())
            response = self.connection.read()
            if response is None:
                raise ConnectionError("closed without an answer")
        except (OSError, ValueError, AssertionError) as error:
            self.close()
            raise ConnectionError(repr(error)) from None
        if response.status != 200:
            raise Refused(response.status, response.json().get("error", {}))
        return response.body

    def call(self, method, message=None):
        return json.loads(self.post(method, message))

    def stream(self, method, message=None):
        items = [json.loads(line) for line in self.post(method, message).splitlines() if line]
        for item in items:
            if "error" in item:
                raise Refused(200, item["error"])
        return items

    # ---- what the scenarios ask ----

    def processes(self):
        return {process["id"]: process for process in self.call("StatusService/GetStatus")["processes"]}

    def apply(self, *documents):
        packed = [{"documentJson": base64.b64encode(json.dumps(document).encode()).decode()} for document in documents]
        return self.call("CatalogAdminService/Apply", {"documents": packed})

    def names(self, kind):
        documents = self.stream("CatalogAdminService/Export", {"kinds": [kind]})
        return {json.loads(base64.b64decode(document["documentJson"]))["metadata"]["name"] for document in documents}

    def events(self):
        """[(sequence, event)] of the whole log."""
        records = self.stream("EventAdminService/ReadEvents")
        return [(int(record["sequence"]), json.loads(base64.b64decode(record["eventJson"]))) for record in records]

    def describe(self, module):
        return self.call("ModuleAdminService/DescribeModule", {"moduleId": module})

    def order(self, what, module, **more):
        """what: Restart, Drain, Stop, Start or Release."""
        return self.call(f"ModuleAdminService/{what}Module", {"moduleId": module, **more})

"""Clients that call a tool of the gateway without a pause, while something happens to it."""
import http.client
import json
import threading
import time

from . import gateway as gateways
from .processes import wait_until

UNITS = {"value": 5, "from_unit": "km", "to_unit": "m"}
BODY = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
    "name": "convert_units", "arguments": UNITS, "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"}}}})


class Load:
    """Nothing is repeated: each answer that is not right is a failure. refusals: but for a refusal in MCP's form that may be repeated,
    whose times are kept. One client closes its connection after each call."""

    def __init__(self, gateway, clients=3, refusals=False):
        self.address, self.token = gateway.listener("mcp"), gateway.token(gateways.GUEST, "--team", "explorers")
        self.failures, self.refused, self.right, self.refusals, self.stop = [], [], 0, refusals, threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number != 1,), daemon=True) for number in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        try:
            wait_until(lambda: self.right > 20 or self.failures, "load")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)

    def judge(self, reply, text):
        if reply.status == 200 and '"result":5000' in text.replace(" ", ""):
            self.right += 1
        elif self.refusals and reply.status in (200, 503) and json.loads(text)["error"]["data"]["retryable"] is True:
            self.refused.append(time.monotonic())
        else:
            self.failures.append((reply.status, text[:300]))

    def run(self, keep):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json",
                   "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28",
                   "Mcp-Method": "tools/call", "Mcp-Name": "convert_units", **({} if keep else {"Connection": "close"})}
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        while not self.stop.is_set():
            try:
                connection.request("POST", "/mcp", BODY, headers)
                reply = connection.getresponse()
                self.judge(reply, reply.read().decode())
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            time.sleep(0.002)

    def again(self):
        """Until calls are answered again."""
        before = self.right
        wait_until(lambda: self.right > before + 50, "calls to be answered again")

    def told(self):
        gap_ms = (self.refused[-1] - self.refused[0]) * 1000 if self.refused else 0
        return f"{self.right} right, {len(self.refused)} refused within {gap_ms:.0f} ms, {len(self.failures)} failed"

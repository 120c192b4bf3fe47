"""A TCP connection between the gateway and the world clock that is delayed, cut, held or garbled, as a scenario says."""
import contextlib
import socket
import threading
import time

import common  # noqa: F401  puts the integration harness on the path
from harness.processes import end_listener


class Wire:
    """mode: "pass"; "delay" (300 ms before each reply); "cut" (in the middle of each reply); "garble"; "hold" (nothing comes back);
    "refuse" (connections are closed at once)."""

    def __init__(self, target_port):
        self.target_port, self.mode = target_port, "pass"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.mode = "refuse"
        end_listener(self.listener)

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.mode == "refuse":
                near.close()
                continue
            with contextlib.suppress(OSError):
                far = socket.create_connection(("127.0.0.1", self.target_port))
                for one in (near, far):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for pair in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, source, target, is_reply):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                mode = self.mode if is_reply else "pass"
                if mode == "delay":
                    time.sleep(0.3)
                elif mode == "garble":
                    data = b"\x16\x03" + bytes(byte ^ 0x5A for byte in data)
                elif mode == "hold":
                    while self.mode == "hold":
                        time.sleep(0.01)
                elif mode in ("cut", "refuse"):
                    target.sendall(data[:len(data) * 2 // 3] if mode == "cut" else b"")
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

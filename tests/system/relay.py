"""A link's delay without tc's netem: a TCP relay that holds every byte back for a while, in either direction.

    python relay.py ADDRESS PORT DELAY_S

listens on ADDRESS:PORT and leads to ADDRESS:22.
"""

from __future__ import annotations

import queue
import socket
import sys
import threading
import time
from contextlib import suppress

BLOCK = 1 << 18
WAITING = 64  # blocks: what is in flight over a fast link with this delay, and more


def carry(source: socket.socket, sink: socket.socket, delay_s: float) -> None:
    held: queue.Queue[tuple[float, bytes]] = queue.Queue(WAITING)

    def deliver() -> None:
        with suppress(OSError):  # its reader is gone
            while True:
                due, block = held.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not block:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(block)

    threading.Thread(target=deliver, daemon=True).start()
    block = b"more"
    while block:
        try:
            block = source.recv(BLOCK)
        except ConnectionResetError:
            block = b""
        held.put((time.monotonic() + delay_s, block))


def main(address: str, port: int, delay_s: float) -> None:
    with socket.create_server((address, port)) as server:
        print("ready", flush=True)
        while True:
            near, _ = server.accept()
            far = socket.create_connection((address, 22))
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=carry, args=(source, sink, delay_s), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))

"""A worker of large bodies: takes a request's body to its end, then answers; GET /down is answered with 1 MB.

Run as a program of its own: body_worker.py PORT. (An nginx that `return`s answers before it has read the body.)
"""

import socket
import sys
import threading

BYTES = 1_000_000
HEAD_END = b"\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
SMALL = HEAD % 2 + b"{}"
LARGE = HEAD % BYTES + b"x" * BYTES


def serve(client):
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    room = memoryview(bytearray(1 << 18))
    with client:
        while True:
            received = b""
            while HEAD_END not in received:
                data = client.recv(65536)
                if not data:
                    return
                received += data
            head, _, body = received.partition(HEAD_END)
            missing = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 0) - len(body)
            while missing > 0:
                count = client.recv_into(room, min(missing, len(room)))
                if not count:
                    return
                missing -= count
            client.sendall(LARGE if head.startswith(b"GET /down ") else SMALL)


def main(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_quietly, args=(client,), daemon=True).start()


def _quietly(client):
    try:
        serve(client)
    except OSError:
        pass


if __name__ == "__main__":
    main(int(sys.argv[1]))

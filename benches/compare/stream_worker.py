"""A worker that streams: server-sent events of a fixed size at a fixed pace, each with the time of its sending.

Run as a program of its own: stream_worker.py PORT PAUSE, in seconds; with a pause of 0 an answer's events follow each
other as fast as they are written, one by one. It answers GET with a short answer, for readiness and health.
"""

import heapq
import selectors
import socket
import sys
import time

EVENTS = 200
EVENT_BYTES = 150

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SHORT = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
HEAD_END = b"\r\n\r\n"


def event(now, last):
    data = f"data: {now:.9f} ".encode()
    body = data + b"x" * (EVENT_BYTES - len(data) - 2) + b"\n\n"
    return b"%x\r\n%s\r\n%s" % (len(body), body, b"0\r\n\r\n" if last else b"")


def serve(port, pause):
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    received, due, order = {}, [], 0
    while True:
        timeout = max(0.0, due[0][0] - time.monotonic()) if due else None
        for key, _ in selector.select(timeout):
            if key.fileobj is listener:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(client, selectors.EVENT_READ)
                received[client] = b""
                continue
            client = key.fileobj
            try:
                data = client.recv(65536)
            except OSError:
                data = b""
            if not data:
                selector.unregister(client)
                del received[client]
                client.close()
                continue
            received[client] += data
            head, end, body = received[client].partition(HEAD_END)
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            if not end or len(body) < int(length or 0):
                continue
            received[client] = b""
            if head.startswith(b"POST"):
                client.sendall(HEAD)
                if not pause:
                    for left in range(EVENTS, 0, -1):
                        client.sendall(event(time.monotonic(), left == 1))
                    continue
                order += 1
                heapq.heappush(due, (time.monotonic() + pause, order, client, EVENTS))
            else:
                client.sendall(SHORT)
        now = time.monotonic()
        while due and due[0][0] <= now:
            at, order_of, client, left = heapq.heappop(due)
            try:
                client.sendall(event(time.monotonic(), left == 1))
            except OSError:
                continue
            if left > 1:
                heapq.heappush(due, (at + pause, order_of, client, left - 1))


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))

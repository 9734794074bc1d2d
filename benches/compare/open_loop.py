"""An open-loop client: requests fall due at a fixed rate whatever the answers do, and a request's latency
counts from when it fell due, so a stall is charged to every request it delays. (h2load's --rps wakes all its
clients together and at most every 10 ms, which measures its own bursts.)

Run as a program of its own, so that it can be pinned; prints one JSON object.
"""

import gc
import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

GRACE_SECONDS = 2
HEAD_END = b"\r\n\r\n"


class Connection:
    __slots__ = ("socket", "due", "received")

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""


def is_whole(answer):
    head, end, body = answer.partition(HEAD_END)
    if not end:
        return False
    head = head.lower()
    length = head.find(b"content-length:")
    if length < 0:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(head[length + 15 :].partition(b"\r")[0])


def run(port, request, rate, connections, seconds, warm_up):
    """Latencies in seconds, of which those without an answer are counted as lasting until the end."""
    pool = {}
    idle = deque()
    epoll = select.epoll()
    for _ in range(connections):
        connection = Connection(port)
        pool[connection.socket.fileno()] = connection
        epoll.register(connection.socket, select.EPOLLIN)
        idle.append(connection)

    latencies, failed = [], 0
    clock = time.perf_counter
    interval = 1 / rate
    start = clock() + 0.01
    counted_from, end = start + warm_up, start + warm_up + seconds
    due = start
    while True:
        now = clock()
        while due <= now and due < end and idle:
            connection = idle.popleft()
            connection.due = due
            connection.socket.send(request)
            due += interval
        all_answered = len(idle) == len(pool)
        if (now >= end and due >= end and all_answered) or now >= end + GRACE_SECONDS:
            break
        # epoll's own timeout has whole milliseconds only; select's has microseconds.
        select.select([epoll], [], [], max(0.0, due - now) if idle and due < end else 0.1)
        for number, _ in epoll.poll(0):
            connection = pool[number]
            data = connection.socket.recv(65536)
            connection.received += data
            if not data:
                raise SystemExit("a connection was closed")
            if not is_whole(connection.received):
                continue
            if connection.due >= counted_from:
                latencies.append(clock() - connection.due)
                failed += b" 200 " not in connection.received[:16]
            connection.received = b""
            idle.append(connection)

    now = clock()
    late = [c.due for c in pool.values() if c not in idle]
    while due < end:
        late.append(due)
        due += interval
    return latencies + [now - was_due for was_due in late if was_due >= counted_from], failed, len(late)


def main():
    options = json.loads(sys.argv[1])
    # Sleeps would otherwise end up to 50 µs late.
    try:
        Path("/proc/self/timerslack_ns").write_text("1")
    except OSError:
        pass
    gc.disable()
    latencies, failed, unanswered = run(request=options.pop("request").encode(), **options)
    latencies.sort()

    def percentile(share):
        return 1e6 * latencies[min(len(latencies) - 1, int(len(latencies) * share))]

    print(
        json.dumps(
            {
                "requests": len(latencies),
                "failed": failed,
                "unanswered": unanswered,
                "p50_us": percentile(0.50),
                "p99_us": percentile(0.99),
                "max_us": percentile(1.0),
            }
        )
    )


if __name__ == "__main__":
    main()

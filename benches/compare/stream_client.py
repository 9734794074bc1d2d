"""Reads streamed answers, and how late each event is. Run as a program of its own; prints one JSON object."""

import json
import re
import selectors
import socket
import sys
import time

REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"x-api-key: secret-api-key-12345\r\ncontent-length: 15\r\n\r\n" + b'{"stream":true}'
)
SENT = re.compile(rb"data: ([0-9.]+) ")
PATIENCE_SECONDS = 10


def run(port, streams, answers, events):
    selector = selectors.DefaultSelector()
    left, seen, rest = {}, {}, {}
    for number in range(streams):
        client = socket.create_connection(("127.0.0.1", port))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(client, selectors.EVENT_READ)
        left[client], seen[client], rest[client] = answers, 0, b""
        # Streams that begin together would be one burst every pause.
        time.sleep(0.01 / streams)
        client.sendall(REQUEST)
    first, others = [], []
    while left:
        ready = selector.select(PATIENCE_SECONDS)
        if not ready:
            sys.exit("nothing came for a while")
        for key, _ in ready:
            client = key.fileobj
            data = client.recv(65536)
            now = time.monotonic()
            if not data:
                sys.exit("a stream broke off")
            rest[client] += data
            for sent in SENT.finditer(rest[client]):
                (others if seen[client] else first).append(now - float(sent[1]))
                seen[client] += 1
                data = rest[client][sent.end() :]
            rest[client] = data
            if seen[client] < events:
                continue
            left[client] -= 1
            seen[client] = 0
            if left[client]:
                client.sendall(REQUEST)
            else:
                selector.unregister(client)
                del left[client]
    return first, others


def main():
    options = json.loads(sys.argv[1])
    first, others = (sorted(delays) for delays in run(**options))

    def percentile(delays, share):
        return 1e6 * delays[min(len(delays) - 1, int(len(delays) * share))]

    result = {
        "events": len(first) + len(others) + len(first),
        "first_p50_us": percentile(first, 0.5),
        "first_p99_us": percentile(first, 0.99),
        "p50_us": percentile(others, 0.5),
        "p99_us": percentile(others, 0.99),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

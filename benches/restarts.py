#!/usr/bin/env python3
"""Requests that are lost while gateways and workers are replaced: a program of its own, all on the loopback address.

    benches/restarts.py                               twenty restarts, then a rolling replacement of three workers
    benches/restarts.py --restarts 100 --rate 300

The script holds the listening socket and hands it to each gateway (LISTEN_FDS). It starts the next gateway, waits for
its READY=1, and only then sends SIGTERM to the old one. Workers are replaced one after the other: POST /workers for the
new one, DELETE /workers/ID for the old one once the new one is healthy, and the old process ends when it is gone.

Load is open-loop: requests fall due at a fixed rate whatever became of those before. Requests over HTTP/1.1 and HTTP/2
use connections that are kept as long as the gateway allows; streams are of server-sent events and last about a second.
Lost is whatever does not end as it should: a refused or broken connection, another status than 200, a stream without its
last event. Nothing is sent twice, but for streams of HTTP/2 that a GOAWAY says were not looked at. The bound is that of
Clopper and Pearson for 95 % (one-sided; with nothing lost it is the rule of three).

Exits with 1 if something was lost. Needs python3 alone, and target/release/smg or what --smg names.
"""

import argparse
import asyncio
import collections
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HOST = "127.0.0.1"
HAND_OVER = 'exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" "$@"'
PATIENCE = 20
WORDS = "one two three four five six seven eight"
PING = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "hi"}]}).encode()
STREAM = json.dumps({"model": "echo", "stream": True, "messages": [{"role": "user", "content": WORDS}]}).encode()
PATH = "/v1/chat/completions"


def upper_bound(lost, count):
    """The largest share of lost requests that would leave so few lost with a probability of 5 %."""
    if count == 0 or lost >= count:
        return 1.0
    log_choose = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(lost + 1)]
    low, high = 0.0, 1.0
    for _ in range(100):
        share = (low + high) / 2
        terms = (c + k * math.log(share) + (count - k) * math.log1p(-share) for k, c in enumerate(log_choose))
        if sum(math.exp(term) for term in terms) > 0.05:
            low = share
        else:
            high = share
    return high


class Tally:
    """What became of the requests of one kind."""

    def __init__(self, name):
        self.name, self.answered, self.lost = name, 0, collections.Counter()

    def __str__(self):
        lost = sum(self.lost.values())
        count = self.answered + lost
        line = f"{self.name:21} {count:7} requests {lost:5} lost, at most {100 * upper_bound(lost, count):.4f} % (95 %)"
        return line + "".join(f"\n    {count} x {why}" for why, count in self.lost.most_common(8))


class Lost(Exception):
    pass


# HTTP/1.1


class Http1:
    """Connections that are kept while nobody needs them, or one for each request."""

    def __init__(self, port, connection="keep-alive"):
        self.port, self.connection, self.idle = port, connection, []

    async def take(self):
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(HOST, self.port)

    async def ask(self, body):
        reader, writer = await self.take()
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nConnection: {self.connection}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if not head.startswith("http/1.1 200 "):
            raise Lost(head.partition("\r\n")[0] + " " + field(head, "x-smg-error-code"))
        if "transfer-encoding: chunked" in head:
            text = await chunks(reader)
            if body is STREAM and not text.endswith(b"data: [DONE]\n\n"):
                raise Lost("a stream without its last event")
        else:
            await reader.readexactly(int(field(head, "content-length")))
        if field(head, "connection") == "close":
            writer.close()
        else:
            self.idle.append((reader, writer))

    async def close(self):
        for _, writer in self.idle:
            writer.close()


def field(head, name):
    return next((line.partition(":")[2].strip() for line in head.split("\r\n") if line.startswith(name + ":")), "")


async def chunks(reader):
    text = b""
    while True:
        size = int((await reader.readuntil(b"\r\n")).strip(), 16)
        text += (await reader.readexactly(size + 2))[:-2]
        if size == 0:
            return text


# HTTP/2, as much of it as is needed (RFC 9113). The answer's head need not be decoded: 200 is the first field, and one
# byte of HPACK's static table.

DATA, HEADERS, RST_STREAM, SETTINGS, PING_FRAME, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(name, value):
    return bytes([0, len(name)]) + name + bytes([len(value)]) + value


class NotLookedAt(Exception):
    """The gateway said in a GOAWAY that it has not seen the request."""


class Http2Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer, self.streams, self.next, self.is_open = reader, writer, {}, 1, True
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"\0\4\0\x10\0\0"))
        writer.write(frame(WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
        self.reading = asyncio.ensure_future(self.read())

    async def ask(self, body):
        stream, self.next = self.next, self.next + 2
        head = b"\x83\x86" + literal(b":path", PATH.encode()) + literal(b":authority", b"a")
        head += literal(b"content-type", b"application/json")
        self.streams[stream] = answered = asyncio.get_running_loop().create_future()
        self.writer.write(frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, body))
        await answered

    def settle(self, stream, error=None):
        answered = self.streams.pop(stream, None)
        if answered and not answered.done():
            answered.set_exception(error) if error else answered.set_result(None)

    async def read(self):
        try:
            while True:
                head = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
                self.take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.is_open = False
            for stream in list(self.streams):
                self.settle(stream, Lost(f"the connection of HTTP/2 ended: {type(error).__name__}"))
        self.writer.close()

    def take(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            self.writer.write(frame(SETTINGS, ACK, 0))
        elif kind == PING_FRAME and not flags & ACK:
            self.writer.write(frame(PING_FRAME, ACK, 0, payload))
        elif kind == GOAWAY:
            self.is_open = False
            last = int.from_bytes(payload[:4], "big")
            for unseen in [number for number in self.streams if number > last]:
                self.settle(unseen, NotLookedAt())
        elif kind == RST_STREAM:
            refused = int.from_bytes(payload, "big") == 7
            self.settle(stream, NotLookedAt() if refused else Lost(f"RST_STREAM {int.from_bytes(payload, 'big')}"))
        elif kind == HEADERS and payload[:1] != b"\x88":
            self.settle(stream, Lost("another status over HTTP/2"))
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self.settle(stream)


class Http2:
    """One connection at a time."""

    def __init__(self, port):
        self.port, self.connection, self.lock = port, None, asyncio.Lock()

    async def ask(self, body):
        while True:
            async with self.lock:
                if self.connection is None or not self.connection.is_open:
                    self.connection = Http2Connection(*await asyncio.open_connection(HOST, self.port))
            try:
                return await self.connection.ask(body)
            except NotLookedAt:
                continue

    async def close(self):
        if self.connection:
            self.connection.writer.close()
            await self.connection.reading


# Load


async def load(tally, rate, ask, body, over):
    """Requests at a fixed rate until `over`, then waits for the last of them."""

    async def one():
        try:
            await asyncio.wait_for(ask(body), PATIENCE)
            tally.answered += 1
        except Lost as lost:
            tally.lost[str(lost)] += 1
        except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.TimeoutError) as error:
            tally.lost[type(error).__name__ + ": " + str(error)[:80]] += 1

    pending, due = set(), time.monotonic()
    while not over.is_set():
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        task = asyncio.ensure_future(one())
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)


# Processes


class Stage:
    def __init__(self, smg):
        self.smg, self.directory, self.running = smg, tempfile.mkdtemp(prefix="restarts-"), []
        self.socket = socket.create_server((HOST, 0), backlog=4096)
        self.port = self.socket.getsockname()[1]

    def spawn(self, argv, **options):
        with open(os.path.join(self.directory, f"log-{len(self.running)}"), "wb") as log:
            environment = {"PATH": os.environ["PATH"], **options.pop("environment", {})}
            process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment, **options)
        self.running.append(process)
        return process

    async def worker(self):
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        process = self.spawn([self.smg, "echo-worker", "--port", str(port), "--token-delay-ms", "60"])
        while True:
            try:
                socket.create_connection((HOST, port), 1).close()
                return process, f"http://{HOST}:{port}"
            except OSError:
                await asyncio.sleep(0.02)

    async def gateway(self, workers):
        path = os.path.join(self.directory, f"notify-{len(self.running)}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(path)
            told.setblocking(False)
            flags = ["--log-level=warn", "--health-check-interval-secs=1", "--shutdown-grace-period-secs=20"]
            argv = ["sh", "-c", HAND_OVER, self.smg, *flags, "--worker-urls", *workers]
            gateway = self.spawn(argv, stdin=self.socket, environment={"NOTIFY_SOCKET": path})
            while await asyncio.get_running_loop().sock_recv(told, 100) != b"READY=1":
                pass
            gateway.told = told.dup()  # It says later that it stops.
        return gateway

    async def ended(self, process):
        while process.poll() is None:
            await asyncio.sleep(0.02)
        return process.returncode

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{HOST}:{self.port}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or b"null")

    async def ask(self, *arguments):
        return await asyncio.to_thread(self.call, *arguments)

    def close(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.socket.close()
        shutil.rmtree(self.directory)


async def restart(stage, gateway, workers, times):
    for _ in range(times):
        successor = await stage.gateway(workers)
        gateway.send_signal(signal.SIGTERM)
        code = await stage.ended(gateway)
        if code != 0:
            print(f"a gateway ended with {code}")
        gateway = successor
        await asyncio.sleep(0.3)
    return gateway


async def replace(stage, workers):
    """`workers` are processes with their URLs."""
    for process, url in workers:
        _, successor = await stage.worker()
        new = (await stage.ask("POST", "/workers", {"url": successor}))["worker_id"]
        while not (await stage.ask("GET", f"/workers/{new}"))["is_healthy"]:
            await asyncio.sleep(0.05)
        listed = (await stage.ask("GET", "/workers"))["workers"]
        old = next(worker["id"] for worker in listed if worker["url"] == url)
        await stage.ask("DELETE", f"/workers/{old}")
        while any(worker["id"] == old for worker in (await stage.ask("GET", "/workers"))["workers"]):
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        await stage.ended(process)
        await asyncio.sleep(0.5)


async def under_load(title, options, port, work):
    kinds = [
        ("HTTP/1.1", options.rate, Http1(port), PING),
        ("HTTP/1.1, connecting", options.rate, Http1(port, "close"), PING),
        ("HTTP/2", options.rate, Http2(port), PING),
        ("streams, HTTP/1.1", options.streams, Http1(port), STREAM),
        ("streams, HTTP/2", options.streams, Http2(port), STREAM),
    ]
    tallies, over = [Tally(name) for name, *_ in kinds], asyncio.Event()
    loads = [
        asyncio.ensure_future(load(tally, rate, client.ask, body, over))
        for tally, (_, rate, client, body) in zip(tallies, kinds)
    ]
    start = time.monotonic()
    await asyncio.sleep(1)
    result = await work
    await asyncio.sleep(1)
    over.set()
    await asyncio.gather(*loads)
    for _, _, client, _ in kinds:
        await client.close()
    print(f"{title}, {time.monotonic() - start:.0f} s")
    for tally in tallies:
        print(tally)
    return result, sum(sum(tally.lost.values()) for tally in tallies)


async def run(options):
    stage = Stage(os.path.abspath(options.smg))
    try:
        workers = [await stage.worker() for _ in range(3)]
        gateway = await stage.gateway([url for _, url in workers])
        await asyncio.sleep(1.5)
        restarts = restart(stage, gateway, [url for _, url in workers], options.restarts)
        _, lost = await under_load(f"{options.restarts} restarts", options, stage.port, restarts)
        replacement = replace(stage, workers)
        _, more = await under_load("3 workers replaced", options, stage.port, replacement)
        return lost + more
    finally:
        if options.keep_logs:
            shutil.copytree(stage.directory, options.keep_logs, dirs_exist_ok=True, ignore=shutil.ignore_patterns("notify-*"))
        stage.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smg", default="target/release/smg", help="the executable")
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--rate", type=float, default=150, help="requests a second, for each version of HTTP")
    parser.add_argument("--streams", type=float, default=10, help="streams a second, for each version of HTTP")
    parser.add_argument("--keep-logs", metavar="DIRECTORY", help="copy what the processes have logged there")
    sys.exit(1 if asyncio.run(run(parser.parse_args())) else 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Counts instructions instead of time: the same on a busy machine, and so a check against growing slower.

    benches/instructions.py            compares with benches/instructions.json; fails if something costs 5 % more
    benches/instructions.py --write    writes that file anew

Counted are the instructions in user space of a plain request through the gateway, and of one on-request hook. Each
is run under valgrind twice, with few and with many repetitions: the difference is what the repetitions cost. Needs
python3, valgrind (a Debian package) and a release build of the gateway and its benches:

    cargo build --release && cargo bench --bench guest_call --no-run
"""

import argparse
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True

from compare import work  # noqa: E402

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXPECTED = os.path.join(REPOSITORY, "benches", "instructions.json")
SMG = os.path.join(REPOSITORY, "target", "release", "smg")
FEW, MANY = 300, 1300
TOLERANCE = 0.05
GUESTS = [("auth", "pooled"), ("auth", "request"), ("sentinel-c", "pooled")]
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(work.ANSWER),
    work.ANSWER.encode(),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the expected counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smg-instructions-") as directory:
        counted = {"a plain request": per_repetition(lambda count: plain_requests(directory, count))}
        for guest, mode in GUESTS:
            name = f"on-request of {guest}, {mode}"
            counted[name] = per_repetition(lambda count: guest_calls(directory, guest, mode, count))
    if options.write:
        with open(EXPECTED, "w") as file:
            json.dump(counted, file, indent=2)
            file.write("\n")
    with open(EXPECTED) as file:
        expected = json.load(file)
    grown = False
    for name, count in counted.items():
        change = count / expected[name] - 1
        grown |= change > TOLERANCE
        print(f"{count:8d} {change:+7.1%}  {name}")
    if grown:
        sys.exit(f"more than {TOLERANCE:.0%} more than expected: a regression, or a reason to write {EXPECTED} anew")


def per_repetition(run):
    return round((run(MANY) - run(FEW)) / (MANY - FEW))


def valgrind(directory):
    output = os.path.join(directory, "callgrind.out")
    return output, ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}", "-q"]


def total(output):
    with open(output) as file:
        return int(re.search(r"^(?:summary|totals): (\d+)", file.read(), re.MULTILINE)[1])


def plain_requests(directory, count):
    """One connection, one request after the other."""
    with Worker() as worker:
        port = free_port()
        output, command = valgrind(directory)
        arguments = [
            *("--host=127.0.0.1", f"--port={port}", "--shards=1", "--log-level=warn", "--disable-health-check"),
            f"--worker-urls=http://127.0.0.1:{worker.port}",
        ]
        environment = {"PATH": os.environ["PATH"], "HOME": directory, "SMG_DRAIN_DELAY_SECS": "0"}
        gateway = subprocess.Popen([*command, SMG, *arguments], env=environment, stdout=subprocess.DEVNULL)
        try:
            with connect(port) as client:
                request = work.raw_request(port)
                for _ in range(count):
                    client.sendall(request)
                    answer = b""
                    while not answer.endswith(work.ANSWER.encode()):
                        data = client.recv(65536)
                        if not data:
                            sys.exit("the gateway closed the connection")
                        answer += data
        finally:
            gateway.terminate()
            gateway.wait(60)
        return total(output)


def guest_calls(directory, guest, mode, count):
    output, command = valgrind(directory)
    compiler = os.path.join(directory, "compiler")
    with open(compiler, "w") as file:
        file.write(f'#!/bin/sh\nexec valgrind --tool=none -q {SMG} "$@"\n')
    os.chmod(compiler, 0o700)
    environment = {**os.environ, "SMG_CALLS": str(count), "SMG_COMPILER": compiler}
    done = subprocess.run([*command, bench(), guest, mode], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{guest}, {mode}: {done.stderr[-2000:]}")
    return total(output)


def bench():
    """The executable of benches/guest_call.rs that was built last."""
    folder = os.path.join(REPOSITORY, "target", "release", "deps")
    names = [name for name in os.listdir(folder) if re.fullmatch(r"guest_call-[0-9a-f]+", name)]
    if not names:
        sys.exit("benches/guest_call.rs is not built: see the top of this file")
    return max((os.path.join(folder, name) for name in names), key=os.path.getmtime)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connect(port):
    for _ in range(600):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except ConnectionRefusedError:
            time.sleep(0.1)
    sys.exit("the gateway did not start")


class Worker:
    """Answers every request with the same bytes."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _serve(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while self._listener.fileno() >= 0:
                for key, _ in selector.select(0.5):
                    if key.fileobj is self._listener:
                        selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                    elif key.fileobj.recv(65536).endswith(work.BODY.encode()):
                        key.fileobj.sendall(ANSWER)
                    else:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()


if __name__ == "__main__":
    main()

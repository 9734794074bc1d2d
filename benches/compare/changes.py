"""P8 and P11: how long a deployment takes and what running traffic feels of it; how long a start takes."""

import json
import os
import statistics
import threading
import time

from compare import work
from compare.modules import POOLED
from compare.process import Process, wait_until
from compare.rounds import attempt, interleaved, say
from compare.stage import Failed, Row
from compare.table import markdown, microseconds

TITLE = "Deployments under load, and starts"
RATE = 2000
MODULES = 20
COLUMNS = ["proxy", "what", "median", "highest", "n"]


def rows(contenders, guests):
    for proxy in contenders:
        if proxy.takes_settings:
            yield Row(f"{proxy.name}+changes", proxy.name, proxy, guests.both_hooks("minimal", POOLED))


def report(options, stage, load, rows):
    lines = []
    samples = interleaved(options, stage, rows, lambda running, row: _deploy(running, row, load, options.seconds))
    for row in rows:
        taken = samples[row.key]
        deployments = [seconds * 1e6 for sample in taken for seconds in sample["deployments"]]
        quiet, busy = ([sample[part]["p99_us"] for sample in taken] for part in ("quiet", "busy"))
        for what, values in (
            ("a deployment of auth.wasm, compiled", deployments),
            (f"p99 at {RATE} requests/s, quiet", quiet),
            (f"p99 at {RATE} requests/s, deploying all the time", busy),
        ):
            lines += _line(row, what, values)
        for what, seconds in (attempt(row, lambda: _starts(stage, row, options.rounds)) or {}).items():
            lines += _line(row, what, [1e6 * value for value in seconds])
    return markdown(COLUMNS, lines)


def _line(row, what, values):
    if not values:
        return []
    return [[row.label, what, microseconds(statistics.median(values)), microseconds(max(values)), len(values)]]


def _deploy(running, row, load, seconds):
    quiet = load.tail(running.port, RATE, seconds)
    over, took, refused = threading.Event(), [], []
    guest = os.path.join(os.path.dirname(row.modules[0]["file_path"]), "auth.wasm")

    def deploy_and_remove():
        # A name in the file makes other bytes of it, so that each is compiled.
        number = 0
        while not over.is_set():
            number += 1
            path = os.path.join(running.process.directory, f"auth-{number}.wasm")
            with open(guest, "rb") as source, open(path, "wb") as copy:
                name = f"n{number}".encode()
                copy.write(source.read() + bytes([0, len(name) + 1, len(name)]) + name)
            module = {**row.modules[0], "name": "auth", "file_path": path, "match": {"paths": ["/elsewhere"]}}
            begin = time.monotonic()
            status, body = _admin(running.port, "POST", "/wasm", {"modules": [module]})
            took.append(time.monotonic() - begin)
            if status != 200:
                refused.append(body)
                return
            uuid = json.loads(body)["modules"][0]["add_result"]["Success"]
            _admin(running.port, "DELETE", f"/wasm/{uuid}")

    thread = threading.Thread(target=deploy_and_remove)
    thread.start()
    try:
        busy = load.tail(running.port, RATE, seconds)
    finally:
        over.set()
        thread.join()
    if refused:
        raise Failed(f"a deployment was refused: {refused[0]}")
    return {"deployments": took, "quiet": quiet, "busy": busy}


def _admin(port, method, path, body=None):
    text = None if body is None else json.dumps(body)
    return work.ask(port, method, path, text, {"content-type": "application/json"}, 60)


def _starts(stage, row, rounds):
    """Seconds from the start of the process to its first answer, by what is kept from an earlier run."""
    place = stage.place()
    path = row.modules[0]["file_path"]
    modules = [f"--wasm-module=m{number}={path}" for number in range(MODULES)]
    bare = row.proxy.arguments(place)
    taken = {}
    for what, arguments in (
        ("a start without modules", bare),
        ("a first start with a module to compile", [*bare, modules[0]]),
        (f"a start with {MODULES} modules in the cache", [*bare, *modules]),
    ):
        for _ in range(rounds):
            say(f"{row.label}: {what}")
            begin = time.monotonic()
            environment = row.proxy.environment(place)
            process = Process([row.proxy.program, *arguments], stage.proxy_cores, place.directory, environment)
            try:
                if not wait_until(lambda: work.get(place.port, "/health")[0] == 200, 30, process, pause=0.001):
                    raise Failed(f"it did not start: {process.log_tail()}")
                taken.setdefault(what, []).append(time.monotonic() - begin)
            finally:
                process.stop()
            if "first" in what:
                break
    return taken

"""P6: bodies of 1 MB, to the worker and from it. CPU of the proxy for each request."""

import os
import sys

from compare import work
from compare.modules import POOLED
from compare.rounds import interleaved
from compare.stage import Row
from compare.table import markdown

TITLE = "Bodies of 1 MB: CPU for each request"
BYTES = 1_000_000
CONNECTIONS = 8
COLUMNS = ["proxy", "up: CPU µs", "x nginx", "x plain", "down: CPU µs", "x nginx", "x plain"]


def rows(contenders, guests):
    for proxy in filter(lambda proxy: proxy.passes_all, contenders):
        yield Row(f"{proxy.name}+1MB", proxy.name, proxy)
        if proxy.takes_settings:
            for key, label, name in (
                ("heads", "a module of heads", "sentinel-c"),
                ("bodies", "a module that is shown bodies", "logging"),
            ):
                modules = guests.both_hooks(name, POOLED)
                yield Row(f"{proxy.name}+1MB-{key}", f"{proxy.name} + {label}", proxy, modules)


def report(options, stage, load, rows):
    up = load.of("POST", "/up", f'string.rep("x", {BYTES})', connections=CONNECTIONS)
    down = load.of("GET", "/down", "nil", connections=CONNECTIONS)

    def measure(running, _):
        return {name: _cpu(running, kind, options.seconds) for name, kind in (("up", up), ("down", down))}

    with stage.other_worker(_worker, lambda port: work.get(port)[0] == 200):
        samples = interleaved(options, stage, rows, measure)
    return render(rows, samples)


def _worker(place):
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "body_worker.py")
    return [sys.executable, program, str(place.port)]


def _cpu(running, load, seconds):
    load.saturate(running.port, 1)
    before = running.process.cpu_seconds()
    requests, _ = load.saturate(running.port, seconds)
    return (running.process.cpu_seconds() - before) * 1e6 / requests


def render(rows, samples):
    def of(row, direction):
        taken = sorted(sample[direction] for sample in samples[row.key])
        return taken[len(taken) // 2]

    measured = [row for row in rows if samples[row.key]]
    plain = {row.proxy.name: row for row in measured if not row.modules}
    lines = []
    for row in measured:
        cells = [row.label]
        for direction in ("up", "down"):
            cpu = of(row, direction)
            base, own = plain.get("nginx"), plain.get(row.proxy.name) if row.modules else None
            cells += [
                f"{cpu:.0f}",
                f"{cpu / of(base, direction):.2f}" if base else "–",
                f"{cpu / of(own, direction):.2f}" if own else "–",
            ]
        lines.append(cells)
    return f"{markdown(COLUMNS, lines)}\n\n{CONNECTIONS} connections; modules run on both hooks."

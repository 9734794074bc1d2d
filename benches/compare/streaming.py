"""P5: streamed answers. CPU of the proxy for each event, and how late events reach the client.

Events are spaced out, as a model's tokens are, so each is a wake-up, a read and a write of its own; and, in a second
column, they follow each other as fast as the worker writes them. Every event says when it was sent; worker and client
share a clock.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from compare import proxies, work
from compare.modules import POOLED
from compare.rounds import interleaved
from compare.stage import Failed, Row
from compare.table import markdown, median, microseconds

TITLE = "Streamed answers: CPU and delay of each event"
STREAMS = 40
EVENTS = 200
EVENT_BYTES = 150
PAUSE_SECONDS = 0.01
COLUMNS = [
    *("proxy", "CPU µs/event", "x nginx", "+ module µs", "first event p50", "p99", "other events p50", "p99"),
    *("unpaced: CPU µs/event", "x nginx"),
]


@dataclass(frozen=True)
class Sample:
    cpu_us: float
    first_p50_us: float
    first_p99_us: float
    p50_us: float
    p99_us: float


def rows(contenders, guests):
    yield Row("stream-worker", "(worker alone)", proxies.WORKER)
    for proxy in filter(lambda proxy: proxy.passes_all, contenders):
        yield Row(f"{proxy.name}+stream", proxy.name, proxy)
        if proxy.takes_settings:
            label = f"{proxy.name} + logging on both hooks, pooled"
            yield Row(f"{proxy.name}+stream-logging", label, proxy, guests.both_hooks("logging", POOLED))


def report(options, stage, load, rows):
    answers = max(1, round(options.seconds / (EVENTS * PAUSE_SECONDS)))
    with stage.other_worker(_worker(PAUSE_SECONDS), _is_ready):
        paced = interleaved(options, stage, rows, lambda running, _: measure(stage, running, STREAMS, answers))
    with stage.other_worker(_worker(0), _is_ready):
        unpaced = interleaved(options, stage, rows, lambda running, _: measure(stage, running, 4, 100 * answers))
    return render(rows, paced, unpaced)


def measure(stage, running, streams, answers):
    arguments = {"port": running.port, "streams": streams, "answers": answers, "events": EVENTS}
    before = running.process.cpu_seconds()
    done = subprocess.run(
        ["taskset", "-c", stage.load_core_list(), sys.executable, _program("stream_client.py"), json.dumps(arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    cpu = running.process.cpu_seconds() - before
    if done.returncode != 0:
        raise Failed(f"the client: {done.stderr.strip()[-300:]}")
    result = json.loads(done.stdout)
    return Sample(cpu * 1e6 / result.pop("events"), **result)


def render(rows, samples, unpaced):
    base = {row.proxy.name: median(samples[row.key], "cpu_us") for row in rows if not row.modules and samples[row.key]}
    burst = {row.key: median(unpaced[row.key], "cpu_us") for row in rows if unpaced[row.key]}
    burst_of_nginx = next((burst[row.key] for row in rows if row.proxy.name == "nginx" and row.key in burst), None)
    lines = []
    for row in rows:
        taken = samples[row.key]
        if not taken or row.key not in burst:
            continue
        cpu = median(taken, "cpu_us")
        delays = ("first_p50_us", "first_p99_us", "p50_us", "p99_us")
        plain = base.get(row.proxy.name) if row.modules else None
        lines.append(
            [
                row.label,
                "–" if row.proxy is proxies.WORKER else f"{cpu:.1f}",
                f"{cpu / base['nginx']:.2f}" if "nginx" in base and row.proxy is not proxies.WORKER else "–",
                f"{cpu - plain:+.1f}" if plain else "–",
                *(microseconds(median(taken, delay)) for delay in delays),
                "–" if row.proxy is proxies.WORKER else f"{burst[row.key]:.1f}",
                f"{burst[row.key] / burst_of_nginx:.2f}" if burst_of_nginx and row.proxy is not proxies.WORKER else "–",
            ]
        )
    note = (
        f"{STREAMS} streams at once, {EVENTS} events of {EVENT_BYTES} bytes to an answer, one each "
        f"{PAUSE_SECONDS * 1000:.0f} ms; the request and its head count as an event. Delays count from the worker's "
        f"sending to the client's reading: what a proxy adds is the difference to the worker alone."
    )
    return f"{markdown(COLUMNS, lines)}\n\n{note}"


def _worker(pause):
    return lambda place: [sys.executable, _program("stream_worker.py"), str(place.port), str(pause)]


def _is_ready(port):
    return work.get(port)[0] == 200


def _program(name):
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)

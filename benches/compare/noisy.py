"""P10: eight requests that spin in a guest, and what other traffic feels of it."""

import contextlib
import threading
import time
from collections import Counter
from dataclasses import dataclass

from compare import work
from compare.modules import FRESH
from compare.rounds import interleaved
from compare.stage import Row
from compare.table import markdown, median, microseconds

TITLE = "What eight spinning requests do to the others"
SPINNERS = 8
# More guests than spinners: what is measured is the CPU they take, not the wait for a free guest.
POOLED_FOR_NOISE = {"mode": "pooled", "size": 16}
# The guest's own limit: a spinner that is refused at once must not turn into a flood.
LIMIT_SECONDS = 1
CONNECTIONS = 50
COLUMNS = ["proxy", "p50", "p50 noisy", "p99", "p99 noisy", "p99 more", "failed", "unanswered", "spinners got"]


@dataclass(frozen=True)
class Sample:
    p50_us: float
    p99_us: float
    noisy_p50_us: float
    noisy_p99_us: float
    noisy_failed: int
    noisy_unanswered: int
    spun: tuple


def rows(contenders, guests):
    for proxy in contenders:
        if proxy.takes_settings:
            pooled = guests.hostile(POOLED_FOR_NOISE)
            yield Row(f"{proxy.name}+hostile-pooled", f"{proxy.name} + hostile, pooled", proxy, pooled)
            yield Row(f"{proxy.name}+hostile-fresh", f"{proxy.name} + hostile, fresh", proxy, guests.hostile(FRESH))
        elif proxy.takes_modules:
            yield Row(f"{proxy.name}+hostile", f"{proxy.name} + hostile", proxy, guests.hostile(FRESH))


def report(options, stage, load, rows):
    samples = interleaved(options, stage, rows, lambda running, _: measure(running, load, options.rate, options.seconds))
    return render(rows, samples, options.rate)


def measure(running, load, rate, seconds):
    quiet = load.tail(running.port, rate, seconds, CONNECTIONS)
    with _spinning(running.port) as spun:
        time.sleep(0.5)
        noisy = load.tail(running.port, rate, seconds, CONNECTIONS)
    return Sample(
        quiet["p50_us"],
        quiet["p99_us"],
        noisy["p50_us"],
        noisy["p99_us"],
        quiet["failed"] + noisy["failed"],
        quiet["unanswered"] + noisy["unanswered"],
        tuple(spun.items()),
    )


def render(rows, samples, rate):
    lines = []
    for row in rows:
        taken = samples[row.key]
        if not taken:
            continue
        quiet, noisy = median(taken, "p99_us"), median(taken, "noisy_p99_us")
        spun = sum((Counter(dict(sample.spun)) for sample in taken), Counter())
        lines.append(
            [
                row.label,
                microseconds(median(taken, "p50_us")),
                microseconds(median(taken, "noisy_p50_us")),
                microseconds(quiet),
                microseconds(noisy),
                microseconds(noisy - quiet),
                sum(sample.noisy_failed for sample in taken),
                sum(sample.noisy_unanswered for sample in taken),
                ", ".join(f"{status} x{count}" for status, count in sorted(spun.items())) or "nothing",
            ]
        )
    note = (
        f"{rate} plain requests/s, open loop, through the same module, without and with {SPINNERS} requests "
        f"spinning to their limit again and again. Not answered with 200: failed; not at all in time: unanswered."
    )
    return f"{markdown(COLUMNS, lines)}\n\n{note}"


@contextlib.contextmanager
def _spinning(port):
    """Eight requests in flight that spin, renewed as they end. Yields how they ended, by status."""
    over = threading.Event()
    ended = Counter()

    def spin():
        while not over.is_set():
            began = time.monotonic()
            try:
                status, _ = work.post(port, headers={**work.HEADERS, "x-hostile": "spin"}, timeout=5 * SPINNERS)
            except OSError as error:
                status = type(error).__name__
            ended[str(status)] += 1
            over.wait(max(0.0, LIMIT_SECONDS - (time.monotonic() - began)))

    threads = [threading.Thread(target=spin) for _ in range(SPINNERS)]
    for thread in threads:
        thread.start()
    try:
        yield ended
    finally:
        over.set()
        for thread in threads:
            thread.join()

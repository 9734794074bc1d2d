"""CPU per request, saturation, tails at half of it, memory under load (P1 to P4)."""

from dataclasses import dataclass

from compare import proxies
from compare.modules import FRESH, POOLED
from compare.rounds import interleaved
from compare.stage import Row
from compare.table import markdown, median, microseconds, span
from compare.work import ANSWER_BYTES, BODY

TITLE = "CPU per request, requests/s, tails, memory under load"
WARM_UP_SECONDS = 1
# More than this and the tail is the generator's own: it shares its core with the worker.
MAX_TAIL_RATE = 15_000
COLUMNS = ["proxy", "CPU µs/request", "min–max", "x nginx", "+ module µs", "requests/s", "p50", "p99", "RSS MiB"]


@dataclass(frozen=True)
class Sample:
    cpu_us: float
    rate: float
    p50_us: float
    p99_us: float
    rss_mib: float


def measure(running, load, seconds):
    load.saturate(running.port, WARM_UP_SECONDS)
    before = running.process.cpu_seconds()
    requests, rate = load.saturate(running.port, seconds)
    cpu = running.process.cpu_seconds() - before
    rss = running.process.rss_kib() / 1024
    tail = load.tail(running.port, min(rate / 2, MAX_TAIL_RATE), seconds / 2)
    return Sample(cpu * 1e6 / requests, rate, tail["p50_us"], tail["p99_us"], rss)


def rows(contenders, guests):
    yield Row("worker", "(worker alone)", proxies.WORKER)
    for proxy in contenders:
        yield Row(proxy.name, proxy.name, proxy)
        if proxy.takes_settings:
            yield Row(f"{proxy.name}+auth-pooled", f"{proxy.name} + auth, pooled", proxy, guests.auth(POOLED))
            yield Row(f"{proxy.name}+auth-fresh", f"{proxy.name} + auth, fresh", proxy, guests.auth(FRESH))
            yield Row(f"{proxy.name}+chain5", f"{proxy.name} + chain of 5, pooled", proxy, guests.chain_of_five(POOLED))
        elif proxy.takes_modules:
            yield Row(f"{proxy.name}+auth", f"{proxy.name} + auth", proxy, guests.auth(FRESH))


def report(options, stage, load, rows):
    samples = interleaved(options, stage, rows, lambda running, _: measure(running, load, options.seconds))
    return render(rows, samples)


def render(rows, samples):
    """`samples` by row key. Rows that never got a figure are left out: they were reported when they failed."""
    base = {row.proxy.name: median(samples[row.key], "cpu_us") for row in rows if not row.modules and samples[row.key]}
    lines = []
    for row in rows:
        taken = samples[row.key]
        if not taken:
            continue
        cpu = median(taken, "cpu_us")
        low, high = span(taken, "cpu_us")
        plain = base.get(row.proxy.name) if row.modules else None
        lines.append(
            [
                row.label,
                f"{cpu:.1f}",
                f"{low:.1f}–{high:.1f}",
                f"{cpu / base['nginx']:.2f}" if "nginx" in base else "–",
                f"{cpu - plain:+.1f}" if plain else "–",
                f"{median(taken, 'rate'):.0f}",
                microseconds(median(taken, "p50_us")),
                microseconds(median(taken, "p99_us")),
                f"{median(taken, 'rss_mib'):.1f}",
            ]
        )
    note = (
        f"POST of {len(BODY)} bytes, answer of {ANSWER_BYTES}. CPU and requests/s from a saturated closed loop; "
        f"p50 and p99 from an open loop at half of each row's own requests/s, at most {MAX_TAIL_RATE}."
    )
    return f"{markdown(COLUMNS, lines)}\n\n{note}"

"""P9: CPU per request as what there is of something grows: what matters is that it stays flat."""

from dataclasses import dataclass

from compare import proxies, work
from compare.modules import POOLED
from compare.rounds import interleaved
from compare.stage import Row
from compare.table import markdown

TITLE = "CPU per request as things grow"
MOST_WORKERS = 1000
COLUMNS = ["proxy", "of what", "how many", "CPU µs/request", "x the first", "requests/s"]


@dataclass(frozen=True)
class Growth(Row):
    """A row of a curve: so much of something."""

    of: str = ""
    count: int = 0
    fields: int = 0
    connections: int = 32


def rows(contenders, guests):
    for proxy in contenders:
        if proxy.name != "nginx" and not proxy.takes_settings:
            continue

        def row(of, count, proxy=proxy, modules=(), **more):
            key = f"{proxy.name}+{of.replace(' ', '-')}-{count}"
            return Growth(key, f"{proxy.name}, {count} {of}", proxy, modules, of=of, count=count, **more)

        for count in (32, 320, 3200):
            yield row("connections", count, connections=count)
        if not proxy.takes_settings:
            continue
        for count in (1, 2):
            yield row("shards", count, shards=count)
        for count in (1, 10, 100):
            yield row("modules", count, modules=guests.one_of(count, POOLED))
        for count in (1, 10, 100, MOST_WORKERS):
            many = proxies.ours(proxy.name, proxy.program, list(_addresses(count)), ["--disable-health-check"])
            yield row("workers", count, many)
        for count in (0, 10, 80):
            yield row("more fields", count, fields=count)


def _addresses(count):
    return (f"127.0.{number // 250}.{number % 250 + 1}" for number in range(count))


def report(options, stage, load, rows):
    def measure(running, row):
        fields = {f"x-field-{number}": f"value {number}" for number in range(row.fields)}
        requests_of = load.of(fields=fields, connections=row.connections)
        requests_of.saturate(running.port, 1)
        before = running.process.cpu_seconds()
        requests, rate = requests_of.saturate(running.port, options.seconds)
        return (running.process.cpu_seconds() - before) * 1e6 / requests, rate

    def config(place):
        return work.worker_config(place.port, place.directory, _addresses(MOST_WORKERS))

    with stage.other_worker(stage.nginx_worker(config), lambda port: work.post(port)[0] == 200):
        samples = interleaved(options, stage, rows, measure)
    first, lines = {}, []
    for row in rows:
        taken = sorted(samples[row.key])
        if not taken:
            continue
        cpu, rate = taken[len(taken) // 2]
        base = first.setdefault((row.proxy.name, row.of), cpu)
        lines.append([row.proxy.name, row.of, row.count, f"{cpu:.1f}", f"{cpu / base:.2f}", f"{rate:.0f}"])
    note = (
        "One of the modules applies to the requests. Two shards have two cores, which on a machine with two they share "
        "with load and worker: what two serve more than one is then told by the CPU per request, not by requests/s."
    )
    return f"{markdown(COLUMNS, lines)}\n\n{note}"

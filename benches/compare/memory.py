"""P7: resident memory idle and per idle connection, idle CPU, a small address space."""

import contextlib
import socket
import sys
import time

from compare.modules import FRESH, POOLED
from compare.open_loop import is_whole
from compare.rounds import attempt, say
from compare.stage import Failed, Row
from compare.table import markdown
from compare.work import raw_request

TITLE = "Idle memory and CPU, memory per connection, a small address space"
CONNECTIONS = 1000
SMALL_ADDRESS_SPACE_KIB = 16 * 1024 * 1024
COLUMNS = ["proxy", "idle RSS MiB", "KiB per idle connection", "idle CPU ms/s", "under ulimit -v 16 GiB"]


def rows(contenders, guests):
    for proxy in contenders:
        yield Row(proxy.name, proxy.name, proxy)
        if proxy.takes_settings:
            yield Row(f"{proxy.name}+3-pooled", f"{proxy.name} + 3 modules, pooled", proxy, guests.three(POOLED))
            yield Row(f"{proxy.name}+3-fresh", f"{proxy.name} + 3 modules, fresh", proxy, guests.three(FRESH))
        elif proxy.takes_modules:
            yield Row(f"{proxy.name}+3", f"{proxy.name} + 3 modules", proxy, guests.three(FRESH))


def report(options, stage, load, rows):
    lines = []
    for row in rows:
        say(f"memory: {row.label}")
        line = attempt(row, lambda: measure(stage, row, options.seconds))
        lines += [line] if line else []
    return render(lines)


def measure(stage, row, seconds):
    """One line of the table, as text."""
    with stage.running(row) as running:
        process = running.process
        time.sleep(1)
        idle_rss = process.rss_kib() / 1024
        before = process.run_nanoseconds()
        time.sleep(seconds)
        idle_cpu = (process.run_nanoseconds() - before) / 1e6 / seconds
        per_connection = _rss_per_connection(running)
    return [
        row.label,
        f"{idle_rss:.1f}",
        f"{per_connection:.1f}",
        f"{idle_cpu:.2f}",
        _under_small_address_space(stage, row),
    ]


def render(lines):
    note = f"An idle connection has made one request; {CONNECTIONS} of them are open."
    return f"{markdown(COLUMNS, lines)}\n\n{note}"


def _rss_per_connection(running):
    """Requests go one after another, so that what grows is connections to clients, not to the worker."""
    with contextlib.ExitStack() as first:
        # What a first request allocates once for all is not the connections'.
        _open(running.port, 20, first)
    time.sleep(0.5)
    before = running.process.rss_kib()
    with contextlib.ExitStack() as stack:
        _open(running.port, CONNECTIONS, stack)
        time.sleep(1)
        return (running.process.rss_kib() - before) / CONNECTIONS


def _open(port, count, stack):
    request = raw_request(port)
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        connection.sendall(request)
        answer = b""
        while not is_whole(answer):
            data = connection.recv(65536)
            if not data:
                raise Failed("it closed a connection that was still needed")
            answer += data


def _under_small_address_space(stage, row):
    try:
        with stage.running(row, SMALL_ADDRESS_SPACE_KIB):
            return "answers"
    except Failed as reason:
        print(f"{row.label}, small address space: {reason}", file=sys.stderr)
        return "no"

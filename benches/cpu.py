#!/usr/bin/env python3
"""CPU time per request of several builds of the gateway, the kernel's part included, compared in one run.

    benches/cpu.py before=/path/to/smg after=target/release/smg
    benches/cpu.py --starts 20 --bursts 5 before=/path/to/smg after=target/release/smg

A gateway with one shard on the first core forwards plain requests of 32 connections to nginx; load and nginx share the
second core. Two runs of one build differ by several percent, depending on where its memory lies, so each build is
started anew again and again. In between, the builds take turns in bursts of one second, in random order.
The first build takes part twice: what its second figure says differs from 1 by chance alone.

The ratio is the median of the pairs of a start; the interval around it holds for 95 % (bootstrap over the starts).

Needs python3, nginx, taskset and wrk.
"""

import argparse
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

from compare import work  # noqa: E402
from instructions import connect, free_port  # noqa: E402

CONNECTIONS = 32
RESAMPLES = 2000
REQUEST = f"""
wrk.method = "POST"
wrk.body = [[{work.BODY}]]
wrk.headers["content-type"] = "application/json"
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("builds", nargs="+", metavar="NAME=EXECUTABLE", type=named)
    parser.add_argument("--starts", type=int, default=12, help="how often each build is started (12)")
    parser.add_argument("--bursts", type=int, default=4, help="bursts of each start (4)")
    options = parser.parse_args()
    builds = [*options.builds[:1], ("the same again", options.builds[0][1]), *options.builds[1:]]
    with tempfile.TemporaryDirectory(prefix="smg-cpu-") as directory, contextlib.ExitStack() as stack:
        worker = free_port()
        nginx = os.path.join(directory, "nginx.conf")
        write(nginx, work.worker_config(worker, directory))
        started(stack, pinned(1, "nginx", "-p", directory, "-c", nginx), worker)
        script = os.path.join(directory, "request.lua")
        write(script, REQUEST)
        starts = [start(builds, options.bursts, worker, script) for _ in range(options.starts)]
    report([name for name, _ in builds], starts)


def named(text):
    name, equals, path = text.partition("=")
    if not (name and equals and os.access(path, os.X_OK)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name, '=' and an executable file")
    return name, path


def start(builds, bursts, worker, script):
    """Microseconds per request of each build: the median of its bursts."""
    with contextlib.ExitStack() as stack:
        gateways = [gateway(stack, path, worker) for _, path in builds]
        for _, port in gateways:
            requests(port, script)
        costs = [[] for _ in gateways]
        for _ in range(bursts):
            for index in random.sample(range(len(gateways)), len(gateways)):
                process, port = gateways[index]
                before = cpu(process.pid)
                count = requests(port, script)
                costs[index].append((cpu(process.pid) - before) / count)
    return [statistics.median(cost) for cost in costs]


def gateway(stack, path, worker):
    port = free_port()
    arguments = ["--host=127.0.0.1", f"--port={port}", "--shards=1", "--log-level=warn", "--disable-health-check"]
    return started(stack, pinned(0, path, *arguments, f"--worker-urls=http://127.0.0.1:{worker}"), port), port


def started(stack, command, port):
    environment = {**os.environ, "SMG_DRAIN_DELAY_SECS": "0"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait, 30)
    stack.callback(process.terminate)
    connect(port).close()
    return process


def requests(port, script):
    """Sends requests for a second; how many were answered."""
    url = f"http://127.0.0.1:{port}{work.PATH}"
    command = pinned(1, "wrk", "-t1", f"-c{CONNECTIONS}", "-d1", "-s", script, url)
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"not every request was answered:\n{output}")
    return next(int(line.split()[0]) for line in output.splitlines() if "requests in" in line)


def cpu(pid):
    """Microseconds that the threads of a process have run."""
    tasks = os.listdir(f"/proc/{pid}/task")
    return sum(int(read(f"/proc/{pid}/task/{task}/schedstat").split()[0]) for task in tasks) / 1000


def report(names, starts):
    for index, name in enumerate(names):
        ratios = [costs[index] / costs[0] for costs in starts]
        medians = sorted(statistics.median(random.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
        low, high = medians[RESAMPLES // 40], medians[-RESAMPLES // 40]
        cost = statistics.median(costs[index] for costs in starts)
        print(f"{cost:6.2f} µs  x {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})  {name}")


def pinned(core, *command):
    return ["taskset", "-c", str(core), *command]


def read(path):
    with open(path) as file:
        return file.read()


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()

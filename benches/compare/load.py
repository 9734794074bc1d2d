"""The two load generators, pinned to the load cores: wrk for saturation, open_loop.py for tails."""

import copy
import json
import os
import subprocess
import sys
import tempfile

from compare import work
from compare.stage import Failed

_SCRIPT = """
wrk.method = "%s"
wrk.body = %s
%s
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%%d,"us":%%d,"errors":%%d}\\n', summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Load:
    def __init__(self, wrk_program, stage, connections, directory):
        self._wrk = wrk_program
        self._cores = ",".join(map(str, stage.load_cores))
        self._connections = connections
        self._directory = directory
        self._path = work.PATH
        self._script = self._write("POST", f"[==[{work.BODY}]==]", work.HEADERS)

    def of(self, method="POST", path=work.PATH, body=f"[==[{work.BODY}]==]", fields=(), connections=None):
        """The same generator with other requests. `body` is an expression in Lua."""
        other = copy.copy(self)
        other._path = path
        other._connections = connections or self._connections
        other._script = self._write(method, body, {**work.HEADERS, **dict(fields)})
        return other

    def _write(self, method, body, fields):
        headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in fields.items())
        handle, path = tempfile.mkstemp(".lua", dir=self._directory)
        with open(handle, "w") as file:
            file.write(_SCRIPT % (method, body, headers))
        return path

    def saturate(self, port, seconds):
        """Closed loop, all connections always busy: (requests, requests per second)."""
        argv = [self._wrk, "-t1", f"-c{self._connections}", f"-d{max(1, round(seconds))}s", "-s", self._script]
        result = self._run([*argv, f"http://127.0.0.1:{port}{self._path}"], seconds)
        if result["errors"] or not result["requests"]:
            raise Failed(f"{result['errors']} of {result['requests']} requests failed")
        return result["requests"], result["requests"] * 1e6 / result["us"]

    def tail(self, port, rate, seconds, connections=None):
        """Open loop at a fixed rate; see open_loop.py for what comes back."""
        options = {
            "port": port,
            "request": work.raw_request(port).decode(),
            "rate": rate,
            "connections": connections or self._connections,
            "seconds": seconds,
            "warm_up": min(0.5, seconds / 4),
        }
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "open_loop.py")
        return self._run([sys.executable, script, json.dumps(options)], seconds)

    def _run(self, argv, seconds):
        try:
            done = subprocess.run(
                ["taskset", "-c", self._cores, *argv], capture_output=True, text=True, timeout=seconds * 2 + 15
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{os.path.basename(argv[0])} did not end") from None
        if done.returncode != 0:
            raise Failed(f"{os.path.basename(argv[0])}: {(done.stderr or done.stdout).strip()[-200:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])

"""The proxies side by side, each in its plainest configuration: no logging, keep-alive to the worker."""

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from typing import Callable

from compare.work import worker_config


@dataclass(frozen=True)
class Place:
    """Where one start of a proxy happens. `spare_port` is for whoever insists on a second listener."""

    directory: str
    port: int
    spare_port: int
    worker_port: int
    shards: int

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        return path


@dataclass(frozen=True)
class Proxy:
    name: str
    program: str
    arguments: Callable[[Place], list]
    environment: Callable[[Place], dict] = field(default=lambda place: {})
    takes_modules: bool = False
    # Whether a deployment may carry `instance` and `allow_duplicate`.
    takes_settings: bool = False
    # Whether it passes on whatever it gets, rather than the requests of one API.
    passes_all: bool = True
    # Whether its configuration has a module that refuses requests without a key.
    guards: bool = False


# No proxy: the load goes straight to the worker, which shows the floor of latencies and the ceiling of requests/s.
WORKER = Proxy("worker", "", lambda place: [])


def find(name, variable, *commands):
    """The program a peer is started with: from the environment, else from PATH, else None."""
    chosen = os.environ.get(variable)
    if chosen:
        return shutil.which(chosen)
    # Debian keeps servers where an ordinary user's PATH does not look.
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return next(filter(None, (shutil.which(command, path=path) for command in commands or (name,))), None)


def find_peer_smg():
    """The peer's executable has our name, so from PATH only a script (it is a Python entry point) is taken."""
    program = find("smg", "PEER_SMG")
    if program and "PEER_SMG" not in os.environ:
        with open(program, "rb") as file:
            return program if file.read(2) == b"#!" else None
    return program


def worker_arguments(place):
    return ["-c", place.write("worker.conf", worker_config(place.port, place.directory)), "-p", place.directory]


def nginx(program):
    def arguments(place):
        config = f"""
daemon off; master_process {"off" if place.shards == 1 else "on"}; worker_processes {place.shards};
pid {place.directory}/nginx.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {place.directory}/b; proxy_temp_path {place.directory}/p;
  fastcgi_temp_path {place.directory}/f; uwsgi_temp_path {place.directory}/u; scgi_temp_path {place.directory}/s;
  upstream worker {{ server 127.0.0.1:{place.worker_port}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{place.port} backlog=4096;
    client_max_body_size 0; proxy_request_buffering off;
    location / {{ proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
        return ["-c", place.write("nginx.conf", config), "-p", place.directory]

    return Proxy("nginx", program, arguments)


def haproxy(program):
    def arguments(place):
        config = f"""
global
  nbthread {place.shards}
  maxconn 8192
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend in
  bind 127.0.0.1:{place.port} backlog 4096
  default_backend worker
backend worker
  server w 127.0.0.1:{place.worker_port}
"""
        return ["-db", "-f", place.write("haproxy.cfg", config)]

    return Proxy("haproxy", program, arguments)


def envoy(program, name="envoy", filters=()):
    def arguments(place):
        config = place.write("envoy.json", json.dumps(_envoy_config(place, filters)))
        return ["-c", config, "--concurrency", str(place.shards), "--disable-hot-restart", "-l", "off"]

    return Proxy(name, program, arguments, guards=bool(filters))


def envoy_with(program, wasm):
    """With a proxy-wasm filter, run by V8."""
    code = {"local": {"filename": wasm}}
    config = {"name": "auth", "vm_config": {"runtime": "envoy.wasm.runtime.v8", "code": code}}
    return envoy(program, "envoy+proxy-wasm", [("wasm", _typed("filters.http.wasm.v3.Wasm", config=config))])


# What a plain proxy does not do. With these off the peer takes about a quarter less CPU than as it comes.
PEER_PLAIN = (
    *("--policy", "passthrough", "--disable-retries", "--disable-circuit-breaker"),
    *("--disable-health-check", "--disable-load-monitoring"),
)


def peer_plain(program):
    return replace(_peer_smg("peer", program, PEER_PLAIN), takes_modules=True)


def peer_as_it_comes(program):
    """With its retries, breaker, probes and cache-aware balancing: what our own rows have on, too."""
    return _peer_smg("peer-defaults", program, ())


def _peer_smg(name, program, options):
    def arguments(place):
        return [
            *("launch", "--host", "127.0.0.1", "--port", str(place.port)),
            *("--worker-urls", f"http://127.0.0.1:{place.worker_port}"),
            *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(place.spare_port)),
            *("--log-level", "error", "--enable-wasm", "--shutdown-grace-period-secs", "1", *options),
        ]

    def environment(place):
        # Its runtime would start a thread per core of the machine.
        return {"TOKIO_WORKER_THREADS": str(place.shards)}

    return Proxy(name, program, arguments, environment, passes_all=False)


def ours(name, program, hosts=("127.0.0.1",), more=()):
    """With a worker on each of these addresses, and more arguments."""

    def arguments(place):
        return [
            *("--host=127.0.0.1", f"--port={place.port}", f"--shards={place.shards}"),
            *("--log-level=warn", "--enable-wasm", f"--wasm-cache-dir={place.directory}/cache"),
            "--worker-urls=" + ",".join(f"http://{host}:{place.worker_port}" for host in hosts),
            *more,
        ]

    def environment(_):
        return {"SMG_DRAIN_DELAY_SECS": "0"}  # A variable, because builds to compare with may not know the flag.

    return Proxy(name, program, arguments, environment, takes_modules=True, takes_settings=True)


def _typed(name, **fields):
    return {"@type": f"type.googleapis.com/envoy.extensions.{name}", **fields}


def _envoy_config(place, filters):
    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    filters = [*filters, ("router", _typed("filters.http.router.v3.Router"))]
    route = {"match": {"prefix": "/"}, "route": {"cluster": "worker"}}
    manager = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="in",
        http_filters=[{"name": f"envoy.filters.http.{name}", "typed_config": config} for name, config in filters],
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    )
    connection_manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    endpoint = {"endpoint": {"address": address(place.worker_port)}}
    return {
        "static_resources": {
            "listeners": [
                {
                    "address": address(place.port),
                    "filter_chains": [{"filters": [connection_manager]}],
                }
            ],
            "clusters": [
                {
                    "name": "worker",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "load_assignment": {"cluster_name": "worker", "endpoints": [{"lb_endpoints": [endpoint]}]},
                }
            ],
        }
    }

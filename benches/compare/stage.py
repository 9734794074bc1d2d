"""The stage: which cores belong to whom, the worker, and starting one proxy at a time ready to be measured."""

import contextlib
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass

from compare import proxies, work
from compare.modules import deploy
from compare.process import Process, wait_until

START_SECONDS = 30


class Failed(Exception):
    """This row has no figure, and why."""


@dataclass(frozen=True)
class Row:
    """One line of a table: a proxy with modules deployed."""

    key: str
    label: str
    proxy: proxies.Proxy
    modules: tuple = ()
    # Data threads, and cores, if not those of the stage.
    shards: int = 0


@dataclass(frozen=True)
class Running:
    process: Process
    port: int


class Stage:
    """A context manager: the worker runs inside it, and the temporary directory lasts as long."""

    def __init__(self, nginx_program, shards):
        self._cores = sorted(os.sched_getaffinity(0))
        self.shards = shards
        self.proxy_cores = self._cores[-shards:]
        self.load_cores = self._cores[:1]
        self._nginx = nginx_program
        self._is_ready = _answers
        self._cleanup = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self._root = tempfile.mkdtemp(prefix="smg-compare-")
            stack.callback(shutil.rmtree, self._root, ignore_errors=True)
            place = self._place(worker_port=0)
            worker = Process([self._nginx, *proxies.worker_arguments(place)], self.load_cores, place.directory)
            stack.callback(worker.stop)
            self._worker = Running(worker, place.port)
            self._await_answer(worker, place.port, "start as the worker")
            self._cleanup = stack.pop_all()
        return self

    @contextlib.contextmanager
    def other_worker(self, command, is_ready):
        """Another worker for the rows within: the argv that `command` makes of its place, and when it is there."""
        place, before = self._place(worker_port=0), (self._worker, self._is_ready)
        worker = Process(command(place), self.load_cores, place.directory)
        self._worker, self._is_ready = Running(worker, place.port), is_ready
        try:
            self._await_answer(worker, place.port, "start as the worker")
            yield
        finally:
            self._worker, self._is_ready = before
            worker.stop()

    def nginx_worker(self, config):
        """For `other_worker`: an nginx with the configuration that `config` makes of its place."""
        return lambda place: [self._nginx, "-c", place.write("worker.conf", config(place)), "-p", place.directory]

    def load_core_list(self):
        return ",".join(map(str, self.load_cores))

    def __exit__(self, *exception):
        self._cleanup.close()

    @contextlib.contextmanager
    def running(self, row, address_space_kib=None):
        """The row's proxy, answering, its modules deployed and seen at work."""
        if row.proxy is proxies.WORKER:
            yield self._worker
            return
        place = self._place(self._worker.port, row.shards or self.shards)
        process = Process(
            [row.proxy.program, *row.proxy.arguments(place)],
            self._cores[-row.shards :] if row.shards else self.proxy_cores,
            place.directory,
            row.proxy.environment(place),
            address_space_kib,
        )
        try:
            self._await_answer(process, place.port, "start")
            try:
                problem = deploy(row.proxy, place.port, row.modules)
            except OSError as error:
                problem = f"deploy failed: {error}"
            if problem:
                raise Failed(problem)
            self._await_answer(process, place.port, "answer once its modules were deployed")
            is_guarded = row.proxy.guards or any("auth" in module["name"] for module in row.modules)
            if is_guarded and self._is_ready is _answers:
                self._check_auth(place.port)
            yield Running(process, place.port)
            if process.exited():
                raise Failed(f"it died: {process.log_tail()}")
        finally:
            process.stop()
            shutil.rmtree(place.directory, ignore_errors=True)

    def _await_answer(self, process, port, what):
        if not wait_until(lambda: self._is_ready(port), START_SECONDS, process):
            raise Failed(f"it did not {what}: {process.log_tail()}")

    def _check_auth(self, port):
        status, _ = work.post(port, headers={"content-type": "application/json"})
        if status != 401:
            raise Failed(f"the auth module is deployed, yet a request without a key got {status}")

    def place(self):
        """For a row that is started by hand, in front of the worker."""
        return self._place(self._worker.port)

    def _place(self, worker_port, shards=1):
        return proxies.Place(tempfile.mkdtemp(dir=self._root), _free_port(), _free_port(), worker_port, shards)


def _answers(port):
    return work.is_answer(*work.post(port))


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

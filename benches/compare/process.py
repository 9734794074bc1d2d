"""A child process on chosen cores, and what /proc says of it and of its descendants."""

import os
import re
import signal
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """Started on construction. Dies with us even if we are killed, and `stop` ends only what it started."""

    def __init__(self, argv, cores, directory, environment=(), address_space_kib=None):
        self.directory = directory
        self.log_path = os.path.join(directory, "log")
        prefix = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", ",".join(map(str, cores))]
        if address_space_kib is not None:
            prefix += ["prlimit", f"--as={address_space_kib * 1024}"]
        with open(self.log_path, "wb") as log:
            # A clean environment and home: no SMG_* variable and no state of an earlier run may take part.
            self._child = subprocess.Popen(
                [*prefix, *argv],
                cwd=directory,
                env={"PATH": os.environ.get("PATH", ""), "HOME": directory, "TMPDIR": directory, **dict(environment)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def exited(self):
        return self._child.poll() is not None

    def log_tail(self, lines=3):
        """The last lines it wrote, without colours and banners."""
        with open(self.log_path, encoding="ascii", errors="ignore") as log:
            text = re.sub(r"\x1b\[[0-9;]*m", "", log.read())
        return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:]) or "it logged nothing"

    def cpu_seconds(self):
        """utime + stime of all threads, plus those of descendants, living and reaped."""
        total = 0
        for pid in self._tree():
            fields = _stat(pid)
            # Fields 14 to 17 of proc(5): utime, stime, cutime, cstime; the first two are cut off.
            total += sum(int(field) for field in fields[11:15]) if fields else 0
        return total / TICKS

    def run_nanoseconds(self):
        """Time on a CPU as the scheduler counts it: finer than the tick, but living threads only."""
        total = 0
        for pid in self._tree():
            for thread in _listdir(f"/proc/{pid}/task"):
                total += int((_read(f"/proc/{pid}/task/{thread}/schedstat") or "0").split()[0])
        return total

    def rss_kib(self):
        """From smaps_rollup, which counts; the figures in stat and statm may be off by a batch per core."""
        texts = (_read(f"/proc/{pid}/smaps_rollup") for pid in self._tree())
        return sum(int(found[1]) for text in texts if (found := re.search(r"^Rss:\s+(\d+)", text, re.MULTILINE)))

    def stop(self, grace=3):
        tree = self._tree()
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(grace)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(grace)
        for pid in tree[1:]:
            if _is_in_session(pid, self._child.pid):
                os.kill(pid, signal.SIGKILL)

    def _tree(self):
        parents = {}
        for pid in filter(str.isdigit, _listdir("/proc")):
            fields = _stat(pid)
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(pid))
        tree = [self._child.pid]
        for pid in tree:
            tree += parents.get(pid, [])
        return tree


def wait_until(condition, seconds, process, pause=0.02):
    """Polls until `condition` holds; False once time is up or the process is gone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not process.exited():
        try:
            if condition():
                return True
        except (OSError, ValueError):
            pass
        time.sleep(pause)
    return False


def _stat(pid):
    """The fields of /proc/PID/stat after the command, which may itself hold blanks and brackets."""
    text = _read(f"/proc/{pid}/stat")
    return text.rpartition(")")[2].split() if text else None


def _is_in_session(pid, session):
    fields = _stat(pid)
    return bool(fields) and int(fields[3]) == session


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _listdir(path):
    try:
        return os.listdir(path)
    except OSError:
        return []

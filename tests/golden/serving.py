"""Runs structattn-server as its operator would: a process, one line on stdout, a log on stderr.

It starts no other program and judges no answer. Standard library only.
"""

import contextlib
import json
import pathlib
import subprocess
import time

# Only against tests that hang: a loaded machine may take very long.
PATIENCE_S = 120


def wait_until(condition):
    """For what other processes do in their own time."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not true after {PATIENCE_S} s")
        time.sleep(0.02)


class Server:
    """A running server for {name: path}. `address` once it listens."""

    def __init__(self, binaries, models, log_path, flags=()):
        command = [binaries / "structattn-server", "--listen", "127.0.0.1:0", *flags]
        for name, path in models.items():
            command += ["--model", f"{name}={path}"]
        self.log_path = pathlib.Path(log_path)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE,
                                            stderr=log)
        line = self.process.stdout.readline().decode()
        if not line.startswith("listening on "):
            self.kill()
            raise RuntimeError(f"the server said {line!r}; its log:\n{self.log_text()[-3000:]}")
        self.address = line.removeprefix("listening on ").strip()

    def log_text(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def log_events(self, event):
        """The log's objects of one kind; only whole lines, as the last may be half written."""
        lines = [json.loads(line) for line in self.log_text().splitlines(keepends=True)
                 if line.endswith("\n")]
        return [line for line in lines if line["event"] == event]

    def stop(self):
        """SIGTERM; returns the exit code. Kills a server that does not go."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def serving(binaries, models, log_path, dtype="float32"):
    """Runs a server for {name: path}; yields its address. Its exit must be clean."""
    server = Server(binaries, models, log_path, ["--dtype", dtype])
    try:
        yield server.address
    finally:
        code = server.stop()
    if code != 0:
        raise RuntimeError(f"the server ended with {code}, expected 0 after SIGTERM")

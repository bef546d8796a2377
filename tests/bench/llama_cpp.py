"""llama.cpp as a peer: its benchmark of single steps and its server.

build_llama_cpp.sh makes the binaries and the models. It judges no answer. Standard library only.
"""

import concurrent.futures
import json
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

PATIENCE_S = 120


def model_path(folder, name):
    return pathlib.Path(folder) / f"{name}-bf16.gguf"


def bench(folder, model, threads, arguments):
    """{(prompt tokens, generated tokens): tokens per second} of one run of llama-bench."""
    command = [pathlib.Path(folder) / "bin/llama-bench", "-m", model,
               "-t", threads, "-r", 1, "-o", "json", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"llama-bench ended with {done.returncode}: {done.stderr[-2000:]}")
    return {(test["n_prompt"], test["n_gen"]): test["avg_ts"] for test in json.loads(done.stdout)}


class Server:
    """A fresh llama-server: nothing is cached from before."""

    def __init__(self, folder, name, threads, slots):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._slots = slots
        command = [pathlib.Path(folder) / "bin/llama-server", "-m", model_path(folder, name),
                   "--host", "127.0.0.1", "--port", port, "-t", threads, "-np", slots,
                   "-c", 1024 * slots, "--log-disable"]
        self._process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)

    def __enter__(self):
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(f"{self._url}/health", timeout=5):
                    return self
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > end or self._process.poll() is not None:
                    self.__exit__()
                    raise
                time.sleep(0.05)

    def __exit__(self, *unused):
        self._process.kill()
        self._process.wait()

    def complete(self, token_ids, count):
        """The ids of `count` greedy tokens after the given ones."""
        body = {"prompt": token_ids, "n_predict": count, "temperature": 0, "cache_prompt": True,
                "ignore_eos": True, "return_tokens": True}
        request = urllib.request.Request(f"{self._url}/completion", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as reply:
            return json.load(reply)["tokens"]

    def complete_all(self, prompts, count):
        """The tokens of complete() for many prompts, as many at a time as there are slots."""
        with concurrent.futures.ThreadPoolExecutor(self._slots) as pool:
            return list(pool.map(lambda ids: self.complete(ids, count), prompts))

"""Several processes, each with two devices, that share a matrix: the values and gradients of one, or an error."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("process_worker.py")
BOUND = 60.0  # seconds between the last step that all took and the end of those left; the heartbeat has 10
# The first as JAX raises it where a connection is cut, the second as its runtime ends a process.
CAUSES = r"JaxRuntimeError.*\b(?:by peer|[Tt]imed out|[Ss]ocket closed)|another task died"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def processes(count: int, *options: int) -> Iterator[list[subprocess.Popen]]:
    port = free_port()
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error::DeprecationWarning", str(WORKER), *map(str, (index, count, port, *options))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"JAX_ENABLE_X64": "0", "JAX_PLATFORMS": "cpu"},
        )
        for index in range(count)
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_agree_with_one(count):
    with processes(count) as workers:
        outputs = [worker.communicate(timeout=480)[0] for worker in workers]
    for index, output in enumerate(outputs):
        assert f"process {index} of {count}: equal" in output, output[-3000:]


LOST = [
    pytest.param(2, 0, signal.SIGKILL, id="the coordinator killed"),
    pytest.param(2, 1, signal.SIGKILL, id="another killed"),
    pytest.param(2, 0, signal.SIGSTOP, id="the coordinator stopped", marks=pytest.mark.slow),
    pytest.param(2, 1, signal.SIGSTOP, id="another stopped", marks=pytest.mark.slow),
    pytest.param(4, 2, signal.SIGKILL, id="one of four killed", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("count", "gone", "how"), LOST)
def test_a_lost_process_ends_the_others_with_an_error(count, gone, how):
    """JAX gives the error and the bound: jaxnorms waits for nothing by itself and catches nothing.

    A collective whose connection is cut raises at once; a process that is stopped keeps its connections, and the
    heartbeat of ``jax.distributed.initialize`` finds it. Without the coordinator JAX may end a process before Python
    sees an exception.
    """
    with processes(count, gone, how) as workers:
        left = [worker for index, worker in enumerate(workers) if index != gone]
        outputs = [worker.communicate(timeout=240)[0] for worker in left]
        end = time.time()
    assert workers[gone].returncode == -signal.SIGKILL  # a stopped one by us
    for worker, output in zip(left, outputs, strict=True):
        assert worker.returncode not in (0, -signal.SIGKILL), output[-3000:]
        start = re.search(r"agreed at ([\d.]+)", output)
        assert start, output[-3000:]
        assert end - float(start[1]) < BOUND, output[-3000:]
        assert "went on" not in output
        assert re.search(CAUSES, output), output[-3000:]

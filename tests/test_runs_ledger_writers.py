"""Who writes the ledger: threads of one process, no second process, and none that was killed."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from test_runs_ledger import fill, run

from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


def test_threads_add_at_once(path):
    table = RunTable.open(path)

    def add(worker):
        for i in range(8):
            table.add(run(100 * worker + i))

    threads = [threading.Thread(target=add, args=(w,)) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = list(table)
    table.close()
    assert len(rows) == 32 and list(RunTable.open(path)) == rows


def test_one_writer(path):
    fill(path, 2)
    table = RunTable.open(path)
    with pytest.raises(BadInput, match=r"runs.jsonl: another process is adding runs .* wait"):
        RunTable.open(path)
    look = RunTable.open(path, write=False)
    assert list(look) == list(table)
    with pytest.raises(RuntimeError, match="not open for adding"):
        look.add(run(2))
    table.add(run(2))
    table.close()
    with pytest.raises(RuntimeError, match="not open for adding"):
        table.add(run(3))
    assert len(table) == 3 and len(RunTable.open(path)) == 3


def test_the_lock_ends_with_the_table(path):
    table = RunTable.open(path)
    del table
    assert len(RunTable.open(path)) == 0


WRITER = """
import os, sys, time
sys.path.insert(0, {tests!r})
from test_runs_ledger import run
from autoscale_jax.runs import RunTable
table = RunTable.open({path!r})
child = os.fork() if {fork} else 0
if {fork} and child == 0:
    time.sleep(60)
    os._exit(0)
print(child, flush=True)
for i in range(100000):
    table.add(run(i))
"""


@pytest.mark.parametrize("fork", [False, True])
def test_kill_at_any_moment(path, fork):
    code = WRITER.format(tests=os.path.dirname(__file__), path=str(path), fork=fork)
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = 0
    try:
        child = int(writer.stdout.readline())
        deadline = time.monotonic() + 20
        while path.stat().st_size < 5000 and time.monotonic() < deadline:
            time.sleep(0.002)
        with pytest.raises(BadInput, match="another process"):
            RunTable.open(path)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        # a child of the killed process still lives: it must not hold the lock
        with RunTable.open(path) as table:
            n = len(table)
            assert n >= 5 and list(table) == [run(i) for i in range(n)]
            table.add(run(n))
    finally:
        writer.kill()
        writer.stdout.close()
        if child:
            os.kill(child, signal.SIGKILL)

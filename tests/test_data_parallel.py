"""Tasks on processes: progress counts what was read, as it is read, and not what was there."""

import time

import pytest

from autoscale_jax.data import parallel


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(parallel.time, "monotonic", lambda: self.now)


def test_a_large_task_is_reported_while_it_runs(monkeypatch):
    """One file of 10 GB at 100 MB/s: a line every two seconds, each with what is left."""
    clock, lines = Clock(monkeypatch), []

    def task(size, report):
        reading = parallel.Reading(report)
        for done in range(0, size, 12_500_000):
            clock.now += 0.125
            reading.at(done + 12_500_000)
        reading.end(size)

    meter = parallel.Meter(lines.append, "scan", [10_000_000_000])
    with parallel.Workers(1) as pool:
        assert list(pool.run(task, [10_000_000_000], meter)) == [(0, None)]
    assert len(lines) == 51
    assert lines[24] == "scan: 5.00 of 10.00 GB, 0/1 parts, 100 MB/s, 50 s left"
    assert lines[-1] == "scan: 10.00 of 10.00 GB, 1/1 parts, 100 MB/s, 0 s left"


def test_what_was_found_done_says_nothing_about_the_rate(monkeypatch):
    clock, lines = Clock(monkeypatch), []
    found = [9_000_000_000, 500_000_000]
    meter = parallel.Meter(lines.append, "scan", [500_000_000, 10_000_000_000], found)
    clock.now += 5
    meter.read(500_000_000)
    meter.end()
    assert lines == ["scan: 10.00 of 20.00 GB, 2/4 parts, 100 MB/s, 2 min left"]


def test_reports_add_up_to_the_task():
    reported = []
    reading = parallel.Reading(reported.append)
    for done in range(0, 5_000_001, 1000):
        reading.at(done)
    reading.end(5_000_100)
    assert sum(reported) == 5_000_100 and len(reported) < 7


def slow(size, report):
    """Reports its bytes in four parts, in a process of its own."""
    for _ in range(4):
        report(size // 4)
        time.sleep(0.2)
    return size


def test_processes_report_while_they_work():
    lines = []
    sizes = [4_000_000, 8_000_000]
    meter = parallel.Meter(lines.append, "scan", sizes, every_seconds=0.0)
    with parallel.Workers(2, poll_seconds=0.05) as pool:
        assert sorted(pool.run(slow, sizes, meter)) == list(enumerate(sizes))
        again = parallel.Meter(lines.append, "tokenise", sizes, every_seconds=60.0)
        assert sorted(pool.run(slow, sizes, again)) == list(enumerate(sizes))
    assert sum("0/2 parts" in line for line in lines) >= 2
    assert "0.01 of 0.01 GB, 2/2 parts" in lines[-1] and lines[-1].startswith("tokenise")


def failing(size, report):
    raise OSError(f"{size} broke")


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_error_stops_the_rest(count):
    meter = parallel.Meter(None, "scan", [1, 2, 3])
    with parallel.Workers(count) as pool, pytest.raises(OSError, match="broke"):
        list(pool.run(failing, [1, 2, 3], meter))

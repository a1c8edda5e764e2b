"""Races: our function against a baseline, timed in turns in one run.

Run them alone and on a quiet machine: ``pytest tests/benchmarks``. With
``--save-results PATH`` the measurements are written as JSON for the site's page of results, in the
place of those of the same file. One file at a time: libraries leave threads and memory behind.
On a busy machine ``COMPANION_BENCH_SLACK=2`` halves every required ratio.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import sklearn
import torch

HERE = Path(__file__).parent
THREADS = 2
ROUNDS = 7
TURN = 0.05
RESULTS = pytest.StashKey[list]()


def pytest_addoption(parser):
    parser.addoption("--save-results", metavar="PATH", help="write the measured times as JSON")


def pytest_configure(config):
    config.addinivalue_line("markers", "bench: a race against another implementation")
    config.stash[RESULTS] = []


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("bench")


def pytest_sessionfinish(session):
    path = session.config.getoption("--save-results", default=None)
    if path:
        results = session.config.stash[RESULTS]
        measured = {result["file"] for result in results}
        if Path(path).exists():  # each file is measured in a process of its own
            before = json.loads(Path(path).read_text())["results"]
            results = [r for r in before if r["file"] not in measured] + results
        results = sorted(results, key=lambda result: result["file"])
        report = {"machine": machine(), "results": results}
        Path(path).write_text(json.dumps(report, indent=2) + "\n")


def machine() -> dict:
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "sklearn": sklearn.__version__,
        "threads": THREADS,
    }


def take_turns(ours: Callable, baseline: Callable) -> tuple[float, float]:
    """Return both median times of a call in milliseconds, after a warm-up, timed alternately.

    Taking turns exposes both to the same disturbances; the median drops the worst of them. A turn
    is as many calls as take ``TURN`` seconds, so that a fast function is not timed cold only.
    """
    functions = (ours, baseline)
    calls = [max(1, round(TURN / min(seconds(function, 3)))) for function in functions]
    times = ([], [])
    for _ in range(ROUNDS):
        for function, count, record in zip(functions, calls, times, strict=True):
            record += seconds(function, count)
    return tuple(1e3 * statistics.median(record) for record in times)


def seconds(function: Callable, calls: int) -> list[float]:
    """Return how long each call takes."""
    marks = [time.perf_counter()]
    for _ in range(calls):
        function()
        marks.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(marks)]


@pytest.fixture
def race(request):
    """Return ``race(name, ours, baseline, at_least, baseline_name, sizes, note="")``.

    It fails unless ``time(baseline) / time(ours)`` is at least ``at_least`` (over the slack).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)

    def run(
        name: str,
        ours: Callable,
        baseline: Callable,
        at_least: float,
        baseline_name: str,
        sizes: str,
        note: str = "",
    ) -> float:
        ours_ms, baseline_ms = take_turns(ours, baseline)
        ratio = baseline_ms / ours_ms
        result = {
            "file": request.path.name,
            "name": name,
            "sizes": sizes,
            "baseline": baseline_name,
            "ours_ms": round(ours_ms, 3),
            "baseline_ms": round(baseline_ms, 3),
            "ratio": round(ratio, 3),
            "at_least": at_least,
            "note": note,
        }
        request.config.stash[RESULTS].append(result)
        slack = float(os.environ.get("COMPANION_BENCH_SLACK", "1"))
        assert ratio >= at_least / slack, (
            f"{name}: {baseline_name} took {baseline_ms:.1f} ms and ours {ours_ms:.1f} ms,"
            f" a ratio of {ratio:.2f}; at least {at_least / slack:.2f} is required"
        )
        return ratio

    yield run
    torch.set_num_threads(threads)

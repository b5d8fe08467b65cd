"""Run checks in processes of their own, so that none can stall, exhaust or crash the others.

A check is asked to keep to its budget; one that does not is stopped from outside, and that is a ``timeout``.
A process that dies, killed for memory or by a fault in a compiled library, has ``failed`` its check.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from unittest.mock import patch

from proofs_checks.check import Budget, Check, CheckFinding, CheckResult, Outcome, execute

Source = Callable[[], Sequence[Check]]
"""Gives the checks in a fresh process too: a function of a module, or a ``functools.partial`` of one."""

_GRACE = 2.0  # seconds for a stopped process to go away
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read when libraries are loaded
_START = 300.0  # seconds for a process to start and import what it needs, even on a crowded machine


def run(
    source: Source, names: Sequence[str], budget: Budget, *, workers: int, limit: float
) -> Iterator[CheckResult]:
    """Results of the checks called ``names``, as they come in.

    Args:
        source: gives the checks; names must be unique.
        names: which checks to run; started in this order.
        budget: what each may spend.
        workers: processes at a time, at least 1.
        limit: seconds of wall time, from its start on, after which a check is stopped from outside.

    Raises:
        KeyError: a name that ``source`` does not give.
        ValueError: ``workers`` is below 1 or ``limit`` not positive.
    """
    if workers < 1 or not limit > 0:
        raise ValueError("checks need at least one process and a positive limit")
    known = {check.name: check for check in source()}
    waiting = deque(known[name] for name in names)
    busy: list[_Worker] = []
    idle: list[_Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                worker = idle.pop() if idle else _start(source, budget)
                worker.give(waiting.popleft(), limit)
                busy.append(worker)
            soonest = min(worker.deadline for worker in busy)
            wait([worker.pipe for worker in busy], max(0.0, soonest - time.monotonic()))
            for worker in list(busy):
                result = worker.result()
                if result is not None:
                    busy.remove(worker)
                    (idle if worker.process.is_alive() else []).append(worker)
                    yield result
    finally:
        for worker in (*busy, *idle):
            worker.stop()


@dataclass(slots=True)
class _Worker:
    """One process, and the check that it is busy with."""

    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    check: Check | None = None
    limit: float = 0.0
    started: float = 0.0
    deadline: float = 0.0

    def give(self, check: Check, limit: float) -> None:
        self.check, self.limit = check, limit
        self._wait(limit if self.ready else _START)
        with suppress(OSError):  # a process that died meanwhile is noticed by result()
            self.pipe.send(check.name)

    def result(self) -> CheckResult | None:
        """What came of the check; None while it runs. A worker that had to be stopped is dead after this."""
        try:
            while self.pipe.poll():
                received = self.pipe.recv()
                if isinstance(received, CheckResult):
                    return received
                self.ready = True  # the process has imported everything: now the check's own time runs
                self._wait(self.limit)
        except (EOFError, ConnectionError):
            self.process.join(_GRACE)
            code = self.process.exitcode
            self.stop()
            return self._ended("failed", f"its process died (exit code {code})")
        if time.monotonic() < self.deadline:
            return None
        self.stop()
        return self._ended("timeout", f"stopped after {time.monotonic() - self.started:.0f} s")

    def _wait(self, seconds: float) -> None:
        self.started = time.monotonic()
        self.deadline = self.started + seconds

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(_GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()

    def _ended(self, outcome: Outcome, detail: str) -> CheckResult:
        assert self.check is not None
        return self.check.result(CheckFinding(outcome, 0, detail), time.monotonic() - self.started)


def _start(source: Source, budget: Budget) -> _Worker:
    # Fresh interpreters: forking a process that holds threads of a numerical library can deadlock.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(source, budget, theirs), daemon=True)
    # One thread for each process, as there is a process for every core: the threads of several processes
    # would wait for each other's cores, spinning, and small products of matrices take several times as long.
    with patch.dict(os.environ, dict.fromkeys(_THREADS, "1")):
        process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return _Worker(process, ours)


def _serve(source: Source, budget: Budget, pipe: Connection) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    checks = {check.name: check for check in source()}
    try:
        pipe.send("ready")
        while True:
            pipe.send(execute(checks[pipe.recv()], budget))
    except (EOFError, KeyboardInterrupt):
        return


def _end_with_parent() -> None:
    """Leave no process behind when the one that runs the checks is killed in the middle of one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    signal.raise_signal(signal.SIGTERM)

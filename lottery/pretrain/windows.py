"""Windows of tokens for pretraining, in an order that is a pure function of seed and position.

Ranks come from a fixed 64-bit mixing function instead of a random generator, so the order does not depend on
library versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOS = 1
_BLOCK = 4096  # number of draws whose random bits are computed together


@dataclass(frozen=True, slots=True)
class Documents:
    """Concatenated token ids of many documents: document ``i`` is ``ids[starts[i]:starts[i + 1]]``."""

    ids: NDArray[np.uint16]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.starts.size) - 1

    def __getitem__(self, index: int) -> NDArray[np.uint16]:
        return self.ids[self.starts[index] : self.starts[index + 1]]


def mix(*words: int | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Fold SplitMix64 over ``words``: 64 well-mixed bits, elementwise, the same on every platform."""
    state = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = state + np.asarray(word, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


class Windows:
    """An endless, seekable sequence of packed windows ``[length]``: ``<s>``, then documents, cut at the end.

    A document that does not fit is cut and not continued, so every window starts with a complete document,
    as a prompt does. Within a source each document is used once per pass, in a new order each pass.

    Args:
        shares: desired share of the tokens for each source, on any positive scale.
        length: number of tokens per window.
    """

    def __init__(
        self, sources: Sequence[Documents], shares: Sequence[float], *, length: int, seed: int
    ) -> None:
        self._sources = sources
        self._length = length
        self._seed = seed
        mean = np.array([min(source.ids.size / len(source), length - 1) for source in sources])
        rate = np.array(shares, dtype=np.float64) / mean
        # Cumulative probabilities are integers, so the choice of a source is exact on every platform.
        self._edges = np.round(np.cumsum(rate / rate.sum()) * 2**32).astype(np.uint64)
        self._edges[-1] = 2**32
        self._bits = np.zeros(_BLOCK, dtype=np.uint64)
        self._drawn = 0
        self._used = [0] * len(sources)
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self.position = 0

    def skip(self, count: int) -> None:
        """Skip ``count`` windows."""
        for _ in range(count):
            self._fill(None)

    def batch(self, count: int) -> NDArray[np.int64]:
        """Return the next ``count`` windows, ``[count, length]``."""
        block = np.empty((count, self._length), dtype=np.int64)
        for row in block:
            self._fill(row)
        return block

    def _fill(self, row: NDArray[np.int64] | None) -> None:
        if row is not None:
            row[0] = BOS
        filled = 1
        while filled < self._length:
            source, index = self._draw()
            documents = self._sources[source]
            start, stop = int(documents.starts[index]), int(documents.starts[index + 1])
            taken = min(stop - start, self._length - filled)
            if row is not None:
                row[filled : filled + taken] = documents.ids[start : start + taken]
            filled += taken
        self.position += 1

    def _draw(self) -> tuple[int, int]:
        offset = self._drawn % _BLOCK
        if offset == 0:
            numbers = np.arange(self._drawn, self._drawn + _BLOCK, dtype=np.uint64)
            self._bits = mix(self._seed, 1, numbers) >> np.uint64(32)
        bits = self._bits[offset]
        self._drawn += 1
        source = int(np.searchsorted(self._edges, bits, side="right"))
        count = len(self._sources[source])
        lap, rank = divmod(self._used[source], count)
        self._used[source] += 1
        cached = self._orders.get(source)
        if cached is None or cached[0] != lap:
            keys = mix(self._seed, 2, source, lap, np.arange(count, dtype=np.uint64))
            cached = (lap, np.argsort(keys, kind="stable"))
            self._orders[source] = cached
        return source, int(cached[1][rank])


def held_out_windows(groups: Sequence[Documents], *, length: int, count: int) -> NDArray[np.int64]:
    """Pack up to ``count`` windows ``[n, length]`` round robin from held-out documents."""
    windows: list[NDArray[np.int64]] = []
    row: list[int] = [BOS]
    for document in _round_robin(groups):
        row.extend(int(token) for token in document)
        if len(row) >= length:
            windows.append(np.array(row[:length], dtype=np.int64))
            row = [BOS]
            if len(windows) == count:
                break
    return np.stack(windows) if windows else np.zeros((0, length), dtype=np.int64)


def _round_robin(groups: Sequence[Documents]) -> Iterator[NDArray[np.uint16]]:
    for index in range(max((len(group) for group in groups), default=0)):
        for group in groups:
            if index < len(group):
                yield group[index]

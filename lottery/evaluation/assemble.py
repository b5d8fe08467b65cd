"""Make evidence from part files: join all arms of a text, sentence by sentence, and bind them by digests.

``NAME.records.jsonl`` is written first and ``NAME.json``, which binds it, last. After a crash in between, an
older manifest does not match the records, so nobody can mistake them for its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import atomic_writer, canonical_json, sha256_bytes, write_bytes
from certify.base.records import Dtype
from certify.base.version import __version__
from certify.evidence.parser import RecordParser
from certify.evidence.read import (
    BASE_ARM,
    MAX_WITNESSES,
    REFERENCE_ARM,
    Arm,
    BaseModelRef,
    Decoding,
    Manifest,
    RecordsRef,
    ReferenceRef,
    TextRef,
    Used,
    unit_rank,
    write_manifest,
)
from certify.tables.tokenisation import probe_digest
from certify.ticket.corpus import sentence_digest
from lottery.evaluation.prompts import Task
from lottery.evaluation.shards import Part, write_at
from lottery.text.outputs import Outputs
from lottery.text.unrelated import UnrelatedText, Window, passage_windows
from lottery.text.usedtext import DIGITS, UsedText, used_bytes

_PENDING = "0" * 64


class Assembly:
    """Evidence that grows: records are appended, and the manifest is written anew.

    Args:
        arms: the arms, ``base`` and ``reference`` among them.
        out: ``NAME.json``; records and lists of used sentences go beside it.
        design: ``sequential`` if sentences are drawn until claims are decided.
        witnesses: largest number of sentences to include in words, chosen by ``order_seed``; a text without
            attribution gets none.
    """

    def __init__(
        self,
        task: Task,
        arms: Sequence[Arm],
        out: Path,
        *,
        used: Sequence[UsedText] = (),
        order_seed: int = 0,
        design: Literal["fixed", "sequential"] = "fixed",
        witnesses: int = MAX_WITNESSES,
    ) -> None:
        """Nothing is written yet."""
        self._task, self._arms, self._out, self._used = task, arms, out, used
        self._order_seed, self._design = order_seed, design
        self._witnesses = min(witnesses, MAX_WITNESSES) if task.text.attribution else 0
        self._files: _Files | None = None

    def add(self, parts: Mapping[str, Part], indices: Iterable[int] | None = None) -> Manifest:
        """Append sentences, none of which is there yet, and write the manifest of all.

        Sentences in words are taken from those that are added first, in the order of ``order_seed``.

        Args:
            parts: the part of each arm by its name, complete for ``indices``.
            indices: the sentences, appended in the order of the text; None means all.

        Raises:
            UsageError: a part lacks a sentence (``PART_INCOMPLETE``) or was made with other settings or
                inputs (``PART_MISMATCH``), or a file cannot be written.
            InvalidInputError: a part was edited (``PART_MALFORMED``) or does not follow the reference's
                outputs (``PART_STALE``).
        """
        task, chosen = self._task, sorted(range(len(self._task.pairs)) if indices is None else indices)
        for arm in self._arms:
            _check_part(arm.name, parts, task.key(arm), chosen)
        return self._append(chosen, lambda index: _translation(self._arms, parts, index))

    def add_outputs(self, outputs: Outputs) -> Manifest:
        """Append every sentence with the outputs that another engine made, and write the manifest."""
        task = self._task
        return self._append(range(len(task.pairs)), lambda index: _produced(task, outputs, index))

    def _append(self, chosen: Sequence[int], content: Callable[[int], dict[str, Any]]) -> Manifest:
        task = self._task
        ranked = sorted(chosen, key=lambda i: (unit_rank(self._order_seed, task.pairs[i].id), i))
        shown = set(ranked[: self._witnesses])
        self._witnesses -= len(shown)
        if self._files is None:
            self._files = _Files(self._out, self._draft(len(chosen)), self._used)
        return self._files.add(_about(task, index, index in shown) | content(index) for index in chosen)

    def _draft(self, count: int) -> Manifest:
        task = self._task
        draft = Manifest(
            kind="translation",
            created_by=f"certify {__version__}",
            procedure="translation/1",
            base=task.base,
            reference=ReferenceRef(tensor_sha256=task.reference_sha256),
            tokenizer_sha256=task.tokenizer_sha256,
            tokenizer_probe_sha256=task.probe_sha256,
            template=task.template,
            languages=task.languages,
            text=task.text,
            decoding=task.decoding,
            order_seed=self._order_seed,
            design=self._design,
            signatures=task.signatures,
            arms=tuple(self._arms),
            used=(),
            records=_pending(self._out, count),
        )
        more = {"path": task.path, "margins": task.margins, "produced_by": task.produced_by}
        return _with(draft, **{name: one for name, one in more.items() if one is not None})


@dataclass(frozen=True, slots=True)
class LossTask:
    """Unrelated text to measure a loss on.

    Attributes:
        windows: token ids; the first of each begins a sequence.
        text: name, digest, unit and attribution of the text; ``sentences`` counts its lines.
        probe_sha256: what the tokenizer makes of the probe (:mod:`certify.tables.tokenisation`).
        dtype: dtype that the models compute in; the softmax is in fp64.
    """

    windows: Sequence[Window]
    text: TextRef
    base: BaseModelRef
    tokenizer_sha256: str
    probe_sha256: str
    dtype: Dtype = "F32"

    def key(self, arm: Arm) -> Mapping[str, Any]:
        """Everything that determines the part file of an arm's losses, as JSON.

        The procedure is that of the measurement. What ``loss/2`` records about its text does not change a
        loss.
        """
        windows = [[window.id, window.unit, list(window.ids)] for window in self.windows]
        return {
            "procedure": "loss/1",
            "arm": arm.model_dump(mode="json", include={"kind", "table_sha256", "model_sha256", "gate"}),
            "windows": sha256_bytes(canonical_json(windows)),
            "dtype": self.dtype,
            "base": self.base.tensor_sha256,
            "model": self.base.model_sha256,
            "tokenizer": self.tokenizer_sha256,
            "text": self.text.sha256,
        }


def make_loss_task(
    text: UnrelatedText,
    tokenizer: Any,
    *,
    window: int,
    attribution: str,
    base: BaseModelRef,
    tokenizer_sha256: str,
    dtype: Dtype,
) -> LossTask:
    """Prepare passages of unrelated text, in windows of at most ``window`` tokens."""
    return LossTask(
        passage_windows(text.passages, tokenizer, max_tokens=window),
        TextRef(
            name=text.name,
            sha256=text.digest(),
            sentences=sum(len(passage.lines) for passage in text.passages),
            unit=text.unit,
            attribution=attribution,
        ),
        base,
        tokenizer_sha256,
        probe_digest(tokenizer),
        dtype,
    )


def assemble_loss(
    task: LossTask,
    arms: Sequence[Arm],
    parts: Mapping[str, Part],
    out: Path,
    *,
    reference_sha256: str | None,
    used: Sequence[UsedText] = (),
    order_seed: int = 0,
) -> Manifest:
    """Join the losses of every arm into evidence of kind ``loss``; errors as in :meth:`Assembly.add`.

    A window with the same ids as an earlier one is left out. Two passages can end in the same few tokens, and
    a copy is not new text.

    Args:
        reference_sha256: tensor digest of E*, if it has an arm.
    """
    windows = task.windows
    for arm in arms:
        _check_part(arm.name, parts, task.key(arm), range(len(windows)))
    longest = max(len(window.ids) for window in windows)
    distinct: dict[str, int] = {}
    for index, window in enumerate(windows):
        distinct.setdefault(sha256_bytes(canonical_json(list(window.ids)))[:DIGITS], index)
    draft = Manifest(
        kind="loss",
        created_by=f"certify {__version__}",
        procedure="loss/2",
        base=task.base,
        reference=None if reference_sha256 is None else ReferenceRef(tensor_sha256=reference_sha256),
        tokenizer_sha256=task.tokenizer_sha256,
        tokenizer_probe_sha256=task.probe_sha256,
        template=None,
        languages=None,
        text=task.text,
        decoding=Decoding(beams=1, max_new_tokens=0, dtype=task.dtype),
        order_seed=order_seed,
        design="fixed",
        signatures={"loss": f"nats:1e-9|window:{longest}|bos:yes|softmax:fp64|version:1"},
        arms=tuple(arms),
        used=(),
        records=_pending(out, len(distinct)),
    )
    records = (
        {
            "id": windows[index].id,
            "unit": windows[index].unit,
            "window": digest,
            "lines": list(windows[index].lines),
            "tokens": len(windows[index].ids) - 1,
            "nats": {arm.name: parts[arm.name].read(index)["nats"] for arm in arms},
        }
        for digest, index in distinct.items()
    )
    return _Files(out, draft, used).add(records)


def check_out(out: Path) -> None:
    """Refuse a path that a manifest cannot have. Call it before hours of work.

    Raises:
        UsageError: ``OUT_SUFFIX``.
    """
    if out.suffix != ".json" or out.is_dir():
        raise UsageError(f"{out}: expected a .json file for the manifest", code="OUT_SUFFIX")


def along(reference: Mapping[str, Any]) -> str:
    """Digest (16 hexadecimal digits) of the steps in a record of the reference's part."""
    return sha256_bytes(canonical_json([reference["tokens"], reference["top"]]))[:DIGITS]


def _check_part(name: str, parts: Mapping[str, Part], key: Mapping[str, Any], wanted: Sequence[int]) -> None:
    part = parts.get(name)
    if part is None or any(index not in part for index in wanted):
        raise UsageError(f"the measurement of arm {name} is incomplete: resume it", code="PART_INCOMPLETE")
    if canonical_json(part.key) != canonical_json(key):
        raise UsageError(f"{part.path} was not made from arm {name}", code="PART_MISMATCH")


def _about(task: Task, index: int, shown: bool) -> dict[str, Any]:
    """What a record says of its sentence, whoever translated it."""
    pair = task.pairs[index]
    return {
        "id": pair.id,
        "unit": task.units[index],
        "source": sentence_digest(pair.source)[:DIGITS],
        "target": sentence_digest(pair.target)[:DIGITS],
        "prompt": sorted(set(task.prompts[index].ids)),
    } | ({"witness": {"source": pair.source, "target": pair.target}} if shown else {})


def _produced(task: Task, outputs: Outputs, index: int) -> dict[str, Any]:
    pair = task.pairs[index]
    answers: dict[str, Any] = {}
    for name, lines in outputs.lines.items():
        line = lines[pair.id]
        stats, rules = task.scorer.rules(line.text, task.labels, pair.target)
        answers[name] = {"text": line.text, "stats": list(map(list, stats)), "rules": list(rules)}
        answers[name] |= {} if line.ended is None else {"ended": line.ended}
        answers[name] |= {} if line.tokens is None else {"length": len(line.tokens)}
    return {"arms": answers}


def _translation(arms: Sequence[Arm], parts: Mapping[str, Part], index: int) -> dict[str, Any]:
    reference = parts[REFERENCE_ARM].read(index)
    steps = along(reference)
    answers: dict[str, Any] = {}
    for arm in arms:
        made = parts[arm.name].read(index)
        answer = {field: made[field] for field in ("text", "ended", "length", "stats", "rules")}
        if arm.name != REFERENCE_ARM:
            if made["along"] != steps:
                raise InvalidInputError(
                    f"{parts[arm.name].path} does not follow the outputs of the reference in"
                    f" {parts[REFERENCE_ARM].path}: measure the arm again",
                    code="PART_STALE",
                )
            answer |= {field: made[field] for field in ("differs", "path", "own") if field in made}
        if arm.name == BASE_ARM:
            answer["tokens"] = made["tokens"]
        answers[arm.name] = answer
    return {
        "reference": {field: reference[field] for field in ("tokens", "top", "p_a", "p_b")},
        "arms": answers,
    }


class _Files:
    """The files of one evidence: records, lists of used sentences, and last the manifest that binds them."""

    def __init__(self, out: Path, draft: Manifest, used: Sequence[UsedText]) -> None:
        check_out(out)
        self._out, self._draft, self._used = out, draft, used
        # Records are read back before they are written, as every reader will read them.
        self._parser = RecordParser(draft)
        self._state = hashlib.sha256()
        self._size = self._count = 0

    def add(self, records: Iterable[Mapping[str, Any]]) -> Manifest:
        path, start = self._out.parent / self._draft.records.path, self._size
        if start:
            write_at(path, b"".join(self._lines(records)), start)
        else:
            with atomic_writer(path) as stream:
                stream.writelines(self._lines(records))
            listed = []
            for entry in dict.fromkeys(self._used):
                data = used_bytes(entry.digests)
                digest = sha256_bytes(data)
                name = f"used/{entry.role}.{digest[:DIGITS]}.txt"
                write_bytes(self._out.parent / name, data)
                bound = {"table_sha256": min(entry.tables)} if entry.tables else {}
                listed.append(
                    Used(role=entry.role, path=name, sha256=digest, count=len(entry.digests), **bound)
                )
            self._draft = _with(self._draft, used=tuple(listed))
        stated = RecordsRef(path=self._draft.records.path, sha256=self._state.hexdigest(), count=self._count)
        manifest = _with(self._draft, records=stated)
        write_manifest(self._out, manifest)
        return manifest

    def _lines(self, records: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
        for record in records:
            line = canonical_json(record)
            self._parser.read(line, f"record {record['id']}")
            line += b"\n"
            self._state.update(line)
            self._size += len(line)
            self._count += 1
            yield line


def _with(manifest: Manifest, **fields: Any) -> Manifest:
    """The manifest with other fields, validated again."""
    return Manifest(**{name: getattr(manifest, name) for name in manifest.model_fields_set} | fields)


def _pending(out: Path, count: int) -> RecordsRef:
    return RecordsRef(path=f"{out.stem}.records.jsonl", sha256=_PENDING, count=count)

"""Read outputs that another engine made: JSON lines, the first of which says what made them.

The header is a ``certify.outputs`` (:class:`OutputsHeader`); every further line is one output
(:class:`OutputLine`). Outputs of one arm may have a file of their own, whose header names the arm. A line
names its source sentence in words, so that outputs of another text, or of another order, cannot be taken for
those of this one; an id alone could not show that. The lines of an arm follow the order of the text. Lines
about sentences that an evaluation leaves out (used before, repeated, not drawn) are read and not used, so
that a whole file can be translated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from certify.base.errors import InvalidInputError
from certify.base.jsonio import parse_json
from certify.base.model import Document, Model, Refusal, Sha256, Text, TokenId, validate
from certify.evidence.manifest import ArmName, Decoding, Producer
from certify.evidence.record import MAX_LINE_BYTES
from certify.ticket.corpus import Pair, sentence_digest
from lottery.text.textfile import read_lines

_REFUSAL: Final = Refusal("OUTPUTS_MALFORMED")


class OutputsHeader(Document):
    """The first line: what made the outputs; ``arm`` if all lines are about one arm.

    ``settings`` says in words what else determines an output; ``weights`` the SHA-256 of the weights that
    were served, by arm, where known. ``decoding`` is what the engine was told: beams, longest output, dtype.
    """

    schema_: Literal["certify.outputs"] = Field(alias="schema", default="certify.outputs")
    schema_version: Literal[1] = 1
    engine: str
    version: str
    settings: Text = ""
    decoding: Decoding
    arm: ArmName | None = None
    weights: Annotated[dict[ArmName, Sha256], Field(default_factory=dict, max_length=512)]

    @model_validator(mode="after")
    def _decoded(self) -> OutputsHeader:
        if not self.decoding.max_new_tokens:
            raise ValueError("decoding.max_new_tokens must be at least 1")
        return self

    @property
    def producer(self) -> Producer:
        """What made the outputs, as evidence says it."""
        fields = ("engine", "version", "settings", "weights")
        return Producer(**{name: getattr(self, name) for name in fields})


class OutputLine(Model):
    """One output: of which arm, for which source sentence, in words.

    ``id`` is that of the sentence in the text, ``tokens`` the generated ids, ``ended`` whether the model
    ended the output itself: each optional, and checked where given.
    """

    arm: ArmName | None = None
    source: str
    id: str | None = None
    text: Annotated[str, Field(max_length=MAX_LINE_BYTES)]
    tokens: Annotated[tuple[TokenId, ...], Field(min_length=1)] | None = None
    ended: bool | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of every arm.

    Attributes:
        producer: what made them.
        decoding: how, as its author says.
        lines: by arm and id of the sentence.
    """

    producer: Producer
    decoding: Decoding
    lines: Mapping[str, Mapping[str, OutputLine]]


def read_outputs(
    paths: Sequence[Path], arms: Sequence[str], text: Sequence[Pair], wanted: Sequence[Pair], *, name: str
) -> Outputs:
    """Read the outputs of every arm on a text.

    Args:
        paths: the files.
        arms: names of the arms; each must have an output for every wanted sentence.
        text: the whole text, in its order.
        wanted: the sentences that are evaluated.
        name: of the text, for messages.

    Raises:
        UsageError: a file cannot be read.
        InvalidInputError: naming file and line: no header, or a line that breaks a rule
            (``OUTPUTS_MALFORMED``); another engine or other settings than in the first file
            (``OUTPUTS_ENGINE``); no such arm (``OUTPUTS_ARM``); a sentence that is not in the text
            (``OUTPUTS_UNKNOWN``), is one other than its id says (``OUTPUTS_SENTENCE``), has an output of
            the arm already (``OUTPUTS_REPEATED``) or comes too late (``OUTPUTS_ORDER``). An arm has no output
            of a wanted sentence (``OUTPUTS_MISSING``).
    """
    found = {arm: _Arm(arm, text, name) for arm in arms}
    first: OutputsHeader | None = None
    weights: dict[str, str] = {}
    for path in paths:
        lines = _parsed(path)
        where, value = next(lines, (str(path), None))
        header = validate(OutputsHeader, value, what=where, refusal=_REFUSAL)
        first = first or header
        if _about(first) != _about(header):
            raise InvalidInputError(
                f"{where}: another engine, version, settings or decoding than in {paths[0]}: arms would be"
                " compared across engines",
                code="OUTPUTS_ENGINE",
            )
        weights |= header.weights
        for where, value in lines:
            line = validate(OutputLine, value, what=where, refusal=_REFUSAL)
            if (line.arm is None) == (header.arm is None):
                raise _REFUSAL(f"{where}: expected the arm either here or in the first line")
            if len(line.tokens or ()) > header.decoding.max_new_tokens:
                raise _REFUSAL(f"{where}: more tokens than decoding.max_new_tokens")
            served = line.arm or header.arm or ""
            if served not in found:
                known = ", ".join(found)
                raise InvalidInputError(
                    f"{where}: there is no arm {served!r}; there are: {known}", code="OUTPUTS_ARM"
                )
            found[served].add(line, where)
    if first is None:
        raise _REFUSAL("no file of outputs")
    unknown = sorted(weights.keys() - found.keys())
    if unknown:
        raise InvalidInputError(f"{paths[0]}: weights of no arm {unknown[0]!r}", code="OUTPUTS_ARM")
    for arm in found.values():
        lacking = [pair.id for pair in wanted if pair.id not in arm.lines]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise InvalidInputError(
                f"no output of arm {arm.name} for {lacking[0]}{more} of {name}", code="OUTPUTS_MISSING"
            )
    made = first.model_copy(update={"weights": weights}).producer
    return Outputs(made, first.decoding, {arm.name: arm.lines for arm in found.values()})


class _Arm:
    """The outputs of one arm, each for the next sentence of the text that it can be for."""

    def __init__(self, arm: str, text: Sequence[Pair], name: str) -> None:
        self.name, self.lines = arm, dict[str, OutputLine]()
        self._text, self._called, self._next = text, name, 0
        self._ids = {pair.id: index for index, pair in enumerate(text)}
        self._places: dict[str, list[int]] = {}
        for index, pair in enumerate(text):
            self._places.setdefault(sentence_digest(pair.source), []).append(index)

    def add(self, line: OutputLine, where: str) -> None:
        places = self._places.get(sentence_digest(line.source), [])
        if not places or (line.id is not None and line.id not in self._ids):
            what = "source sentence" if not places else f"id {line.id!r}"
            raise InvalidInputError(f"{where}: {self._called} has no such {what}", code="OUTPUTS_UNKNOWN")
        if line.id is not None:
            if self._ids[line.id] not in places:
                said = f"{where}: the source sentence is not that of {line.id} in {self._called}"
                raise InvalidInputError(said, code="OUTPUTS_SENTENCE")
            places = [self._ids[line.id]]
        place = next((place for place in places if place >= self._next), None)
        if place is None:
            again = all(self._text[place].id in self.lines for place in places)
            raise InvalidInputError(
                f"{where}: the sentence {self._text[places[0]].id}"
                + (f" has an output of arm {self.name} already" if again else " is out of the text's order"),
                code="OUTPUTS_REPEATED" if again else "OUTPUTS_ORDER",
            )
        self.lines[self._text[place].id] = line
        self._next = place + 1


def _parsed(path: Path) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {number}"
        yield where, parse_json(line.encode(), what=where)


def _about(header: OutputsHeader) -> object:
    return header.model_dump(exclude={"arm", "weights"})

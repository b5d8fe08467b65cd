"""Prompt templates: text around a sentence, as data, and the resulting token ids.

A template is a TOML file from this package (``certify/ticket/prompts``) or from the user::

    instruction = "Translate the following sentence from {source_language} to {target_language}."
    prompt = "{instruction}\\n{source_language}: {source}\\n{target_language}:"
    join = " "                    # between prompt and response; belongs to the response
    fields = ["{source_language}:", "{target_language}:"]   # labels at which an output can be cut

By TOML's rules, a newline right after the opening quotes of a multi-line string is not part of the text. The
loss is on the response and the end-of-sentence token only; everything before has the label −100.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from certify.base.errors import InvalidInputError, UsageError
from certify.base.jsonio import canonical_json, read_bytes, sha256_bytes
from certify.base.model import Model, Refusal, validate_toml
from certify.tables.tokenisation import Controls, front_ids
from certify.ticket.corpus import Pair

Fed = Callable[[Path, "Template", str, str, int, str | None], NDArray[np.int64] | None]
"""What :func:`fed_counts` makes with the tokenizer in a folder; None if it cannot be loaded.

The last argument is the digest of its probe, where a ticket states one."""

SPOKEN: Final = ("The house is old.", "the house is old")
"""Sentences beside which a template is tokenised, with and without a full stop; tickets rest on them."""

IGNORED = -100
"""Label of a position without loss, as in ``torch.nn.functional.cross_entropy``."""

LANGUAGES: Mapping[str, str] = {
    "bg": "Bulgarian",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "eu": "Basque",
    "fi": "Finnish",
    "fr": "French",
    "gl": "Galician",
    "hr": "Croatian",
    "hu": "Hungarian",
    "is": "Icelandic",
    "it": "Italian",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "no": "Norwegian",
    "oc": "Occitan",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
}
"""English names of languages by ISO 639-1 code, as used in prompts."""

_MAX_FILE_BYTES = 1 << 16
_REFUSAL: Final = Refusal("TEMPLATE_INVALID")
_FIELD = re.compile(r"\{([a-z_]+)\}")
_IN_INSTRUCTION = {"source_language", "target_language"}
_IN_PROMPT = _IN_INSTRUCTION | {"instruction", "source"}


def language_name(code: str) -> str:
    """Return the English name of a language.

    Raises:
        UsageError: the code is not in :data:`LANGUAGES`.
    """
    try:
        return LANGUAGES[code]
    except KeyError:
        known = ", ".join(LANGUAGES)
        raise UsageError(f"unknown language {code!r}; known are {known}", code="LANGUAGE_UNKNOWN") from None


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range ``[start, stop)`` of characters or of token positions."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Prompt:
    """A filled template: the text to feed, with the positions of its parts in characters.

    Attributes:
        text: everything before the response.
        instruction: characters of the instruction; empty if the template has none.
        source: characters of the sentence to translate.
    """

    text: str
    instruction: Span
    source: Span


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt template; see the module's docstring for the fields."""

    name: str
    instruction: str
    prompt: str
    join: str
    fields: tuple[str, ...]

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of everything but the name."""
        return sha256_bytes(canonical_json({k: v for k, v in asdict(self).items() if k != "name"}))

    def fill(self, source: str, source_language: str, target_language: str) -> Prompt:
        """Put a sentence and two language codes into the template. Braces in the sentence stay as they are.

        Raises:
            UsageError: an unknown language.
        """
        values = self._names(source_language, target_language)
        values["instruction"], _ = _expand(self.instruction, values)
        values["source"] = source
        text, places = _expand(self.prompt, values)
        return Prompt(text, places.get("instruction", Span(0, 0)), places["source"])

    def field_labels(self, source_language: str, target_language: str) -> tuple[str, ...]:
        """List the labels of the fields of this template, with languages filled in.

        Raises:
            UsageError: an unknown language.
        """
        values = self._names(source_language, target_language)
        return tuple(_expand(label, values)[0] for label in self.fields)

    @staticmethod
    def _names(source_language: str, target_language: str) -> dict[str, str]:
        return {
            "source_language": language_name(source_language),
            "target_language": language_name(target_language),
        }


class _File(Model):
    """The file of a template."""

    instruction: str
    prompt: str
    join: str
    fields: tuple[str, ...]

    @model_validator(mode="after")
    def _filled(self) -> Self:
        texts = [(self.instruction, _IN_INSTRUCTION), (self.prompt, _IN_PROMPT)]
        for text, allowed in [*texts, *((label, _IN_INSTRUCTION) for label in self.fields)]:
            unknown = set(_FIELD.findall(text)) - allowed
            if unknown:
                listed = ", ".join(sorted(allowed))
                raise ValueError(f"unknown field {{{min(unknown)}}}; allowed there are {listed}")
        used = _FIELD.findall(self.prompt)
        if used.count("source") != 1 or used.count("instruction") != bool(self.instruction):
            raise ValueError("the prompt must contain {source} once, and {instruction} once if there is one")
        if not all(label.strip() for label in self.fields):
            raise ValueError("a field must not be blank")
        if "{" in self.join:
            raise ValueError("join must not contain fields")
        return self


def template_names() -> list[str]:
    """List the templates that ship with the package."""
    folder = resources.files("certify.ticket") / "prompts"
    return sorted(item.name[: -len(".toml")] for item in folder.iterdir() if item.name.endswith(".toml"))


def load_template(name: str | Path) -> Template:
    """Load a shipped template by name, or any other by the path of its ``.toml`` file.

    Raises:
        UsageError: there is no such template or file.
        InvalidInputError: the file is not a template.
    """
    if isinstance(name, Path) or name.endswith(".toml"):
        path = Path(name)
        return _parse(path.stem, read_bytes(path, what="template", limit=_MAX_FILE_BYTES))
    if name not in template_names():
        raise UsageError(
            f"unknown template {name!r}: choose {', '.join(template_names())} or the path of a .toml file",
            code="TEMPLATE_UNKNOWN",
        )
    return _parse(name, (resources.files("certify.ticket") / "prompts" / f"{name}.toml").read_bytes())


def _parse(name: str, data: bytes) -> Template:
    content = validate_toml(_File, data, what=f"template {name}", refusal=_REFUSAL)
    return Template(name, content.instruction, content.prompt, content.join, content.fields)


def _expand(text: str, values: Mapping[str, str]) -> tuple[str, dict[str, Span]]:
    # A single pass, so that inserted text is not searched for fields.
    pieces: list[str] = []
    places: dict[str, Span] = {}
    length = 0
    for index, part in enumerate(_FIELD.split(text)):
        piece = values[part] if index % 2 else part
        if index % 2:
            places[part] = Span(length, length + len(piece))
        pieces.append(piece)
        length += len(piece)
    return "".join(pieces), places


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one pair under a template.

    Attributes:
        id: id of the pair.
        ids: token ids: those that the tokenizer puts in front of a text, prompt, response, end of sentence; a
            bare prompt lacks the last two.
        prompt_length: number of ids before the response; ``ids[prompt_length:]`` are the targets.
        instruction: positions of tokens that overlap the instruction; empty if there is none.
        source: positions of tokens that overlap the sentence to translate.
        target: positions of the response without its end-of-sentence token; empty for a bare prompt.
        front: number of ids in front of the prompt's text.
    """

    id: str
    ids: tuple[int, ...]
    prompt_length: int
    instruction: Span
    source: Span
    target: Span
    front: int = 0

    @property
    def labels(self) -> tuple[int, ...]:
        """Labels aligned with ``ids``: −100 before the response, then the ids themselves."""
        return (IGNORED,) * self.prompt_length + self.ids[self.prompt_length :]

    def __len__(self) -> int:
        return len(self.ids)


def encode(
    template: Template,
    pairs: Sequence[Pair],
    tokenizer: Any,
    source_language: str,
    target_language: str,
    *,
    response: bool = True,
) -> list[Example]:
    """Encode pairs under a template as token ids, labels and spans.

    Prompt and response are tokenised together, and the cut between them is verified to fall between two
    tokens. The ids of the prompt are exactly those that an engine feeds that calls the tokenizer. Control
    tokens can stand in the template only; :func:`encodable` leaves out pairs that contain one.

    Args:
        template: the template.
        pairs: sentences; targets are not read if ``response`` is false.
        tokenizer: a fast tokenizer of ``transformers``, which knows character offsets.
        source_language: code of the pairs' source language.
        target_language: code of their target language.
        response: append the response and the end-of-sentence token.

    Returns:
        One example per pair, in order.

    Raises:
        UsageError: the tokenizer is slow or has no end-of-sentence token, or a language is unknown.
        InvalidInputError: a token crosses the cut (``TEMPLATE_CUT``), or a sentence contains a control token
            (``CONTROL_TOKEN``).
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError("a fast tokenizer is needed (tokenizer.json)", code="TOKENIZER_SLOW")
    end = tokenizer.eos_token_id
    if response and end is None:
        raise UsageError("the tokenizer has no end-of-sentence token", code="TOKENIZER_NO_EOS")
    if not pairs:
        return []
    front, controls = front_ids(tokenizer), Controls(tokenizer)
    prompts = [template.fill(pair.source, source_language, target_language) for pair in pairs]
    plain = _tokenise(tokenizer, [prompt.text for prompt in prompts])
    full = plain
    if response:
        texts = [
            prompt.text + template.join + pair.target for prompt, pair in zip(prompts, pairs, strict=True)
        ]
        full = _tokenise(tokenizer, texts)
    examples: list[Example] = []
    for pair, prompt, (before, offsets), (ids, places) in zip(pairs, prompts, plain, full, strict=True):
        said = Span(len(prompt.text) + len(template.join), len(prompt.text + template.join + pair.target))
        for sentence, span in ((pair.source, prompt.source), (pair.target if response else "", said)):
            inside = _positions(span, places, 0)
            if controls.spelled(sentence) or not controls.ids.isdisjoint(ids[inside.start : inside.stop]):
                raise InvalidInputError(
                    f"{pair.id}: a sentence contains a control token of the tokenizer", code="CONTROL_TOKEN"
                )
        if ids[: len(before)] != before:
            raise InvalidInputError(
                f"{pair.id}: with this tokenizer a token of the response overlaps the prompt of template "
                f"{template.name}; give the template another join",
                code="TEMPLATE_CUT",
            )
        cut = len(front) + len(before)
        stop = len(front) + len(ids)
        examples.append(
            Example(
                id=pair.id,
                ids=(*front, *ids, int(end)) if response else (*front, *ids),
                prompt_length=cut,
                instruction=_positions(prompt.instruction, offsets, len(front)),
                source=_positions(prompt.source, offsets, len(front)),
                target=Span(cut, stop),
                front=len(front),
            )
        )
    return examples


def fed_counts(
    template: Template, tokenizer: Any, source_language: str, target_language: str, rows: int
) -> NDArray[np.int64]:
    """How often the text of a template itself feeds each id, beside each of :data:`SPOKEN`: int64 ``[V]``.

    Whole prompts are tokenised, so that ids are those of the context. Tokens that overlap the sentence, and
    ids that the tokenizer puts in front of a text, are not the template's.

    Raises:
        UsageError, InvalidInputError: see :func:`encode`; also an id outside the table
            (``TOKENIZER_TABLE_SIZE``).
    """
    pairs = [Pair(sentence, sentence, f"spoken:{i}") for i, sentence in enumerate(SPOKEN)]
    examples = encode(template, pairs, tokenizer, source_language, target_language, response=False)
    fed = [(*one.ids[one.front : one.source.start], *one.ids[one.source.stop :]) for one in examples]
    counts = np.bincount(np.array([i for ids in fed for i in ids], np.int64), minlength=rows)
    if counts.size > rows:
        raise InvalidInputError(
            f"the tokenizer produces id {counts.size - 1}, but the table has {rows} rows",
            code="TOKENIZER_TABLE_SIZE",
        )
    return counts.astype(np.int64)


def encodable(pairs: Sequence[Pair], tokenizer: Any) -> list[Pair]:
    """The pairs of which neither side contains a control token of the tokenizer; order kept."""
    controls = Controls(tokenizer)
    sides = [controls.held([getattr(pair, side) for pair in pairs]) for side in ("source", "target")]
    return [pair for pair, *held in zip(pairs, *sides, strict=True) if not any(held)]


def _tokenise(
    tokenizer: Any, texts: Iterable[str]
) -> list[tuple[tuple[int, ...], Sequence[tuple[int, int]]]]:
    encoded = tokenizer(
        list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
    )
    return [
        (tuple(ids), offsets)
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def _positions(span: Span, offsets: Sequence[tuple[int, int]], shift: int) -> Span:
    """Find the tokens that overlap ``span``, moved by ``shift``; ``Span(0, 0)`` if there are none."""
    inside = [index for index, (start, stop) in enumerate(offsets) if start < span.stop and stop > span.start]
    return Span(shift + inside[0], shift + inside[-1] + 1) if inside else Span(0, 0)

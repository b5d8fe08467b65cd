"""Make synthetic text and a tiny random model, to try a whole experiment in seconds.

The text is a toy: English clauses from a small grammar, each with a word-by-word rendering into made-up words
that look like Catalan. A model learns something from it, but nothing about translation. Everything is a
function of a seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from certify.base.errors import UsageError
from certify.base.jsonio import write_bytes
from certify.base.staging import staged_folder, written_by_safetensors

LANGUAGES = ("en", "ca")
"""Language codes of the two sides."""

TEXTS = ("train", "choice", "test")
"""Names of the parallel texts, which share no sentences."""

UNRELATED = "unrelated.en"
"""Name of the monolingual text."""

VOCABULARY = 480
"""Number of pieces of the tokenizer. The table has two more rows, which no token feeds."""


def _words(pairs: str) -> dict[str, str]:
    return {english: other for english, _, other in (pair.partition("=") for pair in pairs.split())}


_NOUNS = _words(
    "dog=gosel cat=gatel house=caseta tree=arbrel sea=marel bird=ocellet book=llibrel road=camel"
    " stone=pedreta boat=barqueta"
)
_ADJECTIVES = _words("old=vellet new=novell red=rogell small=petitel white=blanquel long=llarguel")
_VERBS = _words("sees=miral finds=trobal follows=seguel leaves=deixal wants=volel")
_ARTICLES = _words("the=el a=un every=cadal")


def sentences(count: int, *, seed: int) -> list[tuple[str, str]]:
    """Make ``count`` different clauses and their renderings.

    Raises:
        UsageError: the grammar has fewer.
    """
    seen: dict[tuple[str, str], None] = {}
    possible = (len(_ARTICLES) * len(_ADJECTIVES) * len(_NOUNS)) ** 2 * len(_VERBS)
    if not 0 <= count <= possible // 2:
        raise UsageError(
            f"the toy grammar makes at most {possible // 2} sentences, not {count}", code="USAGE"
        )
    draw = 0
    while len(seen) < count:
        words = iter(hashlib.sha256(f"{seed}:{draw}".encode("ascii")).digest())
        clause = [*_phrase(words), _pick(_VERBS, words), *_phrase(words)]
        left, right = (" ".join(side) for side in zip(*clause, strict=True))
        seen[(f"{left[0].upper()}{left[1:]}.", f"{right[0].upper()}{right[1:]}.")] = None
        draw += 1
    return list(seen)


def write_text(folder: Path, *, seed: int, train: int, choice: int, test: int, unrelated: int) -> None:
    """Write the parallel texts and the monolingual one into ``folder``, one sentence per line.

    Raises:
        UsageError: the grammar has fewer sentences, or the folder cannot be written.
    """
    sizes = dict(zip(TEXTS, (train, choice, test), strict=True))
    stock = iter(sentences(sum(sizes.values()), seed=seed))
    for name, size in sizes.items():
        pairs = [next(stock) for _ in range(size)]
        for side, language in enumerate(LANGUAGES):
            _write_lines(folder / f"{name}.{language}", [pair[side] for pair in pairs])
    _write_lines(folder / UNRELATED, _sums(unrelated, seed))


def write_checkpoint(folder: Path, *, seed: int) -> None:
    """Write a tiny LLaMA in fp16 with random weights and its tokenizer, completely or not at all.

    It has an input table of 482 x 64, an untied head and two layers. The newline has id 13, as in LLaMA.

    Raises:
        UsageError: the folder exists already or cannot be written.
    """
    from lottery.model.backbone import quiet
    from lottery.pretrain.data import train_tokenizer, write_tokenizer_config
    from lottery.pretrain.plan import ModelPlan
    from lottery.pretrain.step import build_model

    names = ["English", "Catalan", "Translate the following sentence from English to Catalan."]
    text = [*names * 20, *(f"{left}\n{right}" for left, right in sentences(400, seed=0)), *_sums(50, 0)]
    tokenizer = train_tokenizer(text, vocab_size=VOCABULARY)
    shape = ModelPlan(
        vocab_size=VOCABULARY + 2,
        hidden_size=64,
        intermediate_size=96,
        layers=2,
        heads=4,
        kv_heads=2,
        max_position=256,
        rope_theta=10000.0,
    )
    # With the default range of .02, logits are so flat that greedy decoding repeats one token.
    model = build_model(shape, seed=seed, initializer_range=0.2)
    with staged_folder(folder) as staged:
        with quiet(), written_by_safetensors(staged):
            model.half().save_pretrained(staged)
        tokenizer.save(str(staged / "tokenizer.json"))
        write_tokenizer_config(staged)


def _pick(words: dict[str, str], numbers: Iterator[int]) -> tuple[str, str]:
    listed = list(words.items())
    return listed[next(numbers) % len(listed)]


def _phrase(numbers: Iterator[int]) -> list[tuple[str, str]]:
    return [_pick(kind, numbers) for kind in (_ARTICLES, _ADJECTIVES, _NOUNS)]


def _sums(count: int, seed: int) -> list[str]:
    """Make lines unlike the clauses: additions without repetition."""
    start = seed % 1000
    return [f"{n} plus {n % 7} is {n + n % 7}, and {n} is {n}." for n in range(start, start + count)]


def _write_lines(path: Path, lines: list[str]) -> None:
    write_bytes(path, "".join(line + "\n" for line in lines).encode("utf-8"))

"""Text for pretraining: documents from plain-text sources, and a byte-fallback tokenizer.

A document is ``English: ...\\nCatalan: ...\\n`` (a pair) or ``Catalan: ...\\n`` (monolingual). It never ends
with an end-of-sentence token, so the model learns to continue and never to stop.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certify.base.errors import InvalidInputError
from certify.base.jsonio import pretty_json, write_bytes
from certify.ticket.corpus import normalise
from certify.ticket.templates import language_name
from lottery.model.tokenizer import load_tokenizer
from lottery.pretrain.plan import PretrainPlan, TextSource
from lottery.pretrain.windows import BOS, Documents, held_out_windows
from lottery.text.textfile import locate, read_lines

TOKENIZER = "tokenizer.json"
EOS = 2
# The ids of LLaMA: <unk> 0, <s> 1, </s> 2, then the bytes, so that the newline is 13.
_SPECIAL = ("<unk>", "<s>", "</s>")
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
# A word with at most one leading space mark and one trailing apostrophe (Catalan "l'", English "don'"),
# single digits, or runs of punctuation. Newlines are left to the byte pieces.
_WORDS = r"▁?[\p{L}\p{M}·]+['’]?|▁?\p{N}|▁?[^\s\p{L}\p{M}\p{N}▁]+|▁+|\n"
_HELD_OUT_SHARE = 128  # one document in 128 is held out, by the hash of its first sentence


def read_documents(
    folder: Path, source: TextSource, *, banned: frozenset[str] = frozenset()
) -> tuple[list[str], list[str]]:
    """Read training and held-out documents of one source.

    Args:
        banned: normalised sentences that no document may contain.

    Raises:
        UsageError: a file is missing or unreadable.
        InvalidInputError: the files have different lengths or are not UTF-8.
    """
    stems = [source.path]
    if len(source.languages) == 2:
        stems = [f"{source.path}.{code}" for code in source.languages]
    columns = [read_lines(locate(folder / stem)) for stem in stems]
    if len({len(column) for column in columns}) != 1:
        sizes = " and ".join(str(len(column)) for column in columns)
        raise InvalidInputError(f"{' and '.join(stems)} have {sizes} lines", code="LINES_MISMATCHED")
    names = [language_name(code) for code in source.languages]
    ranked: list[tuple[int, str]] = []
    held_out: list[str] = []
    seen: set[tuple[str, ...]] = set()
    for row in zip(*(column[source.skip :] for column in columns), strict=True):
        key = tuple(normalise(sentence) for sentence in row)
        if not all(key) or key in seen or not banned.isdisjoint(key):
            continue
        seen.add(key)
        document = "".join(f"{name}: {sentence.strip()}\n" for name, sentence in zip(names, row, strict=True))
        # The key of a pair is its lexicographically first side. Both directions, and most other pairs of the
        # same sentence, then fall on the same side of the split.
        digest = int.from_bytes(hashlib.sha256(min(key).encode()).digest()[:8], "big")
        if digest % _HELD_OUT_SHARE == 0:
            held_out.append(document)
        else:
            ranked.append((digest, document))
    if source.lines and len(ranked) > source.lines:
        ranked = sorted(ranked)[: source.lines]
    if not ranked:
        raise InvalidInputError(f"{source.path}: no document is left", code="EMPTY_SOURCE")
    return [document for _, document in ranked], held_out


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Any:
    """Train a byte-fallback BPE with LLaMA's ids: 0 ``<unk>``, 1 ``<s>``, 2 ``</s>``, from 3 the bytes.

    The newline has only its byte piece (id 13). Unlike the three control tokens, byte pieces are not
    *special*: ``decode(skip_special_tokens=True)`` keeps line breaks. The tokenizer puts ``<s>`` in front
    of every text.
    """
    from tokenizers import (
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORDS), behavior="isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[*_SPECIAL, *_BYTES], limit_alphabet=256, show_progress=False
    )
    lines = (line for text in texts for line in text.splitlines())
    tokenizer.train_from_iterator(lines, trainer)
    # The trainer can only reserve ids for "special" added tokens; only the real ones keep that mark.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in _SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    if tokenizer.get_vocab_size() != vocab_size:
        raise InvalidInputError(
            f"the text yields only {tokenizer.get_vocab_size()} pieces, not {vocab_size}; lower vocab_size",
            code="VOCABULARY_TOO_LARGE",
        )
    return tokenizer


def write_tokenizer_config(folder: Path, **settings: Any) -> None:
    """Write the ``tokenizer_config.json`` that belongs to :func:`train_tokenizer`."""
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    fixed = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_bytes(folder / "tokenizer_config.json", pretty_json(fixed | roles | settings).encode("utf-8"))


def encode_documents(tokenizer: Any, documents: Sequence[str]) -> Documents:
    """Tokenise ``documents`` in order, without ``<s>``, with a tokenizer of ``transformers``."""
    rows: list[NDArray[np.uint16]] = []
    for start in range(0, len(documents), 4096):
        batch = tokenizer(list(documents[start : start + 4096]), add_special_tokens=False, verbose=False)
        rows += [np.array(ids, dtype=np.uint16) for ids in batch["input_ids"]]
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([row.size for row in rows], out=starts[1:])
    return Documents(np.concatenate(rows) if rows else np.zeros(0, dtype=np.uint16), starts)


@dataclass(frozen=True, slots=True)
class PretrainText:
    """Tokenised text of a plan.

    Attributes:
        training: documents of each source, in the plan's order.
        held_out: windows of held-out documents of all sources ``[n, length]``.
        watch: windows of held-out documents of the watched sources ``[n, length]``.
    """

    training: tuple[Documents, ...]
    held_out: NDArray[np.int64]
    watch: NDArray[np.int64]


def prepare_text(plan: PretrainPlan, data: Path, folder: Path) -> PretrainText:
    """Read the sources, train the tokenizer unless ``folder`` has one, load it as it is served and tokenise.

    Raises:
        UsageError: a file or a package is missing, or the tokenizer cannot be loaded (``NO_TOKENIZER``).
        InvalidInputError: a file does not match the plan.
    """
    banned = frozenset(normalise(line) for name in plan.exclude for line in read_lines(locate(data / name)))
    texts = [read_documents(data, source, banned=banned) for source in plan.source]
    if not (folder / TOKENIZER).is_file():
        documents = (document for training, _ in texts for document in training)
        trained = train_tokenizer(documents, vocab_size=plan.model.vocab_size)
        write_bytes(folder / TOKENIZER, trained.to_str(pretty=True).encode("utf-8"))
    write_tokenizer_config(folder, model_max_length=plan.model.max_position)
    tokenizer = load_tokenizer(folder)
    training = tuple(encode_documents(tokenizer, documents) for documents, _ in texts)
    held = [encode_documents(tokenizer, documents) for _, documents in texts]
    watched = [group for group, source in zip(held, plan.source, strict=True) if source.watch]
    length = plan.train.length
    return PretrainText(
        training,
        held_out=held_out_windows(held, length=length, count=64),
        watch=held_out_windows(watched, length=length, count=32),
    )

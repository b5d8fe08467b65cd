"""Small fast tokenizers made on the spot: one with LLaMA's ids, and one that merges too much."""

from __future__ import annotations

from typing import Any

TEXT = [
    "English: Where is the house?\nCatalan: On és la casa?\n",
    "English: The dog is in the garden.\nCatalan: El gos és al jardí.\n",
    "English: I do not know what to say.\nCatalan: No sé què dir.\n",
    "### Instruction:\n### Input:\n### Response:\nTranslate the following sentences to Catalan.\n",
]


def tiny_tokenizer(vocab_size: int = 400) -> Any:
    """A fast ``transformers`` tokenizer, trained by the package on a few sentences."""
    from transformers import PreTrainedTokenizerFast

    from lottery.pretrain.data import train_tokenizer

    inner = train_tokenizer(TEXT, vocab_size=vocab_size)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def framed(tokenizer: Any, frame: str) -> Any:
    """The tokenizer, putting what ``frame`` says around a text ``$A``, as in ``<s> $A``."""
    from tokenizers.processors import TemplateProcessing

    around = [(piece, tokenizer.convert_tokens_to_ids(piece)) for piece in {*frame.split()} - {"$A"}]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=frame, special_tokens=around)
    return tokenizer


def greedy_tokenizer() -> Any:
    """A tokenizer without word boundaries, in which ``: `` and the letter after it can be one token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    characters = sorted({character for text in TEXT for character in text} | set("{}xyzw"))
    vocabulary = {piece: index for index, piece in enumerate(["<s>", "</s>", *characters, ": ", ": O"])}
    inner = Tokenizer(models.BPE(vocabulary, [(":", " "), (": ", "O")]))
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")

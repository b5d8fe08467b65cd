"""Score translations under three rules to cut an output, from integers that add up (theory §6).

A model that does not stop gets a very different score from each rule, so all three are always reported. Each
sentence is reduced once to its *statistics*, 34 integers. Every score, of one sentence or of a thousand, is
a function of the sum of such vectors:

=========  =================================================================================================
0, 1       BLEU: tokens of the output, tokens of the reference
2 to 5     BLEU: n-grams of the output that match, n = 1..4, each clipped by its count in the reference
6 to 9     BLEU: n-grams of the output
10 to 33   chrF++: for characters n = 1..6, then words n = 1, 2: n-grams of the output (0 where the reference
           has none), of the reference, and matches
=========  =================================================================================================

Both are as in sacreBLEU; the tests compare with it bit for bit.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, get_args

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from certify.base.errors import UsageError

Rule = Literal["whole", "first-line", "cut"]
"""``whole``: the whole output; ``first-line``: its first non-empty line; ``cut``: up to a field label."""

RULES: tuple[Rule, ...] = get_args(Rule)

BleuTokenizer = Literal["13a", "flores101", "flores200"]
"""How BLEU splits words; the last two make it spBLEU."""

Statistics = tuple[int, ...]
"""34 integers; see the module's docstring."""

BLEU_ORDER, CHAR_ORDER, WORD_ORDER, BETA = 4, 6, 2, 2
LENGTH: Final = 2 + 2 * BLEU_ORDER + 3 * (CHAR_ORDER + WORD_ORDER)

# File names of the sentencepiece models, which sacreBLEU would download.
_MODELS: Final[Mapping[str, str]] = {
    "flores101": "sacrebleu_tokenizer_spm.model",
    "flores200": "flores200sacrebleuspm",
}
_PUNCTUATION = frozenset(string.punctuation)


@dataclass(frozen=True, slots=True)
class Scores:
    """Corpus scores of one extraction rule.

    Attributes:
        bleu: sacreBLEU BLEU, 0 to 100.
        chrf: sacreBLEU chrF++ (word order 2), 0 to 100.
        length_ratio: tokens of the outputs over tokens of the references, as BLEU counts them.
        bleu_signature: settings and version behind ``bleu``.
        chrf_signature: settings and version behind ``chrf``.
    """

    rule: Rule
    bleu: float
    chrf: float
    length_ratio: float
    bleu_signature: str
    chrf_signature: str


class Scorer:
    """Reduces outputs to statistics under fixed settings."""

    def __init__(self, tokenizer: BleuTokenizer = "13a") -> None:
        """Open the tokenizer of BLEU.

        Raises:
            UsageError: the model of a sentencepiece tokenizer is not on this machine
                (``SPBLEU_UNAVAILABLE``). Nothing is downloaded, and no other tokenizer is used instead.
        """
        require_tokenizer(tokenizer)
        bleu, chrf = BLEU(tokenize=tokenizer), CHRF(word_order=WORD_ORDER)
        bleu.num_refs = chrf.num_refs = 1
        self._tokenise = bleu.tokenizer
        self.bleu_signature, self.chrf_signature = signatures(tokenizer)

    def statistics(self, text: str, reference: str) -> Statistics:
        """Reduce an extracted output and its reference translation to statistics."""
        return (*self._bleu(text, reference), *_chrf(text, reference))

    def rules(
        self, output: str, labels: Sequence[str], reference: str
    ) -> tuple[tuple[Statistics, ...], tuple[int, int, int]]:
        """Reduce an output under every rule of :data:`RULES`.

        Returns:
            The distinct vectors, in order of first occurrence, and the index of each rule's vector.
        """
        texts = [extract(output, rule, labels) for rule in RULES]
        known: dict[str, Statistics] = {}
        for text in texts:
            if text not in known:
                known[text] = self.statistics(text, reference)
        vectors = tuple(dict.fromkeys(known.values()))
        whole, first, cut = (vectors.index(known[text]) for text in texts)
        return vectors, (whole, first, cut)

    def scores(self, vectors: Iterable[Statistics], rule: Rule) -> Scores:
        """Compute corpus scores from the sentences' statistics under ``rule``.

        Raises:
            ValueError: there are no vectors.
        """
        total = add(vectors)
        return Scores(
            rule=rule,
            bleu=bleu_score(total),
            chrf=chrf_score(total),
            length_ratio=total[0] / max(1, total[1]),
            bleu_signature=self.bleu_signature,
            chrf_signature=self.chrf_signature,
        )

    def _bleu(self, text: str, reference: str) -> Statistics:
        ours, theirs = (self._tokenise(side.rstrip()).split() for side in (text, reference))
        matches, totals = [], []
        for order in range(1, BLEU_ORDER + 1):
            found, wanted = _ngrams(ours, order), _ngrams(theirs, order)
            matches.append((found & wanted).total())
            totals.append(found.total())
        return (len(ours), len(theirs), *matches, *totals)


def signatures(tokenizer: BleuTokenizer) -> tuple[str, str]:
    """Signatures of BLEU with a tokenizer and of chrF++, as sacreBLEU writes them.

    The tokenizer need not be installed: its name is known without opening it.
    """
    bleu, chrf = BLEU(), CHRF(word_order=WORD_ORDER)
    bleu.num_refs = chrf.num_refs = 1
    signature = bleu.get_signature()
    signature.update("tok", tokenizer)
    return str(signature), str(chrf.get_signature())


def extract(text: str, rule: Rule, labels: Sequence[str]) -> str:
    """Cut one output by ``rule`` and strip white space at both ends.

    Args:
        labels: field labels of the template, for rule ``cut``.
    """
    if rule == "first-line":
        return next((line.strip() for line in text.split("\n") if line.strip()), "")
    if rule == "cut":
        places = [place for label in labels if (place := text.find(label)) >= 0]
        text = text[: min(places)] if places else text
    return text.strip()


def add(vectors: Iterable[Statistics]) -> Statistics:
    """Add statistics entry by entry: the result describes the sentences together.

    Raises:
        ValueError: there are none, or their lengths differ.
    """
    total = [0] * LENGTH
    empty = True
    for vector in vectors:
        empty = False
        for index, value in zip(range(LENGTH), vector, strict=True):
            total[index] += value
    if empty:
        raise ValueError("no statistics to add")
    return tuple(total)


def bleu_score(statistics: Statistics) -> float:
    """Compute corpus BLEU, 0 to 100, from summed statistics: exponential smoothing, all four orders."""
    result = BLEU.compute_bleu(
        correct=list(statistics[2:6]),
        total=list(statistics[6:10]),
        sys_len=statistics[0],
        ref_len=statistics[1],
        smooth_method="exp",
    )
    return float(result.score)


def chrf_score(statistics: Statistics) -> float:
    """Compute chrF++, 0 to 100, from summed statistics, with the floating-point operations of sacreBLEU."""
    precision = recall = 0.0
    orders = 0
    for hypothesis, reference, match in _orders(statistics):
        precision += match / hypothesis
        recall += match / reference
        orders += 1
    if not orders:
        return 0.0
    precision, recall = precision / orders, recall / orders
    if not precision + recall:
        return 0.0
    score = (1 + BETA**2) * precision * recall
    score /= BETA**2 * precision + recall
    return 100 * score


def _orders(statistics: Statistics) -> Iterable[tuple[int, int, int]]:
    triples = zip(statistics[10::3], statistics[11::3], statistics[12::3], strict=True)
    return (triple for triple in triples if triple[0] and triple[1])


def _chrf(text: str, reference: str) -> Statistics:
    found: list[int] = []
    ours, theirs = ("".join(side.split()) for side in (text, reference))
    for order in range(1, CHAR_ORDER + 1):
        found += _counts(_ngrams(ours, order), _ngrams(theirs, order))
    our_words, their_words = _words(text), _words(reference)
    for order in range(1, WORD_ORDER + 1):
        found += _counts(_ngrams(our_words, order), _ngrams(their_words, order))
    return tuple(found)


def _counts(ours: Counter[Sequence[str]], theirs: Counter[Sequence[str]]) -> tuple[int, int, int]:
    return (ours.total() if theirs else 0, theirs.total(), (ours & theirs).total())


def _ngrams(items: Sequence[str], order: int) -> Counter[Sequence[str]]:
    # Slices of a string are strings; slices of a list must become hashable.
    freeze = (lambda piece: piece) if isinstance(items, str) else tuple
    return Counter(freeze(items[i : i + order]) for i in range(len(items) - order + 1))


def _words(text: str) -> list[str]:
    """Split into words and split one punctuation mark off each: at the end if any, otherwise at the start."""
    words: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in _PUNCTUATION:
            words += (word[:-1], word[-1])
        elif len(word) > 1 and word[0] in _PUNCTUATION:
            words += (word[0], word[1:])
        else:
            words.append(word)
    return words


def require_tokenizer(tokenizer: BleuTokenizer) -> None:
    """Refuse a BLEU tokenizer that is not on this machine.

    Raises:
        UsageError: ``SPBLEU_UNAVAILABLE``.
    """
    if tokenizer == "13a":
        return
    from sacrebleu.utils import SACREBLEU_DIR

    if find_spec("sentencepiece") is None:
        raise UsageError(
            f"spBLEU ({tokenizer}) needs the package sentencepiece: pip install 'certify-lottery[spbleu]'",
            code="SPBLEU_UNAVAILABLE",
        )
    path = Path(SACREBLEU_DIR) / "models" / _MODELS[tokenizer]
    if not path.is_file():
        raise UsageError(
            f"spBLEU ({tokenizer}) needs its tokenizer at {path}; it is not downloaded automatically",
            code="SPBLEU_UNAVAILABLE",
        )

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

sacreBLEU counts and scores; the tests compare with its public scores bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from certify.base.errors import UsageError
from certify.base.records import RULES, Rule
from certify.evidence.record import STATISTICS

BleuTokenizer = Literal["13a", "flores101", "flores200"]
"""How BLEU splits words; the last two make it spBLEU."""

Statistics = tuple[int, ...]
"""34 integers; see the module's docstring."""

# File names of the sentencepiece models, which sacreBLEU would download.
_MODELS: Final[Mapping[str, str]] = {
    "flores101": "sacrebleu_tokenizer_spm.model",
    "flores200": "flores200sacrebleuspm",
}
_CHRF: Final = CHRF(word_order=2)


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
        self._bleu = BLEU(tokenize=tokenizer)
        self.bleu_signature, self.chrf_signature = signatures(tokenizer)

    def statistics(self, text: str, reference: str) -> Statistics:
        """Reduce an extracted output and its reference translation to statistics."""
        metrics = (self._bleu, _CHRF)
        return tuple(n for one in metrics for n in one._extract_corpus_statistics([text], [[reference]])[0])

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
        return scored(rule, add(vectors), self.bleu_signature, self.chrf_signature)


def scored(rule: Rule, total: Statistics, bleu_signature: str, chrf_signature: str) -> Scores:
    """Compute corpus scores from summed statistics."""
    ratio = total[0] / max(1, total[1])
    return Scores(rule, bleu_score(total), chrf_score(total), ratio, bleu_signature, chrf_signature)


def signatures(tokenizer: BleuTokenizer) -> tuple[str, str]:
    """Signatures of BLEU with a tokenizer and of chrF++, as sacreBLEU writes them.

    The tokenizer need not be installed: its name is known without opening it.
    """
    bleu, chrf = BLEU(), CHRF(word_order=2)
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
    total = tuple(map(sum, zip(*vectors, strict=True)))
    if len(total) != STATISTICS:
        raise ValueError(f"no statistics to add: {len(total)} numbers instead of {STATISTICS}")
    return total


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
    """Compute chrF++, 0 to 100, from summed statistics."""
    return float(_CHRF._compute_f_score(list(statistics[10:])))


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
            f"spBLEU ({tokenizer}) needs the package sentencepiece: python -m pip install -e '.[spbleu]'",
            code="SPBLEU_UNAVAILABLE",
        )
    path = Path(SACREBLEU_DIR) / "models" / _MODELS[tokenizer]
    if not path.is_file():
        raise UsageError(
            f"spBLEU ({tokenizer}) needs its tokenizer at {path}; it is not downloaded automatically",
            code="SPBLEU_UNAVAILABLE",
        )

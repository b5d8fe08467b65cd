"""Does checking evidence stay linear in its records? Seconds per record, stage by stage.

    python tests/benchmarks/bench_evidence.py [--records 500 2000 8000] [--design fixed] [--json]

Evidence with four arms (base, reference, ticket, a null ticket) is made. Each record has its own statistics,
margins and prompt, and the size of a short sentence. Timed, in seconds of processor time:

* *load*: the manifest, every record, the used sentences (:func:`certify.evidence.load.load`);
* *claims*: every claim that the evidence supports, from units to limits;
* *check*: ``certify check --policy release`` as a function, and in it
* *checker*: the independent checker, which derives the same from the files again.

*per record* is ``check`` divided by the records, in milliseconds: a column that grows shows a stage that is
not linear. ``--profile`` prints the functions that take longest, for the last number of records.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import json
import pstats
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]

from evidence_folders import TICKET_ARM, Bundle, make_bundle, null_arm  # noqa: E402

from certify import checker  # noqa: E402
from certify.base.verdict import Outcome  # noqa: E402
from certify.gate.check import check  # noqa: E402
from certify.gate.examination import claims_of, load  # noqa: E402
from proofs_checks.worlds import synthetic  # noqa: E402

STEPS, PROMPT, TOKENS = 20, 25, 4000
_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """Seconds of one number of records."""

    records: int
    megabytes: float
    load: float
    claims: float
    check: float
    checker: float
    per_record: float


def statistics(generator: random.Random, reference: Sequence[int], skill: float) -> list[int]:
    """A possible vector of statistics against a translation of so many words, characters and n-grams."""
    words = max(5, round(reference[0] * generator.uniform(0.8, 1.3)))
    totals = [words - order for order in range(4)]
    matches = [generator.randint(0, round(skill * min(total, reference[0]))) for total in totals]
    bleu = [words, reference[0], *matches, *totals]
    orders = [(5 * words - order, reference[1] - order) for order in range(6)]
    orders += [(words - order, reference[0] - order) for order in range(2)]
    chrf = []
    for hypothesis, wanted in orders:
        chrf += [hypothesis, wanted, generator.randint(0, round(skill * min(hypothesis, wanted)))]
    return bleu + chrf


def records(count: int, names: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    """Records that differ in everything."""
    generator = random.Random(seed)
    skill = {"base": 0.4, "reference": 0.8, TICKET_ARM: 0.8}
    for number in range(count):
        steps = generator.randint(STEPS // 2, STEPS * 3 // 2)
        tokens = [generator.randrange(3, TOKENS) for _ in range(steps)]
        prompt = sorted(generator.sample(range(TOKENS), PROMPT))
        margins = [generator.randrange(10**9) for _ in tokens]
        record = synthetic.sentence(
            number,
            {name: synthetic.Behaviour() for name in names},
            prompt=prompt,
            tokens=tokens,
            margins=margins,
            base_tokens=tokens[: steps // 2],
        )
        words = generator.randint(8, 16)
        for name, answer in record["arms"].items():
            vectors = [statistics(generator, (words, 5 * words), skill.get(name, 0.5)) for _ in range(2)]
            answer |= {
                "stats": vectors,
                "rules": [0, 1, 1],
                "text": f"output {number} of the arm {name}. " * 3,
            }
            if name != "reference":
                rate = 0.01 if name == TICKET_ARM else 0.2
                answer["differs"] = [[t, TOKENS] for t in range(steps) if generator.random() < rate]
        yield record


def write(bundle: Bundle, count: int, design: str) -> Path:
    """Write the evidence line by line: so many records do not fit into memory as plain JSON."""
    path = bundle.folder / "evidence" / "many.json"
    path.parent.mkdir(exist_ok=True)
    lines = path.with_name("many.records.jsonl")
    state = hashlib.sha256()
    with lines.open("wb") as stream:
        for record in records(count, bundle.names, 0):
            line = synthetic.canonical(record) + b"\n"
            state.update(line)
            stream.write(line)
    ticket = bundle.ticket()
    text = {"name": "many", "sha256": synthetic.digest("many"), "sentences": count, "unit": "sentence"}
    value = synthetic.manifest(
        [],
        bundle.arms,
        base={"tensor_sha256": bundle.arm("base")["table_sha256"], "model_sha256": synthetic.digest("model")},
        reference={"tensor_sha256": bundle.arm("reference")["table_sha256"]},
        tokenizer_sha256=ticket["tokenizer"]["sha256"],
        template={key: ticket["template"][key] for key in ("name", "sha256")},
        text=text | {"attribution": ""},
        design=design,
    )
    value["records"] = {"path": lines.name, "sha256": state.hexdigest(), "count": count}
    used = b"0123456789abcdef\n"
    path.with_name("tuning.txt").write_bytes(used)
    digest = hashlib.sha256(used).hexdigest()
    value["used"] = [{"role": "tuning", "path": "tuning.txt", "sha256": digest, "count": 1}]
    path.write_text(json.dumps(value))
    return path


def timed(call: Callable[..., _T], spent: dict[str, float], name: str) -> Callable[..., _T]:
    """The same function; what it takes is added up under ``name``."""

    def inner(*args: Any, **options: Any) -> _T:
        start = time.process_time()
        try:
            return call(*args, **options)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - start

    return inner


def measure(count: int, design: str, profile: bool) -> Row:
    """Make the evidence, issue a certificate, check it."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), issued=False)
        bundle.arms = [*bundle.arms[:3], null_arm(bundle, "random-0")]
        path = write(bundle, count, design)
        bundle.issue([path])
        spent: dict[str, float] = {}
        profiler = cProfile.Profile()
        with (
            patch("certify.gate.examination.load", timed(load, spent, "load")),
            patch("certify.gate.examination.claims_of", timed(claims_of, spent, "claims")),
            patch("certify.checker.verify", timed(checker.verify, spent, "checker")),
        ):
            run = timed(check, spent, "check")
            report = (
                profiler.runcall(run, bundle.path, policy="release")
                if profile
                else run(bundle.path, policy="release")
            )
        for item in report.tickets[0].items:
            if item.name in ("evidence.integrity", "certificate.claims") and item.outcome is not Outcome.PASS:
                raise SystemExit(f"nothing was measured: {item}")
        if profile:
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(35)
        megabytes = path.with_name("many.records.jsonl").stat().st_size / 1e6
        return Row(count, megabytes, **spent, per_record=1000 * spent["check"] / count)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[500, 2000, 8000])
    parser.add_argument("--design", choices=("fixed", "sequential"), default="fixed")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [
        measure(count, options.design, options.profile and count == options.records[-1])
        for count in options.records
    ]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    names = ("load", "claims", "checker", "check")
    print(f"{'records':>8}{'MB':>8}" + "".join(f"{name:>10}" for name in names) + f"{'per record, ms':>16}")
    for row in rows:
        seconds = "".join(f"{getattr(row, name):>10.2f}" for name in names)
        print(f"{row.records:>8}{row.megabytes:>8.1f}{seconds}{row.per_record:>16.2f}")


if __name__ == "__main__":
    main()

"""Mutants of a certified folder: whatever an adversary changes, and makes the digests of true again.

Mutated are the ticket file, the certificate, manifests, records, lists of used sentences, rows, the tokenizer
and a policy of one's own. Half of the mutants have every digest above the changed file corrected, as somebody
would who wants to be believed; then what the file says has to be found false. For every mutant:

* no exit 70 (the two programs disagree, or one of them broke), no traceback, no warning, no run over 10 s
  of processor time;
* exit 0 only if what decides was not changed: every claim and limit that the certificate still states was
  there before (it may state less, where the policy does not ask for it);
* the checker by itself, tables included, comes to the gate's verdict. Where the gate says INVALID, it may
  deny for another reason, and certify only what a reader that is stricter about trifles refused.

Mutants are seeded by their number: a failure names the number, and the number repeats it.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command import in_process
from evidence_folders import Bundle, make_bundle
from ticket_strategies import damage

from certify import checker
from certify.checker.tables import Stop
from certify.policy import policy as policies

Capture = pytest.CaptureFixture[str]

SLOW = 2500
SECONDS = 10.0
CODES = {"CERTIFIED": 0, "REFUTED": 1, "INCONCLUSIVE": 3, "VACUOUS": 3, "INVALID": 4}
TARGETS = (
    *("tickets.json", "certificate.json", "translated.json", "unrelated.json"),
    *("translated.records.jsonl", "unrelated.records.jsonl", "translated.tuning.txt"),
    *("tiny.safetensors", "tokenizer.json", "own.toml"),
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle = make_bundle(tmp_path_factory.mktemp("bundle"))
    own = Path(policies.__file__).with_name("release.toml").read_text(encoding="utf-8")
    renamed = own.replace('name = "release"', 'name = "own"')
    (bundle.folder / "own.toml").write_text(renamed, encoding="utf-8")
    return bundle


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _dump(value: Any, *, packed: bool) -> bytes:
    if not packed:
        return json.dumps(value).encode()
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass") + b"\n"  # an adversary does not stop at lone surrogates


def mutant_of(name: str, data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Damage one file as what it is: JSON, a line of JSON, TOML or digests line by line, or bytes."""
    if name.endswith(".json"):
        done = damage(json.loads(data), rng.choice)
        return _dump(done.apply(json.loads(data)), packed=name == "certificate.json"), done.text
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    kind = rng.choice(("change", "change", "drop", "repeat", "swap"))
    if kind == "change" and name.endswith(".jsonl"):
        done = damage(json.loads(lines[at]), rng.choice)
        lines[at] = _dump(done.apply(json.loads(lines[at])), packed=True)
        return b"".join(lines), f"line {at}: {done.text}"
    if kind == "change":
        changed = bytearray(lines[at])
        place = rng.randrange(len(changed))
        changed[place] = rng.choice((changed[place] ^ 1 << rng.randrange(8), *b'0f"=[\n'))
        lines[at] = bytes(changed)
    elif kind == "drop":
        del lines[at]
    elif kind == "repeat":
        lines.insert(at, lines[at])
    else:
        other = rng.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    return b"".join(lines), f"{kind} at {at}"


def make_true(folder: Path, digests: dict[str, str]) -> None:
    """Replace digests wherever they stand, from the manifests up to the ticket file, until nothing changes.

    Canonical files stay canonical.
    """
    above = ("evidence/translated.json", "evidence/unrelated.json", "certificate.json", "tickets.json")
    for name in above:
        path = folder / name
        old = path.read_bytes()
        new = old
        for before, after in digests.items():
            new = new.replace(before.encode(), after.encode())
        if new != old:
            path.write_bytes(new)
            digests |= {_sha256(old): _sha256(new)}


def decisive(certificate: bytes) -> Any:
    """What a certificate claims: kind, variant, limits and error of each claim."""
    claims = json.loads(certificate)["claims"]
    fields = ("kind", "comparator", "extraction", "finding", "lower", "upper", "delta")
    return [[claim[field] for field in fields] for claim in claims]


def test_mutants_of_a_certified_folder(pristine: Bundle, tmp_path: Path, capsys: Capture) -> None:
    fuzz(pristine, tmp_path, capsys, range(30))


@pytest.mark.slow
def test_many_mutants_of_a_certified_folder(pristine: Bundle, tmp_path: Path, capsys: Capture) -> None:
    codes = fuzz(pristine, tmp_path, capsys, range(30, 30 + SLOW))
    assert {0, 1, 3, 4} <= codes.keys(), "the mutants must reach beyond the parser"


def fuzz(pristine: Bundle, tmp_path: Path, capsys: Capture, numbers: range) -> Counter[int]:
    folder = tmp_path / "copy"
    shutil.copytree(pristine.folder, folder)
    claimed = decisive((folder / "certificate.json").read_bytes())
    policy = folder / "own.toml"
    codes = Counter[int]()
    for number in numbers:
        rng = random.Random(f"folder:{number}")
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        (target,) = folder.rglob(TARGETS[number % len(TARGETS)])
        name, original = target.name, before[target]
        changed, text = mutant_of(name, original, rng)
        target.write_bytes(changed)
        digests = {_sha256(original): _sha256(changed)}
        if name.endswith(".jsonl"):
            manifest = target.with_name(name.replace(".records.jsonl", ".json"))
            counts = [b'"count": %d' % len(one.splitlines()) for one in (original, changed)]
            manifest.write_bytes(before[manifest].replace(*counts))
            digests |= {_sha256(before[manifest]): _sha256(manifest.read_bytes())}
        if rng.random() < 0.5:
            make_true(folder, digests)
        what = f"mutant {number} ({name}: {text})"
        began = time.process_time()
        ran = in_process(["check", folder / "tickets.json", "--policy", policy, "--engine", "numpy"], capsys)
        assert time.process_time() - began < SECONDS, what
        assert ran.code in {0, 1, 2, 3, 4, 5}, f"{what}: {ran.code} {ran.err}"
        assert ran.code != 2 or name == "own.toml", f"{what}: {ran.code} {ran.err}"
        assert "Traceback" not in ran.out + ran.err, what
        if ran.code == 0 and name != "own.toml":
            stated = decisive((folder / "certificate.json").read_bytes())
            assert all(stated.count(claim) <= claimed.count(claim) for claim in stated), what
        alone, said = verdict_alone(folder, policy), " ".join((ran.out + ran.err).split())
        lax = bool(ran.err) or "reads less strictly" in said or "MALFORMED" in said
        if ran.code in (0, 1, 3):
            assert alone == ran.code, what
        assert alone != 0 or ran.code == 0 or lax, what
        codes[ran.code] += 1
        for path, data in before.items():
            path.write_bytes(data)
    return codes


def verdict_alone(folder: Path, policy: Path) -> int | None:
    """Exit code of the checker by itself; None where it has no verdict on exactly one ticket."""
    try:
        found = checker.verify(folder, "tickets.json", [str(policy)])
    except Stop:
        return None
    if len(found) != 1:
        return None
    ((opinion,),) = (tuple(opinions.values()) for opinions in found.values())
    return CODES.get(opinion.status)

"""An independent second opinion on a folder of tickets, from its files alone (theory §2 to §7).

    python3 -I -S certify/checker.py DIR [--policy NAME] [--json]

One file, the standard library, nothing else of this project: a fault elsewhere cannot hide itself here. What
a ticket, its certificate and its evidence state is computed again in integers and rationals, by the
definitions in the docstrings of :mod:`certify.stats.betting`, :mod:`certify.claims.criteria`,
:mod:`certify.policy.requirement` and their neighbours, and the shipped policies are applied. Prints ``ID
POLICY STATUS CODE...``; the exit status is the gravest under the policy asked for, else ``release``: 0
certified, 1 refuted, 3 inconclusive or vacuous, 4 invalid; 2 usage, 5 no ticket.

Hostile input ends in INVALID, whatever it breaks. What is not computed again (a table in a checkpoint folder
or ``.npy`` file, rule ``published:``) is NOT_RECOMPUTED and certifies nothing. Left to the schemas: fields
that decide nothing, and the prose of a certificate. Believed, like the outputs of the models: which rows of
the pool are fed often, or as often as the ticket's (null tickets by frequency); no evidence says so.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import lzma
import math
import re
import struct
import sys
import tomllib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

Json = dict[str, Any]
Verdict = tuple[str, tuple[str, ...]]  # status and reason codes
Moved = dict[int, tuple[int, float, float]]  # what compare() says of the rows that differ
Item = tuple[str, str]  # status, empty for a pass, and reason code
Vocabulary = tuple[dict[int, str], dict[int, str], int | None]
SLUG: Final = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PASS: Final = ("", "")
DIFFERS: Final = ("CLAIM_DIFFERS", "REFUTED")
FIGURES: Final = ("TOKEN_FIGURES", "REFUTED")
UNKNOWN: Final = ("NOT_RECOMPUTED", "INCONCLUSIVE")
NULLS: Final = {
    "random": 3,
    "frequency-matched": 3,
    "top-frequency": 1,
    "top-norm": 1,
    "one-row:bos": 1,
    "one-row:newline": 1,
}
CONFIGS: Final = ("tokenizer_config.json", "special_tokens_map.json", "config.json", "generation_config.json")
TEMPLATES: Final = {  # of the package, first half of the digest
    "alpaca": "14f5031935ce1be535008aa63cff1c80",
    "explicit": "66090b63bfb5fc78039beb0580743a80",
    "explicit-paraphrase-wording": "46c92d0acab0cd506acd659916b56c71",
    "explicit-paraphrase-wording-and-labels": "e5dc2cb89fe45c0eaefe86236f5ed68f",
    "labels": "f3cfb6ff61e8b9b2208210a20b62636a",
    "paraphrase-wording": "52577b9931f2dc3e56fe7254508452af",
    "paraphrase-wording-and-labels": "5ac76e26db510eb9566b4256cc78fbca",
}


class Stop(Exception):
    """An answer that is no pass: its status and its reason code."""


def need(fact: object, code: str = "MALFORMED", status: str = "INVALID") -> None:
    """Stop unless ``fact`` holds."""
    if not fact:
        raise Stop(status, code)


def answer(question: Callable[..., Any], *about: Any) -> tuple[Any, Item]:
    """What ``question`` returns, and the item that it makes."""
    try:
        return question(*about), PASS
    except Stop as stop:
        return None, (stop.args[0], stop.args[1])
    except Exception:  # whatever hostile input breaks, and however: no pass
        return None, ("INVALID", "MALFORMED")


def canonical(value: Any) -> bytes:
    """Canonical JSON of :mod:`certify.base.jsonio`: refuses NaN, infinity and half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def parse(data: bytes) -> Any:
    """Strict JSON: what has a canonical form, and no key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        need(len(dict(pairs)) == len(pairs), "JSON_MALFORMED")
        return dict(pairs)

    value = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    canonical(value)
    return value


def sha(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def naturals(values: Any, most: int = 1 << 53) -> list[int]:
    """A list of integers from 0 to ``most - 1``; True is none."""
    need(isinstance(values, list) and all(type(one) is int and 0 <= one < most for one in values))
    return list(values)


def level(text: str) -> Fraction:
    """A decimal strictly between 0 and 1."""
    need(re.fullmatch(r"0?\.[0-9]{1,60}", text) and Fraction(text) > 0, "LEVEL")
    return Fraction(text)


def increasing(values: Sequence[Any]) -> bool:
    """Strictly increasing."""
    return all(a < b for a, b in pairwise(values))


def digests(values: Any) -> bool:
    """A list of digests of sentences, strictly increasing, at least one."""
    some = isinstance(values, list) and values and increasing(values)
    return bool(some and all(re.fullmatch("[0-9a-f]{16}", one) for one in values))


class Folder:
    """Files of a folder, read as hostile input: inside, regular, and what their digests say."""

    def __init__(self, root: Path) -> None:
        self.root, self.known = root.resolve(), dict[str, Any]()

    def once(self, key: str, question: Callable[..., Any], *about: Any) -> Any:
        """What ``question`` returns; asked once, because several tickets often share tables and evidence."""
        if key not in self.known:
            self.known[key] = question(*about)
        return self.known[key]

    def evidence(self, located: Json) -> Evidence:
        path = self.path(located["path"])
        need(path.is_file(), "FILE_MISSING")
        e: Evidence = self.once(str(path), Evidence, path)
        need(e.sha256 == located["sha256"], "EVIDENCE_DIGEST")
        return e

    def path(self, relative: str) -> Path:
        path = (self.root / relative).resolve()
        plain = re.fullmatch(r"(?!/|[A-Za-z]:|(.*/)?\.\.(/|$))[^\\\x00-\x1f\x7f]{1,1024}", relative)
        need(plain and path.is_relative_to(self.root), "PATH_ESCAPES")
        return path

    def read(self, relative: str, digest: str | None = None, *, packed: bool = False) -> bytes:
        """The bytes of a file; ``packed``: where only ``relative.xz`` is there, what that unpacks to."""
        path, other = self.path(relative), self.path(f"{relative}.xz")
        need(path.is_file() or (packed and other.is_file()), "FILE_MISSING")
        if path.is_file():
            data = path.read_bytes()
        else:
            most = 64 + (other.stat().st_size >> 12)  # MiB, read in blocks: a small file can be a bomb
            with lzma.open(other) as stream:
                data = b"".join(islice(iter(lambda: stream.read(1 << 20), b""), most))
        need(digest in (None, sha(data)), "FILE_DIGEST")
        return data

    def bound(self, ref: Json, names: Sequence[str], default: str = "") -> dict[str, bytes]:
        """By name the bytes of what a ticket binds, first, and of files beside it: all must be bound."""
        need(ref["path"] is not None, "NOT_GIVEN", "INCONCLUSIVE")
        held = {self.path(file["path"]): self.read(file["path"], file["sha256"]) for file in ref["files"]}
        path = self.path(ref["path"])
        path = path / default if path.is_dir() else path
        beside = [path, *(path.parent / name for name in names if (path.parent / name).is_file())]
        need({one.resolve() for one in beside} <= held.keys(), "FILE_UNBOUND")
        return {one.name: held[one.resolve()] for one in beside}

    def table(self, ref: Json) -> list[bytes]:
        """Rows of a table in the served dtype, all finite."""
        rows: list[bytes] = self.once(f"table {canonical(ref)!r}", self.open_table, ref)
        return rows

    def open_table(self, ref: Json) -> list[bytes]:
        path = self.path(ref["path"] or "none.safetensors")
        index = path / "model.safetensors.index.json"
        plain = not index.exists() if path.is_dir() else path.suffix == ".safetensors"
        need(plain and ref["tensor"], *UNKNOWN)
        file, *configs = self.bound(ref, ("config.json",), "model.safetensors").values()
        config = parse(configs[0]) if configs else {}
        parts = [part for part in (config, config.get("text_config")) if isinstance(part, dict)]
        need(all(part.get("quantization_config") is None for part in parts), "QUANTISED_TABLE")
        tied = [part["tie_word_embeddings"] for part in parts if "tie_word_embeddings" in part]
        need(tied or not configs, *UNKNOWN)  # the architecture decides
        need(ref["tied"] is (any(tied) if tied else None), "TABLE_TIED")
        found, stem = tensors(file), ref["tensor"].removesuffix("weight")
        need(stem == ref["tensor"] or sum(name.startswith(stem) for name in found) == 1, "QUANTISED_TABLE")
        dtype, shape, rows = found[ref["tensor"]]
        need(dtype in ("F32", "F16", "BF16") and shape == ref["shape"], "WRONG_TABLE")
        if dtype != ref["dtype"]:
            rows = [pack(numbers(row, dtype), ref["dtype"]) for row in rows]
        need(digest(ref["dtype"], shape, rows) == ref["tensor_sha256"], "WRONG_TABLE")
        return [row for row in rows if numbers(row, ref["dtype"])]

    def rows(self, ticket: Json) -> list[bytes]:
        """The released rows in the served dtype."""
        ref, ids = ticket["released"]["rows"], [row["id"] for row in ticket["tokens"]]
        need(ref, "NO_ROWS", "INCONCLUSIVE")
        found = tensors(self.read(ref["path"], ref["sha256"]))
        dtype, shape = ticket["base"]["dtype"], [len(ids), ticket["base"]["shape"][1]]
        wanted = {"ids": ["I64", shape[:1]], "rows.fp32": ["F32", shape], "rows.served": [dtype, shape]}
        need({name: [*one[:2]] for name, one in found.items()} == wanted, "ROWS_DISAGREE")
        listed, fp32, served = (found[name][2] for name in wanted)
        need(digest("F32", shape, fp32) == ref["fp32_sha256"], "ROWS_DIGEST")
        need(digest(dtype, shape, served) == ref["served_sha256"], "ROWS_DIGEST")
        need(b"".join(listed) == struct.pack(f"<{len(ids)}q", *ids), "ROWS_DISAGREE")
        need([pack(numbers(row, "F32"), dtype) for row in fp32] == served, "ROWS_DISAGREE")
        return [row for row in served if numbers(row, dtype)]

    def vocabulary(self, ref: Json | None) -> Vocabulary:
        """Pieces by id, descriptions of the special ids, and one more than the largest id."""
        if not ref:
            return {}, {}, None
        files = self.bound(ref, CONFIGS, "tokenizer.json")
        file, *_ = files.values()
        need(sha(file) == ref["sha256"], "TOKENIZER_DIGEST")
        content, configs = parse(file), [*files.items()][1:]
        vocab, added = content["model"]["vocab"], content.get("added_tokens") or []
        listed = [*vocab.items()] if isinstance(vocab, dict) else [(one[0], i) for i, one in enumerate(vocab)]
        extra = [(token["content"], token["id"]) for token in added]
        for some in (listed, extra):
            need(len(set(naturals([i for _, i in some], 1 << 24))) == len(some), "TOKENIZER_MALFORMED")
        id_of = dict(reversed(listed))
        need(all(id_of.setdefault(text, i) == i for text, i in extra), "TOKENIZER_MALFORMED")
        pieces = {i: text for text, i in listed + extra}
        size = 1 + max(pieces)
        need(size == ref["size"], "TOKENIZER_DIGEST")
        named = [("unk", content["model"].get(key)) for key in ("unk_token", "unk_id")]
        for name, data in configs:
            config, end = parse(data), "_id" if name in CONFIGS[2:] else ""
            for role in ("bos", "eos", "unk", "pad", "cls", "sep", "mask"):
                some = config.get(f"{role}_token{end}")
                named += [(role, one) for one in (some if isinstance(some, list) else [some])]
            for key in ("additional_special_tokens", "extra_special_tokens") if not end else ():
                some = config.get(key) or []
                named += [("additional", one) for one in (some.values() if isinstance(some, dict) else some)]
        roles: dict[int, list[str]] = {}
        for role, one in named:
            token = one.get("content") if isinstance(one, dict) else one
            i = id_of.get(token, -1) if isinstance(token, str) else token
            if type(i) is int and 0 <= i < size and not (role == "additional" and ordinary(str(token))):
                roles[i] = [*dict.fromkeys([*roles.get(i, []), role])]
        for token in added:
            if token.get("special") and not ordinary(token["content"]):
                roles.setdefault(token["id"], ["special"])
        said = {i: f"{'/'.join(roles[i])} {pieces.get(i, '')}".rstrip() for i in sorted(roles)}
        return pieces, said, size

    def template(self, ref: Json | None) -> None:
        if ref and ref.get("path") is None:
            need(ref["sha256"][:32] == TEMPLATES.get(ref["name"]), "TEMPLATE_DIGEST")
        elif ref:
            content = tomllib.loads(self.read(ref["path"]).decode("utf-8"))
            need(sha(canonical(content)) == ref["sha256"], "TEMPLATE_DIGEST")

    def counts(self, ref: Json) -> list[int]:
        """Token counts in an ``.npy`` file of little-endian 64-bit integers, as the package writes it."""
        data = self.read(ref["path"], ref["sha256"])
        start = 10 + int.from_bytes(data[8:10], "little")
        need(data[:8] == b"\x93NUMPY\x01\x00" and b"'descr': '<i8'" in data[:start], *UNKNOWN)
        return naturals([*struct.unpack(f"<{(len(data) - start) // 8}q", data[start:])])


def ordinary(text: str) -> bool:
    """Byte pieces and white space are ordinary text, whatever their flags say."""
    return bool(re.fullmatch("<0x[0-9A-Fa-f]{2}>", text)) or text.replace("▁", " ").isspace()


def tensors(data: bytes) -> dict[str, tuple[str, list[int], list[bytes]]]:
    """Type, shape and rows of every tensor of a safetensors file; each byte belongs to one of them."""
    at = start = 8 + int.from_bytes(data[:8], "little")
    need(data[8:9] == b"{" and start <= len(data), "SAFETENSORS_MALFORMED")
    header, found = parse(data[8:start]), {}
    header.pop("__metadata__", None)
    for name, one in sorted(header.items(), key=lambda pair: naturals(pair[1]["data_offsets"])):
        dtype, shape, (first, last) = one["dtype"], naturals(one["shape"]), one["data_offsets"]
        size = math.prod(shape) * int((re.search("[0-9]+", dtype) or "8")[0])
        need(start + first == at and 8 * (last - first) == size, "SAFETENSORS_OFFSETS")
        width, at = max(1, (last - first) // max(1, shape[0])), start + last
        found[name] = (dtype, shape, [data[i : i + width] for i in range(start + first, at, width)])
    need(at == len(data), "SAFETENSORS_OFFSETS")
    return found


def numbers(row: bytes, dtype: str) -> tuple[float, ...]:
    """Entries of a row, exactly; all finite."""
    if dtype == "BF16":  # the upper half of an F32
        wide = bytearray(2 * len(row))
        wide[2::4], wide[3::4] = row[::2], row[1::2]
        row = bytes(wide)
    values = struct.unpack(f"<{len(row) // 2}e" if dtype == "F16" else f"<{len(row) // 4}f", row)
    need(all(map(math.isfinite, values)), "NON_FINITE")
    return values


def pack(values: Sequence[float], dtype: str) -> bytes:
    """Entries rounded to the nearest of a type, ties to even."""
    row = struct.pack(f"<{len(values)}{'e' if dtype == 'F16' else 'f'}", *values)
    if dtype == "BF16":
        words = struct.unpack(f"<{len(values)}I", row)
        row = struct.pack(f"<{len(words)}H", *(word + 0x7FFF + (word >> 16 & 1) >> 16 for word in words))
    return row


def digest(dtype: str, shape: Sequence[int], rows: Sequence[bytes]) -> str:
    """Tensor digest of :mod:`certify.base.jsonio`."""
    return sha(canonical({"dtype": dtype, "shape": list(shape)}) + b"\n" + b"".join(rows))


@lru_cache(maxsize=1 << 17)
def compare(before: bytes, after: bytes, dtype: str) -> tuple[int, float, float]:
    """KS count h, norm of the difference, cosine. Both CDFs advance past equal values; -0 is +0."""
    x, y = numbers(before, dtype), numbers(after, dtype)
    counts = Counter(x)
    counts.subtract(y)
    h = max(map(abs, accumulate(counts[value] for value in sorted(counts))))
    xx, yy, xy = (math.fsum(a * b for a, b in zip(u, v, strict=True)) for u, v in ((x, x), (y, y), (x, y)))
    scale = math.sqrt(xx) * math.sqrt(yy)
    return h, math.dist(x, y), xy / scale if scale else float(xx == yy == 0)


@lru_cache(maxsize=1)
def binomials(n: int) -> list[int]:
    """``C(2n, n - j)`` for j = 0..n."""
    start = math.comb(2 * n, n)
    return [*accumulate(range(n), lambda value, j: value * (n - j) // (n + j + 1), initial=start)]


@lru_cache(maxsize=1 << 17)
def p_exact(h: int, n: int) -> Fraction:
    """Smirnov's exact law of the two-sample distance with n entries on both sides."""
    terms = binomials(n)
    alternating = sum(terms[h :: 2 * h]) - sum(terms[2 * h :: 2 * h]) if h else 0
    return Fraction(2 * alternating, terms[0]) if h else Fraction(1)


@lru_cache(maxsize=1 << 17)
def exceeds_log(value: Fraction, x: Fraction) -> bool:
    """Decide ``value > ln(x)`` for a rational ``x`` other than 1, whose logarithm is irrational."""
    digits = 40
    while True:
        with localcontext(prec=digits):  # Decimal.ln is correctly rounded
            gap = value - Fraction(Decimal(x.numerator).ln()) + Fraction(Decimal(x.denominator).ln())
        if abs(gap) > Fraction(1, 10 ** (digits - 10)):
            return gap > 0
        digits *= 2


def rejects(h: int, n: int, level: Fraction, method: str) -> bool:
    """``p(h) <= level``; in the limit ``h^2/n > ln(2/level)``."""
    if method == "exact" or level >= 1:
        return p_exact(h, n) <= level
    return h > 0 and exceeds_log(Fraction(h * h, n), 2 / level)


def critical(n: int, level: Fraction, method: str) -> int:
    """Smallest count that is rejected; n + 1 if none is."""
    return bisect_left(range(n + 1), True, key=lambda h: rejects(h, n, level, method))


def excluded(stated: Json, vocabulary: Vocabulary, count: int, named: Sequence[int]) -> list[Json]:
    """Ids that no rule sees: those that the author names, special ones, and rows without a token."""
    pieces, special, size = vocabulary
    groups = [(f"special: {text.removeprefix('special ')}", [i]) for i, text in special.items()]
    if size is not None:
        need(size <= count, "TOKENIZER_TABLE_SIZE")
        groups.append(("no piece in the tokenizer", [i for i in range(size) if i not in pieces]))
        groups.append(("beyond the tokenizer", [*range(size, count)]))
    left = [{"reason": reason, "ids": [i for i in ids if i not in named]} for reason, ids in groups]
    author = [one for one in stated["excluded"] if one["reason"] == "named by the author"]
    return [*author, *(one for one in left if one["ids"])]


def rejected(ranked: list[int], n: int, alpha: Fraction, correction: str, method: str) -> int:
    """How many of the counts, the largest first, the corrected test rejects."""
    m, up = len(ranked), correction in ("bh", "by")
    common = math.lcm(*range(1, m + 1)) if correction == "by" else 1
    harmonic = Fraction(sum(common // i for i in range(1, m + 1)), common) if correction == "by" else 1
    levels: dict[str, Callable[[int], Fraction]] = {
        "none": lambda _: alpha,
        "bonferroni": lambda _: alpha / m,
        "holm": lambda j: alpha / (m - j),
        "bh": lambda j: alpha * (j + 1) / m,
        "by": lambda j: alpha * (j + 1) / m / harmonic,
    }
    level = levels[correction]
    passes = [rejects(h, n, level(j), method) for j, h in enumerate(ranked)]
    return m - [*passes[::-1], True].index(True) if up else [*passes, False].index(False)


def select(ticket: Json, moved: Moved, vocabulary: Vocabulary, counts: Sequence[int] | None) -> list[int]:
    """The ids that the rule selects; what else the ticket states of the selection must be so."""
    stated, (rows, n) = ticket["selection"], ticket["base"]["shape"]
    (rule, _, argument), alpha = stated["rule"].partition(":"), level(stated["alpha"])
    correction, method, seed = stated["correction"], stated["method"], stated["seed"]
    named = [int(i) for i in argument.split(",")] if rule == "ids" else []
    groups = excluded(stated, vocabulary, rows, named)
    out = {i for group in groups for i in naturals(group["ids"], rows)}
    pool: list[int] = [i for i in range(rows) if i not in out]
    uses = [rule == "random", rule == "frequency", rule == "ks" or correction == "none"]
    need(uses == [seed is not None, counts is not None, True], "RULE_OPTION")
    weight: dict[int, Any] = {i: norm if rule == "norm" else h for i, (h, norm, _) in moved.items()}
    if rule == "random":
        weight = {i: 2**256 - int(sha(f"{seed}:{i}".encode()), 16) for i in pool}
    elif counts is not None:
        need(len(counts) == rows, "COUNTS_MALFORMED")
        weight = dict(enumerate(counts))
    ranked = sorted(pool, key=lambda i: -weight.get(i, 0))
    if stated["rule"] == "ks":
        ranked = ranked[: rejected([weight.get(i, 0) for i in ranked], n, alpha, correction, method)]
    elif rule == "ids":
        need(set(named) <= set(pool) and len(set(named)) == len(named), "ID_RANGE")
        ranked, argument = named, ",".join(map(str, sorted(named)))
    else:
        need(rule in ("distance", "norm", "random", "frequency"), *UNKNOWN)
        ranked = [i for i in ranked if weight.get(i, 0) > 0]
        need(re.fullmatch("[1-9][0-9]{0,8}", argument) and int(argument) <= len(ranked), "RULE_SIZE")
        ranked = ranked[: int(argument)]
    again = {"n": n, "tests": len(pool), "h_alpha": critical(n, alpha, method), "excluded": groups}
    again["rule"] = f"{rule}:{argument}" if argument else rule
    sound = math.isclose(stated["tau"], math.sqrt(math.log(2 / alpha) / n), rel_tol=1e-12)
    need(sound and again.items() <= stated.items(), "SELECTION_PARAMETERS", "REFUTED")
    return sorted(ranked)


def tail(k: int, n: int, p: Fraction) -> Fraction:
    """``P(B(n, p) <= k)``, exactly, for 0 < p < 1."""
    a, c = p.numerator, p.denominator - p.numerator
    term: int = c**n
    total = term
    for i in range(min(k, n)):
        term = term * (n - i) * a // ((i + 1) * c)
        total += term
    return Fraction(total, p.denominator**n)


def rate_upper(k: int, n: int, delta: Fraction) -> Fraction:
    """Clopper-Pearson: smallest multiple of 2^-32 at or above the upper limit of a rate."""
    grid = range(1, 1 << 32)
    return Fraction(
        1 + bisect_left(grid, True, key=lambda j: tail(k, n, Fraction(j, 1 << 32)) <= delta), 1 << 32
    )


def plog(x: Fraction) -> Fraction:
    """Binary logarithm, linear between powers of two."""
    e = math.floor(x).bit_length() - 1
    return e + x / (1 << e) - 1


def betting_lower(units: Sequence[int], delta: Fraction, design: str) -> Fraction:
    """betting/1: the largest multiple of 2^-20 that the mean of units / 2^32 is shown to exceed, or 0."""
    bets, log = [], plog(1 / delta)
    fixed = Fraction(45426, 65536) * log / len(units)
    total, squares, goal = 1 << 31, 1 << 63, -(-(delta.denominator << 512) // delta.numerator)
    for i, unit in enumerate(units, 1):
        rate = fixed if design == "fixed" else log / (i * plog(Fraction(i + 1)))
        spread = rate.denominator * (i * squares - total**2)
        bets.append(math.isqrt((i * i * rate.numerator << 105) // spread))
        total, squares = total + unit, squares + unit**2

    def exceeds(m: Fraction) -> bool:
        a, b, wealth = m.numerator, m.denominator, 1 << 512
        for unit, bet in zip(units, bets, strict=True):
            if 4 * a * bet >= 3 * b << 20:
                wealth = wealth * (3 * b * unit + (a << 32)) // (a << 34)
            else:
                wealth = wealth * ((b << 52) + bet * (b * unit - (a << 32))) // (b << 52)
            if wealth >= goal:
                return True
        return False

    need(units and all(0 <= unit <= 1 << 32 for unit in units))
    grid = range(1, 1 << 20)
    return Fraction(bisect_left(grid, True, key=lambda j: not exceeds(Fraction(j, 1 << 20))), 1 << 20)


def chrf(v: Sequence[int]) -> Fraction:
    """Sentence chrF with beta 2: precision and recall, each averaged over the orders that both sides have."""
    orders = [order for order in zip(v[10::3], v[11::3], v[12::3], strict=True) if order[0] and order[1]]
    h, r = (math.lcm(*(order[side] for order in orders)) for side in (0, 1))
    p, q = (sum(order[2] * (whole // order[side]) for order in orders) for side, whole in ((0, h), (1, r)))
    return Fraction(500 * p * q, len(orders) * (4 * p * r + q * h)) if p else Fraction(0)


def vector(answer: Json, rule: int) -> list[int]:
    """Statistics of an answer under the rule whole (0), first-line (1) or cut (2)."""
    stats: list[list[int]] = answer["stats"]
    return stats[answer["rules"][rule]]


def rank(seed: int, unit: str) -> str:
    """Where a unit of a sequential design stands in the order in which units are drawn."""
    return sha(f"{seed}:{unit}".encode())


def content(record: Json) -> str:
    """What a record is about, apart from names."""
    return str(record["source" if "source" in record else "window"])


def renamed(units: dict[str, list[Json]]) -> dict[str, list[Json]]:
    """Units under the digest of their content; equal ones are numbered."""
    named, seen = dict[str, list[Json]](), Counter[str]()
    for records in units.values():
        key = sha(",".join(map(content, records)).encode())
        named[f"{key}:{seen[key]}" if seen[key] else key] = records
        seen[key] += 1
    return named


class Evidence:
    """A manifest and its records: what every arm said and decided, sentence by sentence."""

    def __init__(self, path: Path) -> None:
        here = Folder(path.parent)
        data = here.read(path.name)
        m = parse(data)
        self.m, self.arms, self.sha256 = m, {arm["name"]: arm for arm in m["arms"]}, sha(data)
        about = ("certify.evidence", 1, {"translation": "translation/1", "loss": "loss/2"}[m["kind"]])
        need((m["schema"], m["schema_version"], m["procedure"]) == about)
        need(len(self.arms) == len(m["arms"]) and m["design"] in ("fixed", "sequential"))
        for name in ("base", "reference"):
            ours = [arm["name"] for arm in m["arms"] if name in (arm["kind"], arm["name"])]
            need(ours == [name] or (name == "reference" and m["kind"] == "loss" and not ours))
            need(not ours or self.arms[name]["table_sha256"] == m[name]["tensor_sha256"])
        lines = here.read(m["records"]["path"], m["records"]["sha256"], packed=True).split(b"\n")
        need(lines.pop() == b"" and len(lines) == m["records"]["count"] > 0, "EVIDENCE_TRUNCATED")
        need(m["kind"] == "loss" or m["design"] != "fixed" or len(lines) == m["text"]["sentences"])
        self.fixed, self.scored = m["design"] == "fixed", dict[tuple[str, int], list[Fraction]]()
        self.records = [parse(line) for line in lines]
        for name in ("id", "window")[: 1 + (m["kind"] == "loss")]:
            need(len({record[name] for record in self.records}) == len(lines), "EVIDENCE_DUPLICATE")
        units: dict[str, list[Json]] = {}
        for record in self.records:
            (self.window if m["kind"] == "loss" else self.sentence)(record)
            units.setdefault(record["unit"], []).append(record)
        for records in units.values():
            records.sort(key=content)
        if self.fixed:  # what a unit is called, and a seed, decide nothing
            units = renamed(units)
        ranks = {unit: unit if self.fixed else rank(m["order_seed"], unit) for unit in units}
        self.units = {unit: units[unit] for unit in sorted(units, key=ranks.__getitem__)}
        kind, _, size = m["text"]["unit"].partition(":")
        most = {"sentence": 1, "block": int(size or 0), "document": len(lines)}[kind]
        sizes, n = sorted(map(len, units.values()), reverse=True), len(lines)
        full = [most] * (n // most) + [n % most] * (n % most > 0)
        loose = m["kind"] == "loss" or kind == "document"
        need(loose or (sizes == full if self.fixed else sizes[0] <= most), "EVIDENCE_UNITS")
        if not self.fixed:  # the first units of the seeded order, each complete, or they were picked
            total = m["text"]["sentences"]
            need(m["kind"] == "translation" and kind != "document" and total <= 1 << 22, "EVIDENCE_DRAWN")
            known = map(str, range(-(-total // most)))
            for unit in heapq.nsmallest(len(units), known, key=lambda unit: rank(m["order_seed"], unit)):
                complete = min(most, total - int(unit) * most)
                need(len(units.get(unit, ())) == complete, "EVIDENCE_DRAWN")
        self.used: dict[str, set[str]] = {}
        for one in m["used"]:
            found = here.read(one["path"], one["sha256"], packed=True).decode("ascii").split("\n")
            need(found.pop() == "" and len(found) == one["count"] and increasing(found))
            self.used.setdefault(one["role"], set()).update(found)

    def window(self, record: Json) -> None:
        need(record["nats"].keys() == self.arms.keys() and record["tokens"] > 0)
        naturals([record["tokens"], *record["nats"].values()], 1 << 63)
        need(digests(record["lines"]) and digests([record["window"]]) and "source" not in record)

    def sentence(self, record: Json) -> None:
        e, arms, target = record["reference"], record["arms"], record["arms"]["base"]["stats"][0]
        tokens, p_a, p_b = (naturals(e[key]) for key in ("tokens", "p_a", "p_b"))
        best = [dict(e["top"]).get(t, token) for t, token in enumerate(tokens)]
        need(tokens and arms.keys() == self.arms.keys() and increasing(naturals(record["prompt"])))
        need(all(b <= a + 2 and a + b <= 10**9 + 1 for a, b, _ in zip(p_a, p_b, tokens, strict=True)))
        differs = [(one["differs"], best) for name, one in arms.items() if name != "reference"]
        for pairs, against in ((e["top"], tokens), *differs):
            need(increasing([t for t, _ in map(naturals, pairs)]) and all(against[t] != i for t, i in pairs))
        for v in (v for one in arms.values() for v in map(naturals, one["stats"])):
            need(len(v) == 34 and [v[1], *v[11::3]] == [target[1], *target[11::3]])
            need(all(m <= min(h, r) for h, r, m in zip(v[10::3], v[11::3], v[12::3], strict=True)))

    def disjoint(self, everywhere: Sequence[Evidence], chosen: frozenset[str] = frozenset()) -> None:
        """No evaluated sentence occurs twice, or line in two units, or stands in any list of those used."""
        if self.m["kind"] == "loss":  # a line that windows of one unit share counts once
            lines = {(record["unit"], line) for record in self.records for line in record["lines"]}
            lists = [[line for _, line in lines]]
        else:
            lists = [[record[side] for record in self.records] for side in ("source", "target")]
        for digests in lists:
            need(len(set(digests)) == len(digests), "EVALUATION_DUPLICATES")
            need(chosen.isdisjoint(digests), "DATA_OVERLAP")
            for role in ("tuning", "scan", "choice", "order"):
                need(all(e.used.get(role, set()).isdisjoint(digests) for e in everywhere), "DATA_OVERLAP")
        need(self.used.get("tuning"), "USED_NOT_LISTED", "INCONCLUSIVE")

    def bet(self, values: Sequence[Any], delta: Fraction, low: int, high: int) -> list[Fraction]:
        """Estimate and lower limit of the mean of values in [low, high], each rounded down to the grid."""
        units = [math.floor((value - low) * (1 << 32) / Fraction(high - low)) for value in values]
        found = [Fraction(sum(units), len(units) << 32), betting_lower(units, delta, self.m["design"])]
        return [low + one * (high - low) for one in found]

    def drawn(self, arm: str, criterion: str, alpha: str, h: dict[int, int], d: int) -> list[bool]:
        """Of each unit with certified steps one is drawn: whether it disagrees."""
        tau, found = 2 / level(alpha), []
        grid = range(10**9 + 2)  # of margins
        least = bisect_left(grid, 1, key=lambda r: exceeds_log(Fraction(d * r * r, 4 * 10**18), tau))
        for unit, records in self.units.items():
            certified = []
            for record in records:
                e, fed, largest, total = record["reference"], set[int](), 0, 0
                wrong, new = {t for t, _ in record["arms"][arm]["differs"]}, record["prompt"]
                for t, token in enumerate(e["tokens"]):
                    largest = max([largest, *(h.get(i, 0) for i in new)])
                    total += sum(h.get(i, 0) for i in set(new) - fed)
                    fed, new, margin = fed.union(new), [token], max(0, e["p_a"][t] - e["p_b"][t])
                    loss = {"measured-max": 2 * largest, "additive": 4 * total}.get(criterion, 0) * 10**9
                    if margin >= least if criterion == "published" else margin * d > loss:
                        certified.append(t in wrong)
            if certified:
                found.append(certified[int(sha(f"drawn:{unit}".encode()), 16) % len(certified)])
        return found

    def rate(self, hits: list[bool], delta: Fraction) -> list[Fraction]:
        """Estimate, lower and upper limit of a rate."""
        k, n, misses = sum(hits), len(hits), [not hit for hit in hits]
        if self.fixed:
            return [Fraction(k, n), 1 - rate_upper(n - k, n, delta), rate_upper(k, n, delta)]
        return [Fraction(k, n), self.bet(hits, delta, 0, 1)[1], 1 - self.bet(misses, delta, 0, 1)[1]]

    def means(self, value: Callable[[Json], tuple[Any, int]]) -> list[Fraction]:
        """Sum of values over sum of sizes of each unit, in their order."""
        pairs = [[value(record) for record in records] for records in self.units.values()]
        return [Fraction(sum(v for v, _ in one)) / sum(size for _, size in one) for one in pairs]

    def scores(self, name: str, rule: int) -> list[Fraction]:
        """Mean sentence chrF of one arm over the records of each unit."""
        if (name, rule) not in self.scored:
            self.scored[name, rule] = self.means(lambda r: (chrf(vector(r["arms"][name], rule)), 1))
        return self.scored[name, rule]

    def holds(self, drawn: list[bool], alpha: Fraction, delta: Fraction) -> str:
        """Finding on a promise with confidence 1 - alpha: exact tails decide, not rounded limits."""
        k, n = sum(drawn), len(drawn)
        if not drawn:
            return "vacuous"
        if self.fixed:
            held, refuted = tail(k, n, alpha) <= delta, tail(n - k, n, 1 - alpha) < delta
        else:
            _, low, high = self.rate(drawn, delta)
            held, refuted = high <= alpha, low > alpha
        return "held" if held else "refuted" if refuted else "inconclusive"


class Claim(NamedTuple):
    """What a certificate states of a claim."""

    finding: str
    estimate: Fraction | None
    lower: Fraction | None
    upper: Fraction | None
    n: int
    procedure: str
    assumptions: list[str]


class Text:
    """One evaluated text: evidence about one ticket, and the claims that it supports."""

    def __init__(self, evidence: Evidence, role: str, arm: str | None, ticket: Json) -> None:
        self.e, self.role, self.arm, self.ticket = evidence, role, arm, ticket
        self.share, self.claims = Fraction(1), dict[str, Claim]()
        m = evidence.m
        self.name, self.unit = m["text"]["name"], m["text"]["unit"]
        self.taken = ["A-BLOCKS" if self.unit.startswith("block:") else "A-UNITS", "A-EVIDENCE"]

    def quantities(self, arm: str) -> dict[str, tuple[list[list[Fraction]], int, int]]:
        """By claim the values of the units against each arm compared, and their range; larger is better."""
        e, ticket = self.e, self.ticket
        if self.role == "loss":
            falls = e.means(lambda r: (r["nats"]["base"] - r["nats"][arm], r["tokens"] * 10**9))
            return {"unrelated-loss:base": ([falls], -2, 2)}
        wrong = e.means(lambda r: (len(r["arms"][arm]["differs"]), len(r["reference"]["tokens"])))
        found = {"token-agreement:reference": ([[1 - share for share in wrong]], 0, 1)}
        nulls, against = dict[Any, Json](), {"gain:base": ["base"]}
        arms = [one for one in e.arms.values() if not one.get("gate")]
        for one in arms:
            if (one.get("of"), one["kind"]) == (ticket["id"], ticket["released"]["object"]):
                control = one.get("control")
                nulls[control, one.get("seed") if NULLS.get(control) == 3 else 0] = one
        wanted = [(control, seed) for control, count in NULLS.items() for seed in range(count)]
        if all(label in nulls for label in wanted):
            matched = {nulls["frequency-matched", seed]["table_sha256"] for seed in range(3)}
            if len(matched) == 3:  # draws that cannot be made again must at least differ
                against["better-than-nulls:nulls"] = [nulls[label]["name"] for label in wanted]
        for kind in ("reference", "full", "base"):
            plain = [one["name"] for one in arms if one["kind"] == kind and not one.get("control")]
            against[f"non-inferiority:{kind}"] = plain
        for claim, names in against.items():
            for i, rule in enumerate(("whole", "first-line", "cut")) if names else ():
                pairs = [zip(e.scores(arm, i), e.scores(name, i), strict=True) for name in names]
                found[f"{claim}:{rule}"] = ([[x - y for x, y in pair] for pair in pairs], -100, 100)
        return found

    def compute(self, share: Fraction, h: dict[int, int]) -> None:
        """Every claim that a certificate states, each limit with error ``share``; h by id of rows in N."""
        e, arm, taken, spelled = self.e, self.arm, self.taken, self.ticket["selection"]["alpha"]
        alpha = level(spelled)
        self.share, n, d = share, len(e.units), self.ticket["base"]["shape"][1]
        if arm is None or self.role == "other-template":
            return
        for name, (lists, low, high) in self.quantities(arm).items():
            clipped = [[max(low, min(high, value)) for value in values] for values in lists]
            bets = [e.bet(values, share, low, high) for values in clipped]
            estimate, limit = min(bets, key=lambda one: one[1])
            self.claims[name] = Claim("measured", estimate, limit, None, n, "betting/1", taken)
            if self.role == "loss":
                failed = min(lists[0]) < low
                found = "failed" if failed else "measured"
                self.claims[name] = Claim(
                    found, -estimate, None, None if failed else -limit, n, "betting/1", [*taken, "A-CAP"]
                )
        if self.role == "loss":
            return
        exact = "clopper-pearson/1" if e.fixed else "betting/1"
        equal = [not any(r["arms"][arm]["differs"] for r in records) for records in e.units.values()]
        agree = e.rate(equal, share)
        self.claims["agreement-rate:reference"] = Claim("measured", agree[0], agree[1], None, n, exact, taken)
        above = max(h.values(), default=0) >= critical(d, alpha, "asymptotic")
        tied = [] if self.ticket["base"]["tied"] is False else ["A-UNTIED"]
        for criterion in ("published", "measured-max", "additive"):
            drawn = e.drawn(arm, criterion, spelled, h, d)
            finding = e.holds(drawn, alpha, share)
            if above and criterion == "published":
                finding = "premise failed"
            claim = Claim(finding, None, None, None, 0, "", [*taken, *tied])
            if drawn:
                limits = e.rate(drawn, share)
                claim = Claim(finding, limits[0], limits[1], limits[2], len(drawn), exact, [*taken, *tied])
            self.claims[f"guarantee:{criterion}"] = claim

    def refutes(self, name: str, threshold: Fraction, strict: bool) -> bool:
        """Whether the limit on the other side shows that a quantity does not meet its threshold."""
        lists, low, high = self.quantities(self.arm or "")[name]
        if any(value > high for values in lists for value in values):
            return False
        delta = self.share / len(lists)
        flipped = [[-max(Fraction(low), value) for value in values] for values in lists]
        upper = -max(self.e.bet(values, delta, -high, -low)[1] for values in flipped)
        return upper < threshold or (strict and upper == threshold)

    def judge(self, name: str, test: Any, accepted: Sequence[str]) -> Item:
        """What this text makes of a claim that the certificate states and a policy requires."""
        claim, alpha = self.claims[name], level(self.ticket["selection"]["alpha"])
        if set(claim.assumptions) - {*accepted, "A-EVIDENCE", "A-CAP"}:
            return "INCONCLUSIVE", "ASSUMPTION_NOT_ACCEPTED"
        if test == "held" and (claim.finding, alpha > Fraction(1, 10)) == ("held", True):
            return "INCONCLUSIVE", "GUARANTEE_DESCRIPTIVE"
        if test == "not refuted":
            return ("REFUTED", "GUARANTEE_REFUTED") if claim.finding == "refuted" else PASS
        if test == "held":
            return STATUS[claim.finding], f"GUARANTEE_{claim.finding}".upper().replace(" ", "_")
        if claim.finding == "failed":
            return "REFUTED", "LOSS_BEYOND_CAP"
        threshold, strict = test
        limit = claim.lower if claim.upper is None else -claim.upper
        if limit is not None and (limit > threshold or (limit == threshold and not strict)):
            return PASS
        refuted = self.refutes(name, threshold, strict)
        return ("REFUTED", "CLAIM_REFUTED") if refuted else ("INCONCLUSIVE", "NOT_SHOWN")


# --- policies and verdicts ---------------------------------------------------------------------------------

SELECTION: Final = (
    *("integrity.base", "integrity.reference", "integrity.tokenizer", "integrity.template", "integrity.rows"),
    *("selection.content", "selection.parameters", "selection.ids", "selection.figures", "released.rows"),
    *("blind-spots.order", "blind-spots.direction"),
)
EVIDENCE: Final = (
    *(*SELECTION, "certificate.present", "certificate.content", "certificate.claims"),
    *("evidence.integrity", "evidence.split"),
)
QUALITY: Final = {  # claim: threshold, and whether the lower limit must be above it
    "non-inferiority:reference:first-line": (Fraction(-1), False),
    "gain:base:first-line": (Fraction(0), True),
    "better-than-nulls:nulls:first-line": (Fraction(0), True),
    "unrelated-loss:base": (Fraction(-1, 10), False),  # of the fall
}
CLOSE: Final = {"token-agreement:reference": (Fraction(19, 20), False)}
PROMISES: Final = {f"guarantee:{one}": "not refuted" for one in ("published", "measured-max", "additive")}


STATUS: Final = {  # of a guarantee that must be held, by finding
    "held": "",
    "refuted": "REFUTED",
    "premise failed": "REFUTED",
    "vacuous": "VACUOUS",
    "inconclusive": "INCONCLUSIVE",
}


class Policy(NamedTuple):
    """What a verdict rests on: items, claims with their tests, conditions of the design taken as given."""

    items: tuple[str, ...]
    claims: Json
    design: tuple[str, ...]


POLICIES: Final = {
    "selection": Policy(SELECTION, {}, ()),
    "paper": Policy(
        (*EVIDENCE, "premise.published"), {"guarantee:published": "held"}, ("A-UNITS", "A-BLOCKS")
    ),
    "release": Policy(EVIDENCE, {**QUALITY, **PROMISES}, ("A-UNITS", "A-BLOCKS")),
    "strict": Policy(EVIDENCE, {**QUALITY, **CLOSE, **PROMISES}, ("A-UNITS",)),
}
DELTA, DEFAULT = Fraction(1, 20), "release"
EXIT: Final = {"INVALID": 4, "REFUTED": 1, "INCONCLUSIVE": 3, "VACUOUS": 3, "CERTIFIED": 0}  # gravest first
ORDER: Final = ("INVALID", "REFUTED", "INCONCLUSIVE", "VACUOUS", "")
ENDED: Final = ("failed", "timeout", "not run", "passed")  # a check of the theory, gravest first


def asserted(ticket: Json) -> Json:
    """What a ticket asserts, without places of evidence; what may be left out or be an integer, in full."""

    def reals(part: Json, *names: str) -> Json:
        return part | {name: float(part[name]) for name in names if type(part[name]) is int}

    optional = dict.fromkeys(("comparator", "margin", "delta", "extraction"))
    full = ticket | {"declared": [optional | one for one in ticket.get("declared", [])]}
    full["template"] = ticket["template"] and {"path": None} | ticket["template"]
    full["selection"] = reals(ticket["selection"], "tau")
    full["tokens"] = [reals(row, "p", "log10_p", "shift_norm") for row in ticket["tokens"]]
    return {name: one for name, one in full.items() if name not in ("evidence", "certificate")}


class Audit:
    """What is found out about one ticket, item by item."""

    def __init__(self, folder: Folder, ticket: Json) -> None:
        self.folder, self.ticket, self.items = folder, ticket, dict[str, Item]()
        self.texts, self.stated, self.delta = list[Text](), set[tuple[str, str]](), Fraction(1)
        self.ids, self.dtype = naturals([row["id"] for row in ticket["tokens"]]), ticket["base"]["dtype"]
        self.base: Any = self.ask("integrity.base", folder.table, ticket["base"])
        self.reference: Any = self.ask("integrity.reference", folder.table, ticket["reference"])
        self.vocabulary: Any = self.ask("integrity.tokenizer", folder.vocabulary, ticket["tokenizer"])
        self.ask("integrity.template", folder.template, ticket["template"])
        self.rows = self.ask("integrity.rows", folder.rows, ticket)
        self.ask("selection.content", need, self.ids, "EMPTY_TICKET", "VACUOUS")
        if self.base and self.reference and self.vocabulary:
            pairs = enumerate(zip(self.base, self.reference, strict=True))
            self.moved = {i: compare(*pair, self.dtype) for i, pair in pairs if pair[0] != pair[1]}
            chosen = self.ask("selection.parameters", self.select)
            if self.items["selection.parameters"][0] in ("", "REFUTED"):
                self.ask("selection.ids", need, chosen == self.ids, "SELECTION_IDS", "REFUTED")
                self.scanned()

    def ask(self, name: str, question: Callable[..., Any], *about: Any) -> Any:
        value, self.items[name] = answer(question, *about)
        return value

    def select(self) -> list[int]:
        ref = self.ticket["selection"]["counts"]
        return select(self.ticket, self.moved, self.vocabulary, self.folder.counts(ref) if ref else None)

    def figures(self, row: Json) -> bool:
        """Whether a ticket states of a row what was computed; floats that go through exp or log nearly so."""
        n, (h, norm, _) = self.ticket["base"]["shape"][1], self.moved.get(row["id"], (0, 0.0, 1.0))
        if self.ticket["selection"]["method"] == "exact":
            p = p_exact(h, n)
            log = math.log10(p.numerator) - math.log10(p.denominator)
            close = Fraction(math.nextafter(row["p"], 0)) < p <= Fraction(row["p"])  # p rounded up
        else:
            log = min(0, (math.log(2) - h * h / n) / math.log(10))
            close = math.isclose(row["p"], min(1, 2 * math.exp(-h * h / n)), rel_tol=1e-11, abs_tol=1e-320)
        close = close and math.isclose(row["log10_p"], log, rel_tol=1e-9, abs_tol=1e-11)
        close = close and math.isclose(row["shift_norm"], norm, rel_tol=1e-12)
        return close and (row["h"], row["piece"]) == (h, self.vocabulary[0].get(row["id"]))

    def scanned(self) -> None:
        """Figures, blind spots, premise and released rows, over all rows."""
        moved, outside = self.moved, self.moved.keys() - {*self.ids}
        n, alpha = self.ticket["base"]["shape"][1], level(self.ticket["selection"]["alpha"])
        tau = critical(n, alpha, "asymptotic")
        permuted = {i for i in outside if moved[i][0] == 0 < moved[i][1]}
        rotated = {i for i in outside if moved[i][0] < tau and moved[i][2] < 0.2} - permuted
        above = [i for i in outside if moved[i][0] >= tau]
        self.ask("selection.figures", lambda: need(all(map(self.figures, self.ticket["tokens"])), *FIGURES))
        self.ask("blind-spots.order", need, not permuted, "PERMUTED_ROW", "REFUTED")
        self.ask("blind-spots.direction", need, not rotated, "ROTATED_ROW", "REFUTED")
        self.ask("premise.published", need, not above, "PREMISE_FAILED", "REFUTED")
        if self.rows is not None and self.ticket["released"]["object"] == "transfer":
            same = self.rows == [self.reference[i] for i in self.ids]
            self.ask("released.rows", need, same, "ROWS_NOT_REFERENCE", "REFUTED")
        elif self.rows is not None:
            trained = not self.ids or self.rows != [self.base[i] for i in self.ids]
            self.ask("released.rows", need, trained, "ROWS_UNMOVED", "REFUTED")

    def served(self, rows: dict[int, bytes]) -> str:
        """Digest of the base with these rows put in."""
        table = [rows.get(i, row) for i, row in enumerate(self.base)]
        return digest(self.dtype, self.ticket["base"]["shape"], table)

    def certificate(self) -> Json:
        located: Any = self.ticket.get("certificate")
        need(located, "NO_CERTIFICATE", "INCONCLUSIVE")
        need(self.folder.path(located["path"]).exists(), "FILE_MISSING", "INCONCLUSIVE")
        content: Json = parse(self.folder.read(located["path"], located.get("sha256")))
        about = {"id": self.ticket["id"], "sha256": sha(canonical(asserted(self.ticket)))}
        sound = (content["schema"], content["ticket"]) == ("certify.certificate", about)
        need(sound, "CERTIFICATE_OTHER_TICKET")
        return content

    def labelled(self, one: Json, arms: Sequence[Json]) -> None:
        """A null ticket of this ticket holds the rows of its label, and is the only one of it."""
        control, seed, ours = one.get("control"), one.get("seed"), {*self.ids}
        if control not in NULLS or one.get("of") != self.ticket["id"]:
            return
        keys = ["control", "of", "kind", "gate"] + ["seed"] * (NULLS[control] == 3)
        need(sum(all(one.get(key) == arm.get(key) for key in keys) for arm in arms) == 1, "NULL_LABEL")
        (pieces, special, size), ids = self.vocabulary, {*(one.get("ids") or ())}
        if control.startswith("one-row"):
            bos = {i for i, said in special.items() if "bos" in said.split(" ")[0].split("/")}
            newline = {i for i, piece in pieces.items() if piece in ("\n", "<0x0A>", "Ċ")}
            need(len(ids) == 1 and ids <= (bos if control == "one-row:bos" else newline), "NULL_LABEL")
            return
        pool = {i for i in range(len(self.base)) if size is None or (i in pieces and i not in special)}
        need(
            len(ids) == len(ours) and ids <= pool and (NULLS[control] == 1 or seed is not None), "NULL_LABEL"
        )
        if control == "random":
            order = sorted(pool, key=lambda i: (i in ours, sha(f"{seed}:{i}".encode())))
            need(ids == {*order[: len(ours)]}, "NULL_LABEL")
        elif control == "frequency-matched":
            need(len(ids & ours) == max(0, len(ours) - len(pool - ours)), "NULL_LABEL")
        elif control == "top-norm":
            norm = {i: self.moved[i][1] if i in self.moved else 0 for i in pool}
            most = max((norm[i] for i in pool - ids), default=0)
            need(min(norm[i] for i in ids) >= most * (1 - 1e-9), "NULL_LABEL")

    def load(self, located: Json) -> Text:
        """One evidence, if it is about this ticket."""
        e, t = self.folder.evidence(located), self.ticket
        m, role = e.m, "loss" if e.m["kind"] == "loss" else "evaluation"
        for part in ("base", "reference"):
            same = m[part] is None or m[part]["tensor_sha256"] == t[part]["tensor_sha256"]
            need(same, f"EVIDENCE_{part.upper()}")
        need(not t["tokenizer"] or m["tokenizer_sha256"] == t["tokenizer"]["sha256"], "EVIDENCE_TOKENIZER")
        if m["template"] and t["template"] and m["template"]["sha256"] != t["template"]["sha256"]:
            need(role != "loss", "EVIDENCE_TEMPLATE")
            role = "other-template"
        ours = (self.served(dict(zip(self.ids, self.rows, strict=True))), t["released"]["object"], None)
        for one in m["arms"]:
            need(max(one.get("ids") or [0]) < len(self.base), "EVIDENCE_IDS")
            self.labelled(one, m["arms"])
            if one["kind"] == "transfer":
                again = self.served({i: self.reference[i] for i in one["ids"]})
                need(one["table_sha256"] == again, "ARM_TABLE")
        fit = [one for one in m["arms"] if (one["table_sha256"], one["kind"], one.get("gate")) == ours]
        best = [one["name"] for one in fit if not one.get("control")] or [one["name"] for one in fit]
        need(len(best) <= 1, "EVIDENCE_ARMS")
        return Text(e, role, best[0] if best else None, t)

    def gather(self, c: Json) -> list[Text]:
        """Everything that certificate and ticket name as evidence."""
        named = {ref["path"]: ref["sha256"] for ref in c["evidence"]}
        need(named, "NO_EVIDENCE", "INCONCLUSIVE")
        found = [answer(self.load, ref) for ref in c["evidence"]]
        items = [("INCONCLUSIVE", item[1]) if item[1] == "FILE_MISSING" else item for _, item in found]
        for one in self.ticket.get("evidence", []):
            if one["path"] not in named:
                items.append(("INCONCLUSIVE", "EVIDENCE_LEFT_OUT"))
            elif one.get("sha256") not in (None, named[one["path"]]):
                items.append(("INVALID", "EVIDENCE_DIGEST"))
        status, code = max(items)  # of the two, INVALID is the graver and the later in the alphabet
        need(not status, code, status)
        texts = [text for text, _ in found]
        need(len({text.e.m["base"]["model_sha256"] for text in texts}) == 1, "EVIDENCE_MODEL")
        need(len({text.e.m["records"]["sha256"] for text in texts}) == len(texts), "EVIDENCE_TWICE")
        shown = {(text.role, text.name, str(text.e.m["template"])) for text in texts}
        need(len(shown) == len(texts), "EVIDENCE_TEXT_TWICE")
        return texts

    def chosen(self) -> set[str]:
        """Sentences on which the rows were chosen, from the record that the ticket binds."""
        bound: Any = self.ticket.get("choice")
        if bound is None:
            return set()
        record = parse(self.folder.read(bound["path"], str(bound["sha256"])))
        rows = [one["ids"] for one in record["candidates"] if one["arm"] == record["chosen"]]
        about = (record["schema"], record["schema_version"], rows) == ("certify.choice", 1, [self.ids])
        found = record["sentences"]
        need(about and digests(found), "CHOICE_MALFORMED")
        return {*found}

    def examine(self) -> None:
        """Certificate, evidence and claims."""
        c = self.ask("certificate.present", self.certificate)
        if c is None or self.items.get("released.rows") != PASS:
            return
        texts = self.ask("evidence.integrity", self.gather, c)
        lists, (chosen, item) = [text.e for text in texts or ()], answer(self.chosen)
        on = frozenset(chosen or ())
        splits = [answer(text.e.disjoint, lists, on)[1] for text in texts or ()]
        self.items["evidence.split"] = max([item, *splits])
        if texts is None or self.items["evidence.split"][0] == "INVALID":
            return
        shares, self.delta = Counter(text.role for text in texts), level(c["parameters"]["delta"])
        h = {i: count for i, (count, _, _) in self.moved.items() if i not in self.ids}
        pairs = [(i, row, self.reference[i]) for i, row in zip(self.ids, self.rows, strict=True)]
        h |= {i: compare(row, wanted, self.dtype)[0] for i, row, wanted in pairs if row != wanted}
        for text in texts:
            text.compute(self.delta / shares[text.role], h)
        self.texts = texts
        self.ask("certificate.content", self.proofs, c)
        self.ask("certificate.claims", self.compared, c)

    def compared(self, c: Json) -> None:
        """The certificate states what was computed, or less."""
        known = {
            (text.e.sha256, name): (text, one) for text in self.texts for name, one in text.claims.items()
        }
        texts = [[ref[key] for key in ("sha256", "text", "role", "delta")] for ref in c["evidence"]]
        again = [[text.e.sha256, text.name, text.role, ratio(text.share)] for text in self.texts]
        need(texts == again, *DIFFERS)
        for one in c["claims"]:
            name = ":".join(filter(None, (one["kind"], one["comparator"], one["extraction"])))
            need((one["evidence"], name) in known, *DIFFERS)
            text, claim = known[one["evidence"], name]
            numbers = [one[key] and one[key]["exact"] for key in ("estimate", "lower", "upper")]
            need(numbers == [ratio(claim.estimate), ratio(claim.lower), ratio(claim.upper)], *DIFFERS)
            facts = [one[key] for key in ("finding", "n", "procedure", "assumptions", "unit", "delta")]
            need(facts == [claim.finding, *claim[4:], text.unit, ratio(text.share)], *DIFFERS)
            self.stated.add((one["evidence"], name))

    def proofs(self, c: Json) -> None:
        """What a certificate restates of a record of the theory's checks follows from those checks."""
        if "proofs" not in c:
            return
        stated = c["proofs"]
        need(self.folder.path(stated["path"]).is_file(), "FILE_MISSING", "INCONCLUSIVE")
        record = parse(self.folder.read(stated["path"], stated["sha256"]))
        ended = {one["name"]: one["outcome"] for one in record["checks"]}
        clauses = [
            (one["clause"], min((ended.get(name, "not run") for name in one["checks"]), key=ENDED.index))
            for one in record["clauses"]
        ]
        again = {name: record[name] for name in ("version", "tier", "seed")}
        again |= {"path": stated["path"], "sha256": stated["sha256"], "partial": record["selected"]}
        again |= {"counts": {outcome: [*ended.values()].count(outcome) for outcome in ENDED}}
        again |= {"clauses": [{"clause": clause, "outcome": outcome} for clause, outcome in clauses]}
        need(len(ended) == len(record["checks"]) and stated == again, "PROOFS_DIFFER")

    def judge(self, name: str, test: Any, design: Sequence[str]) -> Item:
        """What the gravest text makes of a claim that a policy requires."""
        kind, comparator = name.split(":")[:2]
        claimed = [one.get("comparator") for one in self.ticket.get("declared", []) if one["kind"] == kind]
        if test == "not refuted" and not {None, comparator} & {*claimed}:
            return PASS
        role, found = "loss" if kind == "unrelated-loss" else "evaluation", []
        for text in (text for text in self.texts if text.role == role):
            stated = self.delta <= DELTA and (text.e.sha256, name) in self.stated
            found.append(text.judge(name, test, design) if stated else ("INCONCLUSIVE", "CLAIM_NOT_STATED"))
        return min(found, key=lambda item: ORDER.index(item[0]), default=("INCONCLUSIVE", "NO_TEXT"))

    def verdict(self, name: str) -> Verdict:
        """The gravest status of what a policy requires, and every reason."""
        policy = POLICIES[name]
        if policy.claims and "certificate.present" not in self.items:
            self.examine()
        found = [self.items.get(item, ("INCONCLUSIVE", "NOT_RUN")) for item in policy.items]
        found += [self.judge(claim, test, policy.design) for claim, test in policy.claims.items()]
        worst = min((status for status, _ in found), key=ORDER.index)
        return worst or "CERTIFIED", tuple(dict.fromkeys(code for status, code in found if status))


def ratio(value: Fraction | None) -> str | None:
    """A rational number as a certificate spells it."""
    return None if value is None else f"{value.numerator}/{value.denominator}"


def verify(
    folder: Path, ticket_file: str = "tickets.json", policies: Sequence[str] = tuple(POLICIES)
) -> dict[str, dict[str, Verdict]]:
    """Status and reason codes of every ticket in a folder, by ticket and policy.

    Args:
        folder: what the ticket's relative paths start from.
        ticket_file: name of the ticket file in it.
        policies: names of shipped policies; evidence is read only if one asks for it.

    Raises:
        Stop: the ticket file is refused.
    """

    def audits() -> dict[str, Audit]:
        files = Folder(folder)
        content = parse(files.read(ticket_file))
        need((content["schema"], content["schema_version"]) == ("certify.tickets", 1), "TICKET_SCHEMA")
        names = [ticket["id"] for ticket in content["tickets"]]
        need(len({*names}) == len(names) and all(map(SLUG.fullmatch, names)), "TICKET_MALFORMED")
        return {ticket["id"]: Audit(files, ticket) for ticket in content["tickets"]}

    found, item = answer(audits)
    need(found is not None, *reversed(item))
    broken = ("INVALID", ("MALFORMED",))
    return {
        name: {policy: answer(audit.verdict, policy)[0] or broken for policy in policies}
        for name, audit in found.items()
    }


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    words = [word for word in arguments if word != "--json"]
    policies = words[2:] if words[1:2] == ["--policy"] else []
    if len(words) != 1 + 2 * len(policies) or not set(policies) <= POLICIES.keys():
        sys.stderr.write(f"usage: checker.py DIR [--policy {'|'.join(POLICIES)}] [--json]\n")
        return 2
    try:
        found = verify(Path(words[0]), policies=policies or tuple(POLICIES))
    except Stop as stop:
        found = {"-": dict.fromkeys(policies or POLICIES, (stop.args[0], stop.args[1:]))}
    if "--json" in arguments:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    for name, verdicts in found.items() if "--json" not in arguments else ():
        for policy, (status, codes) in verdicts.items():
            sys.stdout.write(" ".join([name, policy, status, *codes]) + "\n")
    statuses = [verdicts[policies[0] if policies else DEFAULT][0] for verdicts in found.values()]
    return next((EXIT[status] for status in EXIT if status in statuses), 5)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

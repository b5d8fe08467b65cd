"""Hypothesis strategies for ticket files, as parsed JSON, and for damaged ones.

Everything is drawn as plain JSON data (dictionaries, lists, strings, numbers) by the rules of schema version
1 as ``certify schema`` prints them, and nothing of the package is imported: what is drawn cannot inherit a
fault of what is judged.

============================  ==========================================================================
strategy                      what it draws
============================  ==========================================================================
:func:`digests`               64 hexadecimal digits, lower case
:func:`relative_paths`        a path that stays inside the ticket's folder
:func:`escaping_paths`        a path that must be refused
:func:`tickets`               one valid ticket, with or without tokenizer, template, rows, claims
:func:`ticket_files`          a valid file of zero to three tickets
:func:`damages`               a function that changes parsed JSON somewhere, and what it did in words;
                              :func:`damage` does the same with any source of choices
============================  ==========================================================================
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Json = Any

_WORD = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0189", min_size=1, max_size=8)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_LEVELS = st.sampled_from(("0.05", ".05", "0.001", "0.5", "0.95", "0.000000000000000000000000000001"))


def digests() -> st.SearchStrategy[str]:
    """A SHA-256 digest as a ticket spells it."""
    return st.text("0123456789abcdef", min_size=64, max_size=64)


def slugs() -> st.SearchStrategy[str]:
    """A name: letters, digits, dots, dashes; starts with a letter or digit."""
    return st.tuples(_WORD, st.text("ab1._-", max_size=6)).map("".join)


def relative_paths() -> st.SearchStrategy[str]:
    """A path below the ticket's folder, with forward slashes."""
    part = st.one_of(_WORD, st.sampled_from(("model.safetensors", "..a", "a..b", "é", "with space")))
    return st.lists(part, min_size=1, max_size=3).map("/".join)


def escaping_paths() -> st.SearchStrategy[str]:
    """A path that leaves the folder, or does so on some operating system, or hides what it is."""
    fixed = (
        "",
        "/",
        "/etc/passwd",
        "//host/share",
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "a\\b",
        "..\\x",
        "C:x",
    )
    more = ("c:/x", "C:\\x", "\\\\host\\share", "a\nb", "a\x00b", "\x7f", "a/../b")
    return st.sampled_from((*fixed, *more))


@st.composite
def _bound(draw: st.DrawFn) -> Json:
    return {"path": draw(relative_paths()), "sha256": draw(digests())}


@st.composite
def _table(draw: st.DrawFn, dtype: str, shape: list[int]) -> Json:
    travels = draw(st.booleans())
    return {
        "path": draw(relative_paths()) if travels else None,
        "files": draw(st.lists(_bound(), min_size=1, max_size=3)) if travels else [],
        "tensor": draw(st.sampled_from(("", "model.embed_tokens.weight"))),
        "dtype": dtype,
        "shape": list(shape),
        "tensor_sha256": draw(digests()),
        "tied": draw(st.sampled_from((None, False, True))),
    }


@st.composite
def _tokenizer(draw: st.DrawFn, rows: int) -> Json:
    travels = draw(st.booleans())
    return {
        "path": draw(relative_paths()) if travels else None,
        "files": draw(st.lists(_bound(), min_size=1, max_size=2)) if travels else [],
        "sha256": draw(digests()),
        "size": draw(st.integers(1, rows)),
    }


@st.composite
def _token(draw: st.DrawFn, token_id: int, n: int) -> Json:
    return {
        "id": token_id,
        "piece": draw(st.none() | _TEXT),
        "h": draw(st.integers(0, n)),
        "p": draw(st.floats(0, 1, exclude_min=True)),
        "log10_p": draw(st.floats(max_value=0, allow_nan=False, allow_infinity=False)),
        "shift_norm": draw(st.floats(min_value=0, allow_nan=False, allow_infinity=False)),
    }


@st.composite
def tickets(draw: st.DrawFn, *, name: str | None = None) -> Json:
    """One valid ticket of a table of at most 300 rows."""
    rows, n = draw(st.integers(1, 300)), draw(st.integers(1, 64))
    dtype = draw(st.sampled_from(("F32", "F16", "BF16")))
    ids = sorted(draw(st.sets(st.integers(0, rows - 1), max_size=4)))
    excluded = draw(
        st.lists(st.sets(st.integers(0, rows - 1), min_size=1, max_size=3).map(sorted), max_size=2)
    )
    released = {"path": draw(relative_paths()), "sha256": draw(digests())}
    released |= {"fp32_sha256": draw(digests()), "served_sha256": draw(digests())}
    template = {"name": draw(slugs()), "sha256": draw(digests()), "path": draw(st.none() | relative_paths())}
    claim = {
        "kind": draw(slugs()),
        "comparator": draw(st.none() | slugs()),
        "margin": draw(st.sampled_from((None, "0", "-1.5", "2.25"))),
        "delta": draw(st.none() | _LEVELS),
        "extraction": draw(st.none() | slugs()),
    }
    located = {"path": draw(relative_paths()), "sha256": draw(st.none() | digests())}
    return {
        "id": name if name is not None else draw(slugs()),
        "base": draw(_table(dtype, [rows, n])),
        "reference": draw(_table(dtype, [rows, n])),
        "tokenizer": draw(st.none() | _tokenizer(rows)),
        "template": draw(st.sampled_from((None, template))),
        "selection": {
            "rule": draw(st.sampled_from(("ks", "norm:3", "ids:1,2"))),
            "alpha": draw(_LEVELS),
            "correction": draw(st.sampled_from(("none", "bonferroni", "holm", "bh", "by"))),
            "method": draw(st.sampled_from(("exact", "asymptotic"))),
            "n": n,
            "tests": draw(st.integers(0, rows)),
            "h_alpha": draw(st.integers(0, n + 1)),
            "tau": draw(st.floats(0, 10, exclude_min=True)),
            "seed": draw(st.none() | st.integers(0, 2**40)),
            "counts": draw(st.none() | _bound()),
            "excluded": [{"reason": draw(_TEXT), "ids": group} for group in excluded],
        },
        "released": {
            "object": draw(st.sampled_from(("transfer", "tuned"))),
            "rows": draw(st.sampled_from((None, released))),
        },
        "tokens": [draw(_token(i, n)) for i in ids],
        "declared": draw(st.sampled_from(([], [claim]))),
        "evidence": draw(st.sampled_from(([], [located]))),
        "certificate": draw(st.sampled_from((None, located))),
    }


@st.composite
def ticket_files(draw: st.DrawFn) -> Json:
    """A valid ticket file: zero to three tickets of different names."""
    names = draw(st.lists(slugs(), unique=True, max_size=3))
    return {
        "schema": "certify.tickets",
        "schema_version": 2,
        "created_by": draw(_TEXT),
        "tickets": [draw(tickets(name=name)) for name in names],
    }


# Values that no field of a ticket takes where another kind stands, and the ends of the ranges.
_STRANGE: tuple[Json, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.5, 1.0, 1e308, 5e-324),
    *("", "1", "x" * 5000, "../x", "/etc/passwd", "0" * 64, "A" * 64, "\x1b[31m", "\ud800", "\u202e"),
    *([], {}, [[]], {"x": 1}, [0], [1, 1], [-1], [2, 1]),
)


@dataclass(frozen=True)
class Damage:
    """A change of parsed JSON: ``text`` says where and what, ``apply`` makes it on a copy."""

    text: str
    apply: Callable[[Json], Json]


def places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Path of every value inside ``value``, as keys and indices; the whole is ``()``."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from places(entry, (*path, index))


def lookup(value: Json, path: tuple[Any, ...]) -> Json:
    """The value at ``path``."""
    for step in path:
        value = value[step]
    return value


def _at(path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Callable[[Json], Json]:
    def apply(value: Json) -> Json:
        result = copy.deepcopy(value)
        change(lookup(result, path[:-1]), path[-1])
        return result

    return apply


def _drop(parent: Any, step: Any) -> None:
    del parent[step]


def _repeat(parent: Any, step: Any) -> None:
    if isinstance(parent, list):
        parent.insert(step, copy.deepcopy(parent[step]))
    else:
        parent[f"{step}_"] = copy.deepcopy(parent[step])


def _swap(parent: Any, step: Any) -> None:
    if isinstance(parent, list):
        parent.reverse()
    else:
        other = sorted(parent)[0] if sorted(parent)[0] != step else sorted(parent)[-1]
        parent[step], parent[other] = parent[other], parent[step]


def damage(value: Json, choose: Callable[[Sequence[Any]], Any]) -> Damage:
    """One change of ``value``: drop, repeat, swap, retype, replace by something strange, add a field, nudge.

    Args:
        value: parsed JSON, not empty.
        choose: picks one element of a sequence; ``random.Random(seed).choice`` will do.
    """
    path = choose(tuple(places(value))[1:])
    where = ".".join(map(str, path))
    target = lookup(value, path)
    kind = choose(("drop", "repeat", "swap", "strange", "add", "nudge"))
    if kind in ("drop", "repeat", "swap"):
        change = {"drop": _drop, "repeat": _repeat, "swap": _swap}[kind]
        return Damage(f"{kind} {where}", _at(path, change))
    if kind == "add" and isinstance(target, dict):
        name = choose(("x", "schema_", "__class__", "path", "verdict"))
        return Damage(f"add {where}.{name}", _at(path, lambda parent, step: parent[step].setdefault(name, 1)))
    if kind == "nudge" and isinstance(target, (int, float, str)) and not isinstance(target, bool):
        other = choose(_nudges(target))
    else:
        other = choose(_STRANGE)
    return Damage(
        f"set {where} to {other!r:.60}", _at(path, lambda parent, step: parent.__setitem__(step, other))
    )


@st.composite
def damages(draw: st.DrawFn, value: Json) -> Damage:
    """One change of ``value``, see :func:`damage`."""
    return damage(value, lambda options: draw(st.sampled_from(options)))


def _nudges(target: float | str) -> tuple[Any, ...]:
    if isinstance(target, str):
        return (target + "0", target[1:], target.upper(), " " + target, target + "\n", target[::-1])
    return (target + 1, target - 1, -target, target * 2, str(target), float(target), [target])

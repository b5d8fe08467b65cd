"""Files of a ticket's folder: tables, tokenizer, rows, template, counts, with the standard library alone.

Everything here treats its input as hostile: what is malformed stops with a status
and a reason code, and whatever else breaks is INVALID.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import math
import mmap
import os
import re
import stat
import struct
import tomllib
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from importlib.util import find_spec
from itertools import islice
from operator import lt
from pathlib import Path
from typing import Any, BinaryIO, Final

Json = dict[str, Any]
Moved = dict[int, tuple[int, float, float]]  # of rows that differ: h, norm of the difference, cosine
Item = tuple[str, str]  # status, empty for a pass, and reason code
SLUG: Final = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PASS: Final = ("", "")
HEAD: Final = re.compile(
    r"(^|\.)(lm_head|embed_out|output|output_layer|output_projection|head|proj_out|unembed)\.[^.]+$"
)
ELSEWHERE: Final = re.compile("vision|audio|speech|image|video|talker|qformer|quantization")
UNKNOWN: Final = ("NOT_RECOMPUTED", "INCONCLUSIVE")
MOVED: Final = {"moved.ids", "moved.bits"}


class Stop(Exception):
    """An answer that is not a pass: its status and its reason code."""


def need(fact: object, code: str = "MALFORMED", status: str = "INVALID") -> None:
    """Stop unless ``fact`` holds."""
    if not fact:
        raise Stop(status, code)


def there(*paths: Path) -> None:
    """One of these exists: a file that does not leaves open what it would have shown."""
    need(any(path.exists() for path in paths), "FILE_MISSING", "INCONCLUSIVE")


def answer(question: Callable[..., Any], *about: Any) -> tuple[Any, Item]:
    """What ``question`` returns, and the item that it makes."""
    try:
        return question(*about), PASS
    except Stop as stop:
        return None, (stop.args[0], stop.args[1])
    except Exception:  # hostile input can break anything: it never passes
        return None, ("INVALID", "MALFORMED")


def canonical(value: Any) -> bytes:
    """Canonical JSON of :mod:`certify.base.jsonio`: refuses NaN, infinity and half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def parse(data: bytes) -> Any:
    """Strict JSON: it has a canonical form, and no key occurs twice."""

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        value = dict(pairs)
        need(len(value) == len(pairs), "JSON_MALFORMED")
        return value

    def finite(text: str) -> float:
        need(math.isfinite(float(text)))
        return float(text)

    text = data.decode("utf-8") if len(data) <= 64 << 20 else ""
    value = json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=finite)
    if "\\u" in text:  # half of a surrogate pair has no canonical form
        canonical(value)
    return value


def sha(data: bytes | mmap.mmap) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def naturals(values: Any, most: int = 1 << 53) -> list[int]:
    """A list of integers from 0 to ``most - 1``; True is not one."""
    need(isinstance(values, list) and {*map(type, values)} <= {int})
    need(not values or (min(values) >= 0 and max(values) < most))
    whole: list[int] = values
    return whole


def level(text: str) -> Fraction:
    """A decimal strictly between 0 and 1."""
    need(re.fullmatch(r"0?\.[0-9]{1,60}", text) and Fraction(text) > 0, "LEVEL")
    return Fraction(text)


def increasing(values: Sequence[Any]) -> bool:
    """Strictly increasing."""
    return all(map(lt, values, islice(values, 1, None)))


def resource(*parts: str) -> bytes:
    """A data file that ships with this program: in the folder, or the archive, that holds its own folder."""
    spec = find_spec(__name__)
    loader: Any = spec and spec.loader
    home = Path(__file__).parent.parent
    return bytes(loader.get_data(str(home.joinpath(*parts))))


class Table:
    """Rows of a table in the served dtype, read one at a time from a memory map.

    ``len(table)`` rows; ``table[i]`` is the bytes of row i, rounded to ``served`` where the file has another
    dtype.
    """

    def __init__(self, data: Any, start: int, dtype: str, shape: list[int], served: str) -> None:
        self.data, self.start, self.dtype, self.shape, self.served = data, start, dtype, shape, served
        self.width = shape[1] * (4 if dtype == "F32" else 2)

    def __len__(self) -> int:
        return self.shape[0]

    def stored(self, i: int) -> bytes:
        """Row i as the file has it."""
        at = self.start + i * self.width
        return bytes(self.data[at : at + self.width])

    def __getitem__(self, i: int) -> bytes:
        row = self.stored(range(self.shape[0])[i])
        return row if self.dtype == self.served else pack(numbers(row, self.dtype), self.served)

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))


class Patched(Table):
    """A base in which some rows are others."""

    def __init__(self, base: Table, rows: dict[int, bytes], served: str) -> None:
        super().__init__(b"", 0, base.served, base.shape, served)
        self.base, self.rows = base, rows

    def stored(self, i: int) -> bytes:
        """Row i: the other one, or the base's."""
        return self.rows[i] if i in self.rows else self.base[i]


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, opened for reading: a pipe or a device is none, and nothing waits for one."""
    there(path)
    need(path.is_file(), "FILE_UNREADABLE")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags), "rb") as stream:
        need(stat.S_ISREG(os.fstat(stream.fileno()).st_mode), "FILE_UNREADABLE")
        yield stream


def fetch(path: Path) -> bytes:
    """The bytes of a regular file."""
    with opened(path) as stream:
        return stream.read()


class Folder:
    """Files of a folder, read as hostile input: inside it, regular, and with the digests stated for them."""

    def __init__(self, root: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.root, self.known, self.say = root.resolve(), dict[str, Any](), say

    def once(self, key: str, question: Callable[..., Any], *about: Any) -> Any:
        """What ``question`` returns or raises; asked once, because tickets share tables and evidence."""
        if key not in self.known:
            try:
                self.known[key] = question(*about)
            except Exception as error:
                self.known[key] = error
        if isinstance(self.known[key], Exception):
            raise self.known[key]
        return self.known[key]

    def path(self, relative: str, stated: object = None) -> Path:
        """Where a file of the folder lies; only one whose digest is stated may be a link that leads out."""
        path = self.root / relative
        plain = re.fullmatch(r"(?!/|[A-Za-z]:|(.*/)?\.\.(/|$))[^\\\x00-\x1f\x7f]{1,1024}", relative)
        need(plain and (stated or path.resolve().is_relative_to(self.root)), "PATH_ESCAPES")
        return path

    def read(self, relative: str, digest: str | None = None, *, packed: bool = False) -> bytes:
        """The bytes of a file; ``packed``: where only ``relative.xz`` is there, what that unpacks to."""
        path, other = self.path(relative, digest), self.path(f"{relative}.xz", digest)
        there(path, *[other] * packed)
        if path.exists():
            data = fetch(path)
        else:
            most = 64 + (other.stat().st_size >> 12)  # MiB, read in blocks: a small file can be a bomb
            with opened(other) as raw, lzma.open(raw) as stream:
                data = b"".join(islice(iter(lambda: stream.read(1 << 20), b""), most))
        if digest not in (None, sha(data)):
            converted = sha(data.replace(b"\r\n", b"\n")) == digest
            raise Stop("INVALID", "LINE_ENDINGS" if converted else "FILE_DIGEST")
        return data

    def mapped(self, path: Path) -> Any:
        """The bytes of a file as a memory map."""
        with opened(path) as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def bound(self, ref: Json, names: Sequence[str], default: str = "") -> dict[str, Any]:
        """By name the bytes of what a ticket binds, first, and of files beside it: all must be bound."""
        need(ref["path"] is not None, "NOT_GIVEN", "INCONCLUSIVE")
        held = dict[Path, Any]()
        for file in ref["files"]:
            path = self.path(file["path"], file["sha256"])
            data = self.once(f"file {path}", self.mapped, path)
            need(self.once(f"digest {path}", sha, data) == file["sha256"], "FILE_DIGEST")
            held[path.resolve()] = data
        path = self.path(ref["path"], any(ref["path"] == file["path"] for file in ref["files"]))
        path = path / default if path.is_dir() else path
        beside = [path, *(path.parent / name for name in names if (path.parent / name).is_file())]
        need({one.resolve() for one in beside} <= held.keys(), "FILE_UNBOUND")
        return {one.name: held[one.resolve()] for one in beside}

    def table(self, ref: Json, base: Json | None = None) -> Table:
        """A table in the served dtype, all of it hashed and finite; ``base``: what moved rows differ from."""
        table: Table = self.once(f"table {canonical([ref, base])!r}", self.verified, ref, base)
        return table

    def verified(self, ref: Json, base: Json | None) -> Table:
        """The same, without asking whether it was opened before."""
        self.single(ref)
        (file,) = self.bound(ref, (), "model.safetensors").values()
        if tensors(file).keys() == MOVED:
            table = self.moved(ref, base, file, self.table)
        else:
            _, *configs = self.bound(ref, ("config.json",), "model.safetensors").values()
            table = self.opened(ref, file, [bytes(one) for one in configs])
        self.say(f"{ref['path']}: {len(table)} rows")
        total = hashlib.sha256(canonical({"dtype": ref["dtype"], "shape": ref["shape"]}) + b"\n")
        for row in table:
            total.update(row)
            numbers(row, ref["dtype"])
        need(total.hexdigest() == ref["tensor_sha256"], "WRONG_TABLE")
        return table

    def peek(self, ref: Json, base: Json | None = None) -> Table:
        """The table where only some rows are wanted: neither hashed nor scanned."""
        file = self.once(f"file {(path := self.single(ref))}", self.mapped, path)
        moved = tensors(file).keys() == MOVED
        return self.moved(ref, base, file, self.peek) if moved else self.opened(ref, file, [])

    def moved(self, ref: Json, base: Any, file: Any, open_base: Callable[[Json], Table]) -> Table:
        """The table that moved rows make of a base: its bits flipped where those of the file are set."""
        need(base, "BASE_NEEDED", "INCONCLUSIVE")
        need((ref["shape"], ref["tied"]) == (base["shape"], base["tied"]), "WRONG_TABLE")
        stated = parse(bytes(file[8 : 8 + int.from_bytes(file[:8], "little")]))["__metadata__"]
        dtype, sha256 = stated["certify.base_dtype"], stated["certify.base_tensor_sha256"]
        before = open_base(base | {"dtype": dtype, "tensor_sha256": sha256})
        found = tensors(file)
        (kind, [count], at), (packed, [length], start) = found["moved.ids"], found["moved.bits"]
        need((kind, packed) == ("I64", "U8") and dtype in ("F32", "F16", "BF16"))
        ids = naturals([*struct.unpack(f"<{count}q", file[at : at + 8 * count])], len(before))
        need(ids and increasing(ids))
        width, entry = len(before[0]), 4 if dtype == "F32" else 2
        unpacker, flipped = zlib.decompressobj(), bytearray(count * width)
        planes = unpacker.decompress(bytes(file[start : start + length]), len(flipped) + 1)
        need(len(planes) == len(flipped) and unpacker.eof and not unpacker.unused_data)
        for byte in range(entry):
            flipped[byte::entry] = planes[byte * len(planes) // entry : (byte + 1) * len(planes) // entry]
        rows = dict[int, bytes]()
        for i, at in zip(ids, range(0, len(flipped), width), strict=True):
            bits = int.from_bytes(before[i]) ^ int.from_bytes(flipped[at : at + width])
            rows[i] = bits.to_bytes(width)
        return Patched(before, rows, ref["dtype"])

    def single(self, ref: Json) -> Path:
        """The one safetensors file that holds a table; of no other kind is anything computed again."""
        path = self.path(ref["path"] or "none.safetensors", ref["files"])
        if path.is_dir() and not (path / "model.safetensors.index.json").exists():
            path = path / "model.safetensors"
        need(path.suffix == ".safetensors", *UNKNOWN)
        return path

    def opened(self, ref: Json, file: Any, configs: Sequence[bytes]) -> Table:
        """The tensor that a ticket names, in a file of the folder."""
        need(ref["tensor"], *UNKNOWN)
        found = tensors(file)
        for config in map(parse, configs):
            parts = [*nested(config)]
            need(all(part.get("quantization_config") is None for part in parts), "QUANTISED_TABLE")
            tied = [part["tie_word_embeddings"] for part in parts if "tie_word_embeddings" in part]
            need(tied, *UNKNOWN)  # the architecture decides
            need(any(tied) or len(found) == 1 or any(HEAD.search(name) for name in found), "HEAD_MISSING")
            need(ref["tied"] is any(tied), "TABLE_TIED")
        stem = ref["tensor"].removesuffix("weight")
        need(stem == ref["tensor"] or sum(name.startswith(stem) for name in found) == 1, "QUANTISED_TABLE")
        dtype, shape, start = found[ref["tensor"]]
        need(dtype in ("F32", "F16", "BF16") and shape == ref["shape"], "WRONG_TABLE")
        return Table(file, start, dtype, shape, ref["dtype"])

    def rows(self, ticket: Json) -> list[bytes]:
        """The released rows in the served dtype."""
        ref, ids = ticket["released"]["rows"], [row["id"] for row in ticket["tokens"]]
        need(ref, "NO_ROWS", "INCONCLUSIVE")
        data = self.read(ref["path"], ref["sha256"])
        found = tensors(data)
        dtype, shape = ticket["base"]["dtype"], [len(ids), ticket["base"]["shape"][1]]
        wanted = {"ids": ("I64", shape[:1]), "rows.fp32": ("F32", shape), "rows.served": (dtype, shape)}
        need({name: one[:2] for name, one in found.items()} == wanted, "ROWS_DISAGREE")
        fp32, served = (
            [*Table(data, found[f"rows.{name}"][2], *kind)]
            for name, kind in (("fp32", ("F32", shape, "F32")), ("served", (dtype, shape, dtype)))
        )
        need(digest("F32", shape, fp32) == ref["fp32_sha256"], "ROWS_DIGEST")
        need(digest(dtype, shape, served) == ref["served_sha256"], "ROWS_DIGEST")
        need(data[found["ids"][2] :].startswith(struct.pack(f"<{len(ids)}q", *ids)), "ROWS_DISAGREE")
        need([pack(numbers(row, "F32"), dtype) for row in fp32] == served, "ROWS_DISAGREE")
        return [row for row in served if numbers(row, dtype)]

    def template(self, ref: Json | None) -> None:
        """Is the prompt template the one that the ticket binds?"""
        if ref:
            need(ref.get("path") is not None or SLUG.fullmatch(ref["name"]), "TEMPLATE_DIGEST")
            data = (
                fetch(self.path(ref["path"], ref["sha256"]))
                if ref.get("path")
                else resource("ticket", "prompts", f"{ref['name']}.toml")
            )
            need(sha(canonical(tomllib.loads(data.decode("utf-8")))) == ref["sha256"], "TEMPLATE_DIGEST")

    def counts(self, ref: Json) -> list[int]:
        """Token counts in an ``.npy`` file of little-endian 64-bit integers, as the package writes it."""
        data = self.read(ref["path"], ref["sha256"])
        start = 10 + int.from_bytes(data[8:10], "little")
        need(data[:8] == b"\x93NUMPY\x01\x00" and b"'descr': '<i8'" in data[:start], *UNKNOWN)
        return naturals([*struct.unpack(f"<{(len(data) - start) // 8}q", data[start:])])


def nested(config: Any, key: str = "") -> Iterator[Json]:
    """A configuration and those inside it, but not of models for pictures or sound."""
    if isinstance(config, dict) and not ELSEWHERE.search(key):
        yield config
        for name, inner in config.items():
            yield from nested(inner, name)


def tensors(data: Any) -> dict[str, tuple[str, list[int], int]]:
    """Type, shape and place of every tensor of a safetensors file; each byte belongs to one of them."""
    at = start = 8 + int.from_bytes(data[:8], "little")
    need(data[8:9] == b"{" and start <= len(data), "SAFETENSORS_MALFORMED")
    header, found = parse(bytes(data[8:start])), {}
    header.pop("__metadata__", None)
    for name, one in sorted(header.items(), key=lambda pair: naturals(pair[1]["data_offsets"])):
        dtype, shape, (first, last) = one["dtype"], naturals(one["shape"]), one["data_offsets"]
        size = math.prod(shape) * int((re.search("[0-9]+", dtype) or "8")[0])
        need(start + first == at and 8 * (last - first) == size, "SAFETENSORS_OFFSETS")
        found[name], at = (dtype, shape, at), start + last
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

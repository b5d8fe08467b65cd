"""Pieces and special ids of a tokenizer, from its files alone."""

from __future__ import annotations

import re
from typing import Final

from .tables import Folder, Json, canonical, naturals, need, parse, sha

Vocabulary = tuple[dict[int, str], dict[int, str], int | None]
CONFIGS: Final = ("tokenizer_config.json", "special_tokens_map.json", "config.json", "generation_config.json")


def vocabulary(folder: Folder, ref: Json | None) -> Vocabulary:
    """Pieces by id, descriptions of the special ids, and one more than the largest id."""
    if not ref:
        return {}, {}, None
    files = {name: bytes(data) for name, data in folder.bound(ref, CONFIGS, "tokenizer.json").items()}
    found: Vocabulary = folder.once(f"vocabulary {canonical(ref)!r}", read, ref, files)
    return found


def read(ref: Json, files: dict[str, bytes]) -> Vocabulary:
    """The same from ``files``: ``tokenizer.json``, then its configurations."""
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


def ordinary(text: str) -> bool:
    """Byte pieces and white space are ordinary text, whatever their flags say."""
    return bool(re.fullmatch("<0x[0-9A-Fa-f]{2}>", text)) or text.replace("▁", " ").isspace()

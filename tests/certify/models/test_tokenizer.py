"""Fast tokenizers from pieces: the ids that SentencePiece, or the tokenizer they came from, makes."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")
tokenizers = pytest.importorskip("tokenizers")
sentencepiece = pytest.importorskip("sentencepiece")

from tiny_gguf import tied_llama, write_gguf  # noqa: E402
from tiny_llama import save_checkpoint  # noqa: E402
from tiny_tokenizer import TEXT  # noqa: E402

from certify.base.errors import CertifyError  # noqa: E402
from certify.models import sentencepiece as fast_form  # noqa: E402
from certify.models.importing import import_model  # noqa: E402
from certify.models.pieces import Pieces, pieces_of_model  # noqa: E402
from certify.models.sentencepiece import pieces_of_checkpoint  # noqa: E402
from certify.models.tokenizer import tokenizer_json  # noqa: E402
from certify.tables.tokenisation import PROBES  # noqa: E402
from certify.tables.vocabulary import open_vocabulary  # noqa: E402
from lottery.model.tokenizer import load_tokenizer  # noqa: E402

TEXTS = [*TEXT, *(text for text in PROBES if "<" not in text), "On és   la casa?", "a"]


def trained(path: Path, **changes: object) -> Path:
    model = io.BytesIO()
    settings: dict[str, object] = {
        "model_type": "bpe",
        "vocab_size": 400,
        "byte_fallback": True,
        "character_coverage": 0.98,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["[x]", "[y]"],
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 3), model_writer=model, **(settings | changes)
    )
    path.write_bytes(model.getvalue())
    return path


@pytest.mark.parametrize("prefix", [True, False])
def test_it_makes_the_ids_of_sentencepiece(prefix: bool, tmp_path: Path) -> None:
    path = trained(tmp_path / "tokenizer.model", add_dummy_prefix=prefix)
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = pieces_of_model(path, around=(False, False))
    made = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(pieces)))
    assert pieces.roles == {"unk": oracle.unk_id(), "bos": oracle.bos_id(), "eos": oracle.eos_id()}
    assert list(pieces.texts) == [oracle.id_to_piece(i) for i in range(oracle.get_piece_size())]
    # Behind a user-defined piece, a fast tokenizer puts another space, as llama.cpp does.
    for text in [*TEXTS, *(() if prefix else ("[x][y]", "a [x]b  [y]"))]:
        ids = oracle.encode(text)
        assert made.encode(text).ids == ids, text
        assert made.decode(ids) == oracle.decode(ids), text
    assert any(len(oracle.encode(text)) < len(text) / 2 for text in TEXTS)  # it merges


def test_a_checkpoint_that_has_only_sentencepiece(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", vocab_size=400)
    path = trained(base / "tokenizer.model")
    (base / "tokenizer.json").unlink()
    settings = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "chat_template": "{{ 1 }}"}
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CertifyError, match="certify model import makes its fast form"):
        open_vocabulary(base)
    import_model([base], tmp_path / "out")
    vocabulary, loaded = open_vocabulary(tmp_path / "out"), load_tokenizer(tmp_path / "out")
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert vocabulary.special == {0: "unk <unk>", 1: "bos <s>", 2: "eos </s>"}
    assert [vocabulary.piece(i) for i in (3, 4, 300)] == [oracle.id_to_piece(i) for i in (3, 4, 300)]
    assert loaded(TEXT[1])["input_ids"] == [1, *oracle.encode(TEXT[1])]
    assert loaded.chat_template == "{{ 1 }}"
    assert sorted(one.name for one in (tmp_path / "out").glob("tokenizer*")) == [
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    (base / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<unk>"}))
    import_model([base], tmp_path / "padded")
    assert load_tokenizer(tmp_path / "padded").pad_token_id == 0
    (base / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>"}))
    with pytest.raises(CertifyError, match=r"name '<pad>' \('pad_token'\) otherwise than tokenizer.model"):
        import_model([base], tmp_path / "refused")


BESIDE = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


def beside(folder: Path, *contents: object) -> Path:
    """A folder with a ``tokenizer.model`` (``<unk> <s> </s> [x] [y]``, …) and these files beside it."""
    trained(folder / "tokenizer.model")
    for name, content in zip(BESIDE, contents, strict=False):
        (folder / name).write_text(json.dumps(content))
    return folder


def added(text: str, **flags: object) -> dict[str, object]:
    off = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
    return {"content": text, "normalized": True, **off, **flags}


BOS = {"__type": "AddedToken", **added("<s>")}


@pytest.mark.parametrize(
    ("contents", "pad"),
    [
        (
            [{"bos_token": "", "eos_token": "", "unk_token": "", "tokenizer_class": "LLaMATokenizer"}, {}],
            None,
        ),
        ([{"bos_token": BOS, "pad_token": None, "add_bos_token": True, "add_prefix_space": True}], None),
        (
            [{"added_tokens_decoder": {"1": added("<s>", special=True), "3": added("[x]", special=False)}}],
            None,
        ),
        (
            [{"pad_token": "<unk>"}, {"bos_token": "<s>", "pad_token": added("<unk>")}, {"<s>": 1, "[y]": 4}],
            0,
        ),
        ([{"extra_special_tokens": {}, "split_special_tokens": False, "mask_token": "</s>"}], None),
        ([], None),
    ],
)
def test_what_settings_say_as_well_is_taken(contents: list[object], pad: int | None, tmp_path: Path) -> None:
    roles = pieces_of_checkpoint(beside(tmp_path, *contents)).roles
    assert roles == {"unk": 0, "bos": 1, "eos": 2} | ({} if pad is None else {"pad": pad})


@pytest.mark.parametrize(
    "contents",
    [
        [{"bos_token": "</s>", "eos_token": "<s>"}],
        [{}, {"bos_token": "</s>"}],
        [{"pad_token": "<pad>"}],
        [{"pad_token": "[x]"}],
        [{"bos_token": BOS | {"lstrip": True}}],
        [{"add_prefix_space": False}],
        [{"added_tokens_decoder": {"400": added("<x>", special=True)}}],
        [{"added_tokens_decoder": {"2": added("<s>", special=True)}}],
        [{"added_tokens_decoder": {"3": added("[x]", special=True)}}],
        [{"added_tokens_decoder": {"1": added("<s>", rstrip=True)}}],
        [{"added_tokens_decoder": [added("<s>")]}],
        [{"additional_special_tokens": ["▁a"]}],
        [{"extra_special_tokens": {"image_token": "[x]"}}],
        [{"chat_template": [{"name": "default", "template": ""}]}],
        [{}, {}, {"<x>": 400}],
        [{}, {}, {"<s>": 2}],
        [[]],
        [{}, "<s>"],
    ],
)
def test_what_settings_say_otherwise_is_refused(contents: list[object], tmp_path: Path) -> None:
    with pytest.raises(CertifyError) as caught:
        pieces_of_checkpoint(beside(tmp_path, *contents))
    assert caught.value.code == "TOKENIZER_UNSUPPORTED"


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "unigram", "vocab_size": 310},
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
    ],
)
def test_what_changes_text_or_is_not_bpe_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    path = trained(tmp_path / "tokenizer.model", **changes)
    with pytest.raises(CertifyError) as caught:
        pieces_of_model(path, around=(True, False))
    assert caught.value.code == "TOKENIZER_UNSUPPORTED"


def test_no_cut_and_no_changed_byte_is_more_than_an_error(tmp_path: Path) -> None:
    data = trained(tmp_path / "tokenizer.model").read_bytes()
    path = tmp_path / "bad.model"
    for position in [*range(60), *range(len(data) - 300, len(data), 7)]:
        for bad in (data[:position], data[:position] + bytes([data[position] ^ 0xA5]) + data[position + 1 :]):
            path.write_bytes(bad)
            with suppress(CertifyError):
                tokenizer_json(pieces_of_model(path, around=(True, True)))


@pytest.mark.parametrize(
    ("message", "field"), [*((2, i) for i in (3, 40, 41, 42, 43)), (3, 3), (3, 4), (1, 3)]
)
def test_a_number_that_is_none_is_refused(message: int, field: int, tmp_path: Path) -> None:
    path = trained(tmp_path / "tokenizer.model")
    piece = [1 << 3 | 2, 1, ord("Q")] if message == 1 else []
    body = bytes([*piece, *varint(field << 3 | 2), 1, ord("x")])  # bytes, the last of which count
    path.write_bytes(path.read_bytes() + bytes([message << 3 | 2, len(body)]) + body)
    with pytest.raises(CertifyError) as caught:
        pieces_of_model(path, around=(True, True))
    assert caught.value.code == "TOKENIZER_MALFORMED"


def varint(number: int) -> list[int]:
    return [number] if number < 128 else [number & 127 | 128, *varint(number >> 7)]


@pytest.mark.parametrize("digits", [True, False])
def test_pieces_of_bytes_make_the_ids_of_their_tokenizer(digits: bool) -> None:
    from tokenizers import decoders, models, pre_tokenizers, trainers

    oracle = tokenizers.Tokenizer(models.BPE())
    cut = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    oracle.pre_tokenizer = pre_tokenizers.Sequence([*cut, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    oracle.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|end|>", "<|start|>"]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet)
    oracle.train_from_iterator([*TEXT, "year 2024 and 2023, 2024"] * 3, trainer)
    content = json.loads(oracle.to_str())["model"]
    texts = sorted(content["vocab"], key=content["vocab"].get)
    pieces = Pieces(
        texts,
        [3 if text in special else 1 for text in texts],
        {"bos": 1, "eos": 0},
        merges=[" ".join(pair) for pair in content["merges"]],
        split="smollm" if digits else "gpt-2",
        around=(True, True),
    )
    made = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(pieces)))
    for text in [*TEXTS, *PROBES, "in 2024", "<|end|>x"]:
        ids = oracle.encode(text).ids
        assert made.encode(text, add_special_tokens=False).ids == ids, text
        assert made.encode(text).ids == [1, *ids, 0], text
    bare = tokenizer_json(replace(pieces, roles={"eos": 0}))  # asked for, but there is none
    assert tokenizers.Tokenizer.from_str(json.dumps(bare)).encode("a").ids[-1:] == [0]
    assert tokenizer_json(replace(pieces, roles={}))["post_processor"] is None
    with pytest.raises(CertifyError, match="cuts text by 'qwen2'"):
        tokenizer_json(Pieces(texts, [], {}, split="qwen2"))


def of_bytes(split: str, **changes: Any) -> dict[str, Any]:
    """Settings of 320 pieces of bytes, for ``write_gguf``."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    pairs = [f"{a} {b}" for a in "abcdefgh" for b in "abcdefgh"][: 318 - len(alphabet)]
    own = {
        "model": "gpt2",
        "pre": split,
        "tokens": ["<|end|>", "<|start|>", *alphabet, *(pair.replace(" ", "") for pair in pairs)],
        "token_type": [3, 3, *[1] * 318],
        "scores": None,
        "merges": pairs,
        "bos_token_id": 1,
        "eos_token_id": 0,
    }
    return {f"tokenizer__ggml__{key}": one for key, one in (own | changes).items()}


# llama.cpp, llama_vocab::load(): add_bos is true for llama-bpe, and not for gpt-2 and smollm.
@pytest.mark.parametrize(
    ("split", "stated", "front"),
    [("llama-bpe", None, [1]), ("llama-bpe", False, []), ("gpt-2", None, []), ("smollm", True, [1])],
)
def test_texts_begin_as_in_llama_cpp(
    split: str, stated: bool | None, front: list[int], tmp_path: Path
) -> None:
    file = write_gguf(tmp_path / "m.gguf", tied_llama(), **of_bytes(split, add_bos_token=stated))
    import_model([file], tmp_path / "out")
    made = load_tokenizer(tmp_path / "out")
    assert made("abc")["input_ids"] == [*front, *made("abc", add_special_tokens=False)["input_ids"]]


def test_a_beginning_without_a_token_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", tied_llama(), **of_bytes("llama-bpe", bos_token_id=None))
    with pytest.raises(CertifyError, match="begin or end with a token that it does not name"):
        import_model([file], tmp_path / "out")


def test_sentencepiece_without_ids_has_those_of_llama_cpp(tmp_path: Path) -> None:
    unnamed = {f"tokenizer__ggml__{role}_token_id": None for role in ("bos", "eos")}
    import_model([write_gguf(tmp_path / "m.gguf", tied_llama(), **unnamed)], tmp_path / "out")
    made = load_tokenizer(tmp_path / "out")
    assert (made.bos_token_id, made.eos_token_id, made.unk_token_id) == (1, 2, 0)
    assert made("一")["input_ids"][0] == 1
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)


def chain(longest: int) -> Pieces:
    """Pieces a, aa, … as SentencePiece: every cut of each is a merge."""
    texts = ["<unk>", *("a" * i for i in range(1, longest + 1))]
    return Pieces(texts, [2] + [1] * longest, {"unk": 0}, [-float(i) for i in range(len(texts))])


def test_merges_that_grow_with_the_cube_of_a_piece_are_refused_before_they_are_made() -> None:
    assert len(tokenizer_json(chain(40))["model"]["merges"]) == 40 * 39 // 2
    with pytest.raises(CertifyError) as caught:
        tokenizer_json(chain(800))  # 170 MB
    assert caught.value.code == "TOKENIZER_UNSUPPORTED"


def test_no_tokenizer_is_written_that_readers_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_gguf(tmp_path / "m.gguf", tied_llama(), tokenizer__chat_template="x" * 2**16)
    monkeypatch.setattr(fast_form, "MAX_JSON_BYTES", 2**16)
    with pytest.raises(CertifyError, match="more than readers take") as caught:
        import_model([file], tmp_path / "out")
    assert caught.value.code == "TOKENIZER_UNSUPPORTED"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pair", ["z z", " z", "z ", "中 z", "zz", "a b c"])
def test_a_merge_outside_the_vocabulary_is_refused(pair: str, tmp_path: Path) -> None:
    settings = of_bytes("gpt-2")
    settings["tokenizer__ggml__merges"] = [*settings["tokenizer__ggml__merges"], pair]
    with pytest.raises(CertifyError, match="merges and special ids do not fit together") as caught:
        import_model([write_gguf(tmp_path / "m.gguf", tied_llama(), **settings)], tmp_path / "out")
    assert caught.value.code == "TOKENIZER_MALFORMED"


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("bos_token_id", True, "TOKENIZER_UNSUPPORTED"),
        ("bos_token_id", 1.0, "TOKENIZER_UNSUPPORTED"),
        ("token_type", [True] * 320, "TOKENIZER_UNSUPPORTED"),
        ("token_type", [1.0] * 320, "TOKENIZER_UNSUPPORTED"),
        ("scores", [1] * 320, "TOKENIZER_UNSUPPORTED"),
        ("scores", [float("nan")] * 320, "TOKENIZER_MALFORMED"),
        ("scores", [float("-inf")] * 320, "TOKENIZER_MALFORMED"),
    ],
)
def test_numbers_of_another_type_are_refused(key: str, value: Any, code: str, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "m.gguf", tied_llama(), **{f"tokenizer__ggml__{key}": value})
    with pytest.raises(CertifyError) as caught:
        import_model([file], tmp_path / "out")
    assert caught.value.code == code

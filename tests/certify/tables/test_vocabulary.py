"""Vocabularies: pieces and special ids from tokenizer.json alone; the tokenizers library is the oracle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import table_strategies as strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.tables.vocabulary import MAX_ID, MAX_PIECE_CHARS, Vocabulary, open_vocabulary

BPE = {"<unk>": 0, "<s>": 1, "</s>": 2, "<0x0A>": 3, "▁the": 4, "e": 5}


def added(token_id: object, content: object, special: object = True) -> dict[str, object]:
    return {"id": token_id, "content": content, "special": special, "lstrip": False}


def write(folder: Path, *, vocab=None, kind="BPE", tokens=(), model=None, **files: object) -> Path:
    """A folder with tokenizer.json and, as NAME=content, further JSON files."""
    body = {"type": kind, "vocab": BPE if vocab is None else vocab, **(model or {})}
    content = {"version": "1.0", "added_tokens": list(tokens), "model": body}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def refusal(path: Path) -> CertifyError:
    with pytest.raises(CertifyError) as caught:
        open_vocabulary(path)
    assert "\n" not in str(caught.value)
    return caught.value


# ----------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("kind", "vocab"),
    [
        ("BPE", BPE),
        ("WordPiece", BPE),
        ("WordLevel", BPE),
        ("Unigram", [[piece, -float(i)] for i, piece in enumerate(BPE)]),
    ],
)
def test_every_kind_of_model(tmp_path, kind, vocab):
    write(tmp_path, vocab=vocab, kind=kind)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        vocabulary = open_vocabulary(path)
        assert (vocabulary.path, vocabulary.size) == (tmp_path / "tokenizer.json", 6)
        assert dict(vocabulary.pieces) == {i: piece for piece, i in BPE.items()}
        assert vocabulary.piece(4) == "▁the"
        assert vocabulary.piece(6) is None
        assert vocabulary.piece(-1) is None


def test_added_tokens_extend_and_override_and_may_leave_holes(tmp_path):
    write(tmp_path, tokens=[added(5, "<mask>", False), added(9, "<extra>", False), added(1, "<s>", False)])
    vocabulary = open_vocabulary(tmp_path)
    assert vocabulary.size == 10
    assert [vocabulary.piece(i) for i in (1, 5, 7, 9)] == ["<s>", "<mask>", None, "<extra>"]


def test_no_added_tokens_at_all(tmp_path):
    write(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    del content["added_tokens"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert open_vocabulary(tmp_path).size == 6


def test_a_vocabulary_cannot_be_changed(tmp_path):
    vocabulary = open_vocabulary(write(tmp_path, tokens=[added(1, "<s>")]))
    for mapping in (vocabulary.pieces, vocabulary.special):
        with pytest.raises(TypeError):
            mapping[0] = "x"


# ---------------------------------------------------------------------------------------------------- special


def test_flagged_added_tokens_are_special_but_bytes_and_white_space_are_not(tmp_path):
    texts = ["<unk>", "<|im_end|>", "<0x0A>", "<0xfF>", "\n", " \t ", "▁▁", "<0x0A", "<0xGG>", "plain"]
    write(
        tmp_path,
        vocab={text: i for i, text in enumerate(texts)},
        tokens=[added(i, t) for i, t in enumerate(texts)],
    )
    special = open_vocabulary(tmp_path).special
    assert special == {
        0: "special <unk>",
        1: "special <|im_end|>",
        7: "special <0x0A",
        8: "special <0xGG>",
        9: "special plain",
    }


def test_an_added_token_without_the_flag_is_not_special(tmp_path):
    write(tmp_path, tokens=[added(4, "▁the", False)])
    assert open_vocabulary(tmp_path).special == {}


@pytest.mark.parametrize("file", ["tokenizer_config", "special_tokens_map"])
@pytest.mark.parametrize("role", ["bos", "eos", "unk", "pad", "cls", "sep", "mask"])
@pytest.mark.parametrize("spelling", ["<s>", {"content": "<s>", "lstrip": False}])
def test_roles_by_text(tmp_path, file, role, spelling):
    write(tmp_path, **{file: {f"{role}_token": spelling}})
    assert open_vocabulary(tmp_path).special == {1: f"{role} <s>"}


@pytest.mark.parametrize("file", ["config", "generation_config"])
@pytest.mark.parametrize(("ids", "expected"), [(2, {2}), ([2, 1], {1, 2}), ([], set()), (None, set())])
def test_roles_by_id(tmp_path, file, ids, expected):
    write(tmp_path, **{file: {"eos_token_id": ids}})
    special = open_vocabulary(tmp_path).special
    assert set(special) == expected
    assert all(name.startswith("eos ") for name in special.values())


def test_a_role_wins_over_ordinary_text(tmp_path):
    write(tmp_path, tokenizer_config={"eos_token": "<0x0A>", "additional_special_tokens": ["▁the", "<0x0A>"]})
    assert open_vocabulary(tmp_path).special == {3: "eos <0x0A>", 4: "additional ▁the"}


def test_a_listed_byte_piece_is_ordinary(tmp_path):
    write(tmp_path, tokenizer_config={"additional_special_tokens": ["<0x0A>"]})
    assert open_vocabulary(tmp_path).special == {}


@pytest.mark.parametrize("value", [["▁the"], [{"content": "▁the"}], {"image_token": "▁the"}])
@pytest.mark.parametrize("key", ["additional_special_tokens", "extra_special_tokens"])
def test_additional_tokens(tmp_path, key, value):
    write(tmp_path, special_tokens_map={key: value})
    assert open_vocabulary(tmp_path).special == {4: "additional ▁the"}


def test_the_unknown_token_of_the_model(tmp_path):
    assert open_vocabulary(write(tmp_path, model={"unk_token": "<unk>"})).special == {0: "unk <unk>"}
    unigram = [[piece, 0.0] for piece in BPE]
    write(tmp_path, vocab=unigram, kind="Unigram", model={"unk_id": 0})
    assert open_vocabulary(tmp_path).special == {0: "unk <unk>"}


def test_several_roles_are_named_once_each(tmp_path):
    write(
        tmp_path,
        tokens=[added(2, "</s>")],
        tokenizer_config={"bos_token": "</s>", "eos_token": "</s>"},
        config={"bos_token_id": 2, "eos_token_id": [2], "pad_token_id": 2},
    )
    assert open_vocabulary(tmp_path).special == {2: "bos/eos/pad </s>"}


def test_roles_without_an_id_are_no_ids(tmp_path):
    vocab = {**BPE, "": 6}
    config = {"pad_token_id": -1, "eos_token_id": 50_000, "bos_token_id": None}
    tokens = {"pad_token": "<pad>", "bos_token": None, "additional_special_tokens": None}
    write(tmp_path, vocab=vocab, config=config, tokenizer_config=tokens)
    assert open_vocabulary(tmp_path).special == {}


def test_the_files_that_decided_are_listed(tmp_path):
    write(tmp_path, generation_config={}, tokenizer_config={}, unrelated={})
    assert [file.name for file in open_vocabulary(tmp_path).files] == [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ]


# ---------------------------------------------------------------------------------------------------- oracles


def test_the_real_tokenizer(real_tables):
    vocabulary = open_vocabulary(real_tables.base)
    assert vocabulary.size == 8000
    # Its byte pieces and the newline are flagged special, although models read and write them as text.
    assert vocabulary.special == {0: "unk <unk>", 1: "bos <s>", 2: "eos </s>"}
    assert vocabulary.piece(3) == "\n"
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer.from_file(str(real_tables.base / "tokenizer.json"))
    assert dict(vocabulary.pieces) == {i: piece for piece, i in library.get_vocab().items()}


@given(
    pieces=st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=12, unique=True),
    more=st.lists(st.text(min_size=1, max_size=6), max_size=4, unique=True),
)
def test_the_tokenizers_library_agrees(tmp_path_factory, pieces, more):
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=pieces[0])
    )
    library.add_special_tokens(more[:2])
    library.add_tokens(more[2:])
    path = tmp_path_factory.mktemp("library") / "tokenizer.json"
    library.save(str(path))
    assert dict(open_vocabulary(path).pieces) == {i: piece for piece, i in library.get_vocab().items()}


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "vocab",
    [
        {},
        [],
        "text",
        None,
        {"a": -1},
        {"a": MAX_ID},
        {"a": 2**70},
        {"a": 1.0},
        {"a": True},
        {"a": "1"},
        {"a": None},
        {"a": 0, "b": 0},
        {"x" * (MAX_PIECE_CHARS + 1): 0},
        [["a"]],
        [["a", 0.0, 1]],
        [[1, 0.0]],
        ["a"],
    ],
)
def test_hostile_vocabularies(tmp_path, vocab):
    write(tmp_path, vocab=BPE, model={"vocab": vocab})
    error = refusal(tmp_path)
    assert (type(error), error.code) == (InvalidInputError, "TOKENIZER_MALFORMED")


def test_half_of_a_surrogate_pair_is_no_piece(tmp_path):
    write(tmp_path, vocab=BPE, model={"vocab": {"\ud800": 0}})
    error = refusal(tmp_path)
    assert (type(error), error.code) == (InvalidInputError, "JSON_MALFORMED")


@pytest.mark.parametrize(
    "tokens",
    [
        {"0": "a"},
        ["a"],
        [added(-1, "a")],
        [added(MAX_ID, "a")],
        [added(True, "a")],
        [added(6, None)],
        [added(6, 5)],
        [added(6, "a", "yes")],
        [added(6, "a"), added(6, "b")],
        [added(6, "a"), added(7, "a")],
        [added(6, "<s>")],  # the library would give it id 1, whatever the file says
        [{"content": "a"}],
    ],
)
def test_hostile_added_tokens(tmp_path, tokens):
    content = {"added_tokens": tokens, "model": {"type": "BPE", "vocab": BPE}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert refusal(tmp_path).code == "TOKENIZER_MALFORMED"


@pytest.mark.parametrize("content", [[], {}, {"model": []}, {"model": {}}, 5, None])
def test_tokenizers_of_another_shape(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert refusal(tmp_path).code == "TOKENIZER_MALFORMED"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config", []),
        ("tokenizer_config", {"bos_token": 5}),
        ("tokenizer_config", {"bos_token": {"content": 5}}),
        ("special_tokens_map", {"additional_special_tokens": "x"}),
        ("special_tokens_map", {"additional_special_tokens": [5]}),
        ("config", {"eos_token_id": "2"}),
        ("config", {"eos_token_id": [True]}),
        ("config", {"eos_token_id": [[2]]}),
        ("generation_config", {"pad_token_id": 1.5}),
    ],
)
def test_hostile_files_beside_it(tmp_path, file, content):
    write(tmp_path, **{file: content})
    error = refusal(tmp_path)
    assert error.code == "TOKENIZER_MALFORMED"
    assert file in str(error)


@pytest.mark.parametrize("text", ["", "{", '{"model":1,"model":2}', "[" * 1000, "NaN"])
def test_no_strict_json(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    assert refusal(tmp_path).code.startswith("JSON_")


def test_missing_files(tmp_path):
    for path in (tmp_path, tmp_path / "tokenizer.json", tmp_path / ("x" * 5000)):
        error = refusal(path)
        assert (type(error), error.code) == (UsageError, "FILE_UNREADABLE")


def test_a_tokenizer_over_the_limit_is_refused(tmp_path):
    with (tmp_path / "tokenizer.json").open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    assert refusal(tmp_path).code == "FILE_TOO_LARGE"


def open_or_refuse(path: Path) -> Vocabulary | None:
    """The vocabulary, or None where it is refused; any other exception fails the test."""
    try:
        return open_vocabulary(path)
    except CertifyError:
        return None


@settings(max_examples=examples(200))
@given(st.data())
def test_damaged_files_are_refused_or_give_a_consistent_vocabulary(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    write(folder, tokens=[added(1, "<s>"), added(6, "<x>")], config={"eos_token_id": [2]})
    victim = folder / data.draw(st.sampled_from(["tokenizer.json", "config.json"]))
    victim.write_bytes(data.draw(strategies.mutants(victim.read_bytes())))
    vocabulary = open_or_refuse(folder)
    if vocabulary is not None:
        assert vocabulary.size == 1 + max(vocabulary.pieces)
        assert all(0 <= token_id < vocabulary.size for token_id in vocabulary.special)
        "".join(vocabulary.pieces.values()).encode("utf-8")

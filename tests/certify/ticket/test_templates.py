"""Templates as data, and the ids, labels and spans that come of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_tokenizer import framed, greedy_tokenizer, tiny_tokenizer

from certify.base.errors import CertifyError, InvalidInputError, UsageError
from certify.ticket.corpus import Pair
from certify.ticket.templates import (
    IGNORED,
    Example,
    Span,
    Template,
    encodable,
    encode,
    language_name,
    load_template,
    template_names,
)
from lottery.model.tokenizer import load_tokenizer

NAMES = [
    "alpaca",
    "explicit",
    "explicit-paraphrase-wording",
    "explicit-paraphrase-wording-and-labels",
    "labels",
    "paraphrase-wording",
    "paraphrase-wording-and-labels",
]
PARAPHRASES = {
    "alpaca": ("paraphrase-wording", "paraphrase-wording-and-labels"),
    "explicit": ("explicit-paraphrase-wording", "explicit-paraphrase-wording-and-labels"),
}
PAIR = Pair("Where is the house?", "On és la casa?", "x:1")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def _piece_by_piece(tokenizer: Any, ids: tuple[int, ...], span: Span) -> str:
    return str(tokenizer.decode(list(ids[span.start : span.stop])))


def test_the_templates_that_ship() -> None:
    assert template_names() == NAMES
    assert len({load_template(name).digest() for name in NAMES}) == len(NAMES)


def test_alpaca_has_single_newlines_and_the_instruction_of_the_paper_facts() -> None:
    text = load_template("alpaca").fill("Hi.", "en", "ca").text
    assert "\n\n" not in text
    assert "Translate the following sentences from English to Catalan." in text
    assert text.endswith("\n### Input:\nHi.\n### Response:")


def test_labels_is_the_form_of_pretraining() -> None:
    assert load_template("labels").fill("Hi.", "en", "ca").text == "English: Hi.\nCatalan:"


@pytest.mark.parametrize("name", PARAPHRASES)
def test_the_paraphrases_change_what_they_say_they_change(name: str) -> None:
    original, wording, both = (load_template(each) for each in (name, *PARAPHRASES[name]))
    assert wording.fields == original.fields
    assert not set(both.fields) & set(original.fields)
    assert {original.join} == {wording.join, both.join}

    def words(template: Template) -> set[str]:
        text = template.fill("", "en", "ca").text
        for label in template.field_labels("en", "ca"):
            text = text.replace(label, "")
        return {part.strip() for part in re.split(r"[.\n]", text) if part.strip()}

    assert words(original)
    assert not words(original) & words(wording)
    assert words(wording) == words(both)


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_ends_where_its_last_field_begins(name: str) -> None:
    template = load_template(name)
    text = template.fill("Hi.", "en", "ca").text
    assert text.endswith(template.field_labels("en", "ca")[-1])
    assert all(label in text for label in template.field_labels("en", "ca"))
    assert not text[-1].isspace()  # a space there would be tokenised apart from the word that follows


@given(source=st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=20))
@pytest.mark.parametrize("name", NAMES)
def test_spans_of_characters_hold_the_parts(name: str, source: str) -> None:
    template = load_template(name)
    prompt = template.fill(source, "es", "ro")
    assert prompt.text[prompt.source.start : prompt.source.stop] == source
    instruction = prompt.text[prompt.instruction.start : prompt.instruction.stop]
    expected = template.instruction.replace("{source_language}", "Spanish")
    assert instruction == expected.replace("{target_language}", "Romanian")


def test_braces_in_a_sentence_are_not_fields() -> None:
    text = load_template("labels").fill("{target_language} {source} {x}", "en", "ca").text
    assert text == "English: {target_language} {source} {x}\nCatalan:"


def test_the_digest_is_that_of_the_content_and_not_of_the_name(tmp_path: Path) -> None:
    shipped = load_template("labels")
    state = {key: getattr(shipped, key) for key in ("instruction", "prompt", "join", "fields")}
    text = json.dumps(state, sort_keys=True, separators=(",", ":"))
    assert shipped.digest() == sha256(text.encode()).hexdigest()
    lines = [f"{key} = {json.dumps(value)}" for key, value in state.items()]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    mine = load_template(tmp_path / "mine.toml")
    assert (mine.name, mine.digest()) == ("mine", shipped.digest())
    (tmp_path / "mine.toml").write_text("\n".join(lines).replace("}:", "} :"))
    assert load_template(str(tmp_path / "mine.toml")).digest() != shipped.digest()


GOOD = {
    "instruction": '"To {target_language}."',
    "prompt": '"{instruction} {source}"',
    "join": '" "',
    "fields": '["A:"]',
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": '"{instruction}"'}, "{source} once"),
        ({"prompt": '"{instruction} {source} {source}"'}, "{source} once"),
        ({"prompt": '"{source}"'}, "{instruction} once"),
        ({"instruction": '""'}, "{instruction} once"),
        ({"prompt": '"{instruction} {source} {target}"'}, "unknown field {target}"),
        ({"instruction": '"{source}"'}, "unknown field {source}"),
        ({"fields": '["{source}"]'}, "unknown field {source}"),
        ({"fields": '"A:"'}, "fields: Input should be a valid array"),
        ({"fields": '[" "]'}, "a field must not be blank"),
        ({"join": "3"}, "join: Input should be a valid string"),
        ({"join": '"{source}"'}, "not contain fields"),
        ({"surprise": "1"}, "unknown field surprise"),
        ({"join": None}, "missing field join"),
        ({"join": '"'}, "not TOML"),
    ],
)
def test_malformed_templates_are_refused(change: dict[str, str | None], says: str, tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    fields = {**GOOD, **change}
    path.write_text("\n".join(f"{key} = {value}" for key, value in fields.items() if value is not None))
    with pytest.raises(InvalidInputError, match=re.escape(says)) as caught:
        load_template(path)
    assert caught.value.code == "TEMPLATE_INVALID"
    path.write_text("\n".join(f"{key} = {value}" for key, value in GOOD.items()))
    assert load_template(path).prompt == "{instruction} {source}"


def test_unknown_names_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="alpaca, explicit"):
        load_template("alpacca")
    with pytest.raises(UsageError, match="template"):
        load_template(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="unknown language 'xx'"):
        language_name("xx")
    with pytest.raises(UsageError, match="unknown language"):
        load_template("labels").fill("Hi.", "en", "english")


@pytest.mark.parametrize("name", NAMES)
def test_ids_labels_and_spans_of_an_example(name: str, tokenizer: Any) -> None:
    template = load_template(name)
    (example,) = encode(template, [PAIR], tokenizer, "en", "ca")
    prompt = template.fill(PAIR.source, "en", "ca")
    assert example.ids[0] == tokenizer.bos_token_id
    assert example.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(list(example.ids[1:-1])) == prompt.text + " " + PAIR.target
    # What training sees before the response is what generation feeds.
    fed = tokenizer(prompt.text).input_ids
    assert list(example.ids[: example.prompt_length]) == fed
    assert len(example.labels) == len(example.ids)
    assert set(example.labels[: example.prompt_length]) == {IGNORED}
    assert example.labels[example.prompt_length :] == example.ids[example.prompt_length :]
    assert _piece_by_piece(tokenizer, example.ids, example.target) == " " + PAIR.target
    assert example.target.stop == len(example) - 1
    assert PAIR.source in _piece_by_piece(tokenizer, example.ids, example.source)
    instruction = prompt.text[prompt.instruction.start : prompt.instruction.stop]
    assert _piece_by_piece(tokenizer, example.ids, example.instruction).strip() == instruction
    (bare,) = encode(template, [PAIR], tokenizer, "en", "ca", response=False)
    assert list(bare.ids) == fed
    assert set(bare.labels) == {IGNORED}
    assert len(bare.target) == 0
    assert (bare.source, bare.instruction) == (example.source, example.instruction)


LINES = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(LINES, LINES), min_size=1, max_size=4), name=st.sampled_from(NAMES))
def test_any_text_survives_and_every_token_has_its_place(
    rows: list[tuple[str, str]], name: str, tokenizer: Any
) -> None:
    pairs = [Pair(source, target, str(index)) for index, (source, target) in enumerate(rows)]
    template = load_template(name)
    for pair, example in zip(pairs, encode(template, pairs, tokenizer, "en", "ca"), strict=True):
        assert _piece_by_piece(tokenizer, example.ids, example.target) == " " + pair.target
        alone = encode(template, [pair], tokenizer, "en", "ca")
        assert alone == [example]
        # The span is minimal: shrinking it on either side loses a part of the sentence.
        start, stop = example.source.start, example.source.stop
        for smaller in (Span(start + 1, stop), Span(start, stop - 1)):
            assert pair.source not in _piece_by_piece(tokenizer, example.ids, smaller)


def test_newlines_inside_are_kept_by_decoding_without_special_tokens(tokenizer: Any) -> None:
    (example,) = encode(load_template("labels"), [PAIR], tokenizer, "en", "ca")
    text = tokenizer.decode(list(example.ids), skip_special_tokens=True)
    assert text == "English: Where is the house?\nCatalan: On és la casa?"


def test_a_token_across_the_cut_is_refused() -> None:
    greedy = greedy_tokenizer()
    template = load_template("labels")
    with pytest.raises(InvalidInputError, match=r"x:1: .*labels") as caught:
        encode(template, [PAIR], greedy, "en", "ca")
    assert caught.value.code == "TEMPLATE_CUT"
    assert encode(template, [PAIR], greedy, "en", "ca", response=False)


def test_tokenizers_that_cannot_do_it_are_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UsageError, match="fast"):
        encode(load_template("labels"), [PAIR], Slow(), "en", "ca")
    mute = tiny_tokenizer()
    mute.eos_token = None
    with pytest.raises(UsageError, match="end-of-sentence"):
        encode(load_template("labels"), [PAIR], mute, "en", "ca")


def test_a_tokenizer_without_bos_gets_none() -> None:
    """As where ``add_bos_token`` is false: that the tokenizer names such a token decides nothing."""
    bare = framed(tiny_tokenizer(), "$A")
    assert bare.bos_token_id == 1
    (without,) = encode(load_template("labels"), [PAIR], bare, "en", "ca")
    (with_bos,) = encode(load_template("labels"), [PAIR], tiny_tokenizer(), "en", "ca")
    assert without.ids == with_bos.ids[1:]
    assert without.source == Span(with_bos.source.start - 1, with_bos.source.stop - 1)
    assert (without.front, with_bos.front) == (0, 1)


def test_what_stands_in_front_is_what_the_tokenizer_puts_there() -> None:
    wordy = framed(tiny_tokenizer(), "<unk> <s> $A </s>")
    (example,) = encode(load_template("labels"), [PAIR], wordy, "en", "ca", response=False)
    assert [*example.ids, 2] == wordy(load_template("labels").fill(PAIR.source, "en", "ca").text).input_ids
    assert example.front == 2


@pytest.mark.parametrize("spelled", ["</s>", "<s>", "a<unk>b"])
def test_control_tokens_are_the_templates_alone(spelled: str, tmp_path: Path, tokenizer: Any) -> None:
    template, source = load_template("labels"), replace(PAIR, source=f"The {spelled} ends.")
    target = replace(PAIR, target=f"La frase {spelled} acaba.")
    assert encodable([source, PAIR, target], tokenizer) == [PAIR]
    for pair in (source, target):
        with pytest.raises(InvalidInputError, match="x:1: ") as caught:
            encode(template, [PAIR, pair], tokenizer, "en", "ca")
        assert caught.value.code == "CONTROL_TOKEN"
    assert encode(template, [target], tokenizer, "en", "ca", response=False)
    # One that only the template's text completes.
    (tmp_path / "open.toml").write_text("instruction = ''\nprompt = '</{source}'\njoin = ' '\nfields = []\n")
    with pytest.raises(InvalidInputError) as caught:
        encode(load_template(tmp_path / "open.toml"), [replace(PAIR, source="s>")], tokenizer, "en", "ca")
    assert caught.value.code == "CONTROL_TOKEN"
    (tmp_path / "chat.toml").write_text(
        f"instruction = ''\nprompt = '{spelled}{{source}}{spelled}'\njoin = '{spelled}'\nfields = []\n"
    )
    (chat,) = encode(load_template(tmp_path / "chat.toml"), [PAIR], tokenizer, "en", "ca")
    assert _piece_by_piece(tokenizer, chat.ids, chat.source).strip() == PAIR.source


@pytest.mark.parametrize(
    ("added", "control"),
    [
        ("<think>", True),  # as in Qwen3, which does not flag it
        ("</tool_call>", True),
        ("<\uff5cUser\uff5c>", True),  # as in DeepSeek
        ("[INST]", True),
        ("|||EMAIL_ADDRESS|||", True),
        ("\u00c1", False),  # letters and signs that a vocabulary lacked, as in DeepSeek
        ("\u00f7", False),
        ("jardinet", False),
        ("l'\u00e0via", False),
        ("----", False),
        ("...", False),
        ("<0x0A>", False),
        ("    ", False),
    ],
)
def test_an_added_token_that_is_not_flagged_is_a_control_token_if_it_is_a_marker(
    added: str, control: bool
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([added])
    odd = replace(PAIR, source=f"The dog {added} the garden.")
    assert tokenizer.convert_tokens_to_ids(added) in tokenizer(odd.source).input_ids
    assert encodable([odd, PAIR], tokenizer) == ([PAIR] if control else [odd, PAIR])


def test_a_control_token_that_normalising_makes_is_one() -> None:
    from tokenizers import AddedToken
    from tokenizers.normalizers import NFKC

    wide = tiny_tokenizer()
    wide.backend_tokenizer.normalizer = NFKC()
    wide.backend_tokenizer.add_special_tokens([AddedToken("<end>", special=True, normalized=True)])
    assert encodable([replace(PAIR, target="\uff1cend\uff1e"), PAIR], wide) == [PAIR]


def test_published_prompts_begin_as_before() -> None:
    published = load_tokenizer(Path(__file__).parents[3] / "reports" / "published" / "base-small")
    (example,) = encode(load_template("alpaca"), [PAIR], published, "en", "ca")
    prompt = load_template("alpaca").fill(PAIR.source, "en", "ca").text
    assert example.ids[: example.prompt_length] == (1, *published(prompt, add_special_tokens=False).input_ids)


def test_nothing_in_nothing_out(tokenizer: Any) -> None:
    assert encode(load_template("labels"), [], tokenizer, "en", "ca") == []


def test_errors_are_of_the_project() -> None:
    assert issubclass(InvalidInputError, CertifyError)
    assert len(Example("x", (1, 2), 1, Span(0, 0), Span(0, 1), Span(1, 2))) == 2

"""Batched decoding against one sentence at a time without a cache: same tokens, same ends, nothing hidden."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from slow_decoding import greedy, plainly  # noqa: E402
from tiny_llama import PIECES, save_checkpoint, write_pairs  # noqa: E402

from certify.base.errors import InvalidInputError, UsageError  # noqa: E402
from certify.ticket.templates import Example, encode, load_template  # noqa: E402
from lottery.evaluation.generate import batches, decode, generate  # noqa: E402
from lottery.evaluation.generate import greedy as decode_batch  # noqa: E402
from lottery.model.backbone import load_backbone  # noqa: E402
from lottery.model.row_swap import Placed  # noqa: E402
from lottery.model.tokenizer import load_tokenizer  # noqa: E402
from lottery.text.pairsource import read_pairs  # noqa: E402

LANGUAGES = ("en", "ca")
NEW = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_backbone(save_checkpoint(tmp_path_factory.mktemp("base")), "F32").eval()


@pytest.fixture
def tokenizer(model: Any) -> Any:
    return load_tokenizer(Path(model.config._name_or_path))


@pytest.fixture(scope="module")
def prompts(model: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    tokenizer = load_tokenizer(Path(model.config._name_or_path))
    pairs = read_pairs(write_pairs(tmp_path_factory.mktemp("text") / "dev", 16), *LANGUAGES)
    return encode(load_template("labels"), pairs, tokenizer, *LANGUAGES, response=False)


@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_answers_that_end_at_different_steps(
    model: Any, tokenizer: Any, prompts: list[Example], batch_size: int
) -> None:
    """The end of sentence is a token that this model says early, late or never: batches shrink on the way."""
    free = [greedy(plainly(model), prompt.ids, NEW, -1) for prompt in prompts]
    end = Counter(token for answer in free for token in set(answer)).most_common(1)[0][0]
    firsts = {answer.index(end) if end in answer else None for answer in free}
    assert len(firsts) > 3, "the ends must differ"
    tokenizer.eos_token = PIECES[end]
    outputs = generate(Placed(model), tokenizer, prompts, max_new_tokens=NEW, batch_size=batch_size)
    assert [output.id for output in outputs] == [prompt.id for prompt in prompts]
    for prompt, output in zip(prompts, outputs, strict=True):
        wanted = greedy(plainly(model), prompt.ids, NEW, end)
        assert list(output.tokens) == wanted
        assert output.ended == (wanted[-1] == end)
        assert output.text == tokenizer.decode(wanted[:-1] if output.ended else wanted)
    # What is known of an answer is not decoded again, whether that is nothing, a part or all of it.
    known = [output.tokens[: 2 * place] for place, output in enumerate(outputs)]
    assert decode(Placed(model), tokenizer, prompts, max_new_tokens=NEW, begun=known) == outputs


def test_a_frozen_head_is_not_copied_for_every_sequence(model: Any, prompts: list[Example]) -> None:
    """Torch folds a strided input only under a head that takes gradients; PEFT freezes it."""
    folded: list[bool] = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _head, inputs, _out: folded.append(inputs[0].is_contiguous()))
    try:
        with torch.inference_mode():
            decode_batch(Placed(model), prompts, NEW, 0)
    finally:
        handle.remove()
    assert len(folded) > 1
    assert all(folded)


def test_every_prompt_is_in_one_batch_of_like_lengths(prompts: list[Example]) -> None:
    groups = list(batches(prompts, 5))
    assert sorted(index for group in groups for index in group) == list(range(len(prompts)))
    lengths = [len(prompts[index]) for group in groups for index in group]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_checkpoint_cannot_change_how_it_is_decoded(
    model: Any, tokenizer: Any, prompts: list[Example], beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> list[tuple[int, ...]]:
        made = generate(Placed(model), tokenizer, prompts[:4], max_new_tokens=NEW, batch_size=4, beams=beams)
        return [output.tokens for output in made]

    honest = said()
    monkeypatch.setattr(model.generation_config, "repetition_penalty", 5.0)
    monkeypatch.setattr(model.generation_config, "suppress_tokens", list(range(3, 60)))
    assert said() == honest
    assert model.generation_config.repetition_penalty == 5.0


def test_beam_search_is_that_of_transformers(model: Any, tokenizer: Any, prompts: list[Example]) -> None:
    outputs = generate(Placed(model), tokenizer, prompts, max_new_tokens=NEW, batch_size=5, beams=4)
    single = generate(Placed(model), tokenizer, prompts, max_new_tokens=NEW, batch_size=5)
    assert [output.tokens for output in outputs] != [output.tokens for output in single]
    for prompt, output in zip(prompts, outputs, strict=True):
        with torch.inference_mode():
            row = model.generate(
                torch.tensor([prompt.ids]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=NEW,
                num_beams=4,
                do_sample=False,
                eos_token_id=2,
                pad_token_id=2,
            )[0, len(prompt) :].tolist()
        assert list(output.tokens) == (row[: row.index(2) + 1] if 2 in row else row)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(
    model: Any, tokenizer: Any, prompts: list[Example], value: float
) -> None:
    head = model.lm_head.weight
    kept = head.detach().clone()
    try:
        with torch.no_grad():
            head[50, 0] = value
        with pytest.raises(InvalidInputError) as error:
            generate(Placed(model), tokenizer, prompts, max_new_tokens=2, batch_size=4)
        assert error.value.code == "NON_FINITE"
    finally:
        with torch.no_grad():
            head.copy_(kept)


def test_what_cannot_be_decoded_is_refused(model: Any, tokenizer: Any, prompts: list[Example]) -> None:
    with pytest.raises(UsageError) as error:
        generate(Placed(model), tokenizer, prompts, max_new_tokens=10_000, batch_size=4)
    assert error.value.code == "MAX_LENGTH"
    tokenizer.eos_token = None
    with pytest.raises(UsageError) as error:
        decode(Placed(model), tokenizer, prompts[:1], max_new_tokens=2)
    assert error.value.code == "TOKENIZER_NO_EOS"


def test_batches_of_the_small_real_model_say_what_it_says_alone(real_tables: Any) -> None:
    """Identical text in fp32, prompts and answers of real length."""
    model, tokenizer = load_backbone(real_tables.base, "F32").eval(), load_tokenizer(real_tables.base)
    source = Path(os.environ["CERTIFY_DATA"]) / "data" / "test" / "tatoeba_en-ca"
    pairs = read_pairs(str(source), *LANGUAGES)[:24]
    prompts = encode(load_template("labels"), pairs, tokenizer, *LANGUAGES, response=False)
    outputs = generate(Placed(model), tokenizer, prompts, max_new_tokens=24, batch_size=24)
    for prompt, output in list(zip(prompts, outputs, strict=True))[::4]:
        with torch.inference_mode():
            row = model.generate(
                torch.tensor([prompt.ids]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=24,
                do_sample=False,
                eos_token_id=2,
                pad_token_id=2,
            )[0, len(prompt) :].tolist()
        assert list(output.tokens) == (row[: row.index(2) + 1] if 2 in row else row)

"""The check inside a serving process: rows in a table or an adapter pass, planted faults are found."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch", reason="needs the extra tune")
pytest.importorskip("transformers", reason="needs the extra tune")

from tiny_gemma import tiny_gemma3  # noqa: E402
from tiny_llama import VOCABULARY, tiny_llama  # noqa: E402

from certify.base.errors import InvalidInputError  # noqa: E402
from certify.ticket.adapters.rows import export_peft  # noqa: E402
from certify.ticket.make import find  # noqa: E402
from certify.ticket.released import open_source  # noqa: E402
from certify.ticket.transfer import open_parts  # noqa: E402
from lottery.model.backbone import load_backbone  # noqa: E402
from lottery.serving import self_check  # noqa: E402

IDS = (4, 30, 77)


class Made(NamedTuple):
    base: Path
    ticket: str
    rows: Any

    def serve(self, rows: Any = None, dtype: str = "F32") -> Any:
        """The base with rows written into its table; None writes those of the ticket."""
        model = load_backbone(self.base, dtype).eval()
        with torch.no_grad():
            weight = model.get_input_embeddings().weight
            weight[list(IDS)] = (self.rows if rows is None else rows).to(weight.dtype)
        return model


def make(folder: Path, model: Any) -> Made:
    base, tuned = folder / "base", folder / "tuned"
    model.save_pretrained(base)
    with torch.no_grad():
        model.get_input_embeddings().weight[list(IDS)] += 1
    model.save_pretrained(tuned)
    rows = model.get_input_embeddings().weight[list(IDS)].detach().clone()
    rule = "ids:" + ",".join(map(str, IDS))
    find(base, tuned, out=folder / "tickets.json", ticket_id="t", rule=rule, engine="numpy", bundle=True)
    return Made(base, str(folder / "tickets.json"), rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"), tiny_llama())


def code(model: Any, made: Made) -> str:
    with pytest.raises(InvalidInputError) as error:
        self_check(model, made.ticket)
    return error.value.code


def test_served_rows_pass_and_the_effect_is_that_of_a_second_model(made: Made) -> None:
    model = made.serve()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = self_check(model, made.ticket)
    assert (found.rows, found.others) == (3, VOCABULARY - 3)
    with torch.no_grad():
        ids = torch.tensor([IDS])
        other = load_backbone(made.base, "F32").eval()
        change = (model(input_ids=ids).logits - other(input_ids=ids).logits).abs().max()
    assert found.effect == pytest.approx(float(change), rel=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_adapter_passes(made: Made, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    adapter = export_peft(open_parts(open_source(made.ticket), None), tmp_path / "adapter")
    with warnings.catch_warnings(action="ignore"):  # of libraries, about their calls of one another
        model = peft.PeftModel.from_pretrained(load_backbone(made.base, "F32"), adapter).eval()
    assert self_check(model, made.ticket).rows == 3
    with model.disable_adapter():
        assert code(model, made) == "NOT_SERVED"


def test_rows_that_are_multiplied_and_rows_in_half_precision_pass(tmp_path: Path) -> None:
    gemma = make(tmp_path / "gemma", tiny_gemma3(tie_word_embeddings=False))
    assert self_check(gemma.serve(), gemma.ticket).rows == 3
    half = make(tmp_path / "half", tiny_llama(dtype=torch.float16))
    assert self_check(half.serve(dtype="F16"), half.ticket).rows == 3
    assert self_check(half.serve(), half.ticket).rows == 3  # fp32 holds every row
    assert code(half.serve(dtype="BF16"), half) == "NOT_SERVED"


def test_faults_are_found(made: Made) -> None:
    for wrong in (made.rows - 1, made.rows.flip(0), made.rows.nextafter(made.rows + 1)):
        assert code(made.serve(wrong), made) == "NOT_SERVED"
    model = made.serve()
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 3] += 1e-6
    assert code(model, made) == "FOREIGN"
    model = made.serve()
    plain = model.forward

    model.forward = lambda **_: plain(input_ids=torch.tensor([[1, 2, 3]]))  # deaf to its table
    assert code(model, made) == "NO_EFFECT"
    assert code(tiny_llama(vocab_size=VOCABULARY + 1), made) == "SHAPE_MISMATCH"

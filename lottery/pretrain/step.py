"""One pretraining step: bfloat16 copies of fp32 master weights, one slice per thread, two optimisers.

Muon (orthogonalised momentum) updates the hidden matrices, AdamW the table, the head and the norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certify.base.errors import InvalidInputError, UsageError
from lottery.pretrain.data import EOS
from lottery.pretrain.linear_loss import linear_cross_entropy
from lottery.pretrain.plan import ModelPlan, PretrainPlan
from lottery.pretrain.windows import BOS


def build_model(plan: ModelPlan, *, seed: int, **settings: Any) -> Any:
    """Build a ``transformers.LlamaForCausalLM`` with new fp32 weights and an untied head.

    ``settings`` are further fields of its configuration.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=plan.vocab_size,
        hidden_size=plan.hidden_size,
        intermediate_size=plan.intermediate_size,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.kv_heads,
        max_position_embeddings=plan.max_position,
        rope_parameters={"rope_type": "default", "rope_theta": plan.rope_theta},
        bos_token_id=BOS,
        eos_token_id=EOS,
        tie_word_embeddings=False,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


class PretrainState:
    """A run in memory: fp32 master weights, state of the optimisers, number of finished steps.

    The result of a step does not depend on ``workers``: one thread computes each slice of a step, and the
    slices are added in a fixed order. (On a busy machine, threads that share one operation would wait for
    each other; threads with separate slices do not.)

    Args:
        device: ``cpu``, or another PyTorch device.
        workers: number of threads; use 1 on an accelerator.

    Raises:
        UsageError: PyTorch has no such device.
    """

    def __init__(self, plan: PretrainPlan, *, device: str = "cpu", workers: int = 1) -> None:
        self.plan = plan
        self.step = 0
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:  # PyTorch raises either for a missing device
            raise UsageError(f"no device {device!r} here: {error}", code="DEVICE_UNKNOWN") from error
        model = build_model(plan.model, seed=plan.seed)
        self.masters = {
            name: parameter.detach().clone().to(device).requires_grad_()
            for name, parameter in model.named_parameters()
        }
        self.model = model.to(device=device, dtype=torch.bfloat16)
        self._device = device
        self._optimisers = _optimisers(plan, self.masters)
        self._threads_before = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def advance(self, windows: NDArray[np.int64]) -> float:
        """Take one optimiser step on ``windows`` ``[B, T]``; return the loss before it, nats per token.

        Raises:
            InvalidInputError: the loss is not finite. Nothing was changed.
        """
        train = self.plan.train
        parts = [windows[start : start + train.slice] for start in range(0, len(windows), train.slice)]
        names, parameters = zip(*self.model.named_parameters(), strict=True)

        def differentiate(part: NDArray[np.int64]) -> tuple[Tensor, Sequence[Tensor]]:
            loss = self._loss(part)
            return loss.detach(), torch.autograd.grad(loss, parameters)

        def add_up(index: int) -> None:
            total = results[0][1][index].float()
            for _, gradients in results[1:]:
                total += gradients[index]
            self.masters[names[index]].grad = total / len(results)

        def clip() -> None:
            torch.nn.utils.clip_grad_norm_(self.masters.values(), train.clip)

        def update(key: str) -> None:
            optimiser = self._optimisers[key]
            for group in optimiser.param_groups:
                group["lr"] = (train.adam_lr if key == "adam" else train.muon_lr) * train.rate(self.step)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        results = list(self._pool.map(differentiate, parts))
        value = float(torch.stack([loss for loss, _ in results]).mean())
        if not np.isfinite(value):
            raise InvalidInputError(
                f"the loss is {value} at step {self.step}: lower muon_lr or adam_lr in the plan",
                code="LOSS_NOT_FINITE",
            )
        list(self._pool.map(add_up, range(len(names))))
        self._pool.submit(clip).result()
        list(self._pool.map(update, self._optimisers))
        self._refresh()
        self.step += 1
        return value

    def evaluate(self, windows: NDArray[np.int64]) -> float | None:
        """Measure the mean loss on ``windows``, nats per token, without training; None without windows."""

        def measure(part: NDArray[np.int64]) -> float:
            with torch.no_grad():
                return float(self._loss(part)) * len(part)

        size = self.plan.train.slice
        parts = [windows[start : start + size] for start in range(0, len(windows), size)]
        return sum(self._pool.map(measure, parts)) / len(windows) if parts else None

    def state(self) -> dict[str, Tensor]:
        """Collect every tensor that the next step depends on, under flat names."""
        tensors = {f"master.{name}": master.detach() for name, master in self.masters.items()}
        for key, optimiser in self._optimisers.items():
            for index, slots in optimiser.state_dict()["state"].items():
                tensors |= {f"{key}.{index}.{slot}": value for slot, value in slots.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], *, step: int) -> None:
        """Restore what :meth:`state` returned after ``step`` steps."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(tensors[f"master.{name}"])
        for key, optimiser in self._optimisers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                owner, _, rest = name.partition(".")
                if owner == key:
                    index, _, slot = rest.partition(".")
                    state.setdefault(int(index), {})[slot] = value.clone()
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        self._refresh()
        self.step = step

    def _loss(self, windows: NDArray[np.int64]) -> Tensor:
        tokens = torch.from_numpy(windows).to(self._device)
        hidden = self.model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
        return linear_cross_entropy(hidden, self.model.lm_head.weight, tokens[:, 1:].reshape(-1))

    def _refresh(self) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.masters[name])


def _optimisers(plan: PretrainPlan, masters: Mapping[str, Tensor]) -> dict[str, torch.optim.Optimizer]:
    # One Muon per layer, so that layers can be updated in parallel.
    layers: dict[str, list[tuple[str, Tensor]]] = {}
    others: list[Tensor] = []
    for name, master in masters.items():
        if ".layers." in name and master.ndim == 2:
            layers.setdefault(name.split(".")[2], []).append((name, master))
        else:
            others.append(master)
    train = plan.train
    optimisers: dict[str, torch.optim.Optimizer] = {
        f"muon{layer}": torch.optim.Muon(
            matrices, lr=train.muon_lr, weight_decay=train.weight_decay, momentum=train.momentum
        )
        for layer, matrices in layers.items()
    }
    optimisers["adam"] = torch.optim.AdamW(
        others, lr=train.adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )
    return optimisers

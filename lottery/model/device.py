"""Where tuning computes: the device, and the processes that share the work."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Literal

import torch

from certify.base.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

SLOW_BF16 = 4.0
"""From this ratio on, :func:`bf16_slowdown` is worth a word to the user."""

_REPETITIONS = 5

Device = Literal["auto", "cpu", "cuda"]
"""``auto`` is a GPU if PyTorch can use one."""


def open_accelerator(device: Device) -> Accelerator:
    """The accelerator of this process; under ``accelerate launch``, one of several.

    Raises:
        UsageError: no GPU where one was asked for, a launcher mode other than plain data parallelism, or
            ``accelerate`` is not installed.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
    except ImportError as error:
        raise UsageError(
            "tuning needs accelerate: pip install 'certify-lottery[tune]'", code="EXTRA_MISSING"
        ) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no GPU that PyTorch can use: leave out --device, or choose cpu", code="NO_GPU")
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision="no",  # autocast is the trainer's own, so that the loss stays in fp32
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.distributed_type not in (
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
    ):
        raise UsageError(
            f"{accelerator.distributed_type.value} is not supported: launch plain data parallelism",
            code="LAUNCH",
        )
    return accelerator


def lone_launch() -> bool:
    """Whether ``accelerate launch --cpu`` was asked for several processes and started this one alone.

    Without MPI it can do no more, and says nothing; all it leaves is the address at which they were to meet.
    """
    several = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    asked = os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ
    return asked and not any(name in os.environ for name in several)


def bf16_slowdown() -> float:
    """How many times longer a matrix product takes in bf16 than in fp32 on this processor, measured.

    Some milliseconds. Processors without bf16 instructions do it in software, tens of times slower. The
    shortest of several products counts: other work on the machine makes some of them longer, none shorter.
    """
    shortest = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(64, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
        a @ b  # the first product sets up the library
        seconds = []
        for _ in range(_REPETITIONS):
            began = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - began)
        shortest.append(min(seconds))
    return shortest[1] / max(shortest[0], 1e-9)

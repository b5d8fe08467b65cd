"""The device that tuning computes on, and the processes that share the work."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Literal

import torch

from certify.base.errors import UsageError
from certify.cli.shell import needs_extra

if TYPE_CHECKING:
    from accelerate import Accelerator

SLOW_BF16 = 4.0
"""Warn the user if :func:`bf16_slowdown` is at least this ratio."""

_REPETITIONS = 5

Device = Literal["auto", "cpu", "cuda"]
"""``auto`` means a GPU if PyTorch can use one."""


def open_accelerator(device: Device) -> Accelerator:
    """Open the accelerator of this process, which may be one of several under ``accelerate launch``.

    Raises:
        UsageError: a GPU was requested and there is none, the launcher mode is not plain data parallelism, or
            ``accelerate`` is not installed.
    """
    with needs_extra("tuning"):
        from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("no GPU that PyTorch can use: leave out --device, or choose cpu", code="NO_GPU")
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision="no",  # the trainer applies autocast itself, so that the loss stays in fp32
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.distributed_type not in (
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
    ):
        raise UsageError(
            f"{accelerator.distributed_type.value} is not supported: use plain data parallelism",
            code="LAUNCH",
        )
    return accelerator


def lone_launch() -> bool:
    """Whether ``accelerate launch --cpu`` should have started several processes but started only this one.

    Without MPI it cannot start more, and does so silently. The only trace is the address where the processes
    would have met.
    """
    several = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    asked = os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ
    return asked and not any(name in os.environ for name in several)


def bf16_slowdown() -> float:
    """Measure how many times longer a matrix product takes in bf16 than in fp32 on this processor.

    Takes some milliseconds. Processors without bf16 instructions compute it in software, tens of times
    slower. The shortest of several products counts: other work on the machine can only lengthen them.
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

"""Where tuning computes: the device, and the processes that share the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from certify.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

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

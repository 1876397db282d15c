"""Tensors from a file put into the module that they are for, or refused."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Of each tensor by its name: what a file says of itself before anything of it is read."""


def check_shapes(module: nn.Module, found: Shapes) -> None:
    """
    Args:
        module: may be on the meta device, where it takes no memory.

    Raises:
        ValueError: `found` has other tensors than the state of `module`, or of another type or shape.
    """
    allowed = module.state_dict()
    for name in sorted(allowed.keys() ^ found.keys()):
        missing = name in allowed
        raise ValueError(
            f"tensor {name!r} is {'missing' if missing else 'there, but nothing of that name is allowed'}"
        )
    for name, tensor in allowed.items():
        dtype, shape = found[name]
        if (dtype, shape) != (tensor.dtype, tuple(tensor.shape)):
            raise ValueError(
                f"tensor {name!r} is {dtype} of shape {shape}; allowed is {tensor.dtype} of shape {tuple(tensor.shape)}"
            )


def fill(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Make `tensors` the state of `module`; nothing is cast.

    Raises:
        ValueError: as `check_shapes`, or a number is NaN or infinite.
    """
    check_shapes(module, {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        check_finite(name, tensor)
    module.load_state_dict(tensors)


def check_finite(name: str, tensor: torch.Tensor) -> None:
    """
    Raises:
        ValueError: a number of `tensor` is NaN or infinite.
    """
    odd = (~tensor.isfinite()).sum() if tensor.is_floating_point() else 0
    if odd:
        raise ValueError(
            f"tensor {name!r} has {int(odd)} numbers that are NaN or infinite; allowed are finite ones"
        )

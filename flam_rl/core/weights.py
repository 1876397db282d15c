"""Tensors from a file put into the module that they are for, or refused."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Type and shape of each tensor by its name: the header of a file, which is read before any tensor."""


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> Shapes:
    """Types and shapes of a module's state, which may be on the meta device, where it takes no memory."""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def check_shapes(allowed: Shapes, found: Shapes) -> None:
    """
    Raises:
        ValueError: `found` are other tensors than `allowed`, or of another type or shape.
    """
    for name in sorted(allowed.keys() ^ found.keys()):
        missing = name in allowed
        raise ValueError(
            f"tensor {name!r} is {'missing' if missing else 'there, but nothing of that name is allowed'}"
        )
    for name, (dtype, shape) in allowed.items():
        if found[name] != (dtype, shape):
            is_dtype, is_shape = found[name]
            raise ValueError(
                f"tensor {name!r} is {is_dtype} of shape {is_shape}; allowed is {dtype} of shape {shape}"
            )


def fill(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Make `tensors` the state of `module`; nothing is cast.

    Raises:
        ValueError: as `check_shapes`, or a number is NaN or infinite.
    """
    check_shapes(shapes_of(module.state_dict()), shapes_of(tensors))
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

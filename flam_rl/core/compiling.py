"""Functions of tensors, compiled for one core of a CPU, and shared out among threads of one core each."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import torch
import torch._inductor
from torch import nn

from .threads import FEWEST, LoneThreads

Compiled: TypeAlias = Callable[..., tuple[torch.Tensor, ...]]
T = TypeVar("T")
COMPILERS = tuple(filter(None, (os.environ.get("CXX"), "g++", "clang++", "cl")))
COMPILING = threading.Lock()
"""`compile_for_one_core` holds this lock, since torch.export keeps its state in flags of the process."""
OPTIONS = {
    "cpp_wrapper": True,  # one in Python keeps Python's lock
    "cpp.threads": 1,
    "cpp.enable_floating_point_contract_flag": "fast",  # multiply and add in one instruction
    "pattern_matcher": False,  # it puts a sum after a product back into it
}
"""Options of one compilation; no option of the process is set."""
logger = logging.getLogger(__name__)


def check_compiler(device: torch.device) -> None:
    """Check that a compiled step can be made for this device.

    Raises:
        ValueError: the device is a CPU and there is no C++ compiler.
    """
    if device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
        raise ValueError(f"compile needs a C++ compiler; none of {', '.join(COMPILERS)} was found")


def compile_for_one_core(
    function: Callable[..., tuple[torch.Tensor, ...]], given: Sequence[torch.Tensor]
) -> Compiled:
    """`function` on one core, without gradients, for tensors of the types, sizes and strides of those given.

    Not by `torch.compile`: of threads that look a function up in its cache at once, one misses it now and then
    and compiles it again.
    """
    began = time.perf_counter()
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        alike = tuple(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).zero_() for x in given)
        graph = torch.export.export(_Module(function), alike, strict=False).module(check_guards=False)
        graph = torch.fx.GraphModule(graph, graph.graph)  # without hooks: the cache on disk takes none
        compiled = torch._inductor.compile(graph, [*alike], OPTIONS)
    sizes = " ".join("x".join(map(str, x.shape)) for x in given)
    logger.info("compiled for tensors of %s in %.1f s", sizes, time.perf_counter() - began)
    return compiled


class CompiledShares:
    """A function of tensors, compiled once for each size of a batch, of which each thread does a share."""

    def __init__(self) -> None:
        self._shares: dict[int, list[tuple[slice, Compiled]]] = {}

    def map(
        self,
        threads: LoneThreads,
        function: Callable[..., tuple[torch.Tensor, ...]],
        batch: int,
        inputs: Callable[[slice], Sequence[torch.Tensor]],
        use: Callable[[slice, tuple[torch.Tensor, ...]], T],
    ) -> list[T]:
        """What `use` makes, on each share's thread, of what the function gives for the share.

        Args:
            function: the same for every call; compiled where the size of the batch is new.
            inputs: a share to the function's arguments, of the same types and strides for every call.
        """

        def work(part: tuple[slice, Compiled]) -> T:
            share, compiled = part
            return use(share, compiled(*inputs(share)))

        with COMPILING:
            if batch not in self._shares:
                self._shares[batch] = self._shared_out(threads.count, function, batch, inputs)
        return threads.map(work, self._shares[batch])

    def _shared_out(
        self,
        threads: int,
        function: Callable[..., tuple[torch.Tensor, ...]],
        batch: int,
        inputs: Callable[[slice], Sequence[torch.Tensor]],
    ) -> list[tuple[slice, Compiled]]:
        count = max(1, min(threads, batch // FEWEST))
        shares = [slice(batch * i // count, batch * (i + 1) // count) for i in range(count)]
        sizes = {share.stop - share.start: share for share in shares}
        compiled = {size: compile_for_one_core(function, inputs(share)) for size, share in sizes.items()}
        return [(share, compiled[share.stop - share.start]) for share in shares]


class _Module(nn.Module):
    """A function as torch.export takes it."""

    def __init__(self, function: Callable[..., tuple[torch.Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.function(*given)

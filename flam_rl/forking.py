"""A forked child takes over no thread of its parent: torch must not wait for them there."""

from __future__ import annotations

import multiprocessing
import os
import sys


def use_one_thread_in_forked_children() -> None:
    """Let torch run on one thread in every child that this process forks, and here if it is one itself.

    A child of a process that used torch's threads waits for them for ever at its first parallel operator; and
    children that gymnasium's or Stable-Baselines3's vector envs fork, one a world, share the cores anyway.
    """
    if hasattr(os, "register_at_fork"):  # where there is no fork there is nothing to do
        os.register_at_fork(after_in_child=_use_one_thread)
    if _is_forked():
        _use_one_thread()


def _use_one_thread() -> None:
    if "torch" in sys.modules:  # not imported for this
        sys.modules["torch"].set_num_threads(1)


def _is_forked() -> bool:
    """Whether multiprocessing forked this process: flam_rl may be imported in the child only."""
    if multiprocessing.parent_process() is None:
        return False
    own = getattr(multiprocessing.current_process(), "_start_method", None)
    return (own or multiprocessing.get_start_method(allow_none=True)) == "fork"

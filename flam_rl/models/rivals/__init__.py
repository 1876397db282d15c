"""FLAM's rivals: one latent action for the whole scene, behind the same verbs.

All of them share with FLAM on tiles what is not the question: tokenizer, loss of drawing and predicting codes, open-loop
unroll, optimiser and steps, the number of latent dims of a step, and, within 10%, parameters. What the papers do
otherwise is said class by class.
"""

from __future__ import annotations

from .floor import CopyLastFrame
from .joint import Joint
from .oracle import Oracle
from .playslot import PlaySlot
from .scene import LAPO, AdaWorld, Genie, GenieMatched

__all__ = ["LAPO", "AdaWorld", "CopyLastFrame", "Genie", "GenieMatched", "Joint", "Oracle", "PlaySlot"]

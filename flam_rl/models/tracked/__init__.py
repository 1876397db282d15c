"""FLAM on things that move continuously: tokens, factors and context of tracked layers, one idea a module."""

from .context import ContextConfig, find_context
from .tracker import Tracker, TrackerConfig, TrackerState
from .tracks import Tracks, track, track_all
from .views import clip_view, patch_for, shared_context

__all__ = [
    "ContextConfig",
    "Tracker",
    "TrackerConfig",
    "TrackerState",
    "Tracks",
    "clip_view",
    "find_context",
    "patch_for",
    "shared_context",
    "track",
    "track_all",
]

"""FLAM on a grid of tiles: codes of patches, factors bound by what moves together."""

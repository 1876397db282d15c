"""FLAM against its rivals: suites of cells, run side by side, and the report of what came out."""

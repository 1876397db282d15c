"""The programs behind `flam-rl`, one a file."""

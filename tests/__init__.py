"""Tests: the same tree as the code."""

from pathlib import Path

ROOT = Path(__file__).parents[1]

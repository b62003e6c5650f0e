"""Gauges: numbers of a part that are read when metrics are collected. The part declares them."""

from collections.abc import Callable, Mapping

Gauges = Mapping[str, tuple[str, Callable[[], float]]]
"""Name of the gauge -> (what it means, what reads it)."""

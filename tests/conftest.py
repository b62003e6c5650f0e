"""Fixtures that every test may ask for."""

from tests.kit.databases import *  # noqa: F403

"""Fixtures: databases."""

from tests.kit.databases import *  # noqa: F403

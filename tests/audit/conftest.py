"""Databases for the tests of the room."""

from tests.kit.databases import *  # noqa: F403  # pytest finds fixtures by name

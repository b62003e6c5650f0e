"""Tests of room 5."""

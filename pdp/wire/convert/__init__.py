"""Converts between messages and values. Checks nothing beyond the bounds of a message."""

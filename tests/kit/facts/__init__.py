"""Writes to a store, outages of its database, and numbers from a sequence as a control."""

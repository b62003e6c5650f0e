"""Policies, worlds and cases, a reference evaluator, and the core to compare with it."""

"""Verifiers of tokens, and a server of key sets."""

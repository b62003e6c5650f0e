"""Webhook messages of Clerk: verified, read, written in batches, answered."""

"""Policy and facts in memory at one revision, and subscriptions to their changes."""

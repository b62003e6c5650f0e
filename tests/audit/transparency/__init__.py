"""Trees over the decision log, checkpoints, and proofs."""

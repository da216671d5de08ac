"""Training: the tokens, the batches, the loop and its curves."""

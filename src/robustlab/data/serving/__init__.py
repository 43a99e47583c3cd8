"""From the samples of a split to the batches of a step."""

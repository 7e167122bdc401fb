"""The recipe of the demo model, from annotated files to a checkpoint: rows, reviews, samples, network, training."""

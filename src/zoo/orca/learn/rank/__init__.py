"""The side of a rank: batches, steps, what is seen of them."""

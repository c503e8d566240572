"""Parts of the benchmark of how agreement scales with ranks."""

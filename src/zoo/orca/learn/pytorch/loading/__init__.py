"""Loaders of torch: made by a function of the user's in each rank, or given on the driver."""

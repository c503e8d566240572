"""Training on data frames: contracts and settings here, the work in the folders."""

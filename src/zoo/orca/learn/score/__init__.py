"""Predict and evaluate."""

"""Ranks: processes that work together, wherever they run."""

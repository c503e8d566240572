"""Trials in which something breaks while a model is trained."""

"""Kinds of image files and annotations that become datasets."""

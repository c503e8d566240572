"""Rows become typed arrays on local disks."""

"""Measures of restored frames and videos, one file each."""

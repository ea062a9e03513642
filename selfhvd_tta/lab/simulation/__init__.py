"""Handheld shake over photographs, with ground truth."""

"""Simulated handheld shake with ground truth, and pretraining on it."""

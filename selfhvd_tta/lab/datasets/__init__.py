"""Frames, pairs and photographs on disk, and the layouts of public data sets."""

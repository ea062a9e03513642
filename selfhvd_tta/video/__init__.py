"""Video files in and out: PyAV and numpy, no torch."""

"""How fast the parts are on this machine, and how far from what its hardware allows."""

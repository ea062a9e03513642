"""For those who train and measure; nothing of the product imports it."""

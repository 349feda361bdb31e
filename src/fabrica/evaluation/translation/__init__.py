"""How good translated and restored images are."""

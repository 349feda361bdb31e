"""How good synthetic images are."""

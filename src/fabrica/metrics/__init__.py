"""Pure functions of arrays: how far images, or sets of them, lie apart."""

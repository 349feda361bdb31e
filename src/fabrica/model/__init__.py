"""A trained model and its folder."""

"""The models that ship with the package: their recipes, and how they are made."""

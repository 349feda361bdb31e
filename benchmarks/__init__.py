"""Fabrica beside what a person would use instead. Each benchmark prints ratios measured in one run."""

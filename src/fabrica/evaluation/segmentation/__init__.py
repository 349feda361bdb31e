"""Judging models that segment: label maps beside the true ones, class by class."""

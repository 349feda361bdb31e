"""Phantoms: physics-based anatomy with its truth, made on the spot. The data that needs no download."""

from fabrica.phantoms.chest import Chest, chest
from fabrica.phantoms.head import Head, head

__all__ = ["Chest", "Head", "chest", "head"]

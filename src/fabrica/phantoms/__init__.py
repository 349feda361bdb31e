"""Phantoms: physics-based anatomy with its truth, made on the spot. The data that needs no download."""

# `chest` and `head` are the functions here, as these lines come after the submodules of the same name have been
# loaded; `from fabrica.phantoms.chest.chest import FINDINGS` still finds the submodule.
from fabrica.phantoms.chest.chest import Chest, chest
from fabrica.phantoms.head.head import Head, head

__all__ = ["Chest", "Head", "chest", "head"]

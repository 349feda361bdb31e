"""Colours of labels: told apart by people who see fewer colours, too."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from fabrica.io.palette import COLOURS, NAMED, colour_of, colours, hexed

# Machado, Oliveira and Fernandes 2009, severity 1: what is left of linear RGB without one kind of cone
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def test_the_first_eight_differ_for_every_eye() -> None:
    linear = (np.array(COLOURS) / 255) ** 2.2
    for matrix in (np.eye(3), *map(np.array, BLIND.values())):
        seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen[:7], 2)) > 0.1
    assert len(set(COLOURS)) == len(COLOURS)


def test_colours_come_again_after_the_last() -> None:
    assert colour_of(1) == COLOURS[0] == colour_of(len(COLOURS) + 1) and colour_of(len(COLOURS)) == COLOURS[-1]


def test_what_atlases_print_in_its_own_colour_has_it_once() -> None:
    names = {1: "portal_vein", 2: "Liver", 3: "left renal artery", 5: "aorta", 6: ""}
    found = colours(names)
    assert found[1] == NAMED["vein"] and found[2] == colour_of(2) and found[3] == NAMED["artery"]
    assert found[5] == colour_of(5) and found[6] == colour_of(6)
    assert len(set(found.values())) == len(found) and not set(NAMED.values()) & set(COLOURS)
    assert hexed((230, 159, 0)) == "#e69f00"

"""Byte pairs say every text and read it back; sentences are those of a report."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.phantoms.chest.chest import chest
from fabrica.phantoms.chest.text import report
from fabrica.text.tokenizer import (
    BEGIN,
    END,
    FIRST,
    LEAST,
    PAD,
    PIECES,
    Vocabulary,
    learn,
    normalised,
    sentences,
    some_sentences,
)


def reports(number: int) -> list[str]:
    labels = [chest(seed, 16).labels for seed in range(10)]
    return [report(labels[k % 10], np.random.default_rng(k)) for k in range(number)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return reports(300)


@pytest.fixture(scope="module")
def learned(texts: list[str]) -> Vocabulary:
    return learn(texts, 600)


# --- every text -----------------------------------------------------------------------------------------------


@given(st.text())
def test_what_is_encoded_is_decoded(text: str) -> None:
    for vocabulary in (Vocabulary(), _LEARNED):
        assert vocabulary.decode(vocabulary.tokens(text)) == normalised(text)
        assert vocabulary.decode(vocabulary.encode(text, 8 + 4 * len(text) * 3).ids) == normalised(text)


@given(st.text(alphabet="ab å胸🫁0é'_-. \n\udc80", max_size=60), st.integers(3, 30))
def test_what_does_not_fit_is_named(text: str, length: int) -> None:
    encoded = _LEARNED.encode(text, length)
    kept = _LEARNED.decode(encoded.ids)
    assert encoded.ids.shape == (length,) and encoded.ids[0] == BEGIN and np.sum(encoded.ids == END) == 1
    assert "�" not in kept, "a letter was cut in two"
    assert f"{kept}{encoded.left_out}".replace(" ", "") == normalised(text).replace(" ", "")
    assert not encoded.left_out or normalised(text) in (f"{kept} {encoded.left_out}", f"{kept}{encoded.left_out}")


_LEARNED = learn(["the heart is not enlarged. 胸部X光片 胸部 å🫁🫁 å🫁🫁"] * 3, LEAST + 40)


def test_case_white_space_and_accents_do_not_count() -> None:
    same = ["NO Effusion.\n\n  café", "no effusion. cafe\u0301", " no\teffusion. CAFÉ "]
    assert len({tuple(_LEARNED.tokens(text)) for text in same}) == 1
    assert normalised("\ud800 a") == "? a"


@pytest.mark.parametrize("text", ["", " \n ", "\u2003"])
def test_empty_text_begins_and_ends(text: str) -> None:
    encoded = _LEARNED.encode(text, 5)
    assert encoded.ids.tolist() == [BEGIN, END, PAD, PAD, PAD] and encoded.left_out == ""
    assert encoded.mask.tolist() == [True, True, False, False, False]


def test_a_long_text_is_cut_after_a_whole_word(texts: list[str], learned: Vocabulary) -> None:
    words = normalised(texts[0]).split()
    for length in range(8, 100, 7):
        encoded = learned.encode(texts[0], length)
        kept = learned.decode(encoded.ids).split()
        assert kept == words[: len(kept)] and encoded.left_out.split() == words[len(kept) :]
        if encoded.left_out:
            assert len(learned.tokens(" ".join(words[: len(kept) + 1]))) > length - 2, "one more word would have fitted"
    assert learned.encode(texts[0], 300).left_out == ""


def test_a_number_is_never_cut() -> None:
    assert Vocabulary().encode("a 12 mm", 6).left_out == "12 mm", "a 1 would be another nodule"


# --- learning -------------------------------------------------------------------------------------------------


def slowly(texts: list[str], size: int) -> list[list[int]]:
    """Sennrich et al. 2016, algorithm 1, as it stands there."""
    counts = Counter(piece for text in texts for piece in PIECES.findall(f" {normalised(text)}"))
    words = {piece: [FIRST + byte for byte in piece.encode()] for piece in counts}
    merges: list[list[int]] = []
    while LEAST + len(merges) < size:
        pairs: Counter[tuple[int, int]] = Counter()
        for piece, word in words.items():
            for pair in pairwise(word):
                pairs[pair] += counts[piece]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        for piece, word in words.items():
            out: list[int] = []
            for token in word:
                if out and (out[-1], token) == best and out[-1] != LEAST + len(merges):
                    out[-1] = LEAST + len(merges)
                else:
                    out.append(token)
            words[piece] = out
        merges.append(list(best))
    return merges


@given(st.lists(st.text(alphabet="aab .", max_size=30), max_size=6))
def test_counting_anew_only_what_changed_learns_the_same(texts: list[str]) -> None:
    assert learn(texts, LEAST + 25).merges == slowly(texts, LEAST + 25)


def test_reports_teach_words(texts: list[str], learned: Vocabulary) -> None:
    assert learned.merges == slowly(texts[:300], 600) == learn(reversed(texts), 600).merges
    assert len(learned.tokens("no pleural effusion or pneumothorax.")) == 6
    assert [learned.decode([token]) for token in learned.tokens("12")] == ["1", "2"], "each digit is a token"


def test_kept_as_json_it_is_the_same(texts: list[str], learned: Vocabulary) -> None:
    again = Vocabulary(json.loads(json.dumps(learned.merges)))
    assert len(again) == len(learned) == 600
    assert all(again.tokens(text) == learned.tokens(text) for text in texts[:20])


def test_thousands_of_reports_take_seconds() -> None:
    """In units of sorting as many letters: a quadratic algorithm would be hundreds of times slower."""
    texts = reports(3000)
    start = time.process_time()
    learn(texts, 2048)
    taken = time.process_time() - start
    start = time.process_time()
    for text in texts:
        sorted(text)
    assert taken < 100 * (time.process_time() - start)


def test_wrong_use_is_explained(learned: Vocabulary) -> None:
    with pytest.raises(UsageError, match="merge 1 of the vocabulary is \\[3, 999\\]"):
        Vocabulary([[3, 4], [3, 999]])
    with pytest.raises(UsageError, match="more than 259"):
        learn(["a"], 259)
    with pytest.raises(UsageError, match="context is 2 tokens"):
        learned.encode("a", 2)
    with pytest.raises(UsageError, match="token 600 is not in this vocabulary of 600"):
        learned.decode([600])


# --- sentences ------------------------------------------------------------------------------------------------


def test_sentences_of_a_report() -> None:
    text = """FINDINGS: PA and lateral views.  A 1.2 cm nodule, seen by Dr. Smith, approx. 5 mm
    from the hilum. Is it new?

    IMPRESSION:
    1. No acute finding.
    2) Follow-up advised"""
    assert sentences(text) == [
        "PA and lateral views.",
        "A 1.2 cm nodule, seen by Dr. Smith, approx. 5 mm from the hilum.",
        "Is it new?",
        "No acute finding.",
        "Follow-up advised",
    ]
    assert sentences("肺部清晰。心脏正常。") == ["肺部清晰。", "心脏正常。"]
    assert sentences(" \n") == [] == sentences("___ .")


def test_some_sentences_are_drawn_in_their_order(texts: list[str]) -> None:
    whole = sentences(texts[0])
    drawn = [some_sentences(texts[0], np.random.default_rng(seed)) for seed in range(400)]
    assert drawn[:5] == [some_sentences(texts[0], np.random.default_rng(seed)) for seed in range(5)]
    numbers = Counter(len(sentences(text)) for text in drawn)
    assert set(numbers) == set(range(1, len(whole) + 1)), "one, all, and any number between"
    for text in drawn:
        places = [whole.index(sentence) for sentence in sentences(text)]
        assert places == sorted(places)
    assert max(len(sentences(some_sentences(texts[0], np.random.default_rng(s), most=2))) for s in range(20)) == 2
    assert some_sentences("", np.random.default_rng(0)) == ""

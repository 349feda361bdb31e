"""Report text as numbers: byte pairs that are learned from the training reports, and nothing else.

Sennrich, Haddow, Birch: Neural machine translation of rare words with subword units (2016), on bytes as in GPT-2
(Radford et al. 2019), so that every text in every script can be said and read back. A vocabulary of our own knows the
words of the reports at hand, needs no download, and comes with the model.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fabrica.errors import UsageError

PAD, BEGIN, END = 0, 1, 2
FIRST = 3  # the token of byte 0
BYTES = 256
LEAST = FIRST + BYTES  # tokens of a vocabulary without merges
SEEN = 2  # a pair that occurs once is no word
REMEMBERED = 2**16  # words whose tokens are kept at hand

Pair = tuple[int, int]

# A word with the space before it; each digit alone, so that 12 mm has to do with 11 mm; other signs. Together they
# leave nothing out, and no piece is so long that it takes long.
PIECES = re.compile(r" ?[^\W\d_]{1,24}| ?\d| ?(?:[^\s\w]|_){1,8}| ")

ENDS = re.compile(r"(?<=[.!?])\s+(?=\S)|(?<=[。！？])\s*|\s*\n\s*\n\s*")
NUMBERED = re.compile(r"^(?:\(?\d{1,2}[.)]|[-*•])(?:\s+|$)")
HEADING = re.compile(r"\b[A-Z][A-Z /&]{3,}:\s*")
ABBREVIATED = re.compile(r"\b(?:dr|mr|mrs|ms|vs|approx|e\.g|i\.e|cf|resp)\.$", re.IGNORECASE)


def normalised(text: str) -> str:
    """What of a text counts: accents composed (NFC), lower case, one space between words and none around them.

    Reports write FINDINGS, Findings and findings, and wrap their lines anywhere; none of it shows in the image."""
    whole = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be written
    return " ".join(unicodedata.normalize("NFC", whole).lower().split())


@dataclass(frozen=True)
class Encoded:
    """A text as tokens.

    ids       int64 (length,): BEGIN, the text, END, PAD to the end.
    left_out  the words at the end that did not fit; "" where all did.
    """

    ids: npt.NDArray[np.int64]
    left_out: str = ""

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool (length,): where there is a token and no padding."""
        real: npt.NDArray[np.bool_] = self.ids != PAD
        return real


class Vocabulary:
    """Tokens: PAD, BEGIN, END, the 256 bytes, and one for each merge of two earlier ones.

    merges  pairs of tokens, the first learned first; plain numbers, so that they can be kept as JSON.

    Raises UsageError for merges of tokens that there are not."""

    def __init__(self, merges: Iterable[Sequence[int]] = ()) -> None:
        self.merges: list[list[int]] = [[int(token) for token in pair] for pair in merges]
        self._bytes: list[bytes] = [b"", b"", b"", *(bytes([k]) for k in range(BYTES))]
        self._rank: dict[Pair, int] = {}
        for pair in self.merges:
            if len(pair) != 2 or not all(FIRST <= token < len(self._bytes) for token in pair):
                raise UsageError(
                    f"merge {len(self._bytes) - LEAST} of the vocabulary is {pair}; expected two tokens from {FIRST} "
                    f"to {len(self._bytes) - 1}: it is damaged, take it from the model folder again"
                )
            self._rank[pair[0], pair[1]] = len(self._bytes)
            self._bytes.append(self._bytes[pair[0]] + self._bytes[pair[1]])
        self._words: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._bytes)

    def encode(self, text: str, length: int) -> Encoded:
        """The normalised text in `length` tokens, BEGIN and END among them. A text that does not fit is cut after a
        whole word; one long word of its own, as Chinese is written, after a whole letter.

        Raises UsageError for a length without room for a word."""
        if length < 3:
            raise UsageError(f"the context is {length} tokens; expected 3 or more, e.g. 64")
        tokens = self.tokens(text)
        kept = tokens[: self._fitting(tokens, length - 2)]
        ids = np.full(length, PAD, np.int64)
        ids[: len(kept) + 2] = [BEGIN, *kept, END]
        return Encoded(ids, self._said(tokens[len(kept) :]).strip())

    def tokens(self, text: str) -> list[int]:
        """The normalised text, however long, without BEGIN and END."""
        words = normalised(text)
        return [token for piece in PIECES.findall(f" {words}") for token in self._word(piece)] if words else []

    def decode(self, ids: Iterable[int]) -> str:
        """The normalised text that these tokens stand for; what is no whole letter becomes �.

        Raises UsageError for a token that there is not."""
        known = [int(token) for token in ids]
        strange = next((token for token in known if not 0 <= token < len(self)), None)
        if strange is not None:
            raise UsageError(f"token {strange} is not in this vocabulary of {len(self)}; is it that of another model?")
        return self._said(known).removeprefix(" ")

    def _said(self, tokens: Iterable[int]) -> str:
        return b"".join(self._bytes[token] for token in tokens).decode("utf-8", "replace")

    def _word(self, piece: str) -> list[int]:
        found = self._words.get(piece)
        if found is None:
            found = self._merged([FIRST + byte for byte in piece.encode()])
            if len(self._words) < REMEMBERED:
                self._words[piece] = found
        return found

    def _merged(self, tokens: list[int]) -> list[int]:
        """The pair that was learned first is merged first, as in training."""
        while len(tokens) > 1:
            pair = min(pairwise(tokens), key=lambda pair: self._rank.get(pair, len(self)))
            if pair not in self._rank:
                break
            tokens = _replaced(tokens, pair, self._rank[pair])
        return tokens

    def _fitting(self, tokens: list[int], room: int) -> int:
        """How many tokens to keep: as many whole words as there is room for, or else whole letters."""
        if len(tokens) <= room:
            return len(tokens)
        starts = (self._bytes[token] for token in tokens[: room + 1])
        first = [start[0] for start in starts]
        words = [k for k in range(1, room + 1) if first[k] == ord(" ")]
        letters = [k for k in range(1, room + 1) if not 0x80 <= first[k] < 0xC0]  # else in the middle of a letter
        return max(words or letters or [0])


def learn(texts: Iterable[str], size: int) -> Vocabulary:
    """The vocabulary of at most `size` tokens that these texts teach: the commonest pair of neighbours within a word
    becomes a token, again and again; of equally common pairs, that of the smaller tokens.

    Words are counted once, and a merge recounts only the words it changes (Sennrich et al., algorithm 1, made quick).
    Raises UsageError for a size that holds no merge."""
    if size <= LEAST:
        raise UsageError(f"a vocabulary of {size} tokens; expected more than {LEAST}, e.g. 2048")
    counts = Counter(piece for text in texts if text for piece in PIECES.findall(f" {normalised(text)}"))
    words = [[FIRST + byte for byte in piece.encode()] for piece in counts]
    often = list(counts.values())
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for k, word in enumerate(words):
        for pair in pairwise(word):
            pairs[pair] += often[k]
            where[pair].add(k)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and LEAST + len(merges) < size:
        count, pair = heapq.heappop(heap)
        if -count != pairs[pair]:  # counted anew since
            continue
        if -count < SEEN:
            break
        changed: set[Pair] = set()
        for k in sorted(where.pop(pair)):
            old, words[k] = words[k], _replaced(words[k], pair, LEAST + len(merges))
            for sign, word in ((-1, old), (1, words[k])):
                for neighbours in pairwise(word):
                    pairs[neighbours] += sign * often[k]
                    changed.add(neighbours)
                    if sign > 0:
                        where[neighbours].add(k)
        merges.append(pair)
        for each in sorted(changed):
            if pairs[each] > 0:
                heapq.heappush(heap, (-pairs[each], each))
    return Vocabulary(merges)


def _replaced(tokens: list[int], pair: Pair, token: int) -> list[int]:
    """The tokens with every `pair`, from left to right, as one `token`."""
    out: list[int] = []
    k = 0
    while k < len(tokens):
        if tokens[k] == pair[0] and k + 1 < len(tokens) and tokens[k + 1] == pair[1]:
            out.append(token)
            k += 2
        else:
            out.append(tokens[k])
            k += 1
    return out


def sentences(text: str) -> list[str]:
    """The sentences of a report, in order; headings in capitals ("FINDINGS:") and the numbers of a list are left out.

    Full stops within numbers and behind common abbreviations end no sentence; empty lines do, and the full stops of
    Chinese and Japanese."""
    found: list[str] = []
    for part in ENDS.split(HEADING.sub("\n\n", text)):
        said = NUMBERED.sub("", " ".join(part.split()))
        if found and ABBREVIATED.search(found[-1]):
            found[-1] = f"{found[-1]} {said}"
        elif any(sign.isalnum() for sign in said):
            found.append(said)
    return found


def some_sentences(text: str, rng: np.random.Generator, most: int = 0) -> str:
    """Between one and all (or `most`) of the report's sentences, drawn at random, in their order: what to show a
    network in training, so that it follows a single sentence as it does a report (the excerpts of Pinaya et al. 2022,
    latent diffusion of chest radiographs in MONAI). A text of one sentence or none comes as it is."""
    parts = sentences(text)
    if len(parts) < 2:
        return text
    number = int(rng.integers(1, min(len(parts), most or len(parts)) + 1))
    return " ".join(parts[k] for k in sorted(rng.choice(len(parts), number, replace=False)))

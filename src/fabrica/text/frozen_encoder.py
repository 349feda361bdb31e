"""Reports read by an encoder that others have trained: CLIP's (Radford et al. 2021), as Stable Diffusion has it, BERT
(Devlin et al. 2019), as CXR-BERT, or RoBERTa (Liu et al. 2019), as RadBERT.

It comes as a folder of the `transformers` package and stays as it is. Nothing in the folder is executed: of its
config.json only the sizes are looked at, weights are safetensors, never pickles, and the classes are those named here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fabrica.errors import FabricaError, UsageError

CONFIG, WEIGHTS = "config.json", "model.safetensors"
BATCH = 64  # texts at a time
CLIP, BERT, ROBERTA = ("CLIPText", "CLIP"), ("Bert", "Bert"), ("Roberta", "Roberta")
KINDS = {"clip_text_model": CLIP, "clip": CLIP, "bert": BERT, "cxr-bert": BERT, "roberta": ROBERTA}
"""model_type of config.json -> how the classes of its encoder and of its tokenizer are called."""
WORDS = {"CLIP": ("vocab.json", "merges.txt"), "Bert": ("vocab.txt",), "Roberta": ("vocab.json", "merges.txt")}
TOKENS = "tokenizer.json"  # the same in one file
MORE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "README.md", "LICENSE")
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps", "pad_token_id", "eos_token_id"),
)


@dataclass(frozen=True)
class FrozenEncoder:
    """A frozen encoder and its tokenizer, in `folder`.

    context  the most tokens that it reads of a text, its first and last sign among them; width of what it gives.
    hash     the start of the SHA-256 of its weights.
    """

    folder: Path
    tokenizer: Any
    encoder: nn.Module
    device: torch.device
    kind: str
    context: int
    width: int
    pad: int
    hash: str

    def features(self, texts: Sequence[str]) -> Tensor:
        """What the tokens of each text mean where they stand, float32 (B, L, width) on the CPU, L at most `context`;
        NaN behind the end of a text, and everywhere in one that says nothing.

        In the first place stands what the text comes to as a whole: BERT's first token says that; CLIP's, which sees no
        token after itself, says nothing, and what CLIP is trained to say at the last one takes its place."""
        unique = list(dict.fromkeys(texts))
        parts = [self._read(unique[k : k + BATCH]) for k in range(0, len(unique), BATCH)]
        longest = max(part.shape[1] for part in parts)
        nowhere = float("nan")
        even = [nn.functional.pad(part, (0, 0, 0, longest - part.shape[1]), value=nowhere) for part in parts]
        places = {text: k for k, text in enumerate(unique)}
        return torch.cat(even)[[places[text] for text in texts]]

    def left_out(self, text: str) -> str:
        """The words at the end of a text that do not fit; "" where all do."""
        return self._tokens(text)[1]

    def _read(self, texts: Sequence[str]) -> Tensor:
        tokens = [self._tokens(text)[0] for text in texts]
        lengths = torch.tensor([len(each) for each in tokens])
        ids = torch.full((len(tokens), int(lengths.max())), self.pad)
        for row, each in zip(ids, tokens, strict=True):
            row[: len(each)] = torch.tensor(each)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        # as exact in training as afterwards, whatever the run's precision
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            given = self.encoder(input_ids=ids.to(self.device), attention_mask=mask.long().to(self.device))
        meaning: Tensor = given.last_hidden_state.float().cpu()
        if self.kind == "CLIP":
            meaning[:, 0] = meaning[torch.arange(len(ids)), lengths - 1]
        said = torch.tensor([bool(text.strip()) for text in texts])
        return meaning.masked_fill(~(mask & said[:, None])[..., None], float("nan"))

    def _tokens(self, text: str) -> tuple[list[int], str]:
        """The tokens of a text, cut after a whole word, and the words that are cut off. The tokenizer itself is asked
        to cut nothing: that would change it, and two threads use it."""
        words = " ".join(text.encode("utf-8", "replace").decode().split())
        found = self.tokenizer(words, return_offsets_mapping=True, verbose=False)
        ids, room = list(found["input_ids"]), self.context - 1
        if len(ids) <= self.context:
            return ids, ""
        whose = found.word_ids(0)
        starts = [k for k in range(2, room + 1) if whose[k] != whose[k - 1]]
        kept = max(starts, default=room)
        return [*ids[:kept], ids[-1]], words[found["offset_mapping"][kept][0] :]


def open_frozen_encoder(folder: str | Path, context: int, device: torch.device, width: int = 0) -> FrozenEncoder:
    """The encoder and the tokenizer in a folder, or in its folders text_encoder and tokenizer (as Stable Diffusion).

    context  the most tokens to read; no more than the encoder can. width: what is expected; 0: any.
    Raises UsageError for what is no such folder and where `transformers` is missing, FabricaError for damaged files.
    """
    home, words = _homes(Path(folder))
    sizes, (prefix, kind) = _sizes(home)
    _check_words(words, kind)
    package = _package(f"{prefix}Config", f"{prefix}Model", f"{kind}Tokenizer")
    try:
        with _quiet(package):
            encoder, lacking = _encoder(package, prefix, sizes, home)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise FabricaError(f"the text encoder in {home} cannot be opened: {_line(error)}; take it anew") from error
    try:
        with _quiet(package):
            tokenizer = getattr(package, f"{kind}Tokenizer").from_pretrained(words, local_files_only=True)
        tokenizer("")  # forget what the file says of cutting and padding
    except Exception as error:  # what is written in Rust raises no narrower ones
        raise FabricaError(f"the tokenizer in {words} cannot be opened: {_line(error)}; take it anew") from error
    config = encoder.config
    found, known = int(config.hidden_size), int(config.vocab_size)
    problems = [f"{len(lacking)} weights are missing or of another shape, e.g. {lacking[0]}"] if lacking else []
    problems += [f"it is {found} wide, and {width} was trained on"] if width not in (0, found) else []
    problems += [f"the tokenizer has {len(tokenizer)} tokens, and it {known}"] if len(tokenizer) > known else []
    if problems:
        raise FabricaError(f"the text encoder in {home} does not fit: {problems[0]}; take it and its tokenizer anew")
    pad = int(config.pad_token_id or 0)
    places = int(config.max_position_embeddings) - (pad + 1 if kind == "Roberta" else 0)  # it counts from there
    digest = hashlib.sha256((home / WEIGHTS).read_bytes()).hexdigest()[:12]
    encoder = encoder.to(device).eval().requires_grad_(False)
    return FrozenEncoder(Path(folder), tokenizer, encoder, device, kind, min(context, places), found, pad, digest)


def _encoder(package: Any, prefix: str, sizes: dict[str, Any], home: Path) -> tuple[Any, list[str]]:
    """The encoder, and the weights that the file lacks."""
    cls = getattr(package, f"{prefix}Model")
    encoder, report = cls.from_pretrained(
        None,  # no folder: nothing but these sizes and weights is looked at
        config=getattr(package, f"{prefix}Config")(**sizes),
        state_dict=load_file(home / WEIGHTS),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are reported
        dtype=torch.float32,
        attn_implementation="sdpa",
        **({} if prefix == "CLIPText" else {"add_pooling_layer": False}),
    )
    mismatched = (key if isinstance(key, str) else key[0] for key in report["mismatched_keys"])
    return encoder, sorted({*report["missing_keys"], *mismatched})


def files_of(frozen_encoder: FrozenEncoder) -> list[Path]:
    """The files of encoder and tokenizer that are there."""
    encoder, words = _homes(frozen_encoder.folder)
    told = (words / name for name in (*WORDS[frozen_encoder.kind], TOKENS, *MORE))
    return [path for path in (encoder / CONFIG, encoder / WEIGHTS, *told) if path.is_file()]


def _homes(folder: Path) -> tuple[Path, Path]:
    """Where the encoder is, and where its tokenizer."""
    if (folder / "text_encoder").is_dir():
        return folder / "text_encoder", folder / "tokenizer"
    return folder, folder


def _sizes(home: Path) -> tuple[dict[str, Any], tuple[str, str]]:
    """The sizes of the encoder in this folder, and how its classes are called. Raises UsageError."""
    try:
        raw = json.loads((home / CONFIG).read_text("utf-8"))
        kind = raw["model_type"]
        raw = {"pad_token_id": raw.get("pad_token_id"), **raw["text_config"]} if kind == "clip" else raw
        sizes = {key: raw[key] for key in SIZES if isinstance(raw.get(key), int | float | str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = f"expected a folder with {CONFIG}, {WEIGHTS} and the tokenizer's files; nothing is downloaded"
        raise UsageError(f"uses.text: {home} holds no text encoder ({_line(error)}); {expected}") from error
    if kind not in KINDS:
        raise UsageError(f"uses.text: {home} holds a {kind!r}; expected one of {', '.join(KINDS)}")
    if not (home / WEIGHTS).is_file():
        pickles = sorted(path.name for path in home.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        found = f"its weights are pickles ({pickles[0]}), which may hold programs" if pickles else "it has no weights"
        raise UsageError(
            f"uses.text: {home}: {found}; expected {WEIGHTS}, as save_pretrained of transformers writes it"
        )
    return sizes, KINDS[kind]


def _check_words(words: Path, kind: str) -> None:
    # without them transformers makes a tokenizer that knows no word, and says nothing
    if not (words / TOKENS).is_file() and not all((words / name).is_file() for name in WORDS[kind]):
        wanted = " and ".join(WORDS[kind])
        raise UsageError(f"uses.text: {words} has no tokenizer; expected {TOKENS}, or {wanted}, beside the encoder")


def _package(*classes: str) -> Any:
    """transformers, with these classes, which it imports when they are asked for."""
    try:
        import transformers

        for name in classes:
            getattr(transformers, name)
    except (ImportError, AttributeError, RuntimeError) as error:
        why = f"uses.text takes the package transformers ({_line(error)})"
        raise UsageError(f"{why}: pip install 'fabrica-imaging[text]'") from error
    return transformers


@contextmanager
def _quiet(package: Any) -> Iterator[None]:
    """Without its bars and its tables of weights, of which what matters is checked."""
    said = package.utils.logging
    loud, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()
    said.disable_progress_bar()
    try:
        yield
    finally:
        said.set_verbosity(loud)
        if bars:
            said.enable_progress_bar()


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

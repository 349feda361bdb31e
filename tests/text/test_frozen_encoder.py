"""Reports read by an encoder that others have trained: tiny ones of each kind, built and saved here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fabrica
from fabrica.errors import FabricaError, UsageError
from fabrica.recipe.folder import read_log
from fabrica.recipe.load import load_recipe
from fabrica.recipe.schema import Recipe
from fabrica.text.frozen_encoder import FrozenEncoder, open_frozen_encoder
from fabrica.training.frozen import keep_text
from fabrica.training.loop import train

pytestmark = pytest.mark.usefixtures("few_held_out")

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'fabrica-imaging[text]'"
)

CPU = torch.device("cpu")
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LETTERS = "abcdefghijklmnopqrstuvwxyz."
TEXTS = ["The lung is clear.", "", "A long left effusion."]
KINDS = ("clip", "bert", "roberta")


def clip(folder: Path, **sizes: Any) -> Path:
    """As Stable Diffusion has it: two folders, the words in two files."""
    from tokenizers.pre_tokenizers import ByteLevel

    signs = sorted(ByteLevel.alphabet())
    tokens = [*signs, *(sign + "</w>" for sign in signs), "lu", "lun", "lung</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer/vocab.json").write_text(json.dumps({token: k for k, token in enumerate(tokens)}))
    (folder / "tokenizer/merges.txt").write_text("#version: 0.2\nl u\nlu n\nlun g</w>\n")
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    config = transformers.CLIPTextConfig(
        **{"vocab_size": len(tokens), "max_position_embeddings": 24, **ends, **SMALL, **sizes}
    )
    transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder


def bert(folder: Path) -> Path:
    """As most are published: with the head that it was trained with."""
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS), "lung"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(vocab_size=len(words), max_position_embeddings=24, **SMALL)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


def roberta(folder: Path) -> Path:
    from tokenizers.pre_tokenizers import ByteLevel

    folder.mkdir(parents=True)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = transformers.RobertaConfig(vocab_size=len(tokens), max_position_embeddings=26, type_vocab_size=1, **SMALL)
    transformers.RobertaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("encoders")
    return {make.__name__: make(home / make.__name__) for make in (clip, bert, roberta)}


@pytest.fixture(scope="module")
def readers(homes: dict[str, Path]) -> dict[str, FrozenEncoder]:
    return {kind: open_frozen_encoder(homes[kind], 64, CPU) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_means_the_same_whatever_stands_beside_it(kind: str, readers: dict[str, FrozenEncoder]) -> None:
    frozen_encoder = readers[kind]
    assert (frozen_encoder.context, frozen_encoder.width) == (24, 16)
    together = frozen_encoder.features([*TEXTS, TEXTS[0]])
    assert together.dtype == torch.float32 and together.shape[0] == 4 and together.shape[2] == 16
    alone = frozen_encoder.features(TEXTS[:1])
    length = alone.shape[1]
    torch.testing.assert_close(together[0, :length], alone[0], atol=1e-5, rtol=1e-4)
    assert torch.equal(together[0, :length], together[3, :length]) and not alone.isnan().any()
    assert together[0, length:].isnan().all() and together[1].isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_place_says_what_the_whole_text_says(kind: str, readers: dict[str, FrozenEncoder]) -> None:
    one, other = readers[kind].features(["lung a", "lung b"])[:, 0]
    assert not torch.allclose(one, other, atol=1e-4)


def test_features_are_those_of_the_encoder(homes: dict[str, Path], readers: dict[str, FrozenEncoder]) -> None:
    model = transformers.BertForMaskedLM.from_pretrained(homes["bert"]).eval().bert
    tokenizer = transformers.BertTokenizer.from_pretrained(homes["bert"])
    with torch.no_grad():
        wanted = model(**tokenizer(TEXTS[:1], return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(readers["bert"].features(TEXTS[:1]), wanted)
    model = transformers.CLIPTextModel.from_pretrained(homes["clip"] / "text_encoder").eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(homes["clip"] / "tokenizer")
    with torch.no_grad():
        given = model(**tokenizer(TEXTS[:1], return_tensors="pt"))
    found = readers["clip"].features(TEXTS[:1])
    torch.testing.assert_close(found[:, 1:], given.last_hidden_state[:, 1:])
    torch.testing.assert_close(found[:, 0], given.pooler_output)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_too_long_is_cut_after_a_word(kind: str, readers: dict[str, FrozenEncoder]) -> None:
    frozen_encoder = readers[kind]
    text = "ab cd  ef gh ij kl mn op qr st uv wx yz"
    left_out = frozen_encoder.left_out(text)
    assert left_out and " ".join(text.split()).endswith(f" {left_out.strip()}")
    assert frozen_encoder.features([text]).shape[1] <= 24
    kept = text.split()[: -len(left_out.split())]
    torch.testing.assert_close(frozen_encoder.features([text]), frozen_encoder.features([" ".join(kept)]))
    assert frozen_encoder.left_out("ab cd") == "" and frozen_encoder.left_out("a" * 99), "one word alone is cut within"
    assert open_frozen_encoder(frozen_encoder.folder, 8, CPU).context == 8


def test_a_copy_is_all_that_it_takes(homes: dict[str, Path], readers: dict[str, FrozenEncoder], tmp_path: Path) -> None:
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        keep_text(readers[kind], tmp_path / kind)
        copied = open_frozen_encoder(tmp_path / kind / "text", 64, CPU, 16)
        torch.testing.assert_close(copied.features(TEXTS), readers[kind].features(TEXTS), equal_nan=True)
        assert copied.hash == readers[kind].hash and not list((tmp_path / kind).rglob("*.py"))


def test_a_radiology_bert_and_a_whole_clip_are_read_as_what_they_are(homes: dict[str, Path], tmp_path: Path) -> None:
    special = shutil.copytree(homes["bert"], tmp_path / "cxr")
    config = json.loads((special / "config.json").read_text())
    theirs = {"model_type": "cxr-bert", "auto_map": {"AutoModel": "evil.Model"}, "projection_size": 8}
    (special / "config.json").write_text(json.dumps(config | theirs | {"attn_implementation": "someone/kernels"}))
    (special / "evil.py").write_text("raise SystemExit('this must not run')")
    open_frozen_encoder(special, 64, CPU)
    flat = tmp_path / "flat"
    shutil.copytree(homes["clip"] / "text_encoder", flat)
    shutil.copytree(homes["clip"] / "tokenizer", flat, dirs_exist_ok=True)
    config = json.loads((flat / "config.json").read_text())
    (flat / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": config}))
    torch.testing.assert_close(
        open_frozen_encoder(flat, 64, CPU).features(TEXTS),
        open_frozen_encoder(homes["clip"], 64, CPU).features(TEXTS),
        equal_nan=True,
    )


def test_what_is_no_encoder_is_one_line_each(homes: dict[str, Path], tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return shutil.copytree(homes["bert"], tmp_path / name)

    def complains(folder: Path, message: str, width: int = 0) -> None:
        with pytest.raises(FabricaError, match=message) as caught:
            open_frozen_encoder(folder, 64, CPU, width)
        assert "\n" not in str(caught.value)

    complains(tmp_path / "nowhere", r"nowhere holds no text encoder .* nothing is downloaded")
    bare = broken("bare")
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    complains(bare, r"its weights are pickles \(pytorch_model\.bin\), which may hold programs; expected model\.safe")
    (bare / "pytorch_model.bin").unlink()
    complains(bare, "it has no weights; expected model.safetensors")
    mute = broken("mute")
    (mute / "vocab.txt").unlink()
    complains(mute, r"mute has no tokenizer; expected tokenizer\.json, or vocab\.txt")
    other = broken("other")
    (other / "config.json").write_text(json.dumps({"model_type": "t5"}))
    complains(other, "holds a 't5'; expected one of clip_text_model, clip, bert, cxr-bert, roberta")
    (other / "config.json").write_text("{")
    complains(other, "other holds no text encoder")
    cut = broken("cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:500])
    complains(cut, "cut cannot be opened")
    strange = broken("strange")
    (strange / "tokenizer.json").write_text("{")
    complains(strange, "tokenizer in .*strange cannot be opened")
    for name, key, message in (("deep", "num_hidden_layers", "weights are missing"), ("wide", "vocab_size", "shape")):
        deep = broken(name)
        config = json.loads((deep / "config.json").read_text())
        (deep / "config.json").write_text(json.dumps(config | {key: 99}))
        complains(deep, f"does not fit: .*{message}")
    full = broken("full")
    (full / "vocab.txt").write_text((full / "vocab.txt").read_text() + "\nthe\nheart")
    complains(full, "the tokenizer has 62 tokens, and it 60")
    complains(homes["bert"], "it is 16 wide, and 8 was trained on", width=8)


ALONE = """
import socket, sys
def refused(*arguments, **more):
    raise SystemExit("the network was asked")

socket.socket.connect = socket.getaddrinfo = refused
from fabrica.cli.importing import importing
with importing():
    import torch
    from fabrica.methods import diffusion
    from fabrica.training import run
    from fabrica.text.frozen_encoder import open_frozen_encoder
for folder in sys.argv[1:]:
    open_frozen_encoder(folder, 64, torch.device("cpu")).features(["The lung."])
assert "transformers" in sys.modules and "torchvision" not in sys.modules, "torchvision was imported"
"""


@pytest.mark.slow
def test_neither_torchvision_nor_the_network_is_asked(homes: dict[str, Path]) -> None:
    arguments = [str(folder) for folder in homes.values()]
    done = subprocess.run([sys.executable, "-c", ALONE, *arguments], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_without_the_package_it_is_one_line(homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"takes the package transformers .*: pip install 'fabrica-imaging\[text\]'"):
        open_frozen_encoder(homes["bert"], 64, CPU)


TINY = [
    *("data.size=16", "data.count=24", "data.batch=8", "data.condition=[text,sex]", "text.context=64"),
    *("method.channels=[8,16]", "method.attention=[false,true]", "method.head_channels=8", "method.norm_groups=8"),
    *("method.context_width=12", "sample.steps=2", "train.minutes=0", "train.steps=4", "train.validate_every=2"),
    *("train.warmup=1", "train.checkpoint_every=2", "train.log_every=1"),
]
ASKED = {"text": "The lung is clear.", "sex": "F"}


def tiny(home: Path, *overrides: str) -> Recipe:
    return load_recipe("ddpm-chest", [*TINY, f"uses.text={home}", *overrides])


@pytest.fixture(scope="module")
def run(homes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose original encoder is gone."""
    home = tmp_path_factory.mktemp("frozen")
    gone = shutil.copytree(homes["clip"], home / "gone")
    train(tiny(gone), home / "run")
    shutil.rmtree(gone)
    return home / "run"


def test_a_model_draws_what_the_frozen_encoder_reads(run: Path) -> None:
    model = fabrica.load(run, device="cpu")
    assert (model.found.text.context, model.found.text.width) == (24, 16)
    asked = model.sample_array(2, conditions=ASKED)
    alone = model.sample_array(2, conditions=ASKED, batch=1)  # rounded otherwise: kernels differ with the batch size
    assert np.abs(asked - alone).max() < 0.1 * np.abs(asked[0] - asked[1]).max()
    assert not np.array_equal(asked, model.sample_array(2, conditions={**ASKED, "text": "The heart is large."}))
    quiet: dict[str, Any] = {"warn": lambda note: None}
    empty, without = (
        model.sample_array(1, conditions=told, **quiet) for told in ({"text": " ", "sex": "F"}, {"sex": "F"})
    )
    assert np.array_equal(empty, without), "an empty prompt is the null"
    assert not np.array_equal(asked, model.sample_array(2, conditions=ASKED, guidance=4.0))
    notes: list[str] = []
    model.sample_array(1, conditions={"text": "a 心 " * 30}, warn=notes.append)
    assert len(notes) == 1 and "reads 22 tokens, and the prompt is longer" in notes[0]


def test_the_encoder_comes_with_the_model_and_is_not_trained(run: Path) -> None:
    assert {path.name for path in (run / "text").iterdir()} == {
        *("config.json", "model.safetensors", "vocab.json", "merges.txt"),
    }
    assert not (run / "vocabulary.json").exists() and "encoder in text/" in (run / "README.md").read_text()
    saved = torch.load(run / "training/checkpoint.pt")
    assert {name: w.shape for name, w in saved["networks"]["conditions"].items() if "readers.text" in name} == {
        "readers.text.weight": (12, 16),
        "readers.text.bias": (12,),
    }


def test_a_run_goes_on_with_its_own_copy(run: Path, homes: dict[str, Path], tmp_path: Path) -> None:
    half = train(tiny(homes["clip"], "train.steps=2"), tmp_path / "half")
    recipe = (half / "recipe.yaml").read_text().replace("  steps: 2\n  minutes", "  steps: 4\n  minutes")
    (half / "recipe.yaml").write_text(recipe.replace(str(homes["clip"]), "/gone"))
    train(None, half, resume=True)
    assert read_log(half / "log.csv")[-1]["step"] == 4
    for name in ("config.json", "model.safetensors"):
        assert (half / "text" / name).read_bytes() == (run / "text" / name).read_bytes()


def test_what_does_not_go_together_is_refused(homes: dict[str, Path], run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.condition names none; add text to it"):
        tiny(homes["bert"], "data.condition=sex")
    with pytest.raises(UsageError, match="nowhere holds no text encoder"):
        train(tiny(tmp_path / "nowhere"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "text")
    with pytest.raises(UsageError, match="text holds no text encoder"):
        fabrica.load(copy)
    clip(tmp_path / "wider", hidden_size=32)
    shutil.rmtree(copy / "text", ignore_errors=True)
    keep_text(open_frozen_encoder(tmp_path / "wider", 24, CPU), copy)
    with pytest.raises(FabricaError, match="it is 32 wide, and 16 was trained on"):
        fabrica.load(copy)


def test_the_large_recipes_fit_one_another(homes: dict[str, Path], tmp_path: Path) -> None:
    """What they say is kept but for sizes: an autoencoder, and diffusion on its latents, told by a frozen encoder."""
    small = ["data.source=phantom:chest", "data.size=32", "data.count=24", "data.batch=8", "train.accumulate=1"]
    small += ["train.steps=2", "train.validate_every=2", "method.norm_groups=8"]
    coder = ["method.channels=[8,16]", "method.critic_width=4", "method.pretrain=1", "data.turn=0"]
    train(load_recipe("autoencoder-mimic", [*small, *coder]), tmp_path / "coder")
    uses = [f"uses.autoencoder={tmp_path / 'coder'}", f"uses.text={homes['clip']}", "sample.steps=2"]
    sizes = ["method.channels=[8,16,16]", "method.head_channels=8", "method.context_width=12"]
    model = fabrica.load(
        train(load_recipe("latent-text-mimic", [*small, *uses, *sizes]), tmp_path / "run"), device="cpu"
    )
    assert (model.found.text.context, model.found.text.width) == (24, 16)
    assert model.found.method["objective"] == "v" and model.recipe.sample.guidance == 7
    drawn = model.sample_array(1, conditions={"text": "The lung is clear."})
    assert drawn.shape == (1, 1, 32, 32) and bool(np.isfinite(drawn).all())

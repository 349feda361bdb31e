"""Synthesisers exported: the same pictures of the same seeds without PyTorch, told the same, by the same samplers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fabrica
from fabrica import runtime
from fabrica.conditioning.vocabulary import learned, save_words
from fabrica.conditioning.encoder import condition_encoder
from fabrica.errors import FabricaError, UsageError
from fabrica.export import export
from fabrica.export.networks import networks, sizes
from fabrica.image import Image
from fabrica.methods import build
from fabrica.model.loading import load, load_autoencoder
from fabrica.model.model import Model
from fabrica.model.saving import save_model
from fabrica.phantoms.chest.chest import chest
from fabrica.recipe.codecs import codec_config
from fabrica.recipe.folder import AUTOENCODER, WORDS
from fabrica.recipe.found import Found
from fabrica.recipe.schema import CodecConfig, DataConfig, Recipe, SampleConfig, TextConfig, TrainConfig
from tests.handmade import HU

SMALL: dict[str, Any] = {
    "name": "diffusion",
    **{"channels": [8, 16], "attention": [False, True], "head_channels": 8, "norm_groups": 4, "context_width": 12},
    "mask_width": 4,
}
CODER = {"name": "autoencoder", "channels": [8, 16], "norm_groups": 4, "res_blocks": 1, "adversarial": 0, "features": 0}
REPORTS = ["There is a large left pleural effusion.", "The lungs are clear. No effusion."]
EVERYTHING = ["label", "text", "age", "sex", "view", "mask"]
SEX = {"sex": ["F", "M"], "view": ["AP", "PA"]}
TOLD = {"label": "ill", "text": "large effusion", "age": 60, "sex": "F"}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[str]]] = {  # method, data, more, graphs
    "pixels": ({**SMALL, "patch": 2}, {}, {}, ["denoiser"]),
    "label": ({**SMALL, "objective": "flow", "schedule": "flow"}, {"condition": ["label"]}, {}, ["denoiser"]),
    "volumes": (SMALL, {"size": [8, 16, 16]}, {}, ["denoiser"]),
    "latents": (SMALL, {}, {"space": True}, ["denoiser", "encoder", "decoder"]),
    "everything": (
        SMALL,
        {"condition": EVERYTHING},
        {"space": True},
        ["denoiser", "conditions", "encoder", "decoder"],
    ),
    "student": (
        {"name": "distill", "steps": [2, 4], "student": SMALL},
        {"condition": ["label"]},
        {"sample": SampleConfig(steps=4)},
        ["denoiser"],
    ),
    "modern-gan": ({"name": "modern-gan", "width": 4}, {"condition": ["label"], "size": [32, 32]}, {}, ["generator"]),
}


def given(folder: Path, kind: str, seed: int = 0) -> Model:
    """A model of random weights, none of them zero, as it comes from its folder."""
    method, data, more, _ = KINDS[kind]
    full: dict[str, Any] = {"size": [16, 16], **data}
    sample = more.get("sample", SampleConfig(steps=3, guidance=2.0, rescale=0.3))
    text = TextConfig(tokens=300, context=16, layers=1, heads=3)
    recipe = Recipe(
        name=kind, method=method, data=DataConfig(**full), sample=sample, text=text, train=TrainConfig(precision="bf16")
    )
    if "text" in full.get("condition", []):
        vocabulary, seen = learned(recipe, REPORTS)
        text = replace(text, tokens=len(vocabulary))
    labels = CodecConfig(kind="label", low=0, high=255, classes=3)
    found = replace(
        Found.asked(recipe),
        **{"codec": codec_config(HU), "modality": "CT", "spacing": [1.0] * len(full["size"]), "text": text},
        **{"classes": ["well", "ill"], "categories": SEX, "codec_mask": labels},
        **({"uses": {"autoencoder": AUTOENCODER}} if more.get("space") else {}),
    )
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    space = None
    if more.get("space"):
        coder = Recipe(name="coder", method=CODER, data=DataConfig(size=full["size"]))
        kept(folder / AUTOENCODER, coder, replace(Found.asked(coder), codec=codec_config(HU)))
        space = load_autoencoder(folder / AUTOENCODER, torch.device("cpu")).method
    kept(folder, recipe, found, space)
    if "text" in full.get("condition", []):
        save_words(folder / WORDS, condition_encoder(recipe, found, vocabulary, seen))
    return load(folder)


def kept(folder: Path, recipe: Recipe, found: Found, space: Any = None) -> None:
    made = build(recipe, found, space)
    for name in made.ships:
        for weight in made.get_submodule(name).parameters():
            if not weight.any():
                nn.init.normal_(weight, 0.0, 0.05)
    folder.mkdir(exist_ok=True)
    save_model(folder, made, recipe, found, kept="none")

"""python -m benchmarks.same BEFORE [RECIPE ...] [--speed]: whether an older checkout BEFORE and this one give the same
results, bit for bit, on one core; with --speed, which of the two is faster.

Both are driven by the command line alone, with the same words: nothing here knows where a module lies. One recipe or
more of every method trains four steps on phantoms, with a small network, then samples or is applied, or is evaluated.
Compared is every file that comes of it: tensors of weights and checkpoints, images, logs, scores, texts. Left out are
times, versions, and HTML pages, which show the scores again. Differences are named, and the exit status is 1. With
names, only these recipes and what they work with. To save time these commands are forked from a process that has
imported torch and MONAI, and nothing of Fabrica. Against a checkout whose noise was PyTorch's, and not yet NumPy's,
samples, previews and scores of what draws images differ, and weights that such scores choose: seeds are other pictures.

--speed: TIMES runs in turn, `--help` and `apply` as processes of their own, training and sampling forked as above.
Ratios are now / before, medians over the pairs of runs: below 1, this checkout is faster. Intervals go from the second
smallest to the second largest, which for ten runs is a 97.9 % interval of the median. Where others use the machine,
seconds of the processor say more than those of the clock. Results of both go to real/same.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.differences import TEXTS, apart, content
from benchmarks.sides import DICOM, Side, sides

RESULTS = Path(__file__).parent / "real" / "same.json"
TIMES = 10
NAMED = 5  # differences of a kind that are named
KINDS = {"weights": ".safetensors", "checkpoint": ".pt", "log": "log.csv", "images": "", "scores": ".json", "texts": ""}

# what all recipes are told, and what makes their networks small
BASE = "data.size=32 data.batch=8 train.steps=4 train.minutes=0 train.warmup=0 train.log_every=1"
CHESTS = f"{BASE} data.source=phantom:chest data.count=40"
HEADS = f"{BASE} data.count=8"
FEW = f"{BASE} data.count=8 data.crop=32"
UNET = "method.channels=[8,16] method.attention=[false,true] method.head_channels=8 method.norm_groups=8 train.lr=2e-3"
CODER = "method.channels=[8,16] method.norm_groups=8 method.critic_width=8 method.pretrain=2"
LATENT = f"{CHESTS} {UNET} sample.steps=3 uses.autoencoder=autoencoder-chest/model"
TEXT = "method.context_width=12 text.tokens=320 text.context=32 text.layers=1"
GAN = "method.width=8 method.critic_width=8"
TAUGHT = "data.fit=pad data.condition= method.steps=[2] sample.steps=2 uses.teacher=ddpm-chest/model"
SAMPLE = "sample {0}/model -n 4 --as npz -o {0}/samples"
APPLY = "apply {0}/model --force -o {0}/applied"
DOUBT = f"apply {{0}}/model --force --uncertainty {DICOM} --as npz -o {{0}}/doubt"
SAMPLERS = [f"{SAMPLE}-{name} --steps 8 --sampler {name}" for name in ("ddpm", "ddim", "heun", "unipc")]
EVALUATE = "evaluate {0}/model -o {0}/report"
EXPORT = "export {0}/model --to bundle -o {0}/bundle", "sample {0}/bundle -n 2 --as npz -o {0}/samples-of-bundle"
HEAD = "phantoms/head/head-0"
T1, CT = (f"{HEAD}/{name}.nii.gz --as npz" for name in ("T1", "CT"))
BESIDE = f"--beside T2={HEAD}/T2.nii.gz --beside FLAIR={HEAD}/FLAIR.nii.gz"


@dataclass(frozen=True)
class Case:
    """A recipe that is trained with these overrides, and commands after; {0} is the folder of all their files."""

    name: str
    overrides: str
    then: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def commands(self) -> list[list[str]]:
        train = [f"train {self.name} {self.overrides} -o {{0}}/model"] if self.overrides else []
        return [shlex.split(command.format(self.name)) for command in (*train, *self.then)]


DRAWN = ("phantom chest -n 2 --size 64 -o {0}/chest", "phantom head -n 1 --size 48 --slices 4 -o {0}/head")
CASES = [  # what is needed stands before what needs it
    Case("phantoms", "", (*DRAWN, "scan {0}/dicom -o {0}/dicom.csv")),
    Case(
        "ddpm-chest", f"{CHESTS} {UNET} data.fit=pad sample.steps=3", (SAMPLE, *SAMPLERS, f"{EVALUATE} -n 16", *EXPORT)
    ),
    Case("flow-chest", f"{CHESTS} {UNET}", (SAMPLE, "sample {0}/model -n 2 --as dicom -o {0}/dicom")),
    Case("distill-pneumonia", f"{CHESTS} {TAUGHT}", (SAMPLE,), ("ddpm-chest",)),
    Case("mlp-xray", CHESTS, (SAMPLE,)),
    Case("dcgan-chest", f"{CHESTS} method.width=8", (SAMPLE,)),
    Case("wgan-xray", f"{CHESTS} method.width=8 data.batch=40", (SAMPLE,)),
    Case("modern-chest", f"{CHESTS} {GAN} data.condition=label", (SAMPLE,)),
    Case("cyclegan-head", f"{HEADS} {GAN} method.blocks=1", (f"{APPLY} {T1} --round-trip",), ("phantoms",)),
    Case("pix2pix-head", f"{HEADS} {GAN}", (f"{APPLY} {T1} --uncertainty", f"{EVALUATE} -n 8"), ("phantoms",)),
    Case(  # the radiograph is larger than the network's images: by overlapping windows
        "strong-head",
        f"{HEADS} {GAN} method.levels=3",
        (f"{APPLY} {HEAD}/T1.nii.gz", f"{APPLY}-windows {DICOM} --as npz"),
        ("phantoms",),
    ),
    Case("cut-head", f"{HEADS} {GAN} method.blocks=1 method.patches=16", (f"{APPLY} {T1}",), ("phantoms",)),
    Case("nafnet-xray", f"{FEW} method.size=tiny", (f"{APPLY} {DICOM}", DOUBT)),
    Case("nafnet-multi", f"{FEW} method.size=tiny", (f"{APPLY} {T1} {BESIDE}", f"{EVALUATE} -n 8"), ("phantoms",)),
    Case("redcnn-lowdose", f"{FEW} method.width=8", (f"{APPLY} {CT}",), ("phantoms",)),
    Case("unetpp-lowdose", f"{FEW} method.width=8", (f"{APPLY} {CT}",), ("phantoms",)),
    Case(
        "srgan-xray",
        f"{FEW} {GAN} data.source=phantom:chest method.blocks=1 method.pretrain=1",
        (f"{APPLY} {DICOM} --as npz",),
    ),
    Case("autoencoder-chest", f"{CHESTS} {CODER}", (f"{EVALUATE} -n 8",)),
    Case("latent-chest", LATENT, (SAMPLE,), ("autoencoder-chest",)),
    Case(
        "latent-text-chest",
        f"{LATENT} {TEXT}",
        (f"{SAMPLE} --prompt 'There is a large left pleural effusion.'",),
        ("autoencoder-chest",),
    ),
    Case(
        "spade-chest",
        f"{LATENT} method.mask_width=8",
        (f"{SAMPLE} --mask phantoms/chest/masks/chest-0.png",),
        ("phantoms", "autoencoder-chest"),
    ),
    Case(
        "ddpm-hippocampus",
        f"{BASE} {UNET} data.source=phantom:head:T1 data.size=[8,16,16] data.count=8 method.patch=1 sample.steps=3",
        (SAMPLE,),
    ),
]

# --speed: (a process of its own, words); {k} is the number of the run
LONG = "data.count=80 train.minutes=0 train.log_every=1 train.warmup=0"
DDPM = f"train ddpm-chest {LONG} data.size=32 data.batch=16 method.channels=[32,64] method.attention=[false,true]"
NAFNET = f"train nafnet-xray {LONG} data.size=64 data.crop=64 method.size=tiny"
READY = (f"{DDPM} train.steps=1 -o speed/ddpm", f"{NAFNET} train.steps=1 -o speed/nafnet")
MEASURES = {
    "--help": (True, "--help"),
    "apply nafnet-xray, one DICOM file": (True, f"apply speed/nafnet {DICOM} --force -o speed/applied-{{k}}"),
    "train ddpm-chest, 20 steps": (False, f"{DDPM} train.steps=20 -o speed/ddpm-{{k}}"),
    "train nafnet-xray, 20 steps": (False, f"{NAFNET} train.steps=20 -o speed/nafnet-{{k}}"),
    "sample ddpm-chest, 64 images": (False, "sample speed/ddpm -n 64 --as npz -o speed/samples-{k}"),
}


def kind_of(path: Path) -> str:
    named = [kind for kind, ending in KINDS.items() if ending and path.name.endswith(ending)]
    return named[0] if named else "texts" if path.suffix in (*TEXTS, ".csv") else "images"


def compared(before: Side, now: Side, name: str) -> tuple[dict[str, int], dict[str, list[str]]]:
    """By kind, how many values in the folders of this name were compared, and those that differ, in words."""
    counts: dict[str, int] = dict.fromkeys(KINDS, 0)
    differ: dict[str, list[str]] = {kind: [] for kind in KINDS}
    homes = {"before": before.home / name, "now": now.home / name}
    files = {path.relative_to(home) for home in homes.values() for path in home.rglob("*") if path.is_file()}
    for file in sorted(file for file in files if file.suffix != ".html"):
        kind = kind_of(file)
        if missing := [when for when, home in homes.items() if not (home / file).exists()]:
            counts[kind] += 1
            differ[kind].append(f"{file}: missing {missing[0]}")
            continue
        one, other = (content(home / file) for home in homes.values())
        counts[kind] += len({*one, *other})
        found = {key: apart(one.get(key), other.get(key)) for key in sorted({*one, *other})}
        differ[kind] += [f"{file}: {key}{': ' * bool(key)}{how}" for key, how in found.items() if how]
    return counts, differ


def chosen(names: Sequence[str]) -> list[Case]:
    """The cases of these names and what they need; without names, all."""
    known = [case.name for case in CASES]
    if strangers := [name for name in names if name not in known]:
        sys.exit(f"no recipe {strangers[0]!r} here; expected {', '.join(known)}")
    wanted = set(names or known)
    for case in reversed(CASES):
        wanted |= set(case.needs) if case.name in wanted else set()
    return [case for case in CASES if case.name in wanted]


def same(before: Side, now: Side, names: Sequence[str]) -> dict[str, Any]:
    """Runs the cases, prints a table, and below it what differs."""
    print(f"{'values compared':<20}" + "".join(f"{kind:>18}" for kind in KINDS) + f"{'processor s':>12}", flush=True)
    found: dict[str, dict[str, Any]] = {}
    total = 0.0
    listed: list[str] = []
    for case in chosen(names):
        failed, used = _run(before, now, case)
        counts, differ = compared(before, now, case.name)
        cells = [f"{len(differ[kind])} of {n} differ" if differ[kind] else f"{n or '-'}" for kind, n in counts.items()]
        print(f"{case.name:<20}" + "".join(f"{cell:>18}" for cell in cells) + f"{used:>12.1f}", flush=True)
        total += used
        found[case.name] = {kind: {"compared": n, "differ": len(differ[kind])} for kind, n in counts.items() if n}
        found[case.name] |= {"failed": failed} if failed else {}
        for kind, lines in {"failed": failed, **differ}.items():
            listed += [f"{case.name}, {kind}: {line}" for line in lines[:NAMED]]
            listed += [f"{case.name}, {kind}: ... and {len(lines) - NAMED} more"] * (len(lines) > NAMED)
    print("\n".join(listed) or "all equal, to the last bit")
    print(f"{total:.0f} s of one core")
    kept = {"before": before.state, "now": now.state, "equal": not listed}
    return {**kept, "processor_seconds": round(total), "recipes": found}


def _run(before: Side, now: Side, case: Case) -> tuple[list[str], float]:
    """The commands of a case on both sides, up to the first that fails, which is told; and seconds of the processor."""
    used = 0.0
    for words in case.commands:
        ended = [side.forked(words) for side in (before, now)]
        used += sum(clocks.get("processor_seconds", 0.0) for _, clocks in ended)
        if any(error for error, _ in ended):
            ways = [error or "ends well" for error, _ in ended]
            return [f"fabrica {' '.join(words)}: before {ways[0]}; now {ways[1]}"], used
    return [], used


def speed(before: Side, now: Side) -> dict[str, Any]:
    """Runs each command TIMES times on both sides, in turn, after one that does not count."""
    found: dict[str, Any] = {}
    for side in (before, now):
        for words in READY:
            _clocks(side, False, words)
    for name, (own, words) in MEASURES.items():
        runs: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
        for k in range(-1, TIMES):
            turns = {"before": before, "now": now}
            for when in turns if k % 2 else reversed(turns):  # who comes first takes turns, too
                runs[when].append(_clocks(turns[when], own, words.format(k=k)))
        clocks = runs["now"][0]
        found[name] = {
            clock: _told(*([run[clock] for run in runs[w][1:]] for w in ("before", "now"))) for clock in clocks
        }
        for clock, told in found[name].items():
            sides_ = "   ".join(f"{when} {told[when]['median']:.3f} {told[when]['interval']}" for when in runs)
            print(
                f"{name:<38}{clock:<20}{told['ratio']['median']:.3f} {told['ratio']['interval']}   {sides_}", flush=True
            )
    differ = [line for lines in compared(before, now, "speed")[1].values() for line in lines]
    print("\n".join(differ[:NAMED]) or "and all results equal, to the last bit")
    kept = {"before": before.state, "now": now.state, "equal": not differ, "cores": len(os.sched_getaffinity(0))}
    return {**kept, "times": TIMES, "measures": found}


def _clocks(side: Side, own: bool, words: str) -> dict[str, float]:
    """Seconds by the clock and of the processor; of a training also those of its steps, as its log has them."""
    error, clocks = (side.started if own else side.forked)(shlex.split(words))
    if error:
        sys.exit(f"{side.checkout}: fabrica {words}: {error}")
    log = side.home / words.split()[-1] / "log.csv"
    if not words.startswith("train") or not log.exists():
        return clocks
    with log.open(encoding="utf-8", newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return {**clocks, "seconds_of_steps": seconds[-1] - seconds[0]}


def _told(before: list[float], now: list[float]) -> dict[str, Any]:
    """Medians with intervals, and all values."""
    found: dict[str, Any] = {}
    ratios = [one / other for one, other in zip(now, before, strict=True)]
    for name, values in (("ratio", ratios), ("before", before), ("now", now)):
        _, low, *_, high, _ = sorted(values)
        found[name] = {"median": round(statistics.median(values), 3), "interval": [round(low, 3), round(high, 3)]}
    return {**found, "runs": {"before": [round(x, 3) for x in before], "now": [round(x, 3) for x in now]}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same", description="Same results, and how fast.")
    parser.add_argument("before", type=Path, help="the older checkout")
    parser.add_argument("recipes", nargs="*", help="only these")
    parser.add_argument("--speed", action="store_true", help="measure times instead")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        both = sides(asked.before, Path(name))
        found = speed(*both) if asked.speed else same(*both, asked.recipes)
    if not asked.recipes:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept["speed" if asked.speed else "same"] = found
        RESULTS.write_text(json.dumps(kept, indent=2) + "\n")
    sys.exit(not found["equal"])


if __name__ == "__main__":
    main()

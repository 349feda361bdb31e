"""Report text for the chest phantom: a small grammar that says what the labels say, in many ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Labels = Mapping[str, object]


def report(labels: Labels, rng: np.random.Generator) -> str:
    """ "FINDINGS: ... IMPRESSION: ..." for the labels of a `Chest`.

    Every present finding is named in both parts; an absent one is negated or left out, in a sentence of its own
    or with other absent ones, never in one sentence with a present finding. No number depends on image size.
    """
    body = [_heart(labels, rng), _lungs(labels, rng), *_pleura(labels, rng), *_device(labels, rng)]
    body += [_one(rng, options) for options in _NORMAL_PARTS if rng.random() < 0.4]
    rng.shuffle(body)
    if rng.random() < 0.6:
        body.insert(0, _technique(labels, rng))
    return f"FINDINGS: {' '.join(body)} IMPRESSION: {_impression(labels, rng)}"


def _one(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _technique(labels: Labels, rng: np.random.Generator) -> str:
    view, age = labels["view"], labels["age"]
    person = {"female": "woman", "male": "man"}[str(labels["sex"])]
    known = f"{age}-year-old {person}"
    article = "an" if str(age).startswith("8") or age in (11, 18) else "a"
    return _one(
        rng,
        [
            f"Frontal {view} view of the chest.",
            f"Single {view} radiograph of {article} {known}.",
            f"{view} chest radiograph, {known}.",
            f"{known[0].upper()}{known[1:]}, {view} projection.",
            f"One {view} image of the chest was obtained.",
        ],
    )


_HEARTS = ("The heart", "The cardiac silhouette", "The cardiac shadow", "The heart shadow", "Heart size")


def _heart(labels: Labels, rng: np.random.Generator) -> str:
    subject = _one(rng, _HEARTS)
    if not labels["cardiomegaly"]:
        if subject == "Heart size":
            return _one(rng, ["Heart size is normal.", "Heart size is within normal limits.", "Normal heart size."])
        size = ["is normal in size", "is not enlarged", "is of normal size and shape", "is within normal limits"]
        return f"{subject} {_one(rng, size)}."
    degree = {"mild": "mildly", "marked": "markedly"}[str(labels["cardiomegaly_degree"])]
    if subject == "Heart size":
        return _one(rng, [f"Heart size is {degree} increased.", f"There is {degree[:-2]} cardiomegaly."])
    state = [
        f"is {degree} enlarged",
        f"is {degree} enlarged, more than half as wide as the thorax",
        f"appears {degree} enlarged",
        f"is {degree} widened, in keeping with cardiomegaly",
    ]
    return f"{subject} {_one(rng, state)}."


def _nodule(labels: Labels, rng: np.random.Generator) -> str:
    """A noun phrase, without its article."""
    size = round(float(str(labels["nodule_diameter_mm"])))
    length = _one(rng, [f"{size} mm", f"{size / 10:.1f} cm"])
    shape = _one(rng, ["", "round ", "well-defined ", "smooth ", "solitary "])
    return f"{length} {shape}{_one(rng, ['nodule', 'nodule', 'pulmonary nodule', 'nodular opacity'])}"


def _place(labels: Labels, rng: np.random.Generator) -> str:
    side, zone = labels["nodule_side"], labels["nodule_zone"]
    return _one(rng, [f"the {side} {zone} zone", f"the {zone} zone of the {side} lung", f"the {side} {zone} lung zone"])


def _article(phrase: str) -> str:
    return f"an {phrase}" if phrase.startswith(("8", "11", "18", "a", "e", "i", "o", "u")) else f"a {phrase}"


def _lungs(labels: Labels, rng: np.random.Generator) -> str:
    if labels["nodule"]:
        thing, place = _article(_nodule(labels, rng)), _place(labels, rng)
        first = _one(
            rng,
            [
                f"There is {thing} in {place}.",
                f"{thing[0].upper()}{thing[1:]} projects over {place}.",
                f"{thing[0].upper()}{thing[1:]} is seen in {place}.",
                f"In {place} there is {thing}.",
            ],
        )
        rest = ["", "", " The lungs are otherwise clear.", " Elsewhere the lungs are clear.", " No consolidation."]
        return first + _one(rng, rest)
    clear = [
        "The lungs are clear.",
        "No focal consolidation.",
        "There is no focal airspace opacity.",
        "The lungs show no consolidation or mass.",
        "Lung parenchyma without focal opacity.",
        "Pulmonary vascularity is normal and no consolidation is seen.",
        "No suspicious pulmonary nodule or consolidation.",
        "No infiltrate is seen.",
    ]
    if not (labels["pneumothorax"] or labels["effusion_sides"]):
        clear += ["Both lungs are clear and well aerated.", "The lungs are well expanded and clear."]
    return _one(rng, clear)


def _effusion(labels: Labels, rng: np.random.Generator) -> str:
    """A noun phrase, without its article."""
    sizes = labels["effusion_sizes"]
    assert isinstance(sizes, dict)
    if len(sizes) == 2:
        right, left = sizes["right"], sizes["left"]
        if right == left:
            return f"{right} bilateral pleural effusions"
        return _one(
            rng,
            [
                f"bilateral pleural effusions, {right} on the right and {left} on the left",
                f"bilateral pleural effusions ({left} left, {right} right)",
            ],
        )
    ((side, size),) = sizes.items()
    return _one(rng, [f"{size} {side} pleural effusion", f"{size} {side}-sided pleural effusion"])


def _pleura(labels: Labels, rng: np.random.Generator) -> list[str]:
    sentences = []
    if labels["effusion_sides"]:
        sentences.append(_effusion_sentence(labels, rng))
    if labels["pneumothorax"]:
        sentences.append(_pneumothorax_sentence(labels, rng))
    if not labels["effusion_sides"] and not labels["pneumothorax"]:
        sentences.append(
            _one(
                rng,
                [
                    "No pleural effusion or pneumothorax.",
                    "There is no pneumothorax or pleural effusion.",
                    "Neither pneumothorax nor pleural effusion is seen.",
                    "The costophrenic angles are sharp. No pneumothorax.",
                    "The pleural spaces are clear.",
                    "No effusion. No pneumothorax.",
                    "The pleural spaces are free of fluid and air.",
                ],
            )
        )
    elif not labels["pneumothorax"]:
        sentences.append(_one(rng, ["No pneumothorax.", "There is no pneumothorax.", "No pneumothorax is identified."]))
    elif not labels["effusion_sides"]:
        sentences.append(_one(rng, ["No pleural effusion.", "The costophrenic angles are sharp.", "No effusion."]))
    return sentences


def _effusion_sentence(labels: Labels, rng: np.random.Generator) -> str:
    thing = _effusion(labels, rng)
    sides = labels["effusion_sides"]
    assert isinstance(sides, tuple)
    if len(sides) == 2:
        return _one(
            rng,
            [
                f"There are {thing}.",
                f"{thing[0].upper()}{thing[1:]}, blunting both costophrenic angles.",
                f"{thing[0].upper()}{thing[1:]}.",
            ],
        )
    side = sides[0]
    return _one(
        rng,
        [
            f"There is a {thing}.",
            f"A {thing} is present.",
            f"A {thing} blunts the costophrenic angle.",
            f"{thing[0].upper()}{thing[1:]} with a meniscus along the chest wall.",
            f"Blunting of the {side} costophrenic angle, consistent with a {thing}.",
            f"The {side} costophrenic angle is obscured by a {thing}.",
        ],
    )


def _pneumothorax_sentence(labels: Labels, rng: np.random.Generator) -> str:
    side, size = labels["pneumothorax_side"], labels["pneumothorax_size"]
    return _one(
        rng,
        [
            f"There is a {size} {side} apical pneumothorax.",
            f"A {size} {side} pneumothorax is present, the visceral pleural line visible at the apex.",
            f"A visceral pleural line is seen in the {side} apex, indicating a {size} pneumothorax.",
            f"{str(size).capitalize()} {side}-sided pneumothorax with absent lung markings at the apex.",
            f"Air in the {side} pleural space: {size} pneumothorax.",
        ],
    )


def _device(labels: Labels, rng: np.random.Generator) -> list[str]:
    if not labels["pacemaker"]:
        absent = ["No implanted cardiac device.", "No lines, tubes or pacemaker.", "No pacemaker is seen."]
        return [_one(rng, absent)] if rng.random() < 0.2 else []
    side, dual = labels["device_side"], str(labels["device"]).startswith("dual")
    chambers = "dual" if dual else "single"
    ends = "the right atrium and right ventricle" if dual else "the right ventricle"
    leads, verb = ("leads", "project") if dual else ("lead", "projects")
    return [
        _one(
            rng,
            [
                f"A {side}-sided {chambers}-chamber pacemaker is in place with {leads} in {ends}.",
                f"There is a {side} pectoral pacemaker whose {leads} {verb} over {ends}.",
                f"{side.capitalize() if isinstance(side, str) else side} chest wall {chambers}-chamber pacemaker; "
                f"{leads} to {ends}.",
                f"A pacemaker generator overlies the {side} upper chest, its {leads} ending in {ends}.",
            ],
        )
    ]


_NORMAL_PARTS = (
    ("The trachea is midline.", "The trachea is central.", "No tracheal deviation."),
    (
        "The mediastinal contours are normal.",
        "The mediastinum is not widened.",
        "Unremarkable mediastinal and hilar contours.",
        "The hila are normal.",
    ),
    (
        "The bony thorax is intact.",
        "No acute osseous abnormality.",
        "No displaced rib fracture.",
        "The visualised bones are unremarkable.",
    ),
    ("No free air under the diaphragm.", "The upper abdomen is unremarkable."),
)


def _impression(labels: Labels, rng: np.random.Generator) -> str:
    points = []
    if labels["pneumothorax"]:
        side, size = str(labels["pneumothorax_side"]), str(labels["pneumothorax_size"])
        points.append(_one(rng, [f"{size} {side} pneumothorax", f"{side} pneumothorax, {size}"]))
    if labels["effusion_sides"]:
        points.append(_effusion(labels, rng))
    if labels["nodule"]:
        advice = _one(rng, ["", "", "; CT is recommended", "; follow-up is advised", ", comparison advised"])
        points.append(f"{_nodule(labels, rng)} in {_place(labels, rng)}{advice}")
    if labels["cardiomegaly"]:
        degree = "marked" if labels["cardiomegaly_degree"] == "marked" else "mild"
        points.append(_one(rng, ["cardiomegaly", f"{degree} cardiomegaly", f"{degree} enlargement of the heart"]))
    if labels["pacemaker"]:
        where = f"{labels['device_side']}-sided"
        points.append(_one(rng, [f"{where} pacemaker in place", f"pacemaker ({where})", f"{where} pacemaker"]))
    if not points:
        return _one(rng, _NORMAL_IMPRESSIONS)
    points = [point[0].upper() + point[1:] for point in points]
    if len(points) > 1 and rng.random() < 0.5:
        return " ".join(f"{k}. {point}." for k, point in enumerate(points, 1))
    return " ".join(f"{point}." for point in points)


_NORMAL_IMPRESSIONS = (
    "No acute cardiopulmonary abnormality.",
    "Normal chest radiograph.",
    "No evidence of acute cardiopulmonary disease.",
    "Unremarkable chest radiograph.",
    "No acute findings.",
    "Normal heart and lungs.",
)

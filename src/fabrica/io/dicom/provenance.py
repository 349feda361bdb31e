"""Who made an object, from what and how: UIDs, equipment, derivation and the mark of synthetic data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, generate_uid

from fabrica.image import Float32

PROCESSING = ("109102", "DCM", "Processing Equipment")
SYNTHESIZING = ("109100", "DCM", "Synthesizing Equipment")
_SOURCE_IMAGE = ("121322", "DCM", "Source image for image processing operation")
# CID 7203 has no code for an image made by a model, and it is extensible; private schemes begin with 99.
PROCESSED = ("PROCESSED", "99FABRICA", "Processed by a trained model")
TRANSLATED = ("TRANSLATED", "99FABRICA", "Translated by a generative model")
SYNTHESISED = ("SYNTHESISED", "99FABRICA", "Synthesised by a generative model")


@dataclass(frozen=True)
class Maker:
    """What made the image. The fields are the arguments of `write_dicom` of the same names."""

    software: str
    version: str
    model: str
    model_hash: str
    seed: int | None
    description: str
    uid_seed: str
    uid_content: str = ""
    created: str = ""

    @property
    def reproducible(self) -> bool:
        return bool(self.uid_seed or self.model_hash or self.seed is not None)

    def uid(self, *entropy: str) -> UID:
        """A new UID: the same for the same maker and entropy where the maker is reproducible, else random."""
        if not self.reproducible:
            return generate_uid()
        return generate_uid(entropy_srcs=[self.uid_seed, self.model_hash, str(self.seed), *entropy])

    @property
    def statement(self) -> str:
        """What a person should know, as plain text: "Fabrica 1.0; model ddpm-chest; sha256 ab12; seed 3"."""
        parts = [
            " ".join(filter(None, (self.software, self.version))),
            f"model {self.model}" if self.model else "",
            f"model hash {self.model_hash}" if self.model_hash else "",
            "" if self.seed is None else f"seed {self.seed}",
        ]
        return "; ".join(filter(None, parts))


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def add_equipment(dataset: Dataset, maker: Maker, purpose: tuple[str, str, str]) -> None:
    """Append to ContributingEquipmentSequence: those who contributed before stay named."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = DicomSequence([code(*purpose)])
    item.Manufacturer = maker.software[:64] or "Fabrica"
    if maker.model:
        item.ManufacturerModelName = maker.model[:64]
    if maker.version:
        item.SoftwareVersions = maker.version[:64]
    item.ContributionDescription = maker.statement[:1024]
    dataset.ContributingEquipmentSequence = DicomSequence([*(dataset.get("ContributingEquipmentSequence") or []), item])


def add_derivation(
    dataset: Dataset, maker: Maker, sources: Sequence[Dataset], derivation: tuple[str, str, str]
) -> None:
    """DerivationDescription and code, and the images it was derived from."""
    text = "; ".join(filter(None, (maker.description, maker.statement)))
    dataset.DerivationDescription = text[:1024]
    dataset.DerivationCodeSequence = DicomSequence([code(*derivation)])
    items = []
    for source in sources:
        if source.get("SOPClassUID") and source.get("SOPInstanceUID"):
            item = Dataset()
            item.ReferencedSOPClassUID = source.SOPClassUID
            item.ReferencedSOPInstanceUID = source.SOPInstanceUID
            item.PurposeOfReferenceCodeSequence = DicomSequence([code(*_SOURCE_IMAGE)])
            items.append(item)
    if items:
        dataset.SourceImageSequence = DicomSequence(items)


def digest(*parts: bytes) -> str:
    """A short name for content, so that other pixels never share a UID."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()


def digest_of(data: Float32) -> str:
    """`digest` of an array's bytes in C order, without a copy of it."""
    whole = hashlib.sha256()
    for index in np.ndindex(data.shape[: data.ndim - 2]):
        whole.update(np.ascontiguousarray(data[index]).data)
    return whole.hexdigest()

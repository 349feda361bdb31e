"""The other side of a DICOM node: objects of invented patients, who sends them, and an archive that takes results."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when it is imported
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from fabrica.serving.node.calling import associated
from fabrica.serving.node.peers import Peer


def ct(series: str, number: int, size: int = 32, **attributes: Any) -> Dataset:
    """Slice `number` of a CT series, of UIDs that follow from the name of the series."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid(series, number)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid(series, "study"), uid(series)
    dataset.FrameOfReferenceUID = uid(series, "frame")
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex = "Doe^Jane", "J1", "", ""
    dataset.StudyDate = dataset.StudyTime = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.ReferringPhysicianName = dataset.Manufacturer = dataset.PositionReferenceIndicator = ""
    dataset.Modality, dataset.SeriesDescription, dataset.BodyPartExamined = "CT", "lung, thin", "CHEST"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 1, number, 1
    dataset.ImageType, dataset.KVP, dataset.PatientPosition = ["ORIGINAL", "PRIMARY", "AXIAL"], 120, "HFS"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 2
    dataset.Rows = dataset.Columns = size
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
    across = np.add.outer(np.arange(size), np.arange(size))
    values = (900 + 20 * across + number).astype("<u2")
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return filed(dataset)


def filed(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def uid(*what: object) -> str:
    return str(generate_uid(entropy_srcs=[str(each) for each in what]))


def saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def send(
    datasets: Sequence[Dataset], port: int, aet: str = "SCANNER", called: str = "FABRICA", tls: Any = None
) -> list[int]:
    """The status of each object; [] where there is no association."""
    contexts = dict.fromkeys((d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets)
    peer = Peer(called, "localhost" if tls else "127.0.0.1", port, tls)
    with associated(aet, peer, contexts, 20) as association:
        if not association.is_established:
            return []
        return [int(association.send_c_store(dataset).get("Status", -1)) for dataset in datasets]


@dataclass
class Archive:
    """What it was sent: by instance, each time as bytes. counts: what it says that it has of a series; None: it takes
    no queries. refusing: the status that it answers with in place of success."""

    peer: Peer
    stored: dict[str, list[bytes]] = field(default_factory=dict)
    counts: dict[str, int] | None = None
    refusing: int = 0

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        count = (self.counts or {}).get(asked.SeriesInstanceUID)
        if count is not None:
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.SeriesInstanceUID = "SERIES", asked.SeriesInstanceUID
            answer.NumberOfSeriesRelatedInstances = count
            yield 0xFF00, answer

    def store(self, event: evt.Event) -> int:
        if not self.refusing:
            found = event.request.DataSet.getvalue()
            self.stored.setdefault(str(event.request.AffectedSOPInstanceUID), []).append(found)
        return self.refusing


@contextmanager
def archive(queries: bool = False) -> Iterator[Archive]:
    """An archive on a free port."""
    ae = AE("ARCHIVE")
    ae.require_called_aet = True
    contexts = [build_context(CTImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    contexts.append(build_context(Verification))
    if queries:
        contexts.append(build_context(StudyRootQueryRetrieveInformationModelFind))
    found = Archive(Peer("ARCHIVE", "127.0.0.1", 0), counts={} if queries else None)
    server = ae.make_server(
        ("127.0.0.1", 0), contexts=contexts, evt_handlers=[(evt.EVT_C_STORE, found.store), (evt.EVT_C_FIND, found.find)]
    )
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    found.peer = Peer("ARCHIVE", "127.0.0.1", server.server_address[1])
    try:
        yield found
    finally:
        super(type(server), server).shutdown()
        server.server_close()

#!/bin/bash
# Frames of fewer than 8 pixels in a BINARY segmentation by highdicom 0.28.2 come back as other masks, and nothing is said.
# Frames follow one another bit by bit (DICOM PS3.5, 8.1.1); highdicom keeps what fills no byte for the next frame, but
# where a frame fills none at all it begins each in a byte of its own. Its own reader, and pydicom's, then find the bits
# of a frame in that of another. Frames of 8 pixels or more are right, also of sizes that fill no whole bytes (3 x 3).
# Seen: highdicom 0.28.2, pydicom 3.0.2, numpy 2.2.6, Python 3.11:
#   3 x 3: 0 of 36 voxels differ
#   2 x 3: 9 of 24 voxels differ
# Exit 0 while that is so, 1 once it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check highdicom==0.28.2 pydicom==3.0.2 numpy==2.2.6 2>/dev/null
venv/bin/python -W ignore - <<'PY'
import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

shared = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}


def slice_of(k, rows, columns):
    """Slice k of a CT, one every 5 mm."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    said = {"SOPClassUID": CTImageStorage, "SOPInstanceUID": generate_uid(), "Modality": "CT", "PatientID": "a",
            "PatientName": "a", "Rows": rows, "Columns": columns, "PixelSpacing": [1, 1], "SliceThickness": 5,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 5 * k], "InstanceNumber": k + 1,
            "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0, "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2", "PixelData": bytes(2 * rows * columns)}
    nothing = ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber",
               "ReferringPhysicianName", "PositionReferenceIndicator", "SeriesNumber")
    for keyword, value in {**dict.fromkeys(nothing, None), **shared, **said}.items():
        setattr(made, keyword, value)
    return made


def segmentation(labels, kind):
    segments = [hd.seg.SegmentDescription(n, f"organ {n}", codes.SCT.AnatomicalStructure, codes.SCT.Organ, "MANUAL")
                for n in range(1, int(labels.max()) + 1)]
    sources = [slice_of(k, *labels.shape[1:]) for k in range(len(labels))]
    made = hd.seg.Segmentation(sources, labels, kind, segments, generate_uid(), 1, generate_uid(), 1, "m", "m", "1", "1",
                               omit_empty_frames=False)
    made.save_as("seg.dcm")
    return hd.seg.segread("seg.dcm")


wrong = []
for rows in (3, 2):
    labels = np.random.default_rng(0).integers(0, 2, (4, rows, 3)).astype(np.uint8)
    read = segmentation(labels, "BINARY")
    read = read.get_volume(combine_segments=True).array
    read = min(read, read[::-1], key=lambda each: int((each != labels).sum()))  # a volume may begin at either end
    wrong.append(int((read != labels).sum()))
    print(f"{rows} x 3: {wrong[-1]} of {labels.size} voxels differ")
raise SystemExit(not (wrong[0] == 0 < wrong[1]))
PY
echo "highdicom writes other masks where frames have fewer than 8 pixels"

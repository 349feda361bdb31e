#!/bin/bash
# highdicom 0.28.2 counts one segment too few in the segmentations of kind LABELMAP that it writes. The background is an item
# of their SegmentSequence, and both segment_numbers and number_of_segments leave it out: segment_numbers drops it from the
# list, and number_of_segments, "the number of non-background segments", takes 1 off the length of that list once more. A
# loop over range(1, number_of_segments + 1), which is right for BINARY and FRACTIONAL, never sees the last organ.
# Seen: highdicom 0.28.2, pydicom 3.0.2, numpy 2.2.6, Python 3.11:
#   BINARY   segment_numbers [1, 2, 3] number_of_segments 3
#   LABELMAP segment_numbers [1, 2, 3] number_of_segments 2
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


labels = np.zeros((2, 8, 8), np.uint8)
labels[0, :2], labels[0, 3:5], labels[1, 6:] = 1, 2, 3
counted = {}
for kind in ("BINARY", "LABELMAP"):
    read = segmentation(labels, kind)
    counted[kind] = read.number_of_segments
    print(f"{kind:8} segment_numbers {list(read.segment_numbers)} number_of_segments {read.number_of_segments}")
    assert list(read.segment_numbers) == [1, 2, 3]
raise SystemExit(counted != {"BINARY": 3, "LABELMAP": 2})
PY
echo "highdicom counts one segment too few in label maps"

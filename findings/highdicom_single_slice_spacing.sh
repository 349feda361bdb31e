#!/bin/bash
# A segmentation of a single slice, by highdicom 0.28.2, says that slices lie 1 mm apart, whatever the image says: nothing
# is known of a distance between slices where there is one, SliceThickness is copied from the source (5 mm here), and
# SpacingBetweenSlices is 1.0, the default of an argument that nobody gave. Readers prefer SpacingBetweenSlices to
# SliceThickness, highdicom's own get_volume among them, so that one slice of a lesion has a fifth of its volume.
# Of two slices or more the distance is right.
# Seen: highdicom 0.28.2, pydicom 3.0.2, numpy 2.2.6, Python 3.11:
#   1 slice:  SliceThickness 5.0 SpacingBetweenSlices 1.0 get_volume 1.0 mm
#   2 slices: SliceThickness 5.0 SpacingBetweenSlices 5.0 get_volume 5.0 mm
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


found = []
for count in (1, 2):
    read = segmentation(np.ones((count, 8, 8), np.uint8), "BINARY")
    said = read.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    found.append((said.get("SpacingBetweenSlices"), float(read.get_volume(combine_segments=True).spacing[0])))
    print(f"{count} slice{'s' * (count > 1)}: SliceThickness {said.SliceThickness} SpacingBetweenSlices {found[-1][0]} "
          f"get_volume {found[-1][1]} mm")
raise SystemExit(found != [(1.0, 1.0), (5.0, 5.0)])
PY
echo "highdicom says 1 mm between slices where there is one slice"

"""A small tree of the shape of MIMIC-CXR-JPG; no word and no image of it is from there."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from fabrica.cli.main import app
from fabrica.data.manifest import Manifest
from fabrica.data.mimic import is_mimic, mimic, sections
from fabrica.data.scan import scan
from fabrica.errors import UsageError

Draw = Callable[..., Path]

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old with a test: none

 FINDINGS:

 The lungs are
 clear at 10:30.

 IMPRESSION:
 1. Nothing.
 RECOMMENDATION(S):  None.
"""


@pytest.fixture
def tree(tmp_path: Path, draw: Draw) -> Path:
    """Three patients: two views of one study; one without report; one in test, whose second image is not there."""
    images = [
        ("10000001", "50000001", "a", "PA", "train"),
        ("10000001", "50000001", "b", "LATERAL", "train"),
        ("10000002", "50000002", "c", "PA", "validate"),
        ("11000003", "50000003", "d", "PA", "test"),
        ("11000003", "50000003", "gone", "PA", "test"),
        ("11000003", "50000003", "e", "AP", "test"),
    ]
    metadata, split = ["dicom_id,subject_id,study_id,ViewPosition,Rows"], ["dicom_id,study_id,subject_id,split"]
    for k, (patient, study, image, view, part) in enumerate(images):
        metadata.append(f"{image},{patient},{study},{view},16")
        split.append(f"{image},{study},{patient},{part}")
        if image != "gone":
            draw(f"files/p{patient[:2]}/p{patient}/s{study}/{image}.jpg", seed=k)
    (tmp_path / "files/p10/p10000001/s50000001.txt").write_text(REPORT)
    (tmp_path / "files/p11/p11000003/s50000003.txt").write_text("FINAL REPORT\n\n No heading at all.\n")
    with gzip.open(tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz", "wt") as file:
        file.write("\n".join(metadata))
    (tmp_path / "mimic-cxr-2.0.0-split.csv").write_text("\n".join(split))
    (tmp_path / "mimic-cxr-2.0.0-chexpert.csv").write_text(
        "subject_id,study_id,Edema,No Finding,Pneumonia\n10000001,50000001,1.0,,1.0\n10000002,50000002,-1.0,0.0,\n"
    )
    return tmp_path


def test_the_published_tables_become_a_manifest(tree: Path, tmp_path: Path) -> None:
    manifest = mimic(tree)
    rows = {row.id: row for row in manifest.rows}
    assert list(rows) == ["a", "c", "d"]
    assert rows["a"].path == "files/p10/p10000001/s50000001/a.jpg" and rows["a"].patient == "p10000001"
    assert [row.split for row in rows.values()] == ["train", "val", "test"]
    assert [row.label for row in rows.values()] == ["Edema|Pneumonia", "", ""]
    assert rows["a"].text == "FINDINGS: The lungs are clear at 10:30. IMPRESSION: 1. Nothing."
    assert rows["c"].text == "" == rows["d"].text
    notes = " | ".join(manifest.notes)
    for part in ("PA 3", "1 of 4 images are not in the folder", "1 of 4 images have no report", "neither FINDINGS"):
        assert part in notes
    manifest.check()
    manifest.save(tree / "manifest.csv")
    assert Manifest.load(tree / "manifest.csv").rows == manifest.rows


def test_scan_knows_the_layout(tree: Path) -> None:
    assert is_mimic(tree) and scan(tree).rows == mimic(tree).rows
    assert not is_mimic(tree / "files")


def test_other_views_on_demand(tree: Path) -> None:
    assert {row.domain for row in mimic(tree, views=("PA", "AP")).rows} == {"PA", "AP"}
    assert len(mimic(tree, views=()).rows) == 5


def test_reports_in_a_folder_of_their_own(tree: Path, tmp_path: Path) -> None:
    apart = tmp_path / "reports"
    (apart / "files/p10/p10000002").mkdir(parents=True)
    (apart / "files/p10/p10000002/s50000002.txt").write_text("IMPRESSION: Well.")
    assert [row.text for row in mimic(tree, apart).rows] == ["", "IMPRESSION: Well.", ""]


def test_age_and_sex_where_a_table_has_them(tree: Path) -> None:
    assert {(row.age, row.sex, row.view) for row in mimic(tree).rows} == {("", "", "PA")}
    (tree / "mimic-cxr-2.0.0-metadata.csv.gz").unlink()
    (tree / "mimic-cxr-2.0.0-metadata.csv").write_text(
        "dicom_id,subject_id,study_id,ViewPosition,anchor_age,gender\na,10000001,50000001,PA,57,F\n"
    )
    assert [(row.age, row.sex) for row in mimic(tree).rows] == [("57", "F")]


def test_the_command_line_names_layout_views_and_reports(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.csv"
    words = ["scan", str(tree), "-o", str(out), "--layout", "mimic-cxr"]
    app([*words, "--views", "pa,AP", "--reports", str(tree)], standalone_mode=False)
    rows = Manifest.load(out).rows
    assert {row.view for row in rows} == {"PA", "AP"} and sum(bool(row.text) for row in rows) == 1
    app([*words, "--views", ""], standalone_mode=False)
    assert len(Manifest.load(out).rows) == 5
    with pytest.raises(UsageError, match="no layout 'mimic-cx'; did you mean mimic-cxr"):
        app([*words[:-1], "mimic-cx"], standalone_mode=False)
    with pytest.raises(UsageError, match="by its own tables; leave x out"):
        scan(tree, layout="mimic-cxr", patient_regex="x")
    with pytest.raises(UsageError, match="has no mimic-cxr"):
        scan(tree / "files", layout="mimic-cxr")
    with pytest.raises(UsageError, match="not laid out as MIMIC-CXR-JPG"):
        scan(tree / "files", views=["PA"])


def test_sections_of_a_report() -> None:
    found = sections(REPORT)
    assert list(found) == ["", "EXAMINATION", "INDICATION", "FINDINGS", "IMPRESSION", "RECOMMENDATION(S)"]
    assert found["FINDINGS"] == "The lungs are clear at 10:30." and found["INDICATION"].endswith("test: none")
    assert sections("Findings: One.\nFINDINGS: Two.")["FINDINGS"] == "One. Two."


def test_what_is_missing_is_explained(tree: Path) -> None:
    with pytest.raises(UsageError, match="no view 'XX'; expected one of AP, LATERAL, PA"):
        mimic(tree, views=("XX",))
    with pytest.raises(UsageError, match=r"no folder .*nowhere of reports"):
        mimic(tree, tree / "nowhere")
    (tree / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(UsageError, match="cannot be read as a table"):
        mimic(tree)
    (tree / "mimic-cxr-2.0.0-split.csv").write_text("image,split\na,train")
    with pytest.raises(UsageError, match="has no column dicom_id"):
        mimic(tree)
    (tree / "mimic-cxr-2.0.0-split.csv").unlink()
    with pytest.raises(UsageError, match="has no mimic-cxr"):
        mimic(tree)

"""The table survives saving and moving, and refuses what would make results wrong."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabrica.data.manifest import COLUMNS, Manifest, Row
from fabrica.errors import UsageError
from tests.draws import draws

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def table(root: Path, *rows: Row) -> Manifest:
    for row in rows:
        (root / row.path).parent.mkdir(parents=True, exist_ok=True)
        (root / row.path).touch()
    return Manifest(list(rows), root)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@settings(max_examples=draws(20), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(patient=words, text=words, label=words)
def test_what_is_saved_is_loaded(tmp_path: Path, suffix: str, patient: str, text: str, label: str) -> None:
    row = Row("one", patient, "a b/ü.png", "", "val", "DX", "", label, text, "masks/ü.png", "", "0f")
    Manifest([row], tmp_path).save(tmp_path / f"m{suffix}")
    loaded = Manifest.load(tmp_path / f"m{suffix}")
    assert loaded.rows == [row] and loaded.root == tmp_path


def test_a_folder_can_be_moved_with_its_manifest(tmp_path: Path) -> None:
    manifest = table(tmp_path / "data", Row(id="a", patient="p", path="images/a.png", split="train"))
    manifest.save(tmp_path / "data" / "m.csv")
    moved = (tmp_path / "data").rename(tmp_path / "elsewhere")
    loaded = Manifest.load(moved / "m.csv")
    loaded.check()
    assert loaded.rows[0].path == "images/a.png"


def test_paths_outside_the_folder_are_absolute(tmp_path: Path) -> None:
    manifest = table(tmp_path / "data", Row(id="a", patient="p", path="a.png", split="train", mask="a-mask.png"))
    manifest.save(tmp_path / "run" / "m.csv")
    row = Manifest.load(tmp_path / "run" / "m.csv").rows[0]
    assert row.path == str(tmp_path / "data" / "a.png") and row.mask == str(tmp_path / "data" / "a-mask.png")
    assert row.pair == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,patient,file,split\n", "no column path, found id, patient, file, split"),
        ("id,patients,path,split\n", "did you mean patients?"),
        ("patient,path,split\np,a.png,trian\n", "'trian'"),
        ("patient,path,split\np,,train\n", "no path"),
        ("patient,path,split\np,a.png\n", "row 1 has 2 values"),
        ("", "empty"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        Manifest.load(tmp_path / "m.csv")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_table_are_a_usage_error(tmp_path: Path) -> None:
    for name in ("m.csv", "m.parquet"):
        (tmp_path / name).write_bytes(b"\xff\xfe\0garbage\x80")
        with pytest.raises(UsageError, match=name):
            Manifest.load(tmp_path / name)
    with pytest.raises(UsageError, match="no manifest"):
        Manifest.load(tmp_path / "gone.csv")


def test_columns_nobody_knows_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("patient,path,split,lable\np,a.png,train,x\n")
    loaded = Manifest.load(tmp_path / "m.csv")
    assert loaded.notes == ["columns not used: lable"] and loaded.rows[0].id == "a.png"


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    rows = [Row(id=f"{p}{s}", patient=p, path=f"{p}.png", split=s) for p in "abcde" for s in ("train", "test")]
    with pytest.raises(UsageError, match=r"5 patients \(a, b, c, \.\.\.\) are in more than one split"):
        table(tmp_path, *rows).check()
    table(tmp_path, *rows[::2]).check()


def test_a_row_without_split_is_no_leak(tmp_path: Path) -> None:
    table(tmp_path, Row(patient="p", path="a", split="train"), Row(patient="p", path="b", split="")).check()


def test_missing_files_are_counted(tmp_path: Path) -> None:
    manifest = Manifest([Row(id=n, patient=n, path=n, split="val") for n in ("b.png", "a.png")], tmp_path)
    with pytest.raises(UsageError, match=r"2 files .* missing, the first is .*a\.png"):
        manifest.check()


def test_select_and_patients(tmp_path: Path) -> None:
    manifest = Manifest(
        [
            Row(id="1", patient="p", path="1", split="train", domain="a"),
            Row(id="2", patient="p", path="2", split="train", domain="b"),
            Row(id="3", patient="q", path="3", split="test", domain="b"),
        ]
    )
    assert [row.id for row in manifest.select(split="train", domain="b").rows] == ["2"]
    assert [row.id for row in manifest.select(domain="b").rows] == ["2", "3"]
    assert manifest.patients("train") == {"p"} and manifest.patients("val") == set()
    with pytest.raises(UsageError, match="did you mean domain"):
        manifest.select(domian="a")


def test_the_columns_are_those_promised() -> None:
    expected = (
        "id patient path frame split modality domain label text age sex view mask mask_frame mask_labels pair sha256 "
        "kind series series_number description image_type refers unit channels dims notes"
    )
    assert " ".join(COLUMNS) == expected

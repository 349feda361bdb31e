"""Tables as people have them: every separator and encoding, rows of another length, and tables of other folders."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabrica.data.scan import scan
from fabrica.data.tables import find_table, read_table, tables_near
from fabrica.errors import UsageError
from tests.draws import draws

Draw = Callable[..., Path]
NAMES = [(f"im{k:02}.png", "") for k in range(6)]


def labels(path: Path, names: list[tuple[str, str]] = NAMES) -> list[str]:
    table = read_table(path, path.parent, names)
    return [table.lookup(*name).get("label", "") for name in names]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=draws(60), deadline=None)
@given(
    separator=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]),
    end=st.sampled_from(["\n", "\r\n"]),
    words=st.lists(st.sampled_from(["Müller; links", "effusion, left", "a|b", 'say "no"', "two\nlines", "ß", "plain"]),
                   min_size=6, max_size=6),
    trailing=st.sampled_from(["", "header", "rows", "both"]),
    declared=st.booleans(),
    before=st.sampled_from([[], ["Nr"], ["Comment", "Date"]]),
)  # fmt: skip
def test_any_spreadsheet_reads_back(
    tmp_path: Path, separator: str, encoding: str, end: str, words: list[str], trailing: str, declared: bool,
    before: list[str],
) -> None:  # fmt: skip
    """Written by the csv module with any separator and encoding; Excel's sep= line; an empty field too many."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end)
    writer.writerow([*before, "File Name", "Label", *([""] if trailing in ("header", "both") else [])])
    for k, word in enumerate(words):
        writer.writerow(
            [*("x;y,z" for _ in before), f"im{k:02}.png", word, *([""] if trailing in ("rows", "both") else [])]
        )
    whole = (f"sep={separator}{end}" if declared else "") + text.getvalue()
    path = tmp_path / "t.csv"
    path.write_bytes(whole.encode(encoding))
    assert labels(path) == words


@pytest.mark.parametrize("bad", ["im03.png,effusion, left", "im03.png", "im03.png,a,b,c"])
def test_a_row_of_another_length_is_refused_by_its_line_where_the_table_was_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "t.csv"
    rows = [f"im{k:02}.png,l{k}" for k in range(6)]
    path.write_text("\n".join(["file,label", *rows[:3], bad, *rows[4:]]))
    with pytest.raises(UsageError, match=rf"t\.csv line 5 has {bad.count(',') + 1} fields; expected 2") as refused:
        labels(path)
    assert "comma" in str(refused.value) and "\n" not in str(refused.value)
    table, _ = find_table(tmp_path, NAMES)  # where it was only found, the others are used, and it is said
    assert table is not None and [bool(table.lookup(*name)) for name in NAMES] == [k != 3 for k in range(6)]
    assert table.notes == ["1 rows of t.csv were passed over; the first, line 5 has " + str(bad.count(",") + 1)
                           + " fields; expected 2, as the header has"]  # fmt: skip


def test_row_names_of_r_are_no_field_too_many(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["file,label", *(f'"{k + 1}",im{k:02}.png,l{k}' for k in range(6))]))
    assert labels(path) == [f"l{k}" for k in range(6)]


@pytest.mark.parametrize("table", ["NFC", "NFD"])
@pytest.mark.parametrize("disk", ["NFC", "NFD"])
def test_composed_and_decomposed_letters_are_the_same(tmp_path: Path, table: str, disk: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(unicodedata.normalize(table, "file,label\nRöntgen/Schädel_é.png,ja\n"), encoding="utf-8")  # type: ignore[arg-type]
    name = unicodedata.normalize(disk, "Röntgen/Schädel_é.png")  # type: ignore[arg-type]
    assert labels(path, [(name, "")]) == ["ja"]
    assert labels(path, [(name.replace(".png", ".dcm").rpartition("/")[2], "")]) == ["ja"]


def test_a_name_that_is_no_utf8_is_known_by_its_latin_letters(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("file;label\nröntgen.png;ja\n".encode("cp1252"))
    assert labels(path, [("r\udcf6ntgen.png", "")]) == ["ja"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("file,label\n", "is empty"),
        ("weight,height\n1,2\n", "names none of the 6 images; expected a column like file"),
        ("file,weight\nim00.png,2\n", "says nothing of the images that it names; expected a column like patient"),
        ("file,label\nother.png,2\n", "names none of the 6 images"),
    ],
)
def test_a_table_of_no_use_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        labels(path)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert find_table(tmp_path, NAMES)[0] is None


# --- whose table it is


@pytest.fixture
def two(tmp_path: Path, draw: Draw) -> Path:
    """Radiographs and ultrasound side by side, with the same file names."""
    for k in range(6):
        draw(f"data/ultrasound/{k:02}.png", seed=k)
        draw(f"data/xray/{k:02}.png", seed=k + 10)
    return tmp_path / "data"


def write(path: Path, folder: str) -> Path:
    path.write_text("filename,label\n" + "".join(f"{folder}{k:02}.png,cyst{k % 2}\n" for k in range(6)))
    return path


@pytest.mark.parametrize(
    ("named", "scanned", "known"),
    [
        ("ultrasound/", "xray", False),
        ("ultrasound/", "ultrasound", True),
        ("data/ultrasound/", "ultrasound", True),  # no such folder from here: file names must do
        ("", "xray", False),  # may belong to either
        ("", "ultrasound", False),
    ],
)
def test_a_table_in_the_parent_is_used_for_the_folder_that_it_names(
    two: Path, named: str, scanned: str, known: bool
) -> None:
    write(two / "ultrasound_labels.csv", named)
    if named.startswith("data"):
        for path in (two / "xray").iterdir():
            path.unlink()
    manifest = scan(two / scanned)
    assert {bool(row.label) for row in manifest.rows} == {known}
    assert any("--labels" in note and "same names" in note for note in manifest.notes) == (named == "")


def test_a_table_of_one_subfolder_says_nothing_of_the_other(two: Path) -> None:
    write(two / "labels.csv", "ultrasound/")
    rows = scan(two).rows
    assert {row.label[:4] for row in rows if row.path.startswith("ultrasound")} == {"cyst"}
    assert {(row.label, row.domain) for row in rows if row.path.startswith("xray")} == {("", "xray")}


def test_the_user_may_say_that_a_table_belongs_here(two: Path) -> None:
    table = write(two / "labels.csv", "")
    assert {row.label[:4] for row in scan(two / "xray", labels=table).rows} == {"cyst"}
    with pytest.raises(UsageError, match="names none of the 6 images"):
        scan(two / "xray", labels=write(two / "labels.csv", "ultrasound/"))


def test_masks_beside_do_not_make_a_table_doubtful(tmp_path: Path, draw: Draw) -> None:
    for k in range(6):
        draw(f"set/images/{k:02}.png", seed=k)
        draw(f"set/masks/{k:02}.png", seed=9)
    write(tmp_path / "set" / "labels.csv", "")
    assert all(row.label for row in scan(tmp_path / "set" / "images").rows)


def test_participants_of_bids_are_known_by_their_folders(tmp_path: Path, draw: Draw) -> None:
    rows = ["participant_id\tage\tsex\tgroup"]
    for k in range(1, 7):
        draw(f"sub-{k:02}/anat/sub-{k:02}_T1w.png", seed=k)
        rows.append(f"sub-{k:02}\t{30 + k}\t{'F' if k % 2 else 'M'}\t{'n/a' if k == 3 else 'x'}")
    (tmp_path / "participants.tsv").write_text("\n".join(rows))
    found = {row.patient: (row.age, row.sex) for row in scan(tmp_path).rows}
    assert found == {f"sub-{k:02}": (str(30 + k), "F" if k % 2 else "M") for k in range(1, 7)}


def test_which_tables_lie_near(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("in/a.csv", "in/b.TSV", "c.tsv", "in/.d.csv", "e.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in tables_near(tmp_path / "in")] == ["a.csv", "b.TSV", "c.tsv"]


def test_a_folder_named_by_a_way_around_is_the_same_folder(tmp_path: Path, draw: Draw) -> None:
    for k in range(4):
        draw(f"set/images/{k}.png", seed=k)
    lines = [f"images/{k}.png,who{k // 2},{'ab'[k % 2]}" for k in range(4)]
    (tmp_path / "set" / "labels.csv").write_text("\n".join(["file,patient,label", *lines]) + "\n")
    (tmp_path / "other").mkdir()
    straight, around = scan(tmp_path / "set"), scan(tmp_path / "other" / ".." / "set")
    assert [(row.patient, row.label) for row in around.rows] == [(row.patient, row.label) for row in straight.rows]
    assert {row.patient for row in around.rows} == {"who0", "who1"}


def test_a_table_beside_the_images_is_used_or_named_with_the_reason(tmp_path: Path, draw: Draw) -> None:
    for k in range(4):
        draw(f"d/{k}.png", seed=k)
    home = tmp_path / "d"
    (home / "all.csv").write_text("file,label\n" + "".join(f"{k}.png,a\n" for k in range(4)))
    (home / "few.csv").write_text("file,label\n0.png,b\n")
    (home / "long.csv").write_text("file,label\n0.png,b,c\n1.png,b,c\n")
    (home / "other.csv").write_text("file,label\nx.png,b\n")
    (home / "prices.csv").write_text("item,price\n0.png,b\n")
    notes = scan(home).notes
    assert "all.csv knows 4 of 4 images: label (label)" in notes
    said = {note.split(" is not used: ")[0]: note for note in notes if " is not used: " in note}
    assert set(said) == {"few.csv", "long.csv", "other.csv"}
    assert "it knows 1 of 4 images, and all.csv more: join the two" in said["few.csv"]
    assert "2 of 2 rows are of another length than its header; the first, line 2 has 3 fields" in said["long.csv"]
    assert "names none of the images; expected their file names in a column like file" in said["other.csv"]


def test_rows_that_have_no_image_or_contradict_one_another_are_counted(tmp_path: Path, draw: Draw) -> None:
    for k in range(3):
        draw(f"d/{k}.png", seed=k)
    rows = ["0.png,a", "1.png,a", "2.png,a", "2.png,a", "1.png,b", "8.png,a", "9.png,a"]
    (tmp_path / "d" / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    manifest = scan(tmp_path / "d")
    assert [row.label for row in manifest.rows] == ["a", "", "a"]
    assert "labels.csv says different things of 1 of its files, 1.png for one: nothing of these was taken" in [
        *manifest.notes
    ]
    assert "2 of 5 files that labels.csv names are not among the images, 8.png for one" in manifest.notes


def test_zero_bytes_in_a_table_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"file,label\nim00.png,a\0b\n" + b"im01.png,b\n" * 9)
    with pytest.raises(UsageError, match="it holds zero bytes"):
        labels(tmp_path / "t.csv")

"""What the volume formats share: pictures of a plane, number types, marks, volumes one at a time, flat memory."""

from __future__ import annotations

import gzip
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica import io as fio
from fabrica.image import Image
from fabrica.io import streams, voxels
from fabrica.io.voxels import Grid, Storage, first_byte, read_voxels
from tests.draws import draws

RNG = np.random.default_rng(0)
SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".mgh", ".mgz")
LAS = np.array([[-1.5, 0, 0, 90], [0, 1.25, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]], np.float64)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_single_slice_is_a_picture_of_its_plane(tmp_path: Path, suffix: str, axis: int, channels: int) -> None:
    """Of a volume (W, H, D), axis 0 is W. The pixels lie where the voxels did, and it goes back as it came."""
    size = [5, 6, 7]
    size[axis] = 1
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(np.random.default_rng(axis).normal(size=(3, 3)))[0] * (1.5, 2.25, 3)
    affine[:3, 3] = -10, 20, 30
    w, h, d = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    places = (affine[:3] @ np.stack([w, h, d, np.ones_like(w)]).reshape(4, -1)).reshape(3, *size)
    volume = np.moveaxis(places[:channels], (1, 2, 3), (3, 2, 1)).astype(np.float32)  # each value is its place
    written = {"axis": axis, "dtype": "<f4", "slope": 1.0, "inter": 0.0}
    image = fio.read(fio.write(Image(volume, affine), tmp_path / f"x{suffix}")[0])
    assert image.data.ndim == 3 and image.origin["stored"]["axis"] == axis
    columns, rows = (k for k in range(3) if k != axis)
    assert image.size == (size[rows], size[columns])
    np.testing.assert_allclose(image.affine[:, :2], affine[:, [columns, rows]], atol=1e-5)
    row, column = np.mgrid[: image.size[0], : image.size[1]]
    index = np.stack([column, row, np.zeros_like(row), np.ones_like(row)]).reshape(4, -1)
    found = (image.affine[:3] @ index).reshape(3, *image.size)
    np.testing.assert_allclose(image.data, found[:channels], atol=1e-3)
    for target in (suffix, ".nii.gz"):
        copy = fio.write(image, tmp_path / f"copy{target}")[0]
        back = fio.read(copy)
        np.testing.assert_array_equal(back.data, image.data)
        np.testing.assert_allclose(back.affine, image.affine, atol=1e-4)
        assert back.origin["stored"]["axis"] == axis
    loaded = nib.load(tmp_path / "copy.nii.gz")
    assert loaded.shape[:3] == tuple(size)
    np.testing.assert_allclose(loaded.affine, affine, atol=1e-4)
    assert written.keys() <= image.origin["stored"].keys()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_format_after_another_keeps_values_place_and_marks(tmp_path: Path, suffix: str) -> None:
    labels = Image(RNG.integers(0, 118, (1, 4, 5, 6)).astype(np.float32), LAS, "label")
    image = fio.read(fio.write(labels, tmp_path / "a.nii", synthetic=True)[0])
    first = fio.read(fio.write(image, tmp_path / f"b{suffix}")[0])
    again = fio.read(fio.write(first, tmp_path / "c.nrrd")[0])
    for each in (first, again):
        np.testing.assert_array_equal(each.data, labels.data)
        np.testing.assert_allclose(each.affine, LAS, atol=1e-5)
        assert np.dtype(each.origin["stored"]["dtype"]) == np.uint8
        assert (each.unit, each.origin["synthetic"]) == ("label", True)
    plain = fio.read(fio.write(labels, tmp_path / f"d{suffix}")[0])
    assert "synthetic" not in plain.origin


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_rescaled_copy_is_not_rounded_to_the_sources_steps(tmp_path: Path, suffix: str) -> None:
    stored = {"dtype": "<i2", "slope": 1.0, "inter": 0.0}
    source = Image(RNG.integers(0, 4000, (1, 6, 6, 6)).astype(np.float32), LAS, origin={"stored": stored})
    kept = fio.read(fio.write(source, tmp_path / f"x{suffix}")[0])
    assert np.dtype(kept.origin["stored"]["dtype"]) == np.int16 and kept.origin["step"] == 1
    for changed in (source.with_data(source.data / 4000), source.with_data(source.data * 100 + 0.25)):
        back = fio.read(fio.write(changed, tmp_path / f"y{suffix}")[0])
        np.testing.assert_array_equal(back.data, changed.data)
    shifted = Image(source.data, LAS, origin={"stored": {**stored, "slope": 0.5, "inter": -7.0}})
    np.testing.assert_array_equal(fio.read(fio.write(shifted, tmp_path / f"z{suffix}")[0]).data, source.data)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_second_copy_of_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(voxels, "_PIECE", 2**14)  # small against this volume as 2**18 is against a real one
    image = Image(RNG.integers(-1000, 1000, (1, 40, 128, 128)).astype(np.float32), LAS)
    path = fio.write(image, tmp_path / f"a{suffix}")[0]
    fio.read(path)
    for most, work in ((1.6, lambda: fio.read(path)), (0.6, lambda: fio.write(image, path))):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1] / image.data.nbytes
        tracemalloc.stop()
        assert peak < most


@settings(deadline=None, max_examples=draws(60))
@given(data=st.data())
def test_any_order_of_axes_in_any_pieces(data: st.DataObject) -> None:
    """Against numpy's own transpose, with pieces so small that every way of cutting an array into them occurs."""
    axes = data.draw(st.permutations("cdhwv").map("".join)) + data.draw(st.sampled_from(["", "v"]))
    axes = "".join(axis for axis in axes if axis not in data.draw(st.sampled_from(["", "c", "d", "v", "cd"])))
    shape = tuple(data.draw(st.integers(1, 4)) for _ in axes)
    grid = Grid(shape, axes, np.dtype(data.draw(st.sampled_from(["<i2", ">f4", "u1"]))))
    values = np.random.default_rng(0).integers(0, 100, shape).astype(grid.dtype)
    volume = data.draw(st.integers(0, grid.volumes - 1))
    order = [k for k, axis in enumerate(axes) if axis == "v"]
    others = sorted((k for k in range(len(axes)) if k not in order), key=lambda k: "cdhw".index(axes[k]))
    expected = values.transpose([*order, *others]).reshape(grid.volumes, *grid.volume)[volume]
    before = voxels._PIECE
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(values.tobytes())
        voxels._PIECE = data.draw(st.integers(1, 50))
        try:
            with streams.opened(streams.Bytes(path), first_byte(grid, volume)) as stream:
                found = read_voxels(stream, grid, Storage(grid.dtype), volume, [])
        finally:
            voxels._PIECE = before
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=draws(30))
@given(cuts=st.lists(st.integers(1, 300_000), max_size=4), members=st.integers(1, 3), padding=st.integers(0, 9))
def test_gzip_is_read_as_gzip_reads_it(cuts: list[int], members: int, padding: int) -> None:
    """In pieces of any length, across members, and on from a bookmark."""
    raw = np.random.default_rng(0).integers(0, 4, 200_000).astype(np.uint8).tobytes()
    size = len(raw) // members
    parts = [raw[k * size : (k + 1) * size] for k in range(members)]
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(gzip.compress(part, 1) for part in parts) + bytes(padding))
        file.seek(0)
        stream, found = streams.Inflated(file), b""
        for n in cuts:
            found += stream.read(n)
            at, stream = file.tell(), stream.bookmark()
            file.seek(0, 2)
            file.seek(at)
        assert found + stream.read(10**6) == b"".join(parts)
        assert stream.position == sum(map(len, parts)) and stream.read(1) == b""


def test_many_volumes_of_a_packed_file_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes on where the last one ended, and the whole is verified once: 40 volumes must not cost 20 passes."""
    values = RNG.integers(-999, 999, (32, 32, 8, 40)).astype(np.int16)
    path, unpacked, read = tmp_path / "x.nii.gz", [0], streams.Inflated.read
    path.write_bytes(gzip.compress(nib.Nifti1Image(values, LAS).to_bytes(), 1))

    def counted(self: streams.Inflated, n: int) -> bytes:
        found = read(self, n)
        unpacked[0] += len(found)
        return found

    monkeypatch.setattr(streams.Inflated, "read", counted)
    for k, name in enumerate(fio.frames(path)):
        np.testing.assert_array_equal(fio.read(path, name).data[0], values[..., k].T)
    assert unpacked[0] < 2.5 * values.nbytes


def test_what_converts_what_is_not_read() -> None:
    read: tuple[Any, ...] = (
        *fio.VOLUME_SUFFIXES,
        ".dcm",
        ".ima",
        ".png",
        ".tif",
        ".jpg",
        ".npz",
        ".zip",
        ".raw",
        ".zraw",
    )
    assert not set(read) & set(fio.UNREAD)
    assert {".par", ".mnc", ".v", ".bmp", ".gif", ".webp", ".img", ".hdr", ".svs", ".mat", ".h5", ".vti"} <= set(
        fio.UNREAD
    )
    assert all(what and converter and suffix == suffix.lower() for suffix, (what, converter) in fio.UNREAD.items())

"""Layouts of public data sets, as their folders lie after download: what is a patient, a class, a domain, a mask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.data.layouts import Place, read_layout
from fabrica.data.mask_files import masks_of


def laid(paths: Iterable[str], folders: Iterable[str] = ()) -> dict[str, Place]:
    """The places of the images among these files."""
    files = list(paths)
    masks = masks_of(files)
    return read_layout([path for path in files if path not in masks], masks, set(folders)).places


def grid(folders: Iterable[str], *names: str) -> list[str]:
    return [f"{folder}/{name}" for folder in folders for name in names]


SLICES = tuple(f"slice_{k:02}.png" for k in range(6))
NUMBERS = tuple(f"{k}.png" for k in range(1, 9))
SERIES = tuple(f"IM{k:04}.dcm" for k in range(1, 5))

PATIENTS = {  # what the folders are called -> a layout in which each of them is one patient
    "plain numbers with a letter": grid((f"P{k:03}" for k in range(6)), *SLICES),
    "few patients without zeros": grid(("P1", "P2", "P3"), *SLICES),
    "patient-7": grid(("patient-7", "patient-9", "patient-12"), *NUMBERS),
    "Patient (1)": grid(("Patient (1)", "Patient (2)", "Patient (3)"), *NUMBERS),
    "ACDC": grid((f"patient{k:03}" for k in range(1, 5)), "frame01.png", "frame12.png", "frame13.png"),
    "BIDS": grid(("sub-01", "sub-02", "sub-10"), *SLICES),
    "LIDC-IDRI": grid((f"LIDC-IDRI-{k:04}/CT" for k in range(1, 5)), *SERIES),
    "LIDC-IDRI of TCIA": grid(
        (f"LIDC-IDRI-{k:04}/01-01-2000-NA-{3000 + k}/{3000000 + k}.000000-NA-0317{k}" for k in range(1, 4)), *SERIES
    ),
    "LGG": [
        f"{case}/{case}_{k}.tif"
        for case in ("TCGA_CS_4941_19960909", "TCGA_CS_4942_19970222", "TCGA_DU_5849_19950405")
        for k in range(1, 9)
    ],
    "BraTS19, slices": grid(
        ("BraTS19_2013_10_1", "BraTS19_CBICA_AAB_1", "BraTS19_TCIA01_180_1", "BraTS19_2013_2_1", "BraTS19_CBICA_AXQ_1"),
        *SLICES,
    ),
    "BraTS20": grid((f"BraTS20_Training_{k:03}" for k in range(1, 5)), *SLICES),
    "Case_0007": grid(("Case_0007", "Case_0012", "Case_0100"), *NUMBERS),
    "KiTS": grid((f"case_{k:05}" for k in range(5)), *SLICES),
    "0001": grid(("0001", "0002", "0003"), *NUMBERS),
    "two digits": grid(("00", "01", "02", "03"), *SLICES),
    "CHAOS": grid(("1", "5", "19", "37"), *SERIES),
    "many plain numbers": grid((str(k) for k in range(1, 31)), *NUMBERS),
    "slices of plain numbers": grid(("1", "2", "3", "4"), *SLICES),
    "hashes": grid(("8a3f9c1e22", "bb7e01f2d9", "0912fe8acd"), *NUMBERS),
    "UUIDs": grid(
        ("0d4b1c3e-7a55-4d63-9b0a-2f7fd1a0c001", "7f3d9a1c-1b2e-4c5d-8e9f-0a1b2c3d4e5f", "1a2b3c4d-0e1f-4a5b-8c7d-99"),
        *NUMBERS,
    ),
    "MR-N00123": grid(("MR-N00123", "MR-N00124", "MR-N00200"), *NUMBERS),
    "ADNI": grid(("002_S_0295", "003_S_0907", "011_S_4827"), *SLICES),
    "OASIS": grid(("OAS1_0001_MR1", "OAS1_0002_MR1", "OAS1_0003_MR1"), *SLICES),
    "IXI": grid(("IXI002-Guys-0828", "IXI012-HH-1211", "IXI013-HH-1212"), *SLICES),
    "HCP": grid(("100307", "100408", "101006"), *SLICES),
    "PROSTATEx": grid(("ProstateX-0000", "ProstateX-0001", "ProstateX-0003"), *SERIES),
    "ABIDE": grid(("Caltech_0051456", "NYU_0050952", "UM_1_0050272"), *SLICES),
    "M&Ms": grid(("A0S9V9", "A1D0Q7", "A1D9Z7", "B3F0U9", "B8H5H6"), *SLICES),
    "MIMIC": grid(("p10000032", "p10000764", "p10000898"), "a.png", "b.png"),
    "TotalSegmentator, slices": grid(("s0011", "s0058", "s0223"), *SLICES),
    "OpenKBP": grid(("pt_1", "pt_2", "pt_3"), *SLICES),
    "HNSCC": grid(("HNSCC-01-0001", "HNSCC-01-0002", "HNSCC-01-0003"), *SERIES),
    "UIDs": grid(("1.2.840.113654.2.55.1", "1.2.840.113654.2.55.2", "1.2.840.113654.2.55.9"), *SERIES),
    "an unknown word, slices": grid(("liver1", "liver2", "liver3"), *SLICES),
    "in train and test": grid(("train/P001", "train/P002", "test/P003"), *SLICES),
    "study of each": [f"CheX/patient{k:05}/study{j}/view1_frontal.jpg" for k in range(1, 5) for j in (1, 2)],
}

CLASSES = {
    "Kermany": grid(("train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA"), *NUMBERS),
    "BUSI": grid(("benign", "malignant", "normal"), *(f"x ({k}).png" for k in range(1, 8))),
    "two numbers": grid(("0", "1"), *NUMBERS),
    "KL grades": grid(("0", "1", "2", "3", "4"), *(f"9{k}00099L.png" for k in range(8))),
    "KL grades, numbered": grid(("0", "1", "2", "3", "4"), *NUMBERS),
    "KL grades, called slices": grid(("0", "1", "2", "3", "4"), *SLICES),
    "from one": grid(("1", "2", "3"), *NUMBERS),
    "KL0": grid(("KL0", "KL1", "KL2", "KL3", "KL4"), *NUMBERS),
    "grades": grid(("grade1", "grade2", "grade3"), *SLICES),
    "grades in Roman numbers": grid(("Grade_I", "Grade_II", "Grade_III"), *NUMBERS),
    "class_a": grid(("class_a", "class_b", "class_c"), *NUMBERS),
    "COVID": grid(("COVID", "NORMAL"), *SLICES),
    "SARS-CoV-2": grid(("COVID-19", "SARS-CoV-2"), *SLICES),
    "COVID radiography": grid(("COVID-19", "Normal", "Viral Pneumonia"), *NUMBERS),
    "letters": grid(("A", "B", "C"), *NUMBERS),
    "yes and no": grid(("yes", "no"), *NUMBERS),
    "Kather": grid(("01_TUMOR", "02_STROMA", "03_COMPLEX", "04_LYMPHO"), *(f"{k:02}.tif" for k in range(8))),
    "Alzheimer": grid(("MildDemented", "NonDemented", "VeryMildDemented"), *NUMBERS),
    "tumours": grid(("glioma_tumor", "meningioma_tumor", "no_tumor"), *NUMBERS),
    "types": grid(("type1", "type2", "type3"), *NUMBERS),
    "LC25000": grid(("colon_aca", "colon_n", "lung_aca"), *NUMBERS),
    "IQ-OTH": grid(("Bengin cases", "Malignant cases", "Normal cases"), *NUMBERS),
    "OCT": grid(("CNV", "DME", "DRUSEN", "NORMAL"), *NUMBERS),
    "BI-RADS": grid(("BIRADS1", "BIRADS2", "BIRADS_3"), *NUMBERS),
    "stages": grid(("T1", "T2", "T3", "T4"), *SLICES),
    "MedNIST": grid(("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT"), *NUMBERS),
    "real and fake": grid(("real", "fake"), *NUMBERS),
    "ADNI groups": grid(("AD", "MCI", "CN"), *NUMBERS),
    "below one folder": grid(("Dataset_BUSI_with_GT/benign", "Dataset_BUSI_with_GT/malignant"), *NUMBERS),
    "clusters": grid(("cluster1", "cluster2"), *SLICES),
}

DOMAINS = {
    "mr and ct": grid(("mr", "ct"), *(f"{k:03}.nii.gz" for k in range(8))),
    "MRI and CT": grid(("MRI", "CT"), *(f"{k:03}.png" for k in range(8))),
    "A and B": grid(("A", "B"), *NUMBERS),
    "T1 and T2": grid(("T1", "T2"), *NUMBERS),
    "low and high": grid(("low", "high"), *NUMBERS),
    "noisy and clean": grid(("noisy", "clean"), *NUMBERS),
    "doses": grid(("quarter_dose", "full_dose"), *(f"L067_{k:03}.png" for k in range(8))),
    "resolutions": grid(("LR", "HR"), *NUMBERS),
    "images of each": grid(("CT_images", "MR_images"), *NUMBERS),
    "noisy and gt": grid(("noisy", "gt"), *NUMBERS),
    "before and after contrast": grid(("pre", "post"), *NUMBERS),
    "one without partners": [*grid(("mr", "ct"), *NUMBERS), "ct/99.png", "mr/98.png"],
    "train and test": grid(("train/ct", "train/mr", "test/ct", "test/mr"), *NUMBERS),
}


@pytest.mark.parametrize("name", PATIENTS)
def test_folders_of_patients_are_patients_and_no_classes(name: str) -> None:
    places = laid(PATIENTS[name])
    assert {place.label for place in places.values()} == {""}
    whose: dict[str, set[str]] = defaultdict(set)
    for path, place in places.items():
        folders = path.split("/")[:-1]
        assert place.patient and place.patient in folders
        whose["/".join(folders[: folders.index(place.patient) + 1])].add(place.patient)
    assert all(len(patients) == 1 for patients in whose.values()) and len(whose) > 2


@pytest.mark.parametrize("name", CLASSES)
def test_folders_of_classes_are_classes_and_no_patients(name: str) -> None:
    places = laid(CLASSES[name])
    for path, place in places.items():
        assert place.label == path.split("/")[-2] and not place.patient and not place.domain
    assert len({place.case for place in places.values()}) == len(places)


@pytest.mark.parametrize("name", DOMAINS)
def test_folders_of_domains_are_pairs_of_one_case(name: str) -> None:
    places = laid(DOMAINS[name])
    cases: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path, place in places.items():
        assert place.domain == path.split("/")[-2] and not place.label
        cases[place.split, path.rpartition("/")[2]].add(place.patient or place.case)
    assert all(len(patients) == 1 for patients in cases.values())
    assert sum(bool(place.pair) for place in places.values()) >= 16
    for path, place in places.items():
        if place.pair:
            assert places[place.pair].pair == path and place.pair.rpartition("/")[2] == path.rpartition("/")[2]


@pytest.mark.parametrize("inside", ["{p}/{d}/{f}", "{d}/{p}/{f}", "data/{p}/{d}/images/{f}"])
@pytest.mark.parametrize("patients", [("P1", "P2", "P3"), ("0007", "0012", "0031"), ("sub-a1", "sub-b2", "sub-c3")])
def test_domains_of_each_patient(inside: str, patients: tuple[str, ...]) -> None:
    paths = [inside.format(p=p, d=d, f=f) for p in patients for d in ("mr", "ct") for f in SLICES]
    for path, place in laid(paths).items():
        assert place.patient in patients and f"/{place.patient}/" in f"/{path}"
        assert place.domain in ("mr", "ct") and f"/{place.domain}/" in f"/{path}" and not place.label
        assert place.pair in paths


def test_series_are_folders_and_mean_the_same() -> None:
    paths = [f"P{k}/{d}" for k in (1, 2, 3) for d in ("mr", "ct")]
    places = laid(paths, paths)
    assert {(place.patient, place.domain) for place in places.values()} == {tuple(path.split("/")) for path in paths}
    assert places["P2/mr"].pair == "P2/ct"
    flat = [f"{d}/{k:03}" for k in range(4) for d in ("mr", "ct")]
    places = laid(flat, flat)
    assert places["mr/002"].pair == "ct/002" and places["mr/002"].domain == "mr"


@pytest.mark.parametrize("suffix", [".mha", ".nii.gz", ".nrrd", ".png"])
@pytest.mark.parametrize("name", ["{case}/{part}", "{case}/{case}_{part}", "Task1/brain/{case}/{part}"])
def test_cases_of_the_same_names(suffix: str, name: str) -> None:
    """SynthRAD: CASE/ct.mha, CASE/mr.mha, CASE/mask.mha."""
    cases = ("1BA001", "1BA005", "1BB012", "1BC044")
    paths = [name.format(case=case, part=part) + suffix for case in cases for part in ("ct", "mr", "mask")]
    places = laid(paths)
    assert len(places) == 8
    for path, place in places.items():
        assert place.patient in cases and place.domain in ("ct", "mr") and not place.label
        assert place.mask == path.replace(f"{place.domain}{suffix}", f"mask{suffix}")
        assert places[place.pair].domain != place.domain and places[place.pair].patient == place.patient


def test_brats_below_classes() -> None:
    cases = [("HGG", "BraTS19_2013_10_1"), ("HGG", "BraTS19_CBICA_AAB_1"), ("LGG", "BraTS19_TCIA10_103_1")]
    parts = ("t1", "t1ce", "t2", "flair", "seg")
    places = laid(f"{grade}/{case}/{case}_{part}.nii.gz" for grade, case in cases for part in parts)
    assert len(places) == 12
    for path, place in places.items():
        grade, case, name = path.split("/")
        assert (place.label, place.patient) == (grade, case) and name.startswith(f"{case}_{place.domain}.")
        assert place.mask.endswith(f"{case}_seg.nii.gz") and not place.pair


def test_bids_with_sessions() -> None:
    paths = [
        f"sub-{s:02}/ses-{v}/anat/sub-{s:02}_ses-{v}_{c}.nii.gz"
        for s in (1, 2, 3)
        for v in (1, 2)
        for c in ("T1w", "T2w")
    ]
    for path, place in laid(paths).items():
        assert place.patient == path.split("/")[0] and path.endswith(f"_{place.domain}.nii.gz")


def test_folders_that_only_sort() -> None:
    nih = [f"images_{k:03}/images/{k * 7 + j:08}_{v:03}.png" for k in (1, 2, 3) for j in range(4) for v in range(3)]
    for path, place in laid(nih).items():
        assert place.patient == path.split("/")[-1][:8] and not place.label and not place.domain
    luna = laid(grid(("subset0", "subset1", "subset2"), "1.3.6.1.105.mhd", "1.3.6.1.111.mhd"))
    assert not any(place.label or place.patient for place in luna.values())
    sites = laid(grid(("site_1/sub-001", "site_1/sub-002", "site_2/sub-001"), *SLICES))
    assert {place.patient for place in sites.values()} == {"site_1/sub-001", "site_1/sub-002", "site_2/sub-001"}


def test_patches_of_patients_below_whom_classes_lie() -> None:
    """The breast histology patches of Janowczyk: PATIENT/0 and PATIENT/1."""
    paths = [f"{p}/{c}/{p}_x{x}_y51_class{c}.png" for p in (10253, 10254, 10268) for c in (0, 1) for x in (1, 51, 101)]
    for path, place in laid(paths).items():
        assert [place.patient, place.label] == path.split("/")[:2]


# --- names of files


@pytest.mark.parametrize(
    ("names", "patient"),
    [
        ([f"{p:08}_{k:03}" for p in (1, 2, 13, 61) for k in range(3)], lambda n: n[:8]),  # NIH
        ([f"patient{p:03}_slice_{k:02}" for p in range(1, 5) for k in range(5)], lambda n: n[:10]),
        ([f"slice_{k:02}_patient{p:03}" for p in range(1, 5) for k in range(5)], lambda n: n[-10:]),
        ([f"LIDC-IDRI-{p:04}_slice_{k}" for p in range(1, 5) for k in range(5)], lambda n: n[:14]),
        ([f"CNV-{p}-{k}" for p in (1016042, 1069, 12) for k in range(1, 4)], lambda n: n.rpartition("-")[0]),
        ([f"person{p}_{w}_{7 * p + k}" for p in (1, 2, 30) for w in ("virus", "bacteria") for k in (0, 1)],
         lambda n: n.split("_")[0]),
        ([f"{p}_{k}" for p in (1, 2, 3, 4) for k in range(5)], lambda n: n.split("_")[0]),
        ([f"TCGA_CS_{p}_19960909_{k}" for p in (4941, 4942, 4943) for k in range(5)], lambda n: n[:12]),
        ([f"sub-{p:02}_{k}" for p in (1, 2) for k in range(3)], lambda n: n[:6]),
    ],
)  # fmt: skip
def test_names_that_begin_with_the_patient(names: list[str], patient) -> None:  # type: ignore[no-untyped-def]
    layout = read_layout(f"{name}.png" for name in names)
    for path, place in layout.places.items():
        assert place.patient == patient(path[:-4]) and place.guessed
    assert any("--patient" in note for note in layout.patients)


@pytest.mark.parametrize(
    "names",
    [
        [f"x{k}" for k in range(9)],
        [f"ISIC_{k:07}" for k in range(9)],
        [f"benign ({k})" for k in range(1, 9)],
        [f"{k}" for k in range(9)],
        [f"MCUCXR_{k:04}_{k % 2}" for k in range(9)],
        ["a", "b", "c"],
        [f"{chr(97 + k)}_label" for k in range(9)],
    ],
)
def test_names_that_say_nothing_of_patients(names: list[str]) -> None:
    places = read_layout(f"{name}.png" for name in names).places
    assert not any(place.patient for place in places.values())
    assert len({place.case for place in places.values()}) == len(names)


def test_groups_and_slices_that_nobody_can_be_sure_of_are_said() -> None:
    layout = read_layout([f"{year}_{k:04}.png" for year in (2019, 2020) for k in range(5)])
    assert not any(place.patient for place in layout.places.values())
    assert any("2019_*" in note.replace("2019*", "2019_*") and "--patient" in note for note in layout.patients)
    layout = read_layout([f"slice_{k:03}.png" for k in range(30)])
    assert any("slices of one volume" in note and "--patient" in note for note in layout.patients)


def test_contrasts_at_the_ends_of_names() -> None:
    places = laid(f"BraTS_{k:03}_{c}.nii.gz" for k in range(1, 5) for c in ("t1", "t2", "flair", "seg"))
    assert len(places) == 12
    for path, place in places.items():
        assert place.case == path.rpartition("_")[0] and path.endswith(f"_{place.domain}.nii.gz") and place.mask


@given(
    st.sampled_from(["P{:03}", "patient_{}", "sub-{:02}", "CASE-{:04}", "{:05}", "MR-N{:05}", "UKB_{:07}"]),
    st.lists(st.integers(1, 9999), min_size=2, max_size=12, unique=True),
    st.integers(2, 9),
    st.sampled_from(["{}.png", "slice_{:03}.png", "IM{:04}", "x_{}.jpg"]),
)
def test_any_numbers_of_patients_and_slices(pattern: str, numbers: list[int], count: int, name: str) -> None:
    folders = [pattern.format(number) for number in numbers]
    for path, place in laid(grid(folders, *(name.format(k) for k in range(count)))).items():
        assert place.patient == path.split("/")[0] and not place.label


# --- masks


MARKS = ("_mask", "_Mask", "-mask", "_seg", "_segmentation", "_Segmentation", "_label", "_LABEL", "_gt", "_GT", " mask")


@given(
    st.lists(
        st.sampled_from(
            ["x", "benign (1)", "benign (12)", "TCGA_CS_1", "TCGA_CS_11", "a.b", "Röntgen", "7", "12", "p_1", "p_12"]
        ),
        min_size=1,
        unique=True,
    ),
    st.sampled_from(MARKS),
    st.sampled_from([".png", ".tif", ".jpg", ".nii.gz", ".PNG"]),
    st.sampled_from([".png", ".tif", ".bmp", ".nii.gz", ".PNG"]),
    st.sampled_from(["", "d/", "benign/"]),
)
def test_masks_beside_images(names: list[str], mark: str, suffix: str, other: str, folder: str) -> None:
    images = [f"{folder}{name}{suffix}" for name in names]
    masks = [f"{folder}{name}{mark}{other}" for name in names]
    found = masks_of([*masks, *images])
    assert found == ({} if other == ".bmp" else {mask: [image] for mask, image in zip(masks, images, strict=True)})


@pytest.mark.parametrize(
    ("files", "masks"),
    [
        (["b (1).png", "b (1)_mask.png", "b (1)_mask_1.png"],
         {"b (1)_mask.png": "b (1).png", "b (1)_mask_1.png": "b (1).png"}),
        (["volume-0.nii", "segmentation-0.nii", "volume-10.nii"], {"segmentation-0.nii": "volume-0.nii"}),
        (["ct_train_1_image.nii", "ct_train_1_label.nii"], {"ct_train_1_label.nii": "ct_train_1_image.nii"}),
        (["a/1.png", "masks/1.png"], {"masks/1.png": "a/1.png"}),
        (["images/1.png", "masks/1_mask.png", "masks/9.png"], {"masks/1_mask.png": "images/1.png", "masks/9.png": ""}),
        (["images/1.png", "gt/1.png"], {"gt/1.png": "images/1.png"}),
        (["images/1.png", "Ground Truth/1.png"], {"Ground Truth/1.png": "images/1.png"}),
        (["COVID/images/1.png", "COVID/lung masks/1.png"], {"COVID/lung masks/1.png": "COVID/images/1.png"}),
        (["CXR_png/M_1_0.png", "ManualMask/leftMask/M_1_0.png"],
         {"ManualMask/leftMask/M_1_0.png": "CXR_png/M_1_0.png"}),
        (["s1/ct.nii.gz", "s1/segmentations/liver.nii.gz"], {"s1/segmentations/liver.nii.gz": "s1/ct.nii.gz"}),
        (["ID/images/h.png", "ID/masks/a.png", "ID/masks/b.png"], {"ID/masks/a.png": "", "ID/masks/b.png": ""}),
        (["p1/p1_frame01.nii.gz", "p1/p1_frame01_gt.nii.gz"], {"p1/p1_frame01_gt.nii.gz": "p1/p1_frame01.nii.gz"}),
        ([*(f"{k}{m}.png" for k in "abcd" for m in ("", "_mask")), "e_mask.png", "sign_label.png"],
         {**{f"{k}_mask.png": f"{k}.png" for k in "abcd"}, "e_mask.png": ""}),
        (["a_label.png", "b_label.png", "c.png"], {}),
        (["bottle_label.png"], {}),
        (["noisy/1.png", "gt/1.png"], {}),
        (["lesions/1.png", "normal/1.png"], {}),
        (["with_mask/1.png", "without_mask/1.png"], {}),
        (["masks/1.png", "masks/2.png"], {}),
        (["x_seg.dcm", "x.dcm"], {}),
    ],
)  # fmt: skip
def test_masks_of_public_sets(files: list[str], masks: dict[str, str]) -> None:
    assert masks_of(files) == {mask: [image] if image else [] for mask, image in masks.items()}


def test_of_several_masks_one_is_used_and_the_others_are_said() -> None:
    files = ["b (1).png", "b (1)_mask_1.png", "b (1)_mask.png", "c.png", "labels/c.png", "masks/c.png"]
    masks = masks_of(files)
    layout = read_layout(["b (1).png", "c.png"], masks)
    assert [place.mask for place in layout.places.values()] == ["b (1)_mask.png", "masks/c.png"]
    assert any("2 images have several masks" in note for note in layout.notes)

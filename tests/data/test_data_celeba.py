"""CelebA: a small set of files in the official format, matched pairs, and everything that can be wrong with it."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from official_files import caches, noise, truncated
from PIL import Image
from torch import nn

from cvi_widgets import data, paths
from cvi_widgets.data import BytePixels, Pairs, celeba
from cvi_widgets.data.attribute_data import AttributeData
from cvi_widgets.data.pixels import find_twins
from cvi_widgets.errors import DataError
from cvi_widgets.interventions import intervene_input, wrap

N = 30
NAMES = [f"{i + 1:06d}.jpg" for i in range(N)]
CLASSES = np.random.default_rng(7).integers(0, 2, (N, 40))
PARTS = np.array([0] * 20 + [1] * 4 + [2] * 6)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(celeba, "COUNT", N)
    monkeypatch.setattr(celeba, "_BLOCK", 16)
    monkeypatch.setenv("CVI_HOME", str(tmp_path / "own"))


def jpeg(seed: int, size: tuple[int, int] = (178, 218), mode: str = "RGB", kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(size[1], size[0], 3, seed=seed)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def attributes(end: str = "\n") -> str:
    """As the authors wrote it: the names end in a space, and numbers are padded to two characters."""
    header = [str(N), " ".join(f"Attribute_{i}" for i in range(40)) + " "]
    rows = [f"{name} " + " ".join(f"{2 * c - 1:2d}" for c in row) for name, row in zip(NAMES, CLASSES, strict=True)]
    return end.join([*header, *rows, ""])


def partition() -> str:
    return "".join(f"{name} {part}\n" for name, part in zip(NAMES, PARTS, strict=True))


def write(folder: Path, *, zipped: bool = True, images: dict[str, bytes] | None = None, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / celeba.ATTRIBUTES).write_bytes(texts.get("attributes", attributes()).encode())
    (folder / celeba.PARTITION).write_bytes(texts.get("partition", partition()).encode())
    faces = {name: jpeg(i) for i, name in enumerate(NAMES)} | (images or {})
    if zipped:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            archive.writestr("img_align_celeba/", b"")
            for name, content in faces.items():
                if content:
                    archive.writestr(f"img_align_celeba/{name}", content)
    else:
        (folder / "img_align_celeba").mkdir()
        for name, content in faces.items():
            (folder / "img_align_celeba" / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("zipped", [True, False])
def test_images_and_attributes_are_those_of_the_files(zipped: bool, tmp_path: Path) -> None:
    read = data.load("celeba", data_path=write(tmp_path / "celeba", zipped=zipped))
    assert isinstance(read, AttributeData)
    assert isinstance(read, data.FactorData)
    assert len(read) == N
    assert read.image_shape == (3, 64, 64)
    assert read.factor_names == tuple(f"Attribute_{i}" for i in range(40))
    assert read.factor_sizes == (2,) * 40
    assert np.array_equal(read.factors(np.arange(N)), CLASSES)
    for i in (0, 17, N - 1):
        face = Image.open(io.BytesIO(jpeg(i))).crop((15, 35, 163, 183)).resize((64, 64), Image.Resampling.LANCZOS)
        assert np.array_equal(read.images([i])[0], np.asarray(face).transpose(2, 0, 1))
    assert read.images([3], "float32").max() <= 1
    assert "nearest in the other 39 attributes" in read.provenance
    assert ("img_align_celeba.zip, whose MD5" if zipped else "img_align_celeba, for which no") in read.provenance
    split = read.split(4, seed=0)
    assert np.array_equal(split.train, np.arange(20))
    assert len(set(split.test.tolist())) == 4
    assert set(split.test.tolist()) <= set(range(24, 30))
    with pytest.raises(DataError, match=r"test is 7; the official test part of 'celeba' has 6 images\.$"):
        read.split(7, seed=0)


def test_a_source_is_the_nearest_image_with_the_other_class(tmp_path: Path) -> None:
    read = celeba.load(write(tmp_path / "celeba"))
    for column, name in ((0, "Attribute_0"), (39, "Attribute_39")):
        pairs = read.pairs(name, 150, np.random.default_rng(1))
        others = np.delete(CLASSES, column, axis=1)
        for base, source, said in zip(*pairs, read.mismatches(pairs, name), strict=True):
            candidates = [i for i in range(N) if CLASSES[i, column] != CLASSES[base, column]]
            distance = {i: int((others[i] != others[base]).sum()) for i in candidates}
            assert source in candidates
            assert distance[source] == said == min(distance.values())
        again = read.pairs(name, 150, np.random.default_rng(1))
        assert np.array_equal(pairs.source, again.source)
        assert len(pairs.base) == len(pairs.source) == 150


def toy(classes: list[list[int]], pixels: np.ndarray | None = None) -> AttributeData:
    images = noise(len(classes), 1, 2, 2) if pixels is None else pixels
    twin = find_twins(images.reshape(len(images), -1))
    names = [f"a{i}" for i in range(len(classes[0]))]
    return AttributeData("toy", names, classes, BytePixels(images), twin=twin, provenance="Here.", licence="CC0-1.0")


def test_where_a_perfect_match_exists_it_is_taken_and_equals_are_drawn_alike() -> None:
    full = toy([list(row) for row in itertools.product((0, 1), (0, 1, 2), (0, 1))])
    assert full.factor_sizes == (2, 3, 2)
    pairs = full.pairs("a1", 3000, np.random.default_rng(0))
    assert not full.mismatches(pairs, "a1").any()
    step = (full.factors(pairs.source)[:, 1] - full.factors(pairs.base)[:, 1]) % 3
    assert abs((step == 1).mean() - 0.5) < 0.05
    assert np.array_equal(full.index(full.factors(np.arange(12))), np.arange(12))


def test_an_image_with_the_same_pixels_is_no_source() -> None:
    pixels = noise(4, 1, 2, 2)
    pixels[1] = pixels[0]
    labelled = toy([[0, 0], [1, 0], [1, 1], [0, 1]], pixels)
    base_and_source = {
        (int(b), int(s)) for b, s in zip(*labelled.pairs("a0", 50, np.random.default_rng(0)), strict=True)
    }
    # Without the pixels 0 and 1 would be each other's nearest.
    assert base_and_source == {(0, 2), (1, 3), (2, 3), (3, 2)}
    pixels[2] = pixels[0]
    with pytest.raises(DataError, match=r"factor 'a0' changes no pixel for some images; choose another\.$"):
        toy([[0, 0], [1, 0], [1, 1], [0, 1]], pixels).pairs("a0", 20, np.random.default_rng(0))
    assert not set(labelled.split(1, 0).train.tolist()) & set(labelled.split(1, 0).test.tolist())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda d: d.pairs("a", 2, np.random.default_rng(0)), "factor 'a' is unknown; allowed are a0, a1"),
        (
            lambda d: d.pairs("a1", 2, np.random.default_rng(0)),
            "factor 'a1' is the same in all images of data set 'toy'",
        ),
        (lambda d: d.index([[1, 0, 0]]), "factors have shape (1, 3); allowed is (n, 2)."),
        (lambda d: d.index([[0, 0], [1, 1]]), "factors in row 1 belong to no image of data set 'toy'."),
        (lambda d: d.images([2]), "index has 2; allowed are 0 to 1."),
        (lambda d: d.sample(0, np.random.default_rng(0)), "n is 0; a whole number of at least 1 is needed."),
        (
            lambda d: toy([[0, 0]], noise(2, 1, 2, 2)),
            "attributes of data set 'toy' have shape (1, 2); allowed is (2, 2)",
        ),
    ],
)
def test_wrong_questions_are_said_in_one_sentence(call: Callable, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        call(toy([[0, 0], [1, 0]]))
    assert str(caught.value).startswith(sentence)


class Tiny(nn.Module):
    """The smallest VAE that can be intervened on."""

    image_shape = (1, 2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        self.decoder = nn.Linear(2, 4)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mu = self.encoder(x)
        return mu, torch.zeros_like(mu)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z).view(-1, 1, 2, 2)


def test_a_measurement_says_how_well_its_pairs_match() -> None:
    """Of the other two attributes none differs where the grid is full, and both where only opposites exist."""
    said = {}
    for kind, rows in (("full", [list(r) for r in itertools.product((0, 1), repeat=3)]), ("far", [[0] * 3, [1] * 3])):
        found = intervene_input(wrap(Tiny()), toy(rows), ["a1"], pairs=4, draws=100)
        said[kind] = found.attrs["intervention"]
    start = "one factor of the image is changed to another value by taking the image nearest in the other factors, "
    assert said == {k: f"{start}of which {n} differ on average" for k, n in (("full", 0), ("far", 2))}


def test_several_images_can_have_the_same_attributes() -> None:
    same = toy([[0, 1], [0, 1], [1, 1]])
    assert same.index([[0, 1], [1, 1]]).tolist() == [0, 2]
    assert same.mismatches(Pairs(np.array([0]), np.array([2])), "a1").tolist() == [1]


def test_windows_line_ends_and_the_authors_folders_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "celeba", attributes=attributes("\r\n"))
    for inner, name in (("Anno", celeba.ATTRIBUTES), ("Eval", celeba.PARTITION), ("Img", "img_align_celeba.zip")):
        (folder / inner).mkdir()
        (folder / name).rename(folder / inner / name)
    assert np.array_equal(celeba.load(folder).factors(np.arange(N)), CLASSES)


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("attributes", attributes().replace(f"{N}\n", "29\n", 1), "its first line is '29'; allowed is 30"),
        ("attributes", partition(), "its first line is '000001.jpg 0'; allowed is 30"),
        ("attributes", attributes().replace("Attribute_3 ", "", 1), "it names 39 attributes; allowed are 40"),
        (
            "attributes",
            attributes().replace("Attribute_3 ", "Attribute_4 ", 1),
            "it names 39 attributes; allowed are 40",
        ),
        ("attributes", attributes()[: -40 * 3 - 14], "it has 29 rows of 40 numbers; allowed are 30 of 40"),
        ("attributes", attributes()[:-3] + "-0\n", "it has the value '-0'; allowed are -1, 1"),
        ("attributes", attributes()[:-4], "it has the value ''; allowed are -1, 1"),
        (
            "attributes",
            attributes().replace("000003.jpg", "000300.jpg"),
            "row 3 is '000300.jpg'; allowed is 000003.jpg",
        ),
        ("attributes", "é", "it cannot be read, so it is truncated or corrupt"),
        ("partition", attributes(), "it cannot be read, so it is truncated or corrupt"),
        ("partition", partition().replace(" 2", " 3"), "it has the value '3'; allowed are 0, 1, 2"),
        ("partition", partition()[:-13], "it has 29 rows of 1 numbers; allowed are 30 of 1"),
        ("partition", "", "it cannot be read, so it is truncated or corrupt"),
    ],
)
def test_wrong_lists_are_said(file: str, text: str, what: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "celeba", **{file: text})
    with pytest.raises(DataError) as caught:
        celeba.load(folder)
    name = celeba.ATTRIBUTES if file == "attributes" else celeba.PARTITION
    assert str(caught.value).startswith(f"data_path {str(folder / name)!r} is not the official {name}: {what}")
    assert str(caught.value).endswith(".")
    assert caches() == []


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (jpeg(0, (64, 64)), r"000007\.jpg is 64 wide, 64 high and RGB; allowed is 178 wide, 218 high and RGB\.$"),
        (jpeg(0, mode="L"), r"000007\.jpg is 178 wide, 218 high and L; allowed is"),
        (jpeg(0)[:9000], r"000007\.jpg is no whole JPEG\.$"),
        (jpeg(0, kind="PNG"), r"000007\.jpg is no whole JPEG\.$"),
        (b"<html>", r"000007\.jpg is no whole JPEG\.$"),
    ],
)
def test_wrong_images_are_said(content: bytes, what: str, zipped: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "celeba", zipped=zipped, images={"000007.jpg": content})
    with pytest.raises(DataError, match=what):
        celeba.load(folder)
    assert caches() == []


def test_missing_and_damaged_archives_are_said(tmp_path: Path) -> None:
    folder = write(tmp_path / "celeba", images={"000007.jpg": b"", "000009.jpg": b""})
    with pytest.raises(DataError, match=r"it lacks 2 of 30 images, the first 000007\.jpg\.$"):
        celeba.load(folder)
    whole = write(tmp_path / "whole") / "img_align_celeba.zip"
    whole.write_bytes(truncated(whole).read_bytes())
    with pytest.raises(DataError, match=r"it cannot be read, so it is truncated or corrupt \(.*\)\.$"):
        celeba.load(whole)
    assert caches() == []


def test_what_is_missing_and_where_it_goes_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        data.load("celeba")
    assert str(caught.value) == (
        "dataset 'celeba' needs list_attr_celeba.txt, list_eval_partition.txt and img_align_celeba.zip or the folder "
        "img_align_celeba, which are not downloaded by themselves: get them from "
        f"mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put them into {str(paths.data_dir() / 'celeba')!r}, "
        "or set data_path to their folder."
    )
    folder = write(tmp_path / "celeba")
    (folder / celeba.PARTITION).unlink()
    with pytest.raises(
        DataError, match=r"celeba' lacks list_eval_partition\.txt; dataset 'celeba' needs the folder of"
    ):
        celeba.load(folder)
    (folder / celeba.PARTITION).write_text(partition())
    (folder / "img_align_celeba.zip").unlink()
    with pytest.raises(DataError, match=r"lacks img_align_celeba\.zip and the folder img_align_celeba; dataset"):
        celeba.load(folder)
    paths.data_dir().mkdir(parents=True)
    write(paths.data_dir() / "celeba")
    assert len(celeba.load()) == N

"""`gankit sample`: from runs and from exports, and the pictures that `--as` draws."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from torch import Tensor, nn

import gankit
from gankit.attentions import SelfAttention2d
from gankit.datasets import Digits, Shapes, to_float, to_uint8
from gankit.errors import DataError, UsageError
from gankit.export import export, of_file, of_run
from gankit.slots import Image
from gankit.train import sampling
from gankit.train.pictures import class_grid, class_names, sample_grid
from gankit.train.sampling import grid_labels, label_count
from gankit.views import VIEWS, Drawing, show_interpolation, show_neighbours, show_truncation
from gankit.views.attention import _heat as heat
from gankit.views.attention import map_of, mapped
from gankit.views.neighbours import nearest
from gankit.views.places import positions
from gankit.views.sheet import enlarged, sheet
from gankit.views.walks import FAR, STEPS, slerp
from tests import goldens
from tests.specs import IMAGES, POINTS
from tests.test_cli import run
from tests.test_export import CONDITIONAL, forget_plugins, trained


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose generator has attention."""
    return trained(IMAGES, tmp_path_factory.mktemp("images") / "run")


@pytest.fixture(scope="module")
def pt2(images: Path) -> Path:
    """A program of it."""
    return export(of_run(images), "pt2").file


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    forget_plugins()


def array(file: Path) -> numpy.ndarray:
    return numpy.load(file)["images"].astype(int)


def made(source: Path, out: Path, *options: object) -> numpy.ndarray:
    ran = run("sample", source, "-n", 5, "--seed", 3, "--out", out, "--device", "cpu", *options)
    assert (ran.code, ran.out, ran.err) == (0, "", f"wrote 5 samples of step 20 to {out}\n")
    return array(out)


# --- from exports


def test_an_export_gives_the_samples_of_its_run(images: Path, pt2: Path, tmp_path: Path) -> None:
    tensors = export(of_run(images), "safetensors").file
    for options in ([], ["--truncation", "0.5"]):
        wanted = made(images, tmp_path / "a.npz", *options)
        for file in (tensors, pt2):
            assert abs(made(file, tmp_path / "b.npz", *options) - wanted).max() <= 1
    assert abs(made(images, tmp_path / "c.npz") - wanted).max() > 10
    assert made(images, tmp_path / "d.npz", "--standing", "2").shape == (5, 1, 16, 16)


def test_labels_go_round_the_classes_in_an_export_too(tmp_path: Path) -> None:
    source = trained(CONDITIONAL, tmp_path / "run")
    wanted = made(source, tmp_path / "a.npz")
    assert abs(made(export(of_run(source), "pt2").file, tmp_path / "b.npz") - wanted).max() <= 1
    with pytest.MonkeyPatch.context() as patch:  # the twin: all of one class
        patch.setattr(torch, "arange", lambda n, **how: torch.zeros(n, dtype=torch.int64))
        assert abs(made(source, tmp_path / "c.npz") - wanted).max() > 10


@pytest.mark.parametrize("view", VIEWS)
def test_each_view_is_a_picture(images: Path, tmp_path: Path, view: str) -> None:
    out = tmp_path / "new" / "x.png"
    ran = run("sample", images, "-n", 3, "--as", view, "--out", out, "--device", "cpu")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.startswith("wrote 3 ")
    assert ran.err.endswith(f" of step 20 to {out}\n")
    again = out.with_name("y.png")
    run("sample", images, "-n", 3, "--as", view, "--out", again, "--device", "cpu")
    assert out.read_bytes() == again.read_bytes()
    picture = Pillow.open(out)
    assert picture.width > 300
    assert picture.height > 300
    assert len(picture.getcolors(1 << 24) or []) > 20


def test_views_of_colour_and_of_other_shapes(tmp_path: Path) -> None:
    text = IMAGES.replace('use = "digits"\nsize = 16', 'use = "shapes"\nsize = [24, 16]')
    text = text.replace("attention_at = [8]", "attention_at = [6]")
    live = of_run(trained(text, tmp_path / "run"))
    for view in VIEWS.values():
        assert view(Drawing(live), 2).mode == "RGB"


def test_what_is_said_of_mistakes(
    images: Path, pt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("run").symlink_to(images)
    Path("g.pt2").symlink_to(pt2)
    export(of_run(images, "discriminator"), "safetensors", Path("d.safetensors"))
    trained(POINTS, Path("points"))
    trained(CONDITIONAL, Path("classes"))
    plain = re.sub("attention.*", "", IMAGES)
    trained(f'latent = "uniform"\n{plain}', Path("plain"))
    Path("other.safetensors").write_bytes(b"not tensors")
    commands = [
        *("run --as gird --out x.png", "run --as neighbours --out x.npz"),
        *("run --as interpolation --out folder", "run --as attention --out x.png -n 101"),
        *("plain --as attention --out x.png", "g.pt2 --as attention --out x.png"),
        *("points --as interpolation --out x.png", "plain --as truncation --out x.png"),
        *("run --as truncation --truncation 1 --out x.png", "plain --truncation 1 --out x.png"),
        *("g.pt2 --standing 1 --out x.png", "g.pt2 --device cuda --out x.png"),
        *("run --classes 3 --out x.png", "classes --classes 3,10 --out x.png"),
        *("run --at 3,3 --out x.png", "run --as attention --at 3 --out x.png"),
        *(
            "run --as attention --at 16,0 --out x.png",
            f"run --as attention{' --at 1,1' * 6} --out x.png",
        ),
        *("d.safetensors --out x.png", "other.safetensors --out x.png", "nope.pt2 --out x.png"),
    ]
    texts = []
    for command in commands:
        ran = run("sample", *command.split())
        assert (ran.out, "Traceback" in ran.err) == ("", False)
        said = ran.err.replace(torch.__version__, "TORCH")
        texts.append(f"$ gankit sample {command}\n{said}(exit {ran.code})\n")
    goldens.compare("sample", "\n".join(texts))
    assert not list(Path().glob("*.png"))


# --- walks


@given(width=st.integers(2, 40), seed=st.integers(0, 99), weight=st.floats(0, 1))
def test_a_spherical_path_keeps_to_the_sphere(width: int, seed: int, weight: float) -> None:
    torch.manual_seed(seed)
    one, other = F.normalize(torch.randn(2, 3, width, dtype=torch.float64), dim=2)
    between = slerp(one, other, weight)
    assert torch.allclose(between.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert torch.allclose(slerp(one, other, 0.0), one)
    assert torch.allclose(slerp(one, other, 1.0), other)
    # At even speed: the angle is that share of the whole.
    whole, part = ((one * z).sum(1).clamp(-1, 1).acos() for z in (other, between))
    assert torch.allclose(part, weight * whole, atol=1e-6)
    straight = torch.lerp(one, other, 0.5).norm(dim=1)
    assert (straight < 1).all()  # the twin leaves it


def test_a_spherical_path_to_the_same_place_or_of_another_length() -> None:
    one = torch.randn(4, 8)
    assert torch.allclose(slerp(one, one, 0.3), one)
    assert torch.allclose(slerp(one, 3 * one, 0.5), 2 * one, atol=1e-5)


def test_interpolations_begin_and_end_with_samples(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = of_run(images)
    seen: dict[str, Tensor] = {}

    def noted(self: Drawing, z: Tensor, labels: Tensor | None) -> Tensor:
        seen.update(z=z, labels=torch.as_tensor(labels))
        return drawn(self, z, labels)

    drawn = Drawing.images
    monkeypatch.setattr(Drawing, "images", noted)
    show_interpolation(Drawing(live, 7), 3)
    rows = seen["z"].unflatten(0, (3, STEPS))
    ends = Drawing(live, 7).latents(6)
    assert torch.allclose(rows[:, 0], ends[0::2], atol=1e-5)
    assert torch.allclose(rows[:, -1], ends[1::2], atol=1e-5)
    lengths = rows.norm(dim=2)
    assert (lengths[:, 1:-1] > lengths[:, [0, -1]].amin(1, keepdim=True) - 1e-4).all()
    # A row shows one class.
    assert seen["labels"].unflatten(0, (3, STEPS)).tolist() == [[k] * STEPS for k in range(3)]


def test_uniform_latents_are_joined_by_straight_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = of_run(trained(f'latent = "uniform"\n{IMAGES}', tmp_path / "run"))
    seen: list[Tensor] = []
    titles: list[str] = []
    drawn = Drawing.images
    monkeypatch.setattr(
        Drawing, "images", lambda self, z, labels: seen.append(z) or drawn(self, z, labels)
    )
    monkeypatch.setattr(
        "gankit.views.walks.sheet",
        lambda rows, **how: titles.append(how["title"]) or sheet(rows, **how),
    )
    show_interpolation(Drawing(live), 2)
    assert titles == ["Straight interpolation between pairs of latents"]
    row = seen[0].unflatten(0, (2, STEPS))[0]
    assert torch.allclose(row, torch.lerp(row[:1], row[-1:], torch.linspace(0, 1, STEPS)[:, None]))


def test_a_sweep_draws_the_same_latents_nearer_and_nearer(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    drawn = Drawing.images
    monkeypatch.setattr(
        Drawing, "images", lambda self, z, labels: seen.append(z) or drawn(self, z, labels)
    )
    live = of_run(images)
    show_truncation(Drawing(live, 5), 4)
    reach = [float(z.abs().max()) for z in seen]
    assert reach == sorted(reach, reverse=True)
    assert len(seen) == 8
    assert torch.equal(seen[1], Drawing(live, 5, sampling.truncation(live.gan, 2.0)).latents(4))
    for narrow in seen[1:]:  # each value keeps its sign and its rank
        assert torch.equal(narrow.argsort(1), seen[0].argsort(1))
        assert torch.equal(narrow.sign(), seen[0].sign())
    many = Drawing(live, 5, sampling.truncation(live.gan, FAR)).latents(2000)
    assert float(many.std()) == pytest.approx(1, abs=0.02)  # no limit that anyone would notice
    seen.clear()
    near = 'latent = { use = "truncated", threshold = 1.0 }\n'
    show_truncation(Drawing(of_run(trained(near + IMAGES, tmp_path / "run"))), 2)
    assert [float(z.abs().max()) <= t for z, t in zip(seen, (1, 0.75), strict=False)] == [True] * 2


# --- neighbours


@dataclass(frozen=True)
class Counted:
    """A data set that remembers how many images it was asked for at once."""

    inner: Digits
    asked: list[int]

    @property
    def image(self) -> Image:
        return self.inner.image

    def __len__(self) -> int:
        return 300

    def images(self, indices: Tensor) -> Tensor:
        self.asked.append(len(indices))
        return self.inner.images(indices)

    def labels(self, indices: Tensor) -> Tensor:
        return self.inner.labels(indices)


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
def test_nearest_is_what_comparing_all_at_once_finds(rows: int) -> None:
    data = Counted(Digits(size=8), [])
    queries = torch.rand(5, 1, 8, 8) * 2 - 1
    found = nearest(queries, data, 4, held=rows * 64)
    assert max(data.asked) <= max(rows, 4)
    everything = to_float(data.inner.images(torch.arange(300))).flatten(1)
    apart = (queries.flatten(1)[:, None] - everything).square().mean(2).sqrt() / 2
    wanted = apart.sort(dim=1, stable=True)
    assert torch.allclose(found.distances, wanted.values[:, :4])
    assert torch.equal(found.indices, wanted.indices[:, :4])


def test_a_copy_of_a_training_image_is_found_and_far_from_typical() -> None:
    data = Digits(size=8)
    own = torch.tensor([3, 200, 1796])
    copies = to_float(data.images(own))
    found = nearest(copies, data, 2)
    assert found.indices[:, 0].tolist() == own.tolist()
    assert found.distances[:, 0].tolist() == [0, 0, 0]
    others = nearest(copies, data, 2, besides=own)  # its own index does not count
    assert torch.equal(others.distances[:, 0], found.distances[:, 1])
    assert (others.distances[:, 0] > 0.02).all()


def test_the_sheet_of_neighbours_shows_each_beside_its_sample(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, object] = {}

    def noted(rows: object, **how: object) -> object:
        drawn.update(how, rows=rows)
        return sheet(rows, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("gankit.views.neighbours.sheet", noted)
    live = of_run(images)
    memorised = to_float(live.data.images(torch.tensor([5, 6])))
    monkeypatch.setattr(Drawing, "images", lambda *_: memorised)
    show_neighbours(Drawing(live), 2)
    for row, captions in zip(drawn["rows"], drawn["captions"], strict=True):  # type: ignore[call-overload]
        assert (len(row), len(captions)) == (8, 8)
        assert row[0].tobytes() == row[1].tobytes()
        assert row[0].tobytes() != row[2].tobytes()
        assert captions[:2] == ["", "0.000"]
    assert "the median of 64" in str(drawn["notes"])


# --- attention


def test_the_map_is_what_the_module_goes_by() -> None:
    for pool in (1, 2):
        module = SelfAttention2d(8, reduction=2, pool=pool)
        with torch.no_grad():
            module.gamma.fill_(0.7)
        x = torch.randn(2, 8, 4, 6)
        looks = map_of(module, x)
        assert looks is not None
        assert looks.shape == (2, 24, 24 // pool**2)
        assert torch.allclose(looks.sum(2), torch.ones(2, 24))
        value = module.pool(module.value(x)).flatten(2)

        def rebuilt(weights: Tensor) -> Tensor:
            attended = (value @ weights.transpose(1, 2)).unflatten(2, (4, 6))  # noqa: B023
            return x + 0.7 * module.output(attended)  # noqa: B023

        assert torch.allclose(rebuilt(looks), module(x), atol=1e-5)
        wrong = looks.roll(1, 1)  # the twin: maps of the neighbouring positions
        assert not torch.allclose(rebuilt(wrong), module(x), atol=1e-3)


def test_attention_of_others_is_shown_if_it_can_give_its_map(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Even(nn.Module):
        """Looks everywhere alike."""

        def __init__(self, channels: int, /) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.zeros(channels))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.gain[:, None, None] * x.mean((2, 3), keepdim=True)

        def attention_map(self, x: Tensor) -> Tensor:
            count = x.shape[2] * x.shape[3]
            return torch.full((len(x), count, count), 1 / count)

    gankit.attention("even")(Even)
    text = IMAGES.replace('{ use = "self_attention", reduction = 4 }', '"even"')
    live = of_run(trained(text, tmp_path / "run"))
    assert [type(module) for _, module in mapped(live.network)] == [Even]
    drawn: list[list[list[str]]] = []
    monkeypatch.setattr(
        "gankit.views.attention.sheet",
        lambda rows, **how: drawn.append(how["captions"]) or sheet(rows, **how),
    )
    VIEWS["attention"](Drawing(live), 1)
    assert drawn == [[["", *["1.6% to 1.6%"] * 5]]]
    bare = replace(live, network=nn.Sequential(nn.Linear(8, 256), nn.Unflatten(1, (1, 16, 16))))
    with pytest.raises(UsageError, match="no attention that can give its map"):
        VIEWS["attention"](Drawing(bare), 1)


def test_the_attention_on_the_largest_map_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = IMAGES.replace("attention_at = [8]", "attention_at = [16, 8]", 1)
    live = of_run(trained(text, tmp_path / "run"))
    notes: list[str] = []
    monkeypatch.setattr(
        "gankit.views.attention.sheet",
        lambda rows, **how: notes.extend(how["notes"]) or sheet(rows, **how),
    )
    VIEWS["attention"](Drawing(live), 1)
    assert notes[0].startswith("stages.attend_16: 16 x 16 positions look at 256; evenly, each ")


def test_positions_are_asked_where_there_is_something_and_apart() -> None:
    image = torch.full((3, 32, 32), -1.0)
    image[:, 4:12, 20:28] = torch.rand(8, 8)
    asked = positions(image, 8, 8)
    assert asked[0] in {(y, x) for y in (1, 2) for x in (5, 6)}
    assert len(set(asked)) == 5
    for a in asked:
        assert all(a == b or max(abs(a[0] - b[0]), abs(a[1] - b[1])) >= 2 for b in asked)
    assert all(0 <= y < 2 and 0 <= x < 3 for y, x in positions(torch.rand(1, 4, 6), 2, 3))


# --- sheets


@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 4),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    words=st.booleans(),
)
def test_every_picture_is_on_the_sheet_and_nothing_over_its_edge(
    rows: int, columns: int, height: int, width: int, words: bool
) -> None:
    images = torch.rand(rows * columns, 3, height, width) * 2 - 1
    pictures = enlarged(images, 20)
    factor = math.ceil(20 / height)
    assert {picture.size for picture in pictures} == {(width * factor, height * factor)}
    told = (
        {"columns": ["a column"] * columns, "names": ["a row"] * rows, "apart": 1} if words else {}
    )
    laid = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    page = sheet(laid, title="A title longer than any picture is wide", notes=["a note"], **told)
    whole = torch.from_numpy(numpy.array(page))
    for picture, image in zip(pictures, to_uint8(images).permute(0, 2, 3, 1), strict=True):
        assert numpy.array_equal(numpy.array(picture)[::factor, ::factor], image.numpy())
    edge = torch.cat(
        [whole[:2].flatten(0, 1), whole[-2:].flatten(0, 1), whole[:, -2:].flatten(0, 1)]
    )
    assert (edge == 255).all()
    ink = (whole != 255).any(2).sum()
    assert int(ink) >= int(0.9 * rows * columns * width * height * factor**2)


def test_a_sheet_shows_the_pictures_as_they_are() -> None:
    images = Shapes(size=16).images(torch.arange(4))
    page = numpy.array(sheet([enlarged(images, 16)], title="t"))
    for image in to_uint8(images).permute(0, 2, 3, 1).numpy():
        found = [
            (y, x)
            for y in range(page.shape[0] - 16)
            for x in range(page.shape[1] - 16)
            if (page[y, x] == image[0, 0]).all() and (page[y : y + 16, x : x + 16] == image).all()
        ]
        assert len(found) >= 1
    with pytest.raises(ValueError, match="pictures are"):
        enlarged(torch.zeros(1, 2, 8, 8))


def test_latents_are_the_same_whoever_draws(images: Path) -> None:
    live = of_run(images)
    drawing, grid = Drawing(live, 3), sampling.draw(live.gan, live.network, 12, 3)
    assert torch.equal(drawing.images(drawing.latents(12), drawing.labels(12)), grid)
    small = drawing.images(drawing.latents(12), drawing.labels(12), batch=5)
    assert torch.allclose(small, grid, atol=1e-6)


# --- classes


@given(classes=st.integers(1, 2000), only=st.sets(st.integers(0, 1999), max_size=70))
def test_a_grid_has_as_many_of_each_class(classes: int, only: set[int]) -> None:
    labels = grid_labels(classes, sorted(only))
    assert labels is not None
    shown, counts = labels.unique(return_counts=True)
    assert len(counts.unique()) == 1
    assert shown.tolist() == sorted(only) if only else len(shown) == min(classes, 16)
    assert 32 < len(labels) <= 64 or len(only) > 64
    assert only or (int(shown[0]), int(shown[-1])) == (0, classes - 1)
    assert counts[0] < 8 or counts[0] % 8 == 0  # whole rows
    assert grid_labels(0, sorted(only)) is None


class Labelled(nn.Module):
    """A generator that is handed labels, and uses them if it is told to."""

    def __init__(self, uses: bool) -> None:
        super().__init__()
        self.uses = uses
        self.tables = nn.Embedding(10, 8)
        nn.init.zeros_(self.tables.weight)  # as many begin: no label makes a difference yet
        self.dense = nn.Linear(8, 256)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        assert labels is not None
        z = z + self.tables(labels) if self.uses else z
        return self.dense(z).view(-1, 1, 16, 16)


def test_a_generator_that_reads_labels_is_told_from_one_that_is_only_given_them(
    images: Path, pt2: Path, tmp_path: Path
) -> None:
    gan = of_run(images).gan
    assert label_count(gan, Labelled(uses=True)) == 10
    assert label_count(gan, Labelled(uses=False)) == 0
    assert label_count(gan, gan.generator) == 0
    network = Labelled(uses=True).train()
    state = torch.random.get_rng_state()
    label_count(gan, network)
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), state)
    live = of_run(trained(CONDITIONAL, tmp_path / "run"))
    assert label_count(live.gan, live.network) == 10
    for to in ("pt2", "safetensors"):
        back = of_file(export(live, to).file)
        assert label_count(back.gan, back.network) == 10
    back = of_file(pt2)
    assert label_count(back.gan, back.network) == 0


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=20),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
)
def test_each_class_stands_beside_its_name_and_no_image_is_lost(
    counts: list[int], height: int, width: int
) -> None:
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels))]
    # Every image is of one colour, which says what class it is of.
    tones = torch.stack([40 + 10 * labels, 255 - labels, labels], 1).to(torch.uint8)
    images = tones[:, :, None, None].expand(-1, 3, height, width)
    page = torch.from_numpy(numpy.array(class_grid(images, labels, [f"n{k}" for k in range(20)])))
    seen = []
    for label, count in enumerate(counts):
        found = (page == torch.tensor([40 + 10 * label, 255 - label, label])).all(2)
        factor = math.isqrt(int(found.sum()) // (count * height * width))
        assert int(found.sum()) == count * height * width * factor**2
        block = found.nonzero()
        (top, left), (bottom, right) = block.amin(0).tolist(), block.amax(0).tolist()
        seen.append((top, left))
        own = page[top : bottom + 1, left : right + 1]
        assert ((own == 255).all(2) | found[top : bottom + 1, left : right + 1]).all()
        name = page[top : bottom + 1, max(0, left - 40) : left]
        assert (name != 255).any()
    assert seen == sorted(seen)
    assert (page[:, -1] == 255).all()


def test_a_training_grid_of_a_conditional_generator_is_by_class(
    images: Path, tmp_path: Path
) -> None:
    live = of_run(trained(CONDITIONAL, tmp_path / "run"))
    labels = grid_labels(10)
    assert labels is not None
    drawn = sampling.draw(live.gan, live.network, 60, 0, labels=labels)
    numbers = [str(n) for n in range(10)]
    wanted = class_grid(drawn, labels, numbers)
    assert sample_grid(live.gan, live.network, live.data).tobytes() == wanted.tobytes()
    ran = run("sample", tmp_path / "run", "--out", tmp_path / "x.png", "--device", "cpu")
    assert ran.err == f"wrote 60 samples of step 20 to {tmp_path / 'x.png'}\n"
    assert Pillow.open(tmp_path / "x.png").tobytes() == wanted.tobytes()
    shuffled = class_grid(drawn, labels.roll(1), numbers)  # the twin
    assert shuffled.tobytes() != wanted.tobytes()
    # Data with classes do not make a generator conditional.
    plain = of_run(images)
    assert sample_grid(plain.gan, plain.network, plain.data).size == (530, 530)


def test_classes_are_chosen_by_number_or_name(tmp_path: Path) -> None:
    text = CONDITIONAL.replace('use = "digits"', 'use = "shapes"\nlength = 100')
    source = trained(text, tmp_path / "run")
    live, out = of_run(source), tmp_path / "x.npz"
    run("sample", source, "-n", 5, "--classes", "star, 0", "--out", out, "--device", "cpu")
    labels = torch.tensor([4, 0, 4, 0, 4])
    assert numpy.load(out)["labels"].tolist() == labels.tolist()
    wanted = to_uint8(sampling.draw(live.gan, live.network, 5, 0, labels=labels)).numpy()
    assert numpy.array_equal(numpy.load(out)["images"], wanted)
    drawing = Drawing(live, classes=(4, 0))
    assert drawing.names(drawing.labels(3)) == ["star", "circle", "star"]
    run("sample", source, "--classes", "star,0", "--out", out, "--device", "cpu")
    assert numpy.load(out)["labels"].tolist() == [4, 0] * 32


def test_classes_have_numbers_where_nobody_knows_their_names() -> None:
    @dataclass(frozen=True)
    class Named(Digits):
        names: tuple[str, ...] | None = ()

        @property
        def class_names(self) -> tuple[str, ...]:
            if self.names is None:
                raise DataError("the data is not here")
            return self.names

    numbers = [str(n) for n in range(10)]
    ten = tuple("abcdefghij")
    assert class_names(Digits()) == numbers
    assert class_names(Named(names=ten)) == ten
    assert class_names(Named(names=("a",))) == numbers
    assert class_names(Named(names=None)) == numbers


def test_pixels_whose_attention_is_shown_are_marked(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, object]] = []
    monkeypatch.setattr(
        "gankit.views.attention.sheet", lambda rows, **how: told.append(how) or sheet(rows, **how)
    )
    marked: list[tuple[int, int]] = []
    monkeypatch.setattr("gankit.views.attention._mark", lambda p, at, *_: marked.append(at))
    VIEWS["attention"](Drawing(of_run(images), at=((0, 15), (9, 4))), 1)
    assert told[0]["columns"] == ["image", "at 0, 15", "at 9, 4"]
    assert marked == [(0, 7), (4, 2)] * 2  # on the image, and each on its own map


def test_a_map_that_is_even_is_not_shown_as_a_choice() -> None:
    picture = enlarged(torch.zeros(1, 3, 8, 8), 64)[0]
    even = torch.full((8, 8), 1 / 64) + 1e-4 * torch.rand(8, 8)
    peaked = torch.zeros(8, 8)
    peaked[3, 3] = 1.0
    contrast = [
        numpy.array(heat(picture, looks).convert("L")).astype(int) for looks in (even, peaked)
    ]
    assert numpy.ptp(contrast[0]) < 10
    assert numpy.ptp(contrast[1]) > 150

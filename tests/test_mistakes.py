"""Parts with the mistakes that people make in their first part: told by build and train alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from gankit.errors import SpecError
from gankit.spec import Spec, load
from gankit.train import run
from gankit.train.plan import plan
from tests.specs import IMAGES

LOSS = """
import gankit

@gankit.loss("mine_{number}")
class Mine:
    def discriminator(self, real, fake):
        return {discriminator}

    def generator(self, real, fake):
        return {generator}
"""

SOUND = "(real - fake).mean()", "fake.mean()"


def spec_of(folder: Path, number: int, discriminator: str, generator: str) -> Spec:
    text = LOSS.format(number=number, discriminator=discriminator, generator=generator)
    (folder / f"mine_{number}.py").write_text(text)
    file = folder / "spec.toml"
    lines = IMAGES.replace('use = "hinge"', f'use = "mine_{number}"')
    file.write_text(f'plugins = ["mine_{number}.py"]\n' + lines)
    return load(file, ["train.steps=1"])


@pytest.mark.parametrize(
    ("number", "discriminator", "generator", "said"),
    [
        (1, "real - fake", "fake.mean()", r"a loss gives a tensor with one number in it.*\(8, 1\)"),
        (2, "(real - fake).mean()", "0.5", r"a loss gives a tensor with one number in it.*0\.5"),
        (3, "(real - fake).mean()", "(fake - real.mean()).mean()", "real_in_generator"),
        (4, "(real - fake).mean()", "fake.men()", "AttributeError.*men"),
    ],
)
def test_a_broken_loss_is_told_where_the_spec_names_it(
    tmp_path: Path, number: int, discriminator: str, generator: str, said: str
) -> None:
    spec = spec_of(tmp_path, number, discriminator, generator)
    for attempt in (lambda: plan(spec), lambda: run(spec, tmp_path / "run")):
        with pytest.raises(SpecError, match=said) as caught:
            attempt()
        (problem,) = caught.value.problems
        assert problem.place is not None
        assert f"mine_{number}" in problem.place.source
    assert not (tmp_path / "run").exists(), "nothing is left of what could not start"


def test_twin_a_sound_loss_trains(tmp_path: Path) -> None:
    assert run(spec_of(tmp_path, 5, *SOUND), tmp_path / "run").finished


PARTS = """
import torch
import gankit
from torch import nn

@gankit.attention("halves")
def halves(channels: int, /) -> nn.Module:
    return nn.Conv2d(channels, channels // 2, 1)

@gankit.norm("flat_scale", on="activation")
class FlatScale(nn.Module):
    def __init__(self, channels: int, /) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels + 1))

    def forward(self, x):
        return x * self.gain

@gankit.discriminator("misnamed")
class Misnamed(nn.Module):
    def __init__(self, image, /) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(1)

    def forward(self, x, label=None):
        return self.layer(x.flatten(1))

@gankit.discriminator("other_heads")
class OtherHeads(nn.Module):
    adversarial = {"global": 1.0}

    def __init__(self, image, /) -> None:
        super().__init__()
        self.layer = nn.Linear(image.channels * image.size[0] * image.size[1], 1)

    def forward(self, x):
        return {"whole": self.layer(x.flatten(1))}
"""


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("generator.attention=halves", r"attend_8 gives \(4, 8, 8\), and not the \(8, 8, 8\)"),
        ("generator.norm=flat_scale", "broadcast|must match"),
        ("discriminator={use='misnamed'}", "`labels`, not `label`"),
        ("discriminator={use='other_heads'}", 'no head "global".*there is whole'),
    ],
)
def test_a_broken_module_is_told_without_a_traceback(
    tmp_path: Path, override: str, said: str
) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    file = tmp_path / "spec.toml"
    file.write_text('plugins = ["parts.py"]\n' + IMAGES)
    with pytest.raises(SpecError, match=said):
        run(load(file, [override, "train.steps=1"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_norm_made_by_a_function_is_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "scaled.py").write_text(
        "import gankit\nfrom torch import nn\n"
        "@gankit.norm('by_function', on='activation')\n"
        "def by_function(channels: int, /) -> nn.Module:\n"
        "    return nn.GroupNorm(1, channels)\n"
    )
    file = tmp_path / "spec.toml"
    file.write_text('plugins = ["scaled.py"]\n' + IMAGES)
    made = plan(load(file, ['generator.norm=["spectral", "by_function"]']))
    norms = {stage.name: stage.norm for stage in made.generator.stages}
    assert norms["normalise_8"] == "by_function"
    assert norms["transposed_8"] == "spectral"
    assert norms["activate_4"] == ""


PENALTIES = """
import gankit

class Base:
    players, every = "D", 1

@gankit.penalty("shapeless")
class Shapeless(Base):
    def __call__(self, turn):
        return turn.real_logits

@gankit.penalty("misspelt")
class Misspelt(Base):
    def __call__(self, turn):
        return turn.real_logitz.mean()
"""


@pytest.mark.parametrize(
    ("name", "said"), [("shapeless", "one number in it"), ("misspelt", "AttributeError.*logitz")]
)
def test_a_broken_penalty_is_told_at_the_penalty(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "penalties.py").write_text(PENALTIES)
    file = tmp_path / "spec.toml"
    text = f'plugins = ["penalties.py"]\n{IMAGES}\n[[penalty]]\nuse = "{name}"\n'
    file.write_text(text)
    with pytest.raises(SpecError, match=said) as caught:
        plan(load(file))
    (problem,) = caught.value.problems
    assert problem.place is not None
    assert problem.place.source == f'use = "{name}"'

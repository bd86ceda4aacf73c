"""The benchmarks run at tiny sizes, say what they promise to say, and refuse to time other work."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NAMES = [file.stem for file in BENCHMARKS.glob("*.py")]
TINY = ["--size", "32", "--width", "8", "--batch", "2", "--rounds", "2", "--json"]
CPU = torch.device("cpu")

MACHINE = {"device", "threads", "load", "torch", "date", "commit"}
ASKED = {"benchmark", "network", "width", "size", "rounds", "quartiles"}
BESIDE = {"peer", "gankit_s", "peer_s", "ratio", "relative_error"}
KEYS = {
    "train_step": MACHINE | ASKED | BESIDE | {"batch", "precision", "errors"},
    "sampling": MACHINE | ASKED | BESIDE | {"images", "gankit_images_s"},
    "spectral": MACHINE | ASKED | {"batch", "precision", "layers", "spectral_s", "step_s", "share"},
}

Load = Callable[[str], ModuleType]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a benchmark as a script would, and leave no plain names behind."""
    import sys

    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


def asked(bench: Load, *words: str) -> argparse.Namespace:
    """What the options come to."""
    parser = bench("side_by_side").options("")
    bench("sides").network_options(parser)
    return parser.parse_args([*TINY, *words])  # type: ignore[no-any-return]


def printed(module: ModuleType, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """The one line of JSON."""
    module.main([*TINY, *words])
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


@pytest.mark.parametrize("name", KEYS)
def test_prints_one_line_of_json_and_draws_a_picture(
    name: str, bench: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    result = printed(bench(name), capsys, "--plot", str(tmp_path / "x.png"))
    assert set(result) == KEYS[name]
    assert result["benchmark"] == name
    assert result["rounds"] == 2
    assert result.get("relative_error", 0.0) <= 1e-4
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_words_stand_beside_the_line_and_not_in_it(
    bench: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    bench("spectral").main([word for word in TINY if word != "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out)["share"] == float(err.split()[0])
    assert " of the step, quartiles [" in err


def test_work_of_a_step_is_counted_where_it_is_asked_for(
    bench: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    once = printed(bench("train_step"), capsys, "--count")
    twice = printed(bench("train_step"), capsys, "--count", "--steps", "2")
    assert twice["peer_flop"] == once["peer_flop"] > 1e6
    # Both do a step of the same networks; gankit builds no graph through G in D's turn.
    assert 0.5 < once["gankit_flop"] / once["peer_flop"] <= 1.01


# The same work


def halved_weight(bench: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight of one layer is another."""
    same_work = bench("same_work")
    right = same_work.engine_of

    def wrong(*given: Any) -> Any:
        engine = right(*given)
        with torch.no_grad():
            last = list(engine.gan.discriminator.parameters())[-1]
            last.view(-1)[0] *= 0.5
        return engine

    monkeypatch.setattr(same_work, "engine_of", wrong)


def one_sided_loss(bench: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """D's turn looks at real images alone."""

    def turn_d(self: Any, real: torch.Tensor, z: torch.Tensor) -> None:
        self.generator(z)
        self.reset_grad()
        self.relu(1.0 - self.discriminator(real)).mean().backward()

    monkeypatch.setattr(bench("by_hand").Loop, "turn_d", turn_d)


def other_momentum(bench: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are right, and running statistics are not."""
    by_hand = bench("by_hand")

    class Generator(by_hand.Generator):  # type: ignore[misc, name-defined]
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.2

    monkeypatch.setattr(by_hand, "Generator", Generator)


def other_slope(bench: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The activation of D is nearly the right one."""
    by_hand = bench("by_hand")

    class Discriminator(by_hand.Discriminator):  # type: ignore[misc, name-defined]
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            for module in self.modules():
                if isinstance(module, nn.LeakyReLU):
                    module.negative_slope = 0.102

    monkeypatch.setattr(by_hand, "Discriminator", Discriminator)


def lost_gradient(bench: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """One parameter of gankit's learns nothing."""
    same_work = bench("same_work")
    right = same_work.engine_of

    def wrong(*given: Any) -> Any:
        engine = right(*given)
        next(engine.gan.generator.parameters()).requires_grad_(False)
        return engine

    monkeypatch.setattr(same_work, "engine_of", wrong)


TWINS = [halved_weight, one_sided_loss, other_momentum, other_slope, lost_gradient]


@pytest.mark.parametrize("twin", TWINS)
def test_other_work_is_not_timed(
    twin: Callable[[Load, pytest.MonkeyPatch], None], bench: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    same_work = bench("same_work")
    errors = same_work.compared(asked(bench), CPU)
    assert same_work.worst(errors) <= same_work.LIMIT
    assert errors["gradients_float64"] < 1e-12
    twin(bench, monkeypatch)
    with pytest.raises(same_work.Different, match="do different work; relative errors"):
        same_work.compared(asked(bench), CPU)


def test_a_refusal_names_the_benchmark_and_times_nothing(
    bench: Load, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    halved_weight(bench, monkeypatch)
    with pytest.raises(SystemExit, match="gankit and by-hand do different work"):
        bench("train_step").main(TINY)
    assert capsys.readouterr().out == ""


def test_other_images_are_not_timed(bench: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = bench("sampling")
    right = sampling.of_run

    def wrong(*given: Any, **options: Any) -> Any:
        live = right(*given, **options)
        with torch.no_grad():
            next(live.network.parameters()).mul_(1.01)
        return live

    monkeypatch.setattr(sampling, "of_run", wrong)
    with pytest.raises(SystemExit, match="draw different images"):
        sampling.main(TINY)


def test_gradients_that_are_all_zero_prove_nothing(bench: Load) -> None:
    same_work = bench("same_work")
    with pytest.raises(same_work.Different, match="nothing to compare"):
        same_work.apart({"w": torch.zeros(2)}, {"w": torch.zeros(2)})


def test_what_is_not_a_number_is_not_equal(bench: Load) -> None:
    broken = {"v": torch.ones(2), "w": torch.tensor([1.0, torch.nan]), "x": torch.ones(2)}
    apart = bench("same_work").apart
    assert apart({"w": torch.ones(2)}, {"w": torch.ones(2)}) == 0.0
    assert not apart(broken, {name: torch.ones(2) for name in broken}) <= 1e9


def test_weights_stand_still_on_both_sides(bench: Load) -> None:
    """Or else later rounds would be of other networks than those that were compared."""
    sides = bench("sides")
    peer = sides.peer_of(asked(bench), CPU)
    engine = sides.engine_of(sides.spec_of(asked(bench)), peer, CPU)
    networks = [*sides.networks(engine.gan).values(), *peer.networks().values()]
    before = [[p.clone() for p in network.parameters()] for network in networks]
    engine.step(0)
    peer.step(torch.rand(2, 3, 32, 32), None)
    for network, kept in zip(networks, before, strict=True):
        for parameter, old in zip(network.parameters(), kept, strict=True):
            # Torch's old hook keeps its weight as a parameter; the vectors are buffers.
            assert torch.equal(parameter, old)


def test_by_hand_has_the_articles_network(bench: Load) -> None:
    by_hand = bench("by_hand")
    networks = by_hand.Generator(128, 16, 32), by_hand.Discriminator(128, 32, 32)
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    # With torch's batchnorm, which has scales: 496 more than the article's code.
    assert counts == [3_856_372 + 496, 2_801_202]


# What cannot be done


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "sagan-resnet"], "--peer-path names a checkout of biggan-pytorch, not None"),
        (["--network", "sagan-resnet", "--peer", "by-hand"], "by-hand has no sagan-resnet; there"),
        (["--size", "48"], "32, 64 or 128 pixels high here, not 48"),
        (["--set", "generator.latent=1.5"], "latent"),
    ],
)
def test_what_cannot_be_compared_is_refused(words: list[str], message: str, bench: Load) -> None:
    with pytest.raises(SystemExit, match=message):
        bench("train_step").main([*TINY, *words])


def test_without_spectral_norm_there_is_no_share_of_it(bench: Load) -> None:
    plain = ['generator.norm="batchnorm"', 'discriminator.norm="none"']
    words = [word for override in plain for word in ("--set", override)]
    with pytest.raises(SystemExit, match="no layer has spectral norm"):
        bench("spectral").main([*TINY, *words])


def test_fast_paths_are_the_specs_own(bench: Load) -> None:
    from gankit.spec import Train

    spec_of = bench("sides").spec_of
    if hasattr(Train, "fast"):
        assert [spec_of(asked(bench, f)).train.fast for f in ("--fast", "--no-fast")] == [1, 0]
    else:
        with pytest.raises(ValueError, match="--fast: there is no"):
            spec_of(asked(bench, "--fast"))


@pytest.mark.slow
@pytest.mark.skipif("BIGGAN_PYTORCH" not in os.environ, reason="it names a checkout of the peer")
def test_the_authors_network_beside_biggan_pytorch(
    bench: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--network", "sagan-resnet", "--peer-path", os.environ["BIGGAN_PYTORCH"]]
    result = printed(bench("train_step"), capsys, *words, "--size", "128")
    assert result["errors"]["gradients_float64"] < 1e-12
    assert not {"utils", "layers", "datasets", "torchvision"} & set(__import__("sys").modules)


# The parts


def test_sides_change_who_goes_first_and_warm_rounds_do_not_count(
    bench: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    side_by_side = bench("side_by_side")
    clock, calls = [0.0], []

    def side(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            calls.append(name)
            clock[0] += seconds

        return run

    monkeypatch.setattr(side_by_side.time, "perf_counter", lambda: clock[0])
    pairs = side_by_side.rounds(side("a", 2.0), side("b", 3.0), 3, CPU, warm=1)
    assert "".join(calls) == "abbaabba"
    assert pairs == [(2.0, 3.0)] * 3


def test_ratios_are_paired_by_round(bench: Load) -> None:
    # The machine is ten times slower in the last round, for both.
    found = bench("side_by_side").ratios([(1.0, 2.0), (1.0, 3.0), (10.0, 20.0), (1.0, 2.0)])
    assert (found["ratio"], found["rounds"]) == (2.0, 4)
    assert found["quartiles"] == [2.0, 2.25]
    assert bench("side_by_side").ratios([(1.0, 2.0)])["quartiles"] == [2.0, 2.0]


def test_work_is_what_arithmetic_says(bench: Load) -> None:
    counted = bench("work").counted
    a, b = torch.rand(3, 5), torch.rand(5, 7, requires_grad=True)
    forward = 2 * 3 * 5 * 7
    assert counted(lambda: a @ b) == {"flop": forward, "traffic_bytes": 4 * (15 + 35 + 21)}
    assert counted(lambda: (a @ b).sum().backward())["flop"] == 2 * forward
    image, kernel = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3)
    made = counted(lambda: torch.conv2d(image, kernel, padding=1))
    assert made["flop"] == 2 * (2 * 8 * 8) * 4 * (3 * 3 * 3)
    assert counted(lambda: a.view(5, 3))["traffic_bytes"] == 0


def test_spectral_takes_gradients_back_to_every_weight(bench: Load) -> None:
    from gankit.bench.noise import Noise
    from gankit.build import build
    from gankit.ops import estimates
    from gankit.train import Engine

    spec = bench("sides").spec_of(asked(bench))
    gan, data = build(spec)
    engine = Engine(gan, Noise(data.image, 4), spec.train, CPU)
    bench("spectral").divide(engine)
    found = [pair for network in engine.networks.values() for pair in estimates(network)]
    assert len(found) == 2 * 3 + 5 + 4  # attention's in both, G's others, D's others
    for norm, weight in found:
        # The gradient of the half square of W / sigma, which the division leaves nothing of
        # along W: (g - <g, W / sigma> u v') / sigma with g = W / sigma.
        divided = (weight / norm.sigma(weight)).detach()
        first = norm.matrix(divided)
        along = (divided**2).sum() * torch.outer(norm.u, norm.v)
        wanted = (first - along) / norm.sigma(weight)
        assert weight.grad is not None
        torch.testing.assert_close(norm.matrix(weight.grad), wanted, rtol=1e-3, atol=1e-4)


# The GPU's script


def test_a_gpu_script_without_a_gpu_says_so(bench: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="there is no CUDA GPU here"):
        bench("gpu").main([])


def gpu_options(**given: Any) -> argparse.Namespace:
    chosen = {"device": "cpu", "size": 32, "width": 8, "rounds": 1, "batches": [2, 4]}
    return argparse.Namespace(
        **chosen | {"precision": "fp32", "images": 8, "peer_path": None} | given
    )


def test_the_gpus_plan_is_both_networks_where_there_is_a_peer(bench: Load) -> None:
    plan = bench("gpu").plan
    names = [[command[0] for command in plan(gpu_options(peer_path=p))] for p in (None, Path("x"))]
    assert names[0] == ["train_step", "train_step", "sampling", "spectral"]
    assert sorted(names[1]) == sorted(2 * names[0])
    assert names[1][:4] == ["train_step"] * 4


def test_what_was_not_measured_is_named(bench: Load) -> None:
    outcome = bench("gpu").outcome
    assert outcome(["sampling"], 0)["missing"] == "the time was up"
    assert outcome(["sampling"], 0.01)["missing"] == "not done in 0 s"
    assert (
        "no sagan-resnet"
        in outcome(["sampling", "--network", "sagan-resnet", "--peer", "by-hand"], 60)["missing"]
    )


def test_what_a_step_reaches_is_a_share_of_the_right_ceiling(bench: Load) -> None:
    gpu = bench("gpu")
    most = {"bf16_flop_s": 1000.0, "tf32_flop_s": 500.0, "fp32_flop_s": 50.0, "bytes_s": 10.0}
    step = {"network": "n", "batch": 2, "precision": "bf16", "peer": "p"}
    step |= {"gankit_flop": 100, "gankit_s": 0.5, "gankit_traffic_bytes": 1}
    step |= {"peer_flop": 100, "peer_s": 2.0, "peer_traffic_bytes": 10}
    ours, theirs = gpu.reached(step, most)
    assert (ours["flop_s"], ours["of_ceiling"], ours["of_bandwidth"]) == (200.0, 0.2, 0.2)
    assert (theirs["flop_s"], theirs["of_ceiling"], theirs["of_bandwidth"]) == (50.0, 0.1, 0.5)
    assert gpu.table([ours]).splitlines()[-1] == (
        "| n | 2 | gankit | 200 | 20.0% of bf16 | 2 | 20.0% |"
    )


@pytest.mark.slow
def test_a_rehearsal_without_a_gpu_writes_everything(
    bench: Load, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--device", "cpu", "--precision", "fp32", "--width", "8", "--size", "32"]
    words += ["--batches", "2", "--rounds", "1", "--images", "8", "--out", str(tmp_path / "x.json")]
    bench("gpu").main(words)
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == report
    assert [set(found) & {"missing"} for found in report["results"]] == [set()] * 3
    assert len(report["reached"]) == 2
    assert set(report) == MACHINE | {"driver", "cuda", "ceilings", "results", "reached"}

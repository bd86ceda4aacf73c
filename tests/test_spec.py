"""From tables to a spec and back: types, overrides, defaults, what is written out and the hash."""

from __future__ import annotations

import copy
import importlib
import itertools
import math
import random
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from gankit.build import bind, build
from gankit.errors import SetupError, SpecError, UsageError
from gankit.registry import REQUIRED, Entry, Option, registry
from gankit.registry.options import options_of
from gankit.schedules import factors_of, rates_of
from gankit.spec import HalfLife, Spec, Train, dumps, load, loads
from gankit.spec.model import LISTS, RESUMABLE, SECTIONS, Eval
from gankit.spec.values import record_of

BASE = """\
gankit = 1
name = "base"
[data]
use = "shapes"
size = 16
[generator]
use = "dcgan"
width = 4
norm = ["spectral", { use = "batchnorm", scale = false }]
[discriminator]
use = "dcgan"
width = 4
norm = "spectral"
[loss]
use = "hinge"
[[schedule]]
use = "ttur"
ratio = 2.0
[[penalty]]
use = "r1"
[optimizer]
use = "adam"
lr = 1e-4
[train]
steps = 10
"""


def value(spec: Spec, path: str) -> Any:
    """What a spec says in the end, by a dotted path."""
    tables: Any = spec.plain()
    for step in path.split("."):
        tables = tables[int(step) if isinstance(tables, list) else step]
    return tables


# --- types


@pytest.mark.parametrize(
    "override",
    [
        *("generator.width='4'", "generator.width=4.0", "generator.width=true", "seed=0.0"),
        *("loss.margin='1.0'", "loss.margin=true", "loss.margin=[1.0]", "loss.margin={}"),
        *("data.size='16'", "data.size=[16]", "data.size=[16, 16, 16]", "data.size=[16, 16.0]"),
        *("data.size=true", "discriminator.bias=0", "discriminator.bias='true'", "name=1"),
        *("optimizer.betas=0.5", "optimizer.betas=[0.5]", "optimizer.betas=[false, 0.9]"),
        *("generator.stem='Dense'", "generator.stem=0", "generator.attention_at=8"),
        *("generator.attention_at=[8.0]", "generator.attention_at=['8']", "generator.norm=1"),
        *("generator.norm=[1]", "generator.norm=[[]]", "generator.activation=[]", "loss=[]"),
        *("train.ema='0.9'", "train.ema=true", "train.ema=[]", "train.steps=1e1"),
        *("loss.margin=inf", "loss.margin=-inf", "loss.margin=nan", "optimizer.betas=[nan, 0]"),
        *("loss.margin=1979-05-27", "loss.margin=07:32:00", "data.size=[1979-05-27, 16]"),
        *("data.length=9223372036854775808", "gankit=true", "gankit='1'", "gankit=2", "seed=-1"),
    ],
)
def test_a_value_of_another_type_is_refused_at_its_place(override: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(BASE, [override])
    (problem,) = caught.value.problems
    assert problem.place is not None
    assert problem.place.name == "--set"
    assert problem.place.column > override.index("=")


@pytest.mark.parametrize(
    ("override", "path", "read"),
    [
        ("loss.margin=1", "loss.margin", 1.0),
        ("optimizer.betas=[0, 1]", "optimizer.betas", [0.0, 1.0]),
        ("data.size=[16, 32]", "data.size", [16, 32]),
        ("data.size=16", "data.size", 16),
        ("train.ema=0", "train.ema", 0.0),
        ("train.ema={ half_life = 10_000 }", "train.ema", {"half_life": 10000.0, "ramp_up": 0.0}),
        ("seed=9223372036854775807", "seed", 2**63 - 1),
        ("data.length=0x10", "data.length", 16),
    ],
)
def test_a_value_of_the_type_is_read(override: str, path: str, read: Any) -> None:
    found = value(loads(BASE, [override]), path)
    assert found == read
    assert [type(x) for x in leaf_values(found)] == [type(x) for x in leaf_values(read)]


def leaf_values(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from leaf_values(inner)
    else:
        yield tree


def test_a_table_without_use_is_the_part_that_is_there_by_default() -> None:
    assert value(loads(BASE, ["latent.std=2"]), "latent") == {"use": "normal", "std": 2.0}
    slope = loads(BASE + "[discriminator.activation]\nslope = 0.1\n")
    assert value(slope, "discriminator.activation") == {"use": "leaky_relu", "slope": 0.1}
    with pytest.raises(SpecError, match=r"generator\.attention needs the key `use`"):
        loads(BASE, ["generator.attention.reduction=4"])


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my spec é.toml", "my-spec-é"),
        (".hidden.toml", "hidden"),
        ("a(1)/b.toml", "b"),
        ("☃.toml", "-"),
    ],
)
def test_a_spec_without_a_name_is_named_after_its_file(
    file: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(BASE.replace('name = "base"\n', ""), encoding="utf-8")
    spec = load(path)
    assert spec.name == name
    assert loads(dumps(spec.resolved())).name == name


# --- overrides


@pytest.mark.parametrize(
    ("overrides", "path", "read"),
    [
        # values: TOML, or a word
        (["generator.width=8"], "generator.width", 8),
        (["generator.width = 8"], "generator.width", 8),
        ([' "generator" . width = 8 # half of it'], "generator.width", 8),
        (["train.batch=1_000"], "train.batch", 1000),
        (["data.use=folder", "data.root=x"], "data.root", "x"),
        (["data.use=folder", "data.root=/my photos/é/☃"], "data.root", "/my photos/é/☃"),
        (["data.use=folder", "data.root='/my photos'"], "data.root", "/my photos"),
        (["data.use=folder", "data.root=~/a=b,c"], "data.root", "~/a=b,c"),
        (["data.use=folder", r"data.root=C:\new\table"], "data.root", r"C:\new\table"),
        (["data.use=folder", r'data.root="C:\\x\u00e9"'], "data.root", r"C:\xé"),
        (["data.use=folder", 'data.root="8"'], "data.root", "8"),
        (["data.use=folder", "data.root=2024-run"], "data.root", "2024-run"),
        (["discriminator.bias=false"], "discriminator.bias", False),
        (["generator.attention_at=[4, 8]"], "generator.attention_at", [4, 8]),
        # parts
        (["generator.norm=spectral"], "generator.norm.use", "spectral"),
        (["generator.norm=none"], "generator.norm", "none"),
        (["generator.norm=[]"], "generator.norm", "none"),
        (["discriminator.norm.iterations=3"], "discriminator.norm.iterations", 3),
        (["generator.norm.spectral.iterations=3"], "generator.norm.0.iterations", 3),
        (["generator.norm.1.eps=1"], "generator.norm.1.eps", 1.0),
        (["generator.norm.1.eps=1"], "generator.norm.1.scale", False),
        (["generator.norm.batchnorm={ eps = 1 }"], "generator.norm.1.scale", True),
        (["generator.norm.spectral=none"], "generator.norm.use", "batchnorm"),
        (["discriminator.activation.slope=0.5"], "discriminator.activation.slope", 0.5),
        (["generator={ use = 'mlp', layers = 2 }"], "generator.layers", 2),
        (["generator={ use = 'mlp', layers = 2 }"], "generator.width", 128),
        (["loss=wasserstein"], "loss.use", "wasserstein"),
        (["train.ema.half_life=5"], "train.ema.half_life", 5.0),
        (["train.ema=0.5", "train.ema={ half_life = 5 }"], "train.ema.half_life", 5.0),
        # entries of arrays of tables, by their part
        (["schedule.ttur.ratio=3"], "schedule", [{"use": "ttur", "ratio": 3.0}]),
        (["schedule.ttur={ ratio = 3 }"], "schedule", [{"use": "ttur", "ratio": 3.0}]),
        (["schedule.ttur=none"], "schedule", []),
        (["schedule=[]"], "schedule", []),
        (["schedule=['simultaneous']"], "schedule", [{"use": "simultaneous"}]),
        (["schedule.n_critic.n=3"], "schedule.1", {"use": "n_critic", "n": 3}),
        (["schedule.n_critic={}"], "schedule.1", {"use": "n_critic", "n": 5}),
        (["schedule.n_critic=n_critic"], "schedule.1", {"use": "n_critic", "n": 5}),
        (["augment.flip.p=0.25"], "augment", [{"use": "flip", "p": 0.25}]),
        (["augment.flip.p=0.25", "augment.flip=none"], "augment", []),
        (["penalty.r1=none", "penalty.r1.weight=3"], "penalty.0.weight", 3.0),
        (["penalty.wgan_gp.weight=3", "penalty.r1=none"], "penalty.0.weight", 3.0),
        (["penalty.r1.weight=3", "penalty.r1.every=2"], "penalty.0.weight", 3.0),
        (["penalty.r1={ weight = 3 }", "penalty.r1={ every = 2 }"], "penalty.0.weight", 10.0),
        # the last one counts
        (["generator.width=8", "generator.width=9"], "generator.width", 9),
        (["generator.width=8", "generator=mlp"], "generator.width", 128),
        (["seed=1", "seed=2", "seed=3"], "seed", 3),
    ],
)
def test_overrides(overrides: list[str], path: str, read: Any) -> None:
    assert value(loads(BASE, overrides), path) == read


def test_entries_in_short_are_changed_too() -> None:
    short = "penalty = ['r1']\nloss = 'hinge'\n"
    text = short + BASE.replace('[loss]\nuse = "hinge"\n', "").replace(
        '[[penalty]]\nuse = "r1"\n', ""
    )
    assert value(loads(text, ["penalty.r1.weight=3"]), "penalty.0.weight") == 3.0
    assert value(loads(text, ["penalty.r1={ weight = 3 }"]), "penalty.0.weight") == 3.0
    assert value(loads(text, ["loss.margin=3"]), "loss") == {"use": "hinge", "margin": 3.0}
    assert value(loads(text, ["penalty.r1=none"]), "penalty") == []


TWICE = """
gankit = 1
data = "ring"
generator = "mlp"
discriminator = "mlp"
loss = "hinge"
train = { steps = 10 }
[[penalty]]
use = "r1"
[[schedule]]
use = "cosine"
[[schedule]]
use = "cosine"
as = "less_r1"
on = "penalty.r1.weight"
final = 0.5
"""


def test_one_part_may_stand_in_a_list_twice_under_another_name() -> None:
    spec = loads(TWICE, ["schedule.less_r1.final=0.25", "schedule.cosine.final=0.75"])
    assert [part.called for part in spec.schedule] == ["cosine", "less_r1"]
    assert [part.options["final"] for part in spec.schedule] == [0.75, 0.25]
    again = loads(dumps(spec.resolved()))
    assert (again.plain(), again.hash) == (spec.plain(), spec.hash)
    assert loads(TWICE, ["schedule.less_r1={final=0.25}"]).schedule[1].options == {"final": 0.25}
    assert [p.called for p in loads(TWICE, ["schedule.less_r1=none"]).schedule] == ["cosine"]
    gan, _ = build(spec)
    assert factors_of(gan.schedules, 10, 10) == {"penalty.r1.weight": 0.25}
    assert rates_of(gan.schedules, 10, 10).generator == 0.75


def test_a_name_of_its_own_is_part_of_paths() -> None:
    text = TWICE.replace('use = "r1"', 'use = "r1"\nas = "gentle"')
    with pytest.raises(SpecError, match=r'schedule "less_r1" cannot scale "penalty.r1.weight"'):
        build(loads(text))
    gan, _ = build(loads(text, ["schedule.less_r1.on=penalty.gentle.weight"]))
    assert list(gan.penalties) == ["gentle"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('as = "less_r1"', "", 'two entries of schedule are called "cosine"'),
        ('as = "less_r1"', 'as = "cosine"', 'two entries of schedule are called "cosine"'),
        ('as = "less_r1"', 'as = "a b"', "a name is letters, digits, dots"),
        ('as = "less_r1"', "as = 3", "a name is letters, digits, dots"),
        ('generator = "mlp"', 'generator = { use = "mlp", as = "g" }', 'has no option "as"'),
    ],
)
def test_names_of_entries_that_cannot_be_are_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(TWICE.replace(old, new))
    assert message in str(caught.value)


def test_stages_are_changed_by_their_number() -> None:
    stages = '[{ use = "dense", channels = 2 }, "normalise", { use = "dense", channels = 1 }]'
    text = BASE.replace(
        '[discriminator]\nuse = "dcgan"\nwidth = 4',
        f"[discriminator]\nuse = 'stack'\nstages = {stages}",
    )
    spec = loads(text, ["discriminator.stages.2.channels=5", "discriminator.stages.1=activate"])
    assert value(spec, "discriminator.stages.2.channels") == 5
    assert value(spec, "discriminator.stages.1.use") == "activate"
    assert len(value(loads(text, ["discriminator.stages.1=none"]), "discriminator.stages")) == 2


@pytest.mark.parametrize(
    "override",
    [
        *(
            "generator.norm",
            "=3",
            "   =3",
            "",
            "#=3",
            "seed=1\nname='x'",
            "train.steps=1\ntrain.log=2",
        ),
        *("[generator]\nwidth=3\nlatent=2", "[[penalty]]\nuse=1"),
    ],
)
def test_what_is_no_override_is_a_usage_error(override: str) -> None:
    with pytest.raises(UsageError, match=r"^--set takes ") as caught:
        loads(BASE, [override])
    assert repr(override) in str(caught.value)


@pytest.mark.parametrize(
    ("override", "marked"),
    [
        ("generator.widht=3", "widht"),
        ("genrator.width=3", "genrator"),
        ("generator.norm.weightnorm.x=3", "weightnorm"),
        ("generator.norm.2.eps=3", "2"),
        ("generator.width.x=3", "x"),
        ("penalty.zzz.weight=3", "zzz"),
        ("penalty.zzz={}", "{}"),
        ("penalty.zzz=none", "zzz"),
        ("penalty.wgan_gp=none", "wgan_gp"),
        ("penalty.r1.wieght=3", "wieght"),
        ("penalty.r1.weight.x=3", "weight"),
        ("train.setps=3", "setps"),
        ("train.ema.half_lfie=3", "half_lfie"),
        ("plugins.x=3", "plugins"),
        ("providers.x=3", "providers"),
    ],
)
def test_a_path_that_is_not_there_is_refused_where_it_leaves_the_spec(
    override: str, marked: str
) -> None:
    with pytest.raises(SpecError) as caught:
        loads(BASE, [override])
    places = [p.place for p in caught.value.problems if p.place]
    shown = [place.source[place.column - 1 :][: place.width] for place in places]
    assert marked in shown
    assert {place.name for place in places} == {"--set"}


def test_the_file_is_still_the_place_of_what_an_override_left_alone() -> None:
    text = BASE.replace('"batchnorm"', '"batchnrm"')
    with pytest.raises(SpecError) as caught:
        loads(text, ["generator.norm.spectral.iterations=2", "generator.width='4'"])
    places = [p.place for p in caught.value.problems if p.place]
    assert [(place.name, place.line) for place in places] == [("<spec>", 9), ("--set", 1)]


def test_places_move_up_with_their_entries() -> None:
    text = BASE + '[[penalty]]\nuse = "wgan_gp"\nwieght = 1\n'
    with pytest.raises(SpecError) as caught:
        loads(text, ["penalty.r1=none"])
    (problem,) = caught.value.problems
    assert problem.place is not None
    assert problem.place.line == BASE.count("\n") + 3


# --- writing out, reading back, and the hash

OURS = [entry for entry in registry.find() if entry.provider.name == "gankit"]
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def entries_of(kind: str) -> list[Entry]:
    return [entry for entry in OURS if entry.kind.name == kind]


def plain(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a type, as TOML has them."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple and inner[-1] is Ellipsis:
        return st.lists(plain(inner[0]), max_size=3)
    if origin is tuple:
        return st.tuples(*map(plain, inner)).map(list)
    if inner:
        return st.one_of(*map(plain, inner))
    if record := record_of(annotation):
        return table(options_of(record), 0)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(1, 2**62),
        float: st.floats(2**-40, 0.999),
        bool: st.booleans(),
        str: WORDS,
    }
    return simple[annotation]


def of_option(option: Option, depth: int) -> st.SearchStrategy[Any]:
    """Values of an option: plain, a part, or several."""
    if option.slot is None:
        return plain(option.annotation)
    if option.many:
        return st.lists(part(option.slot, depth), min_size=1, max_size=3)
    if option.slot != "norm":
        return part(option.slot, depth)
    on = {
        place: [e for e in entries_of("norm") if e.on == place]
        for place in ("weight", "activation")
    }
    pairs = st.tuples(
        *(st.sampled_from(entries).flatmap(lambda e: written(e, depth)) for entries in on.values())
    )
    return part("norm", depth) | pairs.flatmap(st.permutations) | st.just([])


def table(options: dict[str, Option], depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the options, and all that are required."""
    required = {n: of_option(o, depth - 1) for n, o in options.items() if o.default is REQUIRED}
    optional = {
        n: of_option(o, depth - 1)
        for n, o in options.items()
        if o.default is not REQUIRED and (depth > 0 or o.slot is None)
    }
    return st.fixed_dictionaries(required, optional=optional)


def written(entry: Entry, depth: int) -> st.SearchStrategy[Any]:
    """A part: a table, or its name alone where that is enough."""
    tables = table(entry.options, depth).map(lambda options: {"use": entry.name, **options})
    return tables.map(lambda t: entry.name if len(t) == 1 else t)


def part(kind: str, depth: int) -> st.SearchStrategy[Any]:
    return st.sampled_from(entries_of(kind)).flatmap(lambda entry: written(entry, depth))


def several(kind: str) -> st.SearchStrategy[Any]:
    chosen = st.lists(st.sampled_from(entries_of(kind)), unique_by=lambda e: e.name, max_size=2)
    return chosen.flatmap(lambda entries: st.tuples(*(written(e, 1) for e in entries)).map(list))


def in_equal_shares(train: dict[str, Any]) -> dict[str, Any]:
    """A table whose batch can be divided as it says."""
    if "accumulate" in train:
        shares = math.gcd(train["accumulate"], train.get("batch", Train.batch))
        train = train | {"accumulate": shares}
    return train


OWN = {"discriminator_optimizer"}
"""Tables that may be absent, and then are nowhere."""

SPECS = st.fixed_dictionaries(
    {
        "gankit": st.just(1),
        "name": st.just("random"),
        "seed": st.integers(0, 2**63 - 1),
        **{section: part(kind, 2) for section, kind in SECTIONS.items() if section not in OWN},
        **{section: several(kind) for section, kind in LISTS.items()},
        "train": table(options_of(Train), 1).map(in_equal_shares),
        "eval": st.fixed_dictionaries(
            {},
            optional={
                # No metric may be there twice.
                name: several("metric") if option.many else of_option(option, 1)
                for name, option in options_of(Eval).items()
            },
        ),
    },
    optional={section: part(SECTIONS[section], 2) for section in OWN},
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return dumps({"x": value}).partition("=")[2].strip()


def text_of(tables: dict[str, Any]) -> str:
    return "".join(f"{key} = {toml(inner)}\n" for key, inner in tables.items())


@settings(max_examples=100)
@given(SPECS)
def test_a_spec_is_read_back_from_what_it_writes(tables: dict[str, Any]) -> None:
    assert_read_back(tables)


def assert_read_back(tables: dict[str, Any]) -> None:
    spec = loads(text_of(tables))
    assert_told(spec.plain(), tables)
    assert_told(spec.resolved(), tables)
    for written_out in (spec.resolved(), spec.plain(full=False), spec.plain()):
        text = dumps(written_out)
        assert_same(tomllib.loads(text), written_out)
        again = loads(text)
        assert again.plain() == spec.plain()
        assert again.plain(full=False) == spec.plain(full=False)
        assert again.hash == spec.hash
    assert_full(spec)


def assert_told(told: Any, given: Any, key: str = "") -> None:
    """All that was given is told."""
    if key == "norm":
        given = in_one_way(given)
    if isinstance(given, dict) or (isinstance(given, str) and isinstance(told, dict)):
        told = told if isinstance(told, dict) else {"use": told}
        given = given if isinstance(given, dict) else {"use": given}
        for key, inner in given.items():
            assert_told(told[key], inner, key)
    elif isinstance(given, list):
        for one, other in zip(told, given, strict=True):
            assert_told(one, other)
    else:
        assert told == given
        assert isinstance(told, bool) == isinstance(given, bool)


def in_one_way(norms: Any) -> Any:
    """A set of norms as it is told: weight first, none left out, and one without brackets."""

    def use(norm: Any) -> str:
        return norm if isinstance(norm, str) else norm["use"]

    listed = [n for n in (norms if isinstance(norms, list) else [norms]) if use(n) != "none"]
    listed.sort(key=lambda norm: registry.get("norm", use(norm)).on != "weight")
    return listed if len(listed) > 1 else (listed or ["none"])[0]


def assert_same(read: Any, told: Any) -> None:
    """What TOML reads is what was told to write, but for what is empty."""
    told = {key: inner for key, inner in told.items() if inner != []}
    assert read == told or repr(read) == repr(told)


def assert_full(spec: Spec) -> None:
    """Every option of every part is in what a spec resolves to."""
    resolved = spec.resolved()
    for section in SECTIONS:
        found = getattr(spec, section)
        assert (section in resolved) == (found is not None)
        assert found is None or set(resolved[section]) == {"use", *found.entry.options}
    for section in LISTS:
        for entry, part in zip(resolved[section], getattr(spec, section), strict=True):
            assert set(entry) == {"use", *part.entry.options}
    assert set(resolved["train"]) == set(options_of(Train))
    assert set(resolved["providers"]) == {part.entry.path for part in spec.parts()}


@settings(max_examples=60)
@given(SPECS)
def test_setting_a_leaf_to_its_own_value_changes_nothing(tables: dict[str, Any]) -> None:
    assert_nothing_changes(tables)


def assert_nothing_changes(tables: dict[str, Any]) -> None:
    text = text_of(tables)
    spec = loads(text)
    lists = {around for path, _ in leaf_paths(spec.plain(full=False)) for around in numbered(path)}
    paths = [
        (path, leaf)
        for path, leaf in leaf_paths(spec.plain())
        # A set of one norm may be written as a list, where the norm has to be named. A list that
        # is there by default is not there to be changed by number.
        if "norm" not in path[1:] and lists.issuperset(numbered(path))
    ]
    for path, leaf in random.Random(len(text)).sample(paths, min(5, len(paths))):
        override = f"{'.'.join(path)}={toml(leaf)}"
        again = loads(text, [override])
        assert again.hash == spec.hash, override
        assert again.plain() == spec.plain(), override


def leaf_paths(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf with its path as `--set` takes it; lists of plain values are leaves."""
    if isinstance(tree, dict):
        for key, inner in tree.items():
            yield from leaf_paths(inner, (*path, key))
    elif isinstance(tree, list) and any(isinstance(entry, dict) for entry in tree):
        for index, entry in enumerate(tree):
            name = entry["use"] if isinstance(entry, dict) and len(path) == 1 else str(index)
            yield from leaf_paths(entry, (*path, name))
    elif tree != []:
        yield path, tree


def numbered(path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The lists that a path leads through by number."""
    return [path[:depth] for depth, step in enumerate(path) if step.isdecimal()]


def test_the_property_sets_leaves_of_every_sort() -> None:
    paths = {".".join(path) for path, _ in leaf_paths(loads(BASE).plain())}
    assert {
        "penalty.r1.weight",
        "generator.norm.1.scale",
        "discriminator.activation.slope",
    } <= paths
    assert {"optimizer.betas", "schedule.ttur.use", "train.steps", "seed"} <= paths


UNCHANGED = [
    *(["name=other"], ["train.steps=11"], ["train.checkpoint=7"], ["train.samples=7"]),
    *(
        ["train.log=7"],
        ["train.rollbacks=0"],
        ["train.batch=64"],
        ["seed=0"],
        ["generator.latent=128"],
    ),
    *(["train.keep=7"], ["train.best=loss_D"], ["logger.csv={}"], ["logger=['wandb']"]),
    *(["generator.norm.spectral.iterations=1"], ["generator.norm.spectral={}"]),
    *(["penalty.r1.weight=10"], ["penalty.r1.weight=10.0"], ["augment=[]"], ["plugins=[]"]),
    *(["latent=normal"], ["latent={ use = 'normal', std = 1 }"], ["generator.attention=none"]),
    *(["optimizer.betas=[0, 0.9]"], ["discriminator.norm=['spectral']"]),
    *(["discriminator.norm=['none', 'spectral']"][1:], ["discriminator.activation=leaky_relu"]),
    ["generator.norm=[{ use = 'batchnorm', scale = false }, { use = 'spectral', iterations = 1 }]"],
    ["discriminator.activation={ use = 'leaky_relu', slope = 0.2 }"],
    ["generator.width=9", "generator.width=4"],
]


@pytest.mark.parametrize("overrides", UNCHANGED, ids=" ".join)
def test_the_hash_is_the_same_however_it_is_said(overrides: list[str]) -> None:
    assert loads(BASE, overrides).hash == loads(BASE).hash


CHANGED = [
    *("seed=1", "data=digits", "data.size=32", "data.channels=1", "data.seed=1", "data.length=7"),
    *("generator.width=8", "generator.latent=64", "generator.norm=none", "generator.norm=spectral"),
    *("generator.norm.batchnorm.scale=true", "generator.norm.spectral.iterations=2"),
    *(
        "generator.activation=silu",
        "discriminator.activation.slope=0.1",
        "generator.stem=transposed",
    ),
    *("discriminator.width=8", "discriminator.bias=false", "discriminator.norm=weightnorm"),
    *("generator.attention=self_attention", "generator.attention_at=[8]", "generator.embedding=3"),
    *("loss=minimax", "loss.margin=2", "latent=uniform", "latent.std=2", "optimizer=sgd"),
    *(
        "optimizer.lr=2e-4",
        "optimizer.betas=[0.5, 0.9]",
        "schedule.ttur=none",
        "schedule.ttur.ratio=1",
    ),
    *("schedule.n_critic={}", "penalty.r1=none", "penalty.r1.weight=1", "penalty.r1.every=2"),
    *("penalty.wgan_gp={}", "augment.flip={}", "train.batch=32", "train.precision=bf16"),
    *("train.batches=joint", "train.ema=0.9", "train.ema={ half_life = 10 }"),
    *("train.accumulate=2", "train.clip=1", "train.top_k=0.5", "train.fast=false"),
    "train.compile=true",
    *("discriminator_optimizer=adam", "discriminator_optimizer=rmsprop"),
]


def test_the_hash_is_another_for_every_other_change() -> None:
    hashes = [loads(BASE, [override]).hash for override in CHANGED]
    assert len({loads(BASE).hash, *hashes}) == len(CHANGED) + 1


def test_the_hash_takes_note_of_every_option_that_does_not_resume() -> None:
    touched = {override.partition("=")[0] for override in CHANGED}
    assert {f"train.{n}" for n in options_of(Train) if n not in RESUMABLE} <= touched


def test_the_hash_does_not_depend_on_defaults_that_nobody_mentions() -> None:
    """So a later version may add an option, whose default is what there was, and runs go on."""
    spec = loads(BASE)
    text = str(spec.plain(full=False))
    for word in ("iterations", "momentum", "slope", "std", "every", "embedding", "length"):
        assert word not in text
    assert spec.plain(full=False)["generator"]["norm"] == [
        "spectral",
        {"use": "batchnorm", "scale": False},
    ]


def test_a_spec_binds_what_it_resolves_to() -> None:
    """The options that are written out are those that the part has."""
    spec = loads(BASE, ["loss.margin=3"])
    again = loads(dumps(spec.resolved()))
    assert bind(again.loss) == bind(spec.loss)
    assert bind(again.loss).margin == 3.0


@pytest.mark.parametrize("tables", [{"x": math.pi}, {"x": 1e-12, "y": 1e300, "z": -0.0}])
def test_numbers_are_written_to_the_last_digit(tables: dict[str, float]) -> None:
    assert tomllib.loads(dumps(tables)) == tables


def test_half_life_refuses_by_hand_what_a_spec_refuses() -> None:
    for options in ({"half_life": 0.0}, {"half_life": 1.0, "ramp_up": -1.0}):
        with pytest.raises(ValueError, match=r"must be (above|at least) 0, not"):
            HalfLife(**options)


# --- plugins


PLUGIN = '''
import gankit
from dataclasses import dataclass

@gankit.latent("NAME")
def drawn(count, width, random, /, *, low: float | None = None, kind: str = "a"):
    """Nothing.

    Options:
        low: a bound, or none.
        kind: a word.
    """
    import torch

    return torch.zeros(count, width)
'''


def test_a_default_of_none_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "extra.py").write_text(PLUGIN.replace("NAME", "spec_test_none"))
    text = 'plugins = ["extra.py"]\nlatent = "spec_test_none"\n' + BASE
    spec = loads(text, folder=tmp_path)
    assert value(spec, "latent") == {"use": "spec_test_none", "kind": "a"}
    assert loads(dumps(spec.resolved()), folder=tmp_path).hash == spec.hash
    low = loads(text, ["latent.low=2"], folder=tmp_path)
    assert value(low, "latent.low") == 2.0
    assert low.hash != spec.hash


def test_plugins_are_recorded_with_what_was_in_them(tmp_path: Path) -> None:
    file = tmp_path / "my file.py"
    file.write_text(PLUGIN.replace("NAME", "spec_test_recorded"))
    text = 'plugins = ["my file.py"]\nlatent = "spec_test_recorded"\n' + BASE
    spec = loads(text, folder=tmp_path)
    resolved = spec.resolved()
    assert resolved["plugins"][0]["file"] == "my file.py"
    assert resolved["providers"]["latent/spec_test_recorded"].startswith("my file.py sha256:")
    assert loads(dumps(resolved), folder=tmp_path).hash == spec.hash
    file.write_text(file.read_text() + "\n")
    with pytest.raises(SetupError, match="is not the one that was recorded"):
        loads(dumps(resolved), folder=tmp_path)


@pytest.mark.parametrize(
    "plugins",
    ['"x.py"', "[1]", '[{ path = "x.py" }]', '[{ file = "x.py", sha = "0" }]', "[{ file = 1 }]"],
)
def test_plugins_of_another_form_are_refused(plugins: str) -> None:
    with pytest.raises(SpecError, match="plugins is written") as caught:
        loads(f"plugins = {plugins}\n{BASE}")
    (problem,) = caught.value.problems
    assert problem.place is not None
    assert problem.place.line == 1


# --- what the properties catch


def test_the_properties_catch_a_hash_that_is_never_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter = itertools.count()
    monkeypatch.setattr(Spec, "hash", property(lambda spec: str(next(counter))))
    assert fails(assert_read_back)


def test_the_properties_catch_options_that_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gankit.spec.model._short", lambda table: table["use"])
    assert fails(assert_read_back)


def test_the_properties_catch_norms_whose_order_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def reverse(parts: Any, reverse: bool) -> Any:
        return list(parts)

    monkeypatch.setattr(
        importlib.import_module("gankit.spec.check"), "sorted", reverse, raising=False
    )
    tables = tomllib.loads(BASE)
    assert_read_back(tables)
    tables["generator"]["norm"].reverse()  # which few of the random ones have
    with pytest.raises((AssertionError, LookupError)):
        assert_read_back(tables)


def test_the_properties_catch_an_override_of_the_wrong_entry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gankit.spec.source._entry", lambda entries, *rest: len(entries) - 1)
    assert fails(assert_nothing_changes)


def test_the_properties_hold_otherwise() -> None:
    assert not fails(assert_read_back, 5)
    assert not fails(assert_nothing_changes, 5)


def fails(holds: Callable[[dict[str, Any]], None], examples: int = 100) -> bool:
    """Whether a property is found not to hold."""

    def broken(tables: dict[str, Any]) -> bool:
        try:
            holds(tables)
        except (AssertionError, LookupError, SpecError):
            return True
        return False

    quick = settings(phases=[Phase.generate], database=None, max_examples=examples)
    try:
        find(SPECS, broken, settings=quick)
    except NoSuchExample:
        return False
    return True


def test_strategies_reach_every_part() -> None:
    """A registered part that no random spec ever has would go untested."""
    kinds = {entry.kind.name for entry in OURS}
    drawn = {
        *SECTIONS.values(),
        *LISTS.values(),
        "features",
        "metric",
        "norm",
        "attention",
        "activation",
        "block",
        "initializer",
    }
    assert kinds == drawn


def test_specs_are_values() -> None:
    spec = loads(BASE)
    assert loads(BASE) == spec
    assert copy.deepcopy(spec.plain()) == spec.plain()
    assert len(set(itertools.chain(spec.resolved(), spec.plain()))) == 16

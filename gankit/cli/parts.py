"""`gankit list`, `gankit show`: what there is to choose from."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gankit.cli.common import Plugins, load_plugins
from gankit.errors import UsageError, choices, nearest

if TYPE_CHECKING:
    from gankit.registry import Entry, Option

__all__ = ["list_parts", "show"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_parts(
    pattern: Annotated[
        str, typer.Argument(metavar="[KIND|PATTERN]", help="A kind, or a pattern: 'norm/*batch*'.")
    ] = "*",
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """List the parts there are, by kind and name, and where each comes from."""
    from gankit.registry import KINDS, registry

    load_plugins(plugin)
    found = registry.find(pattern)
    if not found:
        name = pattern.rpartition("/")[2]
        close = nearest(pattern, KINDS) or nearest(name, (entry.name for entry in registry.find()))
        meant = f'did you mean "{close}"? ' if close else ""
        raise UsageError(f'no part matches "{pattern}"; {meant}kinds: {", ".join(KINDS)}')
    if as_json:
        print(json.dumps([_record(entry) for entry in found]))
        return
    paths = [entry.path for entry in found]
    providers = [str(entry.provider) for entry in found]
    wide, wider = max(map(len, paths)), max(map(len, providers))
    for path, provider, entry in zip(paths, providers, found, strict=True):
        print(f"{path:<{wide}}  {provider:<{wider}}  {entry.summary}")


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.kind.name,
        "name": entry.name,
        "provider": str(entry.provider),
        "on": entry.on,
        "needs": sorted(entry.needs),
        "summary": entry.summary,
        "options": {
            name: {"type": option.type_name, "default": _default(option), "meaning": option.meaning}
            for name, option in entry.options.items()
        },
    }


def _default(option: Option) -> Any:
    from gankit.registry import REQUIRED
    from gankit.spec import describe

    absent = option.default is REQUIRED
    return None if absent else describe(option.slot, option.default, full=False)


def show(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="norm, attention, loss, ...")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The part's name.")],
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Show one part: what it does, its options, the paper, and how a spec uses it."""
    from gankit.registry import KINDS, NEEDS, REQUIRED, registry

    if kind not in KINDS:
        raise UsageError(f'there is no kind "{kind}"; {choices(kind, KINDS)}')
    load_plugins(plugin)
    entry = registry.get(kind, name)
    if as_json:
        print(json.dumps(_record(entry)))
        return
    acts = f", on the {entry.on}" if entry.on else ""
    print(f"{entry.path}  ({entry.provider}{acts})\n")
    about = re.sub(r"^Options:\n((?:[ \t]+.*\n?|\n)+)", "", _doc(entry), flags=re.MULTILINE)
    print(about.strip())
    if entry.needs:
        print("\nNeeds:")
        for need in sorted(entry.needs):
            print(f"  {need}: {NEEDS[need]}")
    if entry.options:
        print("\nOptions:")
        for option in entry.options.values():
            default = "required"
            if option.default is not REQUIRED:
                default = f"default {json.dumps(_default(option))}"
            print(f"  {option.name}: {option.type_name}, {default}")
            print(f"      {option.meaning}")
    print(f"\nIn a spec:\n{_snippet(entry)}")


def _doc(entry: Entry) -> str:
    return inspect.getdoc(entry.target) or ""


def _snippet(entry: Entry) -> str:
    """The part where a spec would name it, its options at their defaults.

    What is required is shown by an example of its type.
    """
    from gankit.registry import REQUIRED
    from gankit.registry.options import options_of
    from gankit.spec import Eval, dumps
    from gankit.spec.model import LISTS, SECTIONS

    table: dict[str, Any] = {"use": entry.name}
    for option in entry.options.values():
        required = option.default is REQUIRED
        value = _example(option) if required else _default(option)
        if value is not None:  # which TOML has no word for: leaving the option out says it
            table[option.name] = value
    kind = entry.kind.name
    section = next((section for section, of in SECTIONS.items() if of == kind), None)
    short = table if len(table) > 1 else entry.name
    if section:
        tables: dict[str, Any] = {section: table}
    elif kind in LISTS:
        tables = {kind: [table]}
    elif kind == "block":
        tables = {"generator": {"use": "stack", "stages": [short]}}
    elif held := next((o for o in options_of(Eval).values() if o.slot == kind), None):
        tables = {"eval": {held.name: [short] if held.many else short}}
    else:
        tables = {"generator": {kind: short}}
    return "\n".join(f"    {line}" for line in dumps(tables).strip().splitlines())


def _example(option: Option) -> Any:
    """A value of an option's type, for whoever reads it to exchange."""
    from gankit.registry import registry

    if option.slot:
        name = registry.names(option.slot)[0]
        return [name] if option.many else name
    examples = {"int": 1, "float": 1.0, "bool": False, "str": "..."}
    return examples.get(option.type_name, option.type_name)

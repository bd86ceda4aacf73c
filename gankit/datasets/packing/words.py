"""What a look at a source found, and what a packed folder holds, as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gankit.datasets.packing.checking import Report
from gankit.datasets.packing.listing import Listing, some
from gankit.datasets.packing.manifest import Manifest, pair
from gankit.datasets.packing.sources import shown

__all__ = ["held", "reported"]

MOST = 20
"""The most lines about one thing; `--json` has them all."""


def reported(listing: Listing, report: Report) -> Iterator[str]:
    """A line for everything that `check` found."""
    yield (
        f"{listing.source.root}: {report.files:,} images, {report.bytes:,} bytes;"
        f" {report.usable:,} can be used"
    )
    sizes = {f"{height} x {width}": count for (height, width), count in report.sizes.items()}
    yield _counts("sizes (height x width)", sizes)
    if report.enlarged:
        yield f"smaller than what is made of them: {report.enlarged:,}"
    yield _counts("modes", report.modes)
    yield _counts("not plain", report.odd)
    yield _counts(
        "other files, passed over", {k or "no suffix": n for k, n in report.others.items()}
    )
    yield _counts("splits", report.splits)
    yield _counts("classes", report.classes)
    yield _groups("files that are there more than once", report.identical)
    yield _groups("images that look alike", report.alike)


def held(manifest: Manifest) -> Iterator[str]:
    """A line for everything that a packed folder says of itself."""
    recipe, source = manifest.recipe, manifest.source
    shape = f"{recipe.channels} x {recipe.height} x {recipe.width}"
    yield f"{manifest.images:,} images, {shape}, {manifest.cache.bytes:,} bytes"
    yield _counts("classes", {one.name: one.images for one in manifest.classes})
    yield _counts("splits", manifest.splits)
    crop = "largest piece" if recipe.crop == 0 else pair(recipe.crop)
    yield f"crop: {crop}; resized: {recipe.resize}"
    yield f"from: {shown(source.root)} ({recipe.kind}), {source.files:,} files"
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    yield f"decoder: {recipe.decoder} ({versions}); gankit {manifest.gankit}"
    yield _counts("modes", manifest.modes)
    yield _counts("converted", manifest.converted)
    yield f"left out: {len(manifest.bad):,}"
    yield from (f"  {one.file}: {one.reason}" for one in manifest.bad[:MOST])
    yield f"SHA-256 of the source: {source.sha256}"


def _counts(what: str, counts: Mapping[str, int]) -> str:
    items = [f"{shown(name)} {count:,}" for name, count in list(counts.items())[:MOST]]
    if len(counts) > MOST:
        items.append(f"and {len(counts) - MOST:,} more")
    return f"{what}: {', '.join(items) or 'none'}"


def _groups(what: str, groups: list[list[str]]) -> str:
    if not groups:
        return f"{what}: none"
    lines = [f"{what}: {sum(map(len, groups)):,}"]
    lines += [f"  {some(group)}" for group in groups[:MOST]]
    if len(groups) > MOST:
        lines.append(f"  and {len(groups) - MOST:,} more such groups")
    return "\n".join(lines)

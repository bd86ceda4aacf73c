"""One file, opened: what it is, what is wrong with it, and its pixels."""

from __future__ import annotations

import hashlib
import io
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import features

from gankit.datasets.decoding import Framing, opened, orientation, reason, upright
from gankit.errors import MissingExtra

__all__ = ["Decoder", "Seen", "look", "measured", "versions"]

Decoder = Literal["pillow", "simplejpeg"]

PNG = b"\x89PNG\r\n\x1a\n"


class Seen(NamedTuple):
    """What was found in a file."""

    sha256: str
    height: int
    width: int
    """Of the upright image; 0 where that is not known."""
    mode: str
    """As Pillow calls it: RGB, L, P, CMYK, ..."""
    odd: str
    """What a decoder would have to change before it is a plain image."""
    bad: str
    """Why it is left out; empty for an image that is packed."""


def look(
    data: bytes,
    framing: Framing,
    *,
    convert: bool = False,
    decoder: Decoder = "pillow",
    original: tuple[int, int] | None = None,
) -> tuple[Seen, NDArray[np.uint8] | None]:
    """What a file is, and its pixels (channels, height, width) unless it is bad.

    What is odd is bad too, unless it is to be converted.
    """
    height, width, mode, odd = 0, 0, "", ""
    pixels, bad = None, ""
    try:
        _refuse_no_image(data)
        with opened(io.BytesIO(data)) as image:
            mode, odd = image.mode, _oddities(image, data)
            height, width = measured(image)
            if height * width == 1:
                raise ValueError("one pixel")
            if original and (height, width) != original:
                raise ValueError(
                    f"{height} x {width} pixels (height x width), not {original[0]} x {original[1]}"
                )
            if odd and not convert:
                raise ValueError(odd)
            pixels = framing.cut(upright(_decoded(image, data, odd, decoder), framing.channels))
    # A damaged file raises nearly anything: OSError, SyntaxError, struct.error, zlib.error, ...
    except Exception as error:
        bad = reason(error)
    return Seen(hashlib.sha256(data).hexdigest(), height, width, mode, odd, bad), pixels


def _oddities(image: Pillow.Image, data: bytes = b"") -> str:
    """What is not plain about an image, in words; empty for one of 8 bits that stands upright."""
    deep = image.mode.startswith(("I", "F")) or (data[:8] == PNG and data[24:25] == b"\x10")
    found = {
        "CMYK": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
        "16 bits": deep,
        "turned by EXIF": orientation(image) != 1,
        "animated, or several pictures in one": getattr(image, "n_frames", 1) > 1,
    }
    return "; ".join(name for name, is_so in found.items() if is_so)


def measured(image: Pillow.Image) -> tuple[int, int]:
    """Height and width of an image once it is upright; decodes nothing."""
    # Asked for the EXIF of a PNG without it, Pillow decodes it all to look behind its pixels.
    known = image.format != "PNG" or "exif" in image.info
    turned = known and orientation(image) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def versions(decoder: Decoder) -> dict[str, str]:
    """The libraries that decide a packed image's bits.

    Raises:
        MissingExtra: simplejpeg is asked for and not there.
    """
    found = {"pillow": PIL.__version__}
    for name in ("libjpeg_turbo", "zlib", "webp"):
        found[name] = str(features.version(name) or "unknown")
    if decoder == "simplejpeg":
        try:
            import simplejpeg
        except ImportError as error:
            raise MissingExtra("the decoder simplejpeg", "fastjpeg") from error
        found["simplejpeg"] = simplejpeg.__version__
    return found


def _decoded(image: Pillow.Image, data: bytes, odd: str, decoder: Decoder) -> Pillow.Image:
    """The image to go on with; Pillow decodes whatever is no plain JPEG."""
    if decoder == "pillow" or odd or image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return image
    import simplejpeg

    grey = image.mode == "L"
    pixels: NDArray[Any] = simplejpeg.decode_jpeg(data, colorspace="GRAY" if grey else "RGB")
    return Pillow.fromarray(pixels[..., 0] if grey else pixels)


def _refuse_no_image(data: bytes) -> None:
    if not data:
        raise ValueError("empty: 0 bytes")
    if data.lstrip()[:1] == b"<":
        raise ValueError("a web page or other text, not an image")

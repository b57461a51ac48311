"""Integers as short text in a record: one number per adapter, kept so that any later test is possible."""

import base64
import zlib
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator


def pack(values: NDArray[np.integer]) -> str:
    """Base64 of the zlib-compressed little-endian int32 of `values` (n,): 500 predictions take some 200 letters."""
    return base64.b64encode(zlib.compress(values.astype("<i4").tobytes(), 9)).decode()


def unpack(text: str) -> NDArray[np.int64]:
    """The integers that `pack` made `text` of. Raises ValueError for other text."""
    try:
        raw = zlib.decompress(base64.b64decode(text, validate=True))
    except (ValueError, zlib.error) as error:
        raise ValueError(f"is not base64 of zlib-compressed int32 ({error})") from None
    return np.frombuffer(raw, "<i4").astype(np.int64)


def _checked(text: str) -> str:
    unpack(text)
    return text


Packed = Annotated[str, AfterValidator(_checked)]
"""Text that `unpack` reads."""

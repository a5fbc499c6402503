"""Model files taken apart and put together again, by the format alone."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from typing import Any

CHECKSUM = re.compile(rb'"checksum":"([0-9a-f]{64})"')


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors' bytes of a safetensors file."""
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def with_header(header: dict[str, Any], body: bytes, *, sign: bool = True) -> bytes:
    """A safetensors file; with ``sign``, its checksum fits, so that the other checks are met."""
    text = json.dumps(header, separators=(",", ":")).encode()
    data = bytearray(struct.pack("<Q", len(text)) + text + body)
    found = CHECKSUM.search(data)
    if sign and found is not None:
        data[found.start(1) : found.end(1)] = b"0" * 64
        data[found.start(1) : found.end(1)] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)

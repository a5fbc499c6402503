"""The kernels compute what they computed at commit 482234b, bit for bit; see digests.py."""

import json
from pathlib import Path

import digests
import pytest
from helpers import ISAS, needs_kernel

KEPT = json.loads((Path(__file__).parent / "data" / "digests.json").read_text())


@needs_kernel
@pytest.mark.parametrize("instructions", ISAS)
def test_bits(instructions, monkeypatch):
    if instructions not in KEPT:
        pytest.skip(f"tests/data/digests.json holds no digests of {instructions}")
    monkeypatch.setenv("MICFAST_ISA", instructions)
    found = digests.digests()
    assert found.keys() == KEPT[instructions].keys()
    changed = [name for name in found if found[name] != KEPT[instructions][name]]
    assert not changed


def test_a_single_bit_changes_the_digest():
    tensors = next(digests.cases())[1]()
    before = digests.digest(tensors)
    bits = tensors[0].view(-1).numpy().view("uint32")
    bits[7] ^= 1
    assert digests.digest(tensors) != before

"""The recurrent cells in plain PyTorch: one step, and its directional derivatives.

A cell is given pre-activations (..., 4H), linear in input and state, and the state (h, c) before.
A GRU has no c: what it carries there is h itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CELLS", "Cell"]

_State = tuple[Tensor, Tensor]


class Cell(NamedTuple):
    """The two functions of a cell.

    ``step(a, c)`` answers h and c. ``step_along(a, c, da, dc)`` answers those two and, with a
    leading axis of directions as in ``da`` and ``dc``, their derivatives.
    """

    step: Callable[[Tensor, Tensor], _State]
    step_along: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def _lstm(a: Tensor, c: Tensor) -> _State:
    a_i, a_f, a_g, a_o = a.chunk(4, dim=-1)
    c = torch.sigmoid(a_f) * c + torch.sigmoid(a_i) * torch.tanh(a_g)
    return torch.sigmoid(a_o) * torch.tanh(c), c


def _lstm_along(
    a: Tensor, c: Tensor, da: Tensor, dc: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a_i, a_f, a_g, a_o = a.chunk(4, dim=-1)
    da_i, da_f, da_g, da_o = da.chunk(4, dim=-1)
    i, f, g, o = torch.sigmoid(a_i), torch.sigmoid(a_f), torch.tanh(a_g), torch.sigmoid(a_o)
    dc = f * dc + f * (1 - f) * c * da_f + i * (1 - i) * g * da_i + i * (1 - g.square()) * da_g
    c = f * c + i * g
    tanh_c = torch.tanh(c)
    dh = o * (1 - tanh_c.square()) * dc + o * (1 - o) * tanh_c * da_o
    return o * tanh_c, c, dh, dc


def _gru(a: Tensor, h: Tensor) -> _State:
    a_r, a_z, a_x, a_h = a.chunk(4, dim=-1)
    z = torch.sigmoid(a_z)
    h = (1 - z) * torch.tanh(a_x + torch.sigmoid(a_r) * a_h) + z * h
    return h, h


def _gru_along(
    a: Tensor, h: Tensor, da: Tensor, dh: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a_r, a_z, a_x, a_h = a.chunk(4, dim=-1)
    da_r, da_z, da_x, da_h = da.chunk(4, dim=-1)
    r, z = torch.sigmoid(a_r), torch.sigmoid(a_z)
    n = torch.tanh(a_x + r * a_h)
    dn = (1 - n.square()) * (da_x + r * da_h + r * (1 - r) * a_h * da_r)
    dh = z * dh + z * (1 - z) * (h - n) * da_z + (1 - z) * dn
    h = (1 - z) * n + z * h
    return h, h, dh, dh


CELLS = {"lstm": Cell(_lstm, _lstm_along), "gru": Cell(_gru, _gru_along)}

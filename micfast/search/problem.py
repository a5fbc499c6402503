"""What :func:`micfast.invert` is given: modules and targets, read together."""

from __future__ import annotations

from typing import Any

import numpy as np

from micfast.arrays import as_array, is_tensor
from micfast.generators.bank import GeneratorBank
from micfast.generators.dropin.parts import read_fleet
from micfast.generators.dropin.verdict import check_argument, checked_weights
from micfast.sequences import NanPolicy, Sequences, is_table

__all__ = ["read_problem", "read_targets"]


def read_problem(
    where: str, modules: Any, targets: Any, nan_policy: NanPolicy, check: Any, decoder: Any = None
) -> tuple[GeneratorBank, Sequences]:
    """Read the modules, the targets with as many channels, and then check the modules on them.

    Raises
    ------
    TypeError, ValueError
        As :func:`micfast.invert` and :meth:`micfast.GeneratorBank.from_modules`.
    """
    check_argument(where, check)
    if isinstance(modules, GeneratorBank):
        if decoder is not None and decoder != modules.weights.decoder:
            raise ValueError(
                f"{where}: decoder must be that of the bank, {modules.weights.decoder}, or None, "
                f"got {decoder!r}"
            )
        return modules, read_targets(where, targets, nan_policy, modules.output_size)
    fleet = read_fleet(modules, where)
    sequences = read_targets(where, targets, nan_policy, fleet.output_size)
    n_targets = None if isinstance(sequences.values, list) else len(sequences)
    weights = checked_weights(fleet, check, sequences.n_steps, n_targets, decoder)
    return GeneratorBank(weights, fleet.names), sequences


def read_targets(where: str, targets: Any, nan_policy: NanPolicy, n_outputs: int) -> Sequences:
    """Read targets; an array (T, 1) is one sequence of one channel, not T of one step."""
    if n_outputs == 1 and is_table(targets):
        array = targets if isinstance(targets, np.ndarray) or is_tensor(targets) else None
        array = as_array(targets, f"{where}: targets") if array is None else array
        if array.shape[1] == 1 and array.shape[0] > 1:
            targets = array[None]
    return Sequences.read(
        targets, nan_policy=nan_policy, n_channels=n_outputs, name=f"{where}: targets"
    )

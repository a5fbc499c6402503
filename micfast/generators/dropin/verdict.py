"""What follows from the probe's findings: silence, a warning or an error."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from micfast.generators.dropin.causes import USUAL_CAUSES
from micfast.generators.dropin.parts import Fleet, Parts
from micfast.generators.dropin.probe import Finding, options_of, probe
from micfast.generators.dropin.reading import fresh_layers
from micfast.kernels.decoder import Decoder
from micfast.kernels.weights import Weights

__all__ = ["CHECKS", "check_argument", "checked_weights", "likely_weights", "warn_user"]

CHECKS = ("auto", "raise", "warn", False)

_MODEL = (
    "micfast draws with the latent as input of the first or of every step or as the initial state, "
    "and identity, tanh, sigmoid, exp or softplus after nn.Linear"
)
_TWO_LAYERS = "; with two layers the latent of an nn.LSTM is its input, and no output is fed back"
_PACKAGE = str(Path(__file__).parents[2])


def check_argument(where: str, check: Any) -> None:
    """Require one of "auto", "raise", "warn" and False.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if check is not False and not (isinstance(check, str) and check in CHECKS):
        raise ValueError(f"{where}: check must be 'auto', 'raise', 'warn' or False, got {check!r}")


def checked_weights(
    fleet: Fleet,
    check: Any,
    n_steps: int | None = None,
    n_targets: int | None = None,
    decoder: Decoder | None = None,
) -> Weights:
    """Stack the weights of modules after the probe has looked at them.

    Parameters
    ----------
    fleet : Fleet
    check : {"auto", "raise", "warn", False}
    n_steps : int, optional
        Steps of the sequences that they shall draw.
    n_targets : int, optional
        Length of the targets' first axis, if they are one array.
    decoder : Decoder, optional
        The modules' structure; default what the probe confirms, the simplest first.

    Raises
    ------
    ValueError
        If a module draws something else (unless ``check`` is "warn" or False), or with "raise" if
        it cannot be told; and if the modules differ in size, dtype or device.
    """
    decoder = Decoder.of(fleet.where, decoder)
    _require_alike(fleet)
    if check is False:
        return _joined(fleet, [_unprobed(parts, decoder) for parts in fleet.parts])
    findings = probe(fleet, n_steps, decoder)
    wrong = [i for i, finding in enumerate(findings) if finding.outcome == "contradicts"]
    unknown = [i for i, finding in enumerate(findings) if finding.outcome == "unknown"]
    training = [
        i
        for i, finding in enumerate(findings)
        if finding.in_training
        or (finding.outcome != "agrees" and _drops_out(fleet.parts[i].module))
    ]
    if wrong:
        message = _contradiction(fleet, findings, wrong)
        if check != "warn":
            raise ValueError(message)
        warn_user(message)
    if unknown:
        message = _unknown(fleet, findings, unknown)
        if check == "raise" or (decoder is None and fleet.parts[unknown[0]].entries):
            raise ValueError(message)
        warn_user(message)
    if training:
        warn_user(
            f"{fleet.where}: {_which(fleet, training)} in training mode, in which dropout, noise "
            "or a norm changes what is drawn; inverted as in evaluation mode (module.eval())"
        )
    own = {finding.own_steps for finding in findings if finding.own_steps is not None}
    if own == {n_targets} and n_targets != n_steps:
        warn_user(
            f"{fleet.where}: targets are read as {n_targets} sequences of {n_steps} steps, while "
            f"the modules draw {n_targets} steps. Is time the first axis? Then pass "
            "targets.transpose(0, 1) (NumPy: targets.swapaxes(0, 1))"
        )
    return _joined(fleet, [finding.weights for finding in findings])


def likely_weights(fleet: Fleet, decoder: Decoder | None = None) -> Weights:
    """Weights in the structures that the probe confirms, or else the simplest; nothing is said.

    Raises
    ------
    ValueError
        If modules differ in size, structure, dtype or device.
    """
    _require_alike(fleet)
    return _joined(fleet, [finding.weights for finding in probe(fleet, None, decoder)])


def _unprobed(parts: Parts, decoder: Decoder | None) -> Weights:
    """Weights of a module that is believed to have the structure declared, or the paper's."""
    if decoder is None and parts.entries:
        raise ValueError(
            f"{parts.where} has {1 + len(parts.entries)} nn.Linear: with check=False its structure "
            "must be declared, as in decoder=micfast.Decoder(latent='state')"
        )
    usual = Decoder(cell=parts.cell, n_layers=parts.n_layers)
    options = options_of(parts, usual if decoder is None else decoder)
    return options[0].weights(fresh_layers(parts))


def _joined(fleet: Fleet, weights: list[Weights]) -> Weights:
    try:
        return Weights.concat(weights)
    except ValueError as error:
        raise ValueError(f"{fleet.where}: {error}; make one call per structure") from error


def _require_alike(fleet: Fleet) -> None:
    """Refuse modules that cannot be stacked before any of them runs."""
    first = fleet.parts[0]
    for i, parts in enumerate(fleet.parts):
        for name, got, expected in (
            ("cell", parts.cell, first.cell),
            ("num_layers", parts.n_layers, first.n_layers),
            ("hidden_size", parts.rnn.hidden_size, first.rnn.hidden_size),
            ("input_size", parts.rnn.input_size, first.rnn.input_size),
            ("output_size", parts.linear.out_features, first.linear.out_features),
            ("dtype", parts.dtype, first.dtype),
            ("device", parts.device, first.device),
        ):
            if got != expected:
                kind = {"cell": "cell", "num_layers": "number of layers"}.get(name, "size")
                way = "convert them" if name in ("dtype", "device") else f"make one call per {kind}"
                raise ValueError(
                    f"{fleet.where}: modules must have equal sizes, dtype and device: module {i} "
                    f"has {name} {got}, module 0 has {expected}; {way}"
                )


def _contradiction(fleet: Fleet, findings: list[Finding], wrong: list[int]) -> str:
    i = wrong[0]
    finding = findings[i]
    causes = finding.causes
    looks = f"It looks like {' or '.join(causes)}. " if causes else f"Usual causes: {USUAL_CAUSES}."
    two = _TWO_LAYERS if fleet.parts[i].n_layers > 1 else ""
    others = f" So do {len(wrong) - 1} more: {_numbers(wrong[1:])}." if len(wrong) > 1 else ""
    return (
        f"{fleet.where}: {_name(fleet, i)} draws something else than its "
        f"{fleet.parts[i].rnn_name} and nn.Linear. "
        f"{finding.call} differs from micfast's drawing from step {finding.first_step} on, by up "
        f"to {finding.difference:.2g} of the largest value.{others} {_MODEL}{two}. {looks.strip()} "
        "check=False inverts the two layers whatever forward does; "
        "micfast.check(modules, draw, targets) compares with your own drawing function"
    )


def _unknown(fleet: Fleet, findings: list[Finding], unknown: list[int]) -> str:
    i = unknown[0]
    others = f" (and {len(unknown) - 1} more: {_numbers(unknown[1:])})" if len(unknown) > 1 else ""
    return (
        f"{fleet.where}: could not check whether {_name(fleet, i)}{others} draws what micfast "
        f"draws: {findings[i].reason}. {_MODEL}. Compare with your own drawing function once, by "
        "micfast.check(modules, draw, targets), and then pass check=False"
    )


def _name(fleet: Fleet, i: int) -> str:
    name = f" {fleet.names[i]!r}" if fleet.names else ""
    return f"module {i}{name} ({type(fleet.parts[i].module).__name__})"


def _which(fleet: Fleet, chosen: list[int]) -> str:
    if len(chosen) == 1:
        return f"{_name(fleet, chosen[0])} is"
    return f"modules {_numbers(chosen)} are"


def _numbers(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return f"{shown}, ..." if len(numbers) > 8 else shown


def _drops_out(module: nn.Module) -> bool:
    return any(
        m.training and m.p > 0
        for m in module.modules()
        if isinstance(m, nn.modules.dropout._DropoutNd)
    )


def warn_user(message: str) -> None:
    """Warn at the line outside micfast that called it."""
    level, frame = 1, sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(message, UserWarning, stacklevel=level)

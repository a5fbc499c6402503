"""The probe: run a module once on a few latents, and compare with what micfast draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from micfast.generators.dropin.calls import (
    Call,
    calls_for,
    default_steps,
    drawings,
    own_module,
)
from micfast.generators.dropin.causes import likely_causes
from micfast.generators.dropin.compare import Comparison, compare, draw, latents_for_probe
from micfast.generators.dropin.parts import Fleet, Parts
from micfast.generators.dropin.reading import current_weights
from micfast.generators.dropin.undisturbed import quiet, undisturbed

__all__ = ["N_STEPS", "Finding", "probe"]

N_STEPS = 24
# More steps than these would cost more than 5 ms a module of up to 64 hidden units; fewer would not
# tell how a module goes on. Some modules draw a fixed number, which is then tried as well.
_MOST_STEPS, _FEWEST_STEPS = 128, 4
_N_SINGLE = 5


@dataclass(frozen=True)
class Finding:
    """What the probe found out about one module.

    Attributes
    ----------
    outcome : {"agrees", "contradicts", "unknown"}
    weights : five Tensors
        As the module's own forward used them.
    call : str
        The call that answered, in words.
    difference : float
        Largest difference from micfast's drawing, relative to the largest value of its channel.
    first_step : int
        The first step, from 1, at which they differ.
    causes : tuple of str
        What the difference looks like, most likely first.
    reason : str
        Why nothing can be told.
    own_steps : int or None
        The number of steps that the module draws if it is not told one.
    in_training : bool
        Whether the module is in training mode, and draws something else in it.
    """

    outcome: Literal["agrees", "contradicts", "unknown"]
    weights: tuple[Tensor, ...]
    call: str = ""
    difference: float = 0.0
    first_step: int = 0
    causes: tuple[str, ...] = ()
    reason: str = ""
    own_steps: int | None = None
    in_training: bool = False


def probe(fleet: Fleet, n_steps: int | None) -> list[Finding]:
    """Run every module and compare its answer with micfast's drawing.

    Parameters
    ----------
    fleet : Fleet
    n_steps : int or None
        Steps of the sequences that the modules shall draw; None for any number.

    Returns
    -------
    list of Finding
        One per module. All modules and random generators are as before.
    """
    known: dict[Any, Call | Finding] = {}
    findings = []
    with quiet():
        for parts in fleet.parts:
            key = _build(parts)
            learned = known.get(key)
            if isinstance(learned, Finding):  # modules alike can't be called either
                with undisturbed(parts.module):
                    findings.append(replace(learned, weights=current_weights(parts)))
                continue
            finding, call = _Probe(parts, n_steps).run(learned)
            if finding.outcome == "unknown" and call is None:
                known[key] = finding
            elif call is not None:
                known.setdefault(key, call)
            findings.append(finding)
    return findings


def _build(parts: Parts) -> Any:
    """What modules that can be called in the same way have in common."""
    layers = tuple((name, type(m), m.training) for name, m in parts.module.named_modules())
    lstm = parts.lstm
    return layers, lstm.batch_first, lstm.input_size, lstm.hidden_size, parts.linear.out_features


class _Probe:
    """The probe of one module."""

    def __init__(self, parts: Parts, n_steps: int | None) -> None:
        self.parts = parts
        self.wanted = n_steps
        self.module = own_module(parts.module)
        self.sizes = (parts.lstm.input_size, parts.lstm.hidden_size, parts.linear.out_features)
        self.weights: tuple[Tensor, ...] = ()
        self.ours = torch.empty(0)
        self.reasons: list[str] = []
        self.evidence: dict[Call, tuple[Any, ...]] = {}
        self.modes = [(m, m.training) for m in parts.module.modules()]

    def run(self, learned: Call | None) -> tuple[Finding, Call | None]:
        """The finding, and the call that answered."""
        asked = min(max(self.wanted or N_STEPS, _FEWEST_STEPS), _MOST_STEPS)
        numbers = [asked]
        if self.wanted is not None and 1 < self.wanted != asked:
            numbers.append(self.wanted)
        with undisturbed(self.parts.module):
            for n_steps in numbers:
                found = self._try_calls(n_steps, learned)
                if found is not None:
                    return found
            return self._finding("unknown", reason=self._why_unknown()), None

    def _try_calls(self, n_steps: int, learned: Call | None) -> tuple[Finding, Call] | None:
        if _has_no_forward(self.module):
            self._note("it has no forward")
            return None
        calls = calls_for(self.module)
        if learned in calls and not learned.sequence:
            calls.remove(learned)
            calls.insert(0, learned)
        contradiction: tuple[Finding, Call] | None = None
        for call in calls:
            # A module is judged by the first form of latents that it answers to. But of two orders
            # of a sequence's axes both may be answered, and so may one latent as a row or a vector.
            if contradiction is not None and not call.rivals(contradiction[1]):
                break
            finding = self._try(call, n_steps)
            if finding is None:
                continue
            if finding.outcome != "contradicts":
                return finding, call
            if contradiction is None or finding.difference < contradiction[0].difference:
                contradiction = finding, call
        if contradiction is None:
            return None
        finding, call = contradiction
        if call in self.evidence:
            finding = replace(finding, causes=self._causes(call, *self.evidence[call]))
        return finding, call

    def _try(self, call: Call, n_steps: int) -> Finding | None:
        """One call; None if it says nothing."""
        K, H, O = self.sizes
        avoid = frozenset({1, K, H, O, n_steps})
        z = latents_for_probe(K, self.parts.dtype, self.parts.device, avoid)
        if call.single:
            z = z[:_N_SINGLE]
        n, text = len(z), call.text(len(z), n_steps, K)
        try:
            answers = call(self.module, z, n_steps)
        except Exception as error:  # whatever foreign code raises
            self._note(f"{text} raised {type(error).__name__}: {_first_line(error)}")
            return None
        tensors, found = drawings(answers, n, n_steps, O, H)
        if not tensors or found == 1:
            shapes = [tuple(t.shape) for t in (answers[0] if answers else [])]
            self._note(f"{text} returned tensors of shape {shapes}")
            return None
        self.weights = current_weights(self.parts)
        ours = self.ours = draw(self.weights, z, found)
        compared = [compare(self.weights, z, t, ours) for t in tensors]
        best = min(compared, key=lambda comparison: comparison.difference)
        if not any(comparison.agrees for comparison in compared):
            self.evidence[call] = z, n_steps, best.theirs, ours, answers
            return self._contradicts(text, best, ())
        if not all(comparison.agrees for comparison in compared):
            fit = [i for i, comparison in enumerate(compared) if comparison.agrees]
            return self._finding(
                "unknown",
                call=text,
                reason=f"{text} returned {len(tensors)} tensors of that size, of which only number "
                f"{fit[0]} is what micfast draws",
            )
        if not all(comparison.telling for comparison in compared):
            return self._finding(
                "unknown",
                call=text,
                reason="its drawings depend so strongly on roundings that nothing can be told",
            )
        return self._confirm(call, z, text, n_steps, found)

    def _confirm(self, call: Call, z: Tensor, text: str, asked: int, found: int) -> Finding:
        """Look again at a module that agrees: by a second call, in training mode if it is in it."""
        if found < asked and (call.steps or call.sequence):
            reason = f"asked for {asked} steps, {text} returned {found}"
            return self._finding("unknown", call=text, reason=reason)
        if self.wanted is not None and found < min(self.wanted, asked):
            reason = f"{text} returned {found} steps, while the targets have {self.wanted}"
            return self._finding("unknown", call=text, reason=reason)
        own = default_steps(self.module) if call.steps or call.sequence else found
        agreed = partial(self._finding, "agrees", call=text, own_steps=own)
        trained = self._in_training(call, z, asked)
        if trained is not None and trained.agrees:
            return agreed()  # which also tells that no state is kept
        try:
            again = self._again(call, z, asked)
        except Exception as error:
            reason = f"a second call raised {type(error).__name__}: {_first_line(error)}"
            return self._finding("unknown", call=text, reason=reason)
        if again is None:
            return self._finding("unknown", call=text, reason="a second call returned other sizes")
        if not again.agrees:
            cause = "state kept from one call to the next, or noise"
            return self._contradicts(f"{text}, called a second time", again, (cause,))
        return agreed(in_training=trained is not None)

    def _again(self, call: Call, z: Tensor, n_steps: int) -> Comparison | None:
        """A second, shorter call of other latents, where the module's sizes are free."""
        few = slice(1, 3)
        try:
            return self._compare_call(call, z[few], self.ours[few], _FEWEST_STEPS)
        except Exception:  # sizes that are fixed
            return self._compare_call(call, z, self.ours, n_steps)

    def _compare_call(self, call: Call, z: Tensor, ours: Tensor, n_steps: int) -> Comparison | None:
        _, H, O = self.sizes
        answers = call(self.module, z, n_steps)
        tensors, found = drawings(answers, len(z), n_steps, O, H)
        if not tensors or found > ours.shape[1]:
            return None
        ours = ours[:, :found]
        return min((compare(self.weights, z, t, ours) for t in tensors), key=lambda c: c.difference)

    def _in_training(self, call: Call, z: Tensor, n_steps: int) -> Comparison | None:
        """A call in the module's own mode, if that is training and it can be called in it."""
        if not any(training for _, training in self.modes):
            return None
        with undisturbed(self.parts.module):
            for module, training in self.modes:
                module.training = training
            try:
                return self._again(call, z, n_steps)
            except Exception:
                return None

    def _causes(
        self,
        call: Call,
        z: Tensor,
        n_steps: int,
        theirs: Tensor,
        ours: Tensor,
        answers: list[list[Tensor]],
    ) -> tuple[str, ...]:
        try:
            again = call(self.module, z, n_steps)
            pairs = zip(chain(*answers), chain(*again), strict=True)
            if not all(torch.allclose(a, b, equal_nan=True) for a, b in pairs):
                return ("noise, or state kept from one call to the next",)
        except Exception:
            return ("state kept from one call to the next",)
        return likely_causes(self.weights, z, theirs, ours)

    # -- findings --------------------------------------------------------------------------------

    def _finding(self, outcome: Any, **fields: Any) -> Finding:
        return Finding(outcome, self.weights or current_weights(self.parts), **fields)

    def _contradicts(self, text: str, found: Comparison, causes: tuple[str, ...]) -> Finding:
        return self._finding(
            "contradicts",
            call=text,
            difference=found.difference,
            first_step=found.first_step,
            causes=causes,
        )

    def _note(self, text: str) -> None:
        if len(self.reasons) < 40:
            self.reasons.append(text)

    def _why_unknown(self) -> str:
        if not self.reasons:
            return "there is no way to call it"
        # What runs says more than what doesn't.
        ran = [reason for reason in self.reasons if " returned " in reason]
        return (ran or self.reasons)[0]


def _has_no_forward(module: nn.Module) -> bool:
    return getattr(type(module), "forward", None) is nn.Module.forward and (
        "forward" not in vars(module)
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else ""

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
from micfast.generators.dropin.compare import (
    Comparison,
    affine_map,
    agrees_at_once,
    compare,
    draw,
    latents_for_probe,
)
from micfast.generators.dropin.parts import Fleet, Parts
from micfast.generators.dropin.reading import current_layers
from micfast.generators.dropin.structures import Layers, Structure, replace_weights, with_affine
from micfast.generators.dropin.undisturbed import quiet, undisturbed
from micfast.kernels.decoder import Decoder
from micfast.kernels.reference import OUTPUT_MAPS
from micfast.kernels.weights import Weights

__all__ = ["N_STEPS", "Finding", "options_of", "probe"]

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
    weights : Weights
        Of this one module, as its own forward used them: in the structure with which it agrees, or
        else in the simplest one.
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
    weights: Weights
    call: str = ""
    difference: float = 0.0
    first_step: int = 0
    causes: tuple[str, ...] = ()
    reason: str = ""
    own_steps: int | None = None
    in_training: bool = False


def probe(fleet: Fleet, n_steps: int | None, decoder: Decoder | None = None) -> list[Finding]:
    """Run every module and compare its answer with micfast's drawings.

    Parameters
    ----------
    fleet : Fleet
    n_steps : int or None
        Steps of the sequences that the modules shall draw; None for any number.
    decoder : Decoder, optional
        The structure to try; default all, the simplest first.

    Returns
    -------
    list of Finding
        One per module. All modules and random generators are as before.
    """
    known: dict[Any, tuple[Call, Structure] | Finding] = {}
    findings = []
    with quiet():
        for parts in fleet.parts:
            key = _build(parts)
            learned = known.get(key)
            if isinstance(learned, Finding):  # modules alike can't be called either
                with undisturbed(parts.module):
                    options = options_of(parts, decoder)
                    weights = options[0].weights(current_layers(parts))
                    findings.append(replace(learned, weights=weights))
                continue
            of_module = _Probe(parts, n_steps, decoder)
            finding, call = of_module.run(learned)
            if finding.outcome == "unknown" and call is None:
                known[key] = finding
            elif call is not None:
                known.setdefault(key, (call, of_module.structure))
            findings.append(finding)
    return findings


def _build(parts: Parts) -> Any:
    """What modules that can be called in the same way have in common."""
    layers = tuple((name, type(m), m.training) for name, m in parts.module.named_modules())
    rnn = parts.rnn
    entries = tuple(layer.in_features for layer in parts.entries)
    sizes = rnn.input_size, rnn.hidden_size, parts.linear.out_features, entries
    return layers, getattr(rnn, "batch_first", None), sizes


def options_of(parts: Parts, decoder: Decoder | None) -> list[Structure]:
    """The structures of a module that are worth trying.

    Raises
    ------
    ValueError
        If its layers allow none that was declared.
    """
    options = [s for s in parts.structures if decoder is None or s.decoder == decoder]
    if not options:
        raise ValueError(
            f"{parts.where}: {decoder} needs other layers than {parts.rnn_name}("
            f"{parts.rnn.input_size}, {parts.rnn.hidden_size}), "
            f"nn.Linear({parts.linear.in_features}, {parts.linear.out_features}) and "
            f"{len(parts.entries)} nn.Linear for the latent; or micfast's weights can't express it"
        )
    return options


class _Probe:
    """The probe of one module."""

    def __init__(self, parts: Parts, n_steps: int | None, decoder: Decoder | None) -> None:
        self.parts = parts
        self.options = options_of(parts, decoder)
        self.structure = self.options[0]
        self.wanted = n_steps
        self.module = own_module(parts.module)
        self.sizes = (parts.rnn.hidden_size, parts.linear.out_features)
        self.weights: Weights | None = None
        self.ours = torch.empty(0)
        self.reasons: list[str] = []
        self.evidence: dict[Call, tuple[Any, ...]] = {}
        self.modes = [(m, m.training) for m in parts.module.modules()]

    def run(self, learned: tuple[Call, Structure] | None) -> tuple[Finding, Call | None]:
        """The finding, and the call that answered."""
        if learned is not None and learned[1] in self.options:
            self.options.remove(learned[1])
            self.options.insert(0, learned[1])
        asked = min(max(self.wanted or N_STEPS, _FEWEST_STEPS), _MOST_STEPS)
        numbers = [asked]
        if self.wanted is not None and 1 < self.wanted != asked:
            numbers.append(self.wanted)
        contradiction: tuple[Finding, Call] | None = None
        with undisturbed(self.parts.module):
            for n_steps in numbers:
                for n_latents in dict.fromkeys(option.n_latents for option in self.options):
                    found = self._try_calls(n_steps, n_latents, learned and learned[0])
                    if found is not None and found[0].outcome != "contradicts":
                        return found
                    contradiction = contradiction or found
                if contradiction is not None:
                    return contradiction
            return self._finding("unknown", reason=self._why_unknown()), None

    def _try_calls(
        self, n_steps: int, n_latents: int, learned: Call | None
    ) -> tuple[Finding, Call] | None:
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
            finding = self._try(call, n_steps, n_latents)
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

    def _try(self, call: Call, n_steps: int, K: int) -> Finding | None:
        """One call; None if it says nothing."""
        H, O = self.sizes
        options = [option for option in self.options if option.n_latents == K]
        if call.sequence:  # then the caller has chosen the inputs of all steps
            usual = [("first", False)]
            options = [o for o in options if (o.decoder.latent, o.decoder.feeds_back) in usual]
        if not options:
            return None
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
        layers = current_layers(self.parts)
        self.structure, self.weights, ours = _fitting(options, layers, z, tensors, found)
        self.ours = ours
        compared = [compare(self.weights, z, t, ours) for t in tensors]
        best = min(compared, key=lambda comparison: comparison.difference)
        if not any(comparison.agrees for comparison in compared):
            plain = self.structure == Structure(Decoder(cell=layers.cell), K)
            self.evidence[call] = (
                layers if plain and not layers.entries else None,
                z,
                n_steps,
                best.theirs,
                ours,
                answers,
            )
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
        H, O = self.sizes
        answers = call(self.module, z, n_steps)
        tensors, found = drawings(answers, len(z), n_steps, O, H)
        if not tensors or found > ours.shape[1]:
            return None
        ours, weights = ours[:, :found], self.weights
        assert weights is not None
        return min((compare(weights, z, t, ours) for t in tensors), key=lambda c: c.difference)

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
        layers: Layers | None,
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
        return () if layers is None else likely_causes(layers, z, theirs, ours)

    # -- findings --------------------------------------------------------------------------------

    def _finding(self, outcome: Any, **fields: Any) -> Finding:
        weights = self.weights
        if weights is None:
            weights = self.structure.weights(current_layers(self.parts))
        return Finding(outcome, weights, **fields)

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


def _fitting(
    options: list[Structure], layers: Layers, z: Tensor, tensors: list[Tensor], n_steps: int
) -> tuple[Structure, Weights, Tensor]:
    """The first structure that draws one of the tensors, else the first; weights and drawing."""
    drawn: dict[Structure, tuple[Weights, Tensor]] = {}
    for affine in (False, True):
        for option in options:
            # Outputs of the same read-outs differ in what follows them.
            key = replace(option, decoder=option.decoder.replace(output="identity"))
            if key not in drawn:
                weights = key.weights(layers)
                drawn[key] = weights, draw(weights, z, n_steps)
            weights, x = drawn[key]
            output = option.decoder.output
            y, rest = (OUTPUT_MAPS[output](tensor) for tensor in (x, weights.b_out[0]))
            constants = None
            if affine:
                maps = (affine_map(tensor, y) for tensor in tensors)
                constants = next((found for found in maps if found is not None), None)
            if constants is None and (affine or not agrees_at_once(tensors, y, rest)):
                continue
            if option != key:
                weights = replace_weights(weights, decoder=weights.decoder.replace(output=output))
            if constants is None:
                return option, weights, y
            weights = with_affine(weights, *constants)
            return option, weights, draw(weights, z, n_steps)
    weights = options[0].weights(layers)
    return options[0], weights, draw(weights, z, n_steps)


def _has_no_forward(module: nn.Module) -> bool:
    return getattr(type(module), "forward", None) is nn.Module.forward and (
        "forward" not in vars(module)
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else ""

"""The panel: the views of a fitted estimator, and what their experts say of sequences."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from micfast.classify.calibration import class_errors, comparable
from micfast.classify.views import View
from micfast.data.standardize import Standardizer
from micfast.generators.bank import GeneratorBank
from micfast.kernels.execution import Execution
from micfast.search.hull import Hull, InPoses, Mixtures
from micfast.search.jointly import Sighting, search_jointly
from micfast.search.pose import Pose
from micfast.search.solvers import Solver

__all__ = ["Asked", "Panel", "Panelled", "Views", "left_out_errors"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Views:
    """The views, each with its own standardisation.

    Attributes
    ----------
    views : tuple of View
        The first is the raw one.
    n_drawn : int
        So many of them have modules, the first ones.
    standardizers : tuple of Standardizer or None
        Of what each view shows of standardised sequences; None for the raw view.
    n_steps : int
        Steps of the longest training sequence.
    """

    views: tuple[View, ...]
    n_drawn: int
    standardizers: tuple[Standardizer | None, ...]
    n_steps: int

    @classmethod
    def fit(
        cls,
        drawn: Sequence[View],
        others: Sequence[View],
        Z: NDArray[Any],
        axis: Literal["global", "channel"] | None,
    ) -> Views:
        """Take the views, with modules and without, that show standardised sequences Z (n, T, C).

        Warns
        -----
        UserWarning
            For a view that takes no missing values, where there are some, and which is left out.
        """
        views = (*drawn, *others)
        has_gaps = bool(np.isnan(Z).any())
        usable = tuple(view for view in views if view.takes_missing or not has_gaps)
        if left_out := [view.name for view in views if view not in usable]:
            warnings.warn(
                f"ModularInverseClassifier: views {left_out} are left out, since they take no "
                "sequences of unequal length and no missing values",
                stacklevel=4,
            )
        standardizers: list[Standardizer | None] = [None]
        for view in usable[1:]:
            seen = view(Z, Z.shape[1])
            standardizers.append(Standardizer(axis).fit(seen) if axis else None)
        n_drawn = sum(view in usable for view in drawn)
        return cls(usable, n_drawn, tuple(standardizers), Z.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views."""
        return tuple(view.name for view in self.views)

    @property
    def drawn(self) -> Views:
        """Those with modules alone."""
        own = slice(self.n_drawn)
        return replace(self, views=self.views[own], standardizers=self.standardizers[own])

    def __len__(self) -> int:
        return len(self.views)

    def look(self, v: int, Z: NDArray[Any]) -> NDArray[np.float32]:
        """View number v of standardised sequences (n, T, C), in its own standardised units."""
        if v == 0:
            return Z.astype(np.float32, copy=False)
        view, standardizer = self.views[v], self.standardizers[v]
        if not view.takes_missing and np.isnan(Z).any():
            raise ValueError(
                f"ModularInverseClassifier: view {view.name} takes no sequences of unequal length "
                "and no missing values"
            )
        seen = view(Z, self.n_steps)
        return (seen if standardizer is None else standardizer.transform(seen)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Panelled:
    """What all experts say of n sequences.

    Attributes
    ----------
    errors : ndarray of shape (E, n, C)
        Of each expert, see :attr:`Panel.names`.
    module_errors : ndarray of shape (R, n, C)
        Of the raw view's modules.
    raw : Sighting
        Latents and poses of the raw view's modules.
    """

    errors: Floats
    module_errors: Floats
    raw: Sighting


class Asked(NamedTuple):
    """Some experts and what they are asked.

    Attributes
    ----------
    banks : sequence of GeneratorBank
        R C modules for each view that has any, of C classes, on the device to work on.
    hulls : sequence of Hull
        See :meth:`Panel.hulls`; on the same device.
    Z : ndarray of shape (n, T, O), float32
        Standardised sequences.
    """

    banks: Sequence[GeneratorBank]
    hulls: Sequence[Hull]
    Z: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Panel:
    """Views with their modules and types, ready to look at sequences.

    Attributes
    ----------
    views : Views
    pose : Pose or None
        With gain and offset decided.
    voting : tuple of str
        Names of the views in which the hulls of the types are experts, too.
    """

    views: Views
    pose: Pose | None
    voting: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the experts: the views' modules, then the hulls of types."""
        return (*self.views.drawn.names, *(f"{name} hull" for name in self.voting))

    @functools.cached_property
    def _expert_views(self) -> list[int]:
        """Each expert's view."""
        names = self.views.names
        return [*range(self.views.n_drawn), *[names.index(name) for name in self.voting]]

    def stand_ins(self, errors: Floats) -> Floats:
        """Each expert's errors (E, ...), where its view's hull (V, ...) speaks for all of them."""
        return errors[self._expert_views]

    def hulls(self, types: Floats, device: torch.device | str = "cpu") -> list[Hull]:
        """The hulls of each class's types (C, K, T, O), in standardised units, in every view."""
        C, K = types.shape[:2]
        flat, hulls = types.reshape(-1, *types.shape[2:]), []
        for v, view in enumerate(self.views.views):
            seen = self.views.look(v, flat).astype(np.float64)
            shown = torch.from_numpy(seen.reshape(C, K, *seen.shape[1:])).to(device)
            hulls.append(Hull(shown, self.pose, self.views.n_steps, view.gains))
        return hulls

    def ask(self, asked: Sequence[Asked], solver: Solver, execution: Execution) -> list[Panelled]:
        """Search all modules of all views for standardised sequences; what some experts say."""
        seen = [self.views.look(v, one.Z) for one in asked for v in range(len(self.views))]
        # Where a view shows nothing of a sequence, its expert does not say anything.
        blind = [np.isnan(one).all(axis=(1, 2)) for one in seen]
        for shown, nothing in zip(seen, blind, strict=True):
            if nothing.any():
                shown[nothing] = 0
        banks = [bank for one in asked for bank in one.banks]
        hulls = [hull for one in asked for hull in one.hulls]
        targets = [torch.from_numpy(one).to(banks[0].device) for one in seen]
        mixtures: list[Mixtures] = []
        if self.pose is not None or self.voting:
            mixtures = [hull.nearest(x) for hull, x in zip(hulls, targets, strict=True)]
        V, D = len(self.views), self.views.n_drawn
        drawn = [i * V + v for i in range(len(asked)) for v in range(D)]
        sightings = search_jointly(
            banks,
            [targets[i] for i in drawn],
            solver,
            execution,
            pose=self.pose,
            starts=[mixtures[i] for i in drawn] if mixtures else [],
            n_steps=self.views.n_steps,
            gains=[self.views.views[i % V].gains for i in drawn],
        )
        found = []
        for i in range(len(asked)):
            raw, at = sightings[i * D], [i * V + v for v in self._expert_views]
            C = len(hulls[i * V].types)
            by_module = [_by_class(one, C) for one in sightings[i * D : i * D + D]]
            errors: list[Floats] = [class_errors(one) for one in by_module]
            errors += [comparable(mixtures[k].errors.T.cpu().numpy()) for k in at[D:]]
            for one, k in zip(errors, at, strict=True):
                one[blind[k]] = 1
            found.append(Panelled(np.stack(errors), by_module[0], raw))
        return found

    def hull_errors(self, hulls: Sequence[Hull], Z: NDArray[Any]) -> Floats:
        """Errors (V, n, C) of the hulls of each view, see :meth:`hulls`, for sequences Z."""
        seen = (torch.from_numpy(self.views.look(v, Z)) for v in range(len(hulls)))
        found = [hull.nearest(x).errors for hull, x in zip(hulls, seen, strict=True)]
        return torch.stack(found).mT.numpy()

    def leaving_out(
        self,
        hulls: Sequence[Hull],
        Z: NDArray[Any],
        own: NDArray[np.int64],
        left_out: NDArray[np.bool_],
    ) -> list[InPoses]:
        """The same in every pose, with some types (n, K) left out of each sequence's class (n,).

        For :func:`left_out_errors`.
        """
        rest = (torch.from_numpy(own), torch.from_numpy(left_out))
        seen = (torch.from_numpy(self.views.look(v, Z)) for v in range(len(hulls)))
        return [hull.leaving_out(x, *rest) for hull, x in zip(hulls, seen, strict=True)]


def left_out_errors(hulls: Sequence[Hull], found: Sequence[InPoses]) -> Floats:
    """Errors (V, n, C) in the poses that the hulls prefer; infinite where no type is left."""
    errors = [hull.errors(one) for hull, one in zip(hulls, found, strict=True)]
    return torch.stack(errors).mT.numpy()


def _by_class(sighting: Sighting, C: int) -> Floats:
    """Errors (R, n, C) of R C modules."""
    errors = sighting.errors.cpu().numpy().astype(np.float64)
    return np.ascontiguousarray(errors.reshape(-1, C, errors.shape[1]).swapaxes(1, 2))

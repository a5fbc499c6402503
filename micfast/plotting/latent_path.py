"""Display of the search for a module's input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from micfast.plotting import drawing
from micfast.plotting.reading import (
    as_matrix,
    check_index,
    check_labels,
    chosen_modules,
    class_indices,
    named,
    read_one,
)
from micfast.settings import check_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from micfast.search.inversion import Inversion

_COMPONENTS = (drawing.BLUE, drawing.ORANGE, *drawing.CHANNELS[1:], drawing.INK)
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (4, 1.4, 1.2, 1.4)))
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])


class LatentPathDisplay:
    """How the input vector of a module moves during the search.

    Use :meth:`from_estimator` or :meth:`from_inversion` to make one.

    Parameters
    ----------
    latents : array or Tensor of shape (n_iter + 1, n_types)
        The input before each iteration, and at the end.
    component_labels : sequence of length n_types, optional
        Names of the components; default "type 0", ...
    module_label, true_label : optional
        Class of the module and of the target, for the title.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.
    figure_ : matplotlib.figure.Figure
    lines_ : list of matplotlib.lines.Line2D
        One per component; for ``kind="ternary"`` the path alone.
    start_, end_ : matplotlib.lines.Line2D or None
        The marks of a ternary plot.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from micfast import LatentPathDisplay
    >>> path = [[1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1], [0.9, 0.1, 0.0]]
    >>> display = LatentPathDisplay(path).plot(ax=Figure().subplots())
    >>> [line.get_label() for line in display.lines_]
    ['type 0', 'type 1', 'type 2']
    """

    def __init__(
        self,
        latents: Any,
        *,
        component_labels: Sequence[Any] | None = None,
        module_label: Any = None,
        true_label: Any = None,
    ) -> None:
        where = type(self).__name__
        self.latents = as_matrix(where, "latents", latents, "(n_iter + 1, n_types)")
        K = self.latents.shape[1]
        if component_labels is None:
            component_labels = [f"type {k}" for k in range(K)]
        labels = named(where, "component_labels", component_labels, K)
        self.component_labels = [str(label) for label in labels]
        self.module_label, self.true_label = module_label, true_label

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        index: int = 0,
        label: Any = None,
        module: int = 0,
        solver: Any = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> LatentPathDisplay:
        """Invert one sequence and draw the path of one module's input.

        Parameters
        ----------
        estimator : ModularInverseClassifier
            Fitted; or a pipeline or a search (with ``best_estimator_``) that ends in one.
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels])
        y : array-like of shape (n_samples,), optional
            True labels.
        index : int
            Which sequence.
        label : str, int, float or bool, optional
            The class whose module is shown; default that with the lowest error in this search.
        module : int
            Which of each class's modules is searched.
        solver : str or solver, optional
            As in :func:`micfast.invert`; default the estimator's.
        ax, **kwargs
            As in :meth:`plot`.
        """
        where = f"{cls.__name__}.from_estimator"
        estimator, x, truth = read_one(where, estimator, X, y, index)
        found = estimator.invert(x, solver=solver, history=True, bank=module)
        which: Any = "best"
        if label is not None:
            (which,) = class_indices(where, "label", found.classes, [label])
        y_true = None if truth is None else [truth]
        return cls.from_inversion(found, which=which, y_true=y_true, ax=ax, **kwargs)

    @classmethod
    def from_inversion(
        cls,
        inversion: Inversion,
        *,
        index: int = 0,
        which: Literal["best"] | int = "best",
        y_true: Any = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> LatentPathDisplay:
        """Draw the path of one module's input for one target of an inversion.

        Parameters
        ----------
        inversion : Inversion
            Result of :func:`micfast.invert` with ``history=True``.
        index : int
            Which target.
        which : "best" or int
            The module with the lowest error, or the one at this index.
        y_true : array-like of shape (n_samples,), optional
            True labels.
        ax, **kwargs
            As in :meth:`plot`.

        Examples
        --------
        >>> import numpy as np
        >>> from matplotlib.figure import Figure
        >>> from micfast import LatentPathDisplay
        >>> from micfast import Adam, GeneratorBank, invert
        >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
        >>> found = invert(bank, np.zeros((4, 10)), solver=Adam(n_iter=7), history=True)
        >>> ax = Figure().subplots()
        >>> LatentPathDisplay.from_inversion(found, ax=ax, kind="ternary").latents.shape
        (8, 3)
        """
        where = f"{cls.__name__}.from_inversion"
        if inversion.latent_history is None:
            raise ValueError(
                f"{where}: inversion must hold its history: call invert with history=True"
            )
        N = len(inversion.errors)
        i = check_index(where, index, N)
        if which != "best":
            check_count(where, "which", which, 0, len(inversion.classes) - 1)
        (module,) = chosen_modules(where, inversion, i, which)
        truth = None if y_true is None else check_labels(where, "y_true", y_true, N).tolist()[i]
        path, label = inversion.latent_history[:, i, module], inversion.classes[module]
        return cls(path, module_label=label, true_label=truth).plot(ax, **kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        kind: Literal["lines", "ternary"] = "lines",
        line_kw: dict[str, Any] | None = None,
    ) -> LatentPathDisplay:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        kind : {"lines", "ternary"}
            ``lines``: each component over the iterations. ``ternary``: the path in the triangle of
            all mixtures of three types, from the ring to the filled dot.
        line_kw : dict, optional
            Arguments of ``Axes.plot`` for the lines.
        """
        where = f"{type(self).__name__}.plot"
        if kind not in ("lines", "ternary"):
            raise ValueError(f"{where}: kind must be 'lines' or 'ternary', got {kind!r}")
        if kind == "ternary":
            K = self.latents.shape[1]
            if K != 3:
                raise ValueError(f"{where}: kind 'ternary' must have 3 types, got {K}")
            sums = self.latents.sum(axis=1)
            if not (np.allclose(sums, 1, atol=1e-3) and self.latents.min() > -1e-3):
                raise ValueError(
                    f"{where}: kind 'ternary' must have latents of at least 0 with sum 1, "
                    f"got sums from {sums.min():.3g} to {sums.max():.3g} and "
                    f"values from {self.latents.min():.3g}"
                )
        self.ax_ = ax = drawing.new_axes(where, ax, (5.2, 3.4) if kind == "lines" else (4.2, 3.9))
        self.figure_ = ax.figure
        (self._plot_lines if kind == "lines" else self._plot_ternary)(line_kw or {})
        names = {"target": self.true_label, "module": self.module_label}
        title = ", ".join(f"{what}: {name}" for what, name in names.items() if name is not None)
        if title:
            ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
        return self

    def _plot_lines(self, line_kw: dict[str, Any]) -> None:
        from matplotlib.ticker import MaxNLocator

        ax, n_points = self.ax_, len(self.latents)
        self.lines_: list[Any] = []
        self.start_, self.end_ = None, None
        for k, label in enumerate(self.component_labels):
            turn, colour = divmod(k, len(_COMPONENTS))
            look = {
                "color": _COMPONENTS[colour],
                "linestyle": _DASHES[turn % len(_DASHES)],
                "linewidth": 1.6,
                # Show so few points one by one.
                "marker": "o" if n_points <= 20 else None,
                "markersize": 3.5,
                "label": label,
            }
            self.lines_ += ax.plot(np.arange(n_points), self.latents[:, k], **(look | line_kw))
        ax.set(xlabel="iteration", ylabel="component of the input")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        if self.latents.min() >= 0 and self.latents.max() <= 1:
            ax.set_ylim(-0.03, 1.03)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")

    def _plot_ternary(self, line_kw: dict[str, Any]) -> None:
        ax = self.ax_
        for share in (0.25, 0.5, 0.75):
            for corner in range(3):
                a, b, c = np.roll(_CORNERS, -corner, axis=0)
                ends = np.stack([a + share * (b - a), c + share * (b - c)])
                ax.plot(*ends.T, color=drawing.FRAME, linewidth=0.6, zorder=1)
        ax.plot(*_CORNERS[[0, 1, 2, 0]].T, color=drawing.MUTED, linewidth=1.0, zorder=1)
        places: Any = (("right", "top", -0.02), ("left", "top", -0.02), ("center", "bottom", 0.02))
        for (x, y), label, (ha, va, shift) in zip(
            _CORNERS, self.component_labels, places, strict=True
        ):
            ax.text(x, y + shift, label, ha=ha, va=va, color=drawing.INK, parse_math=False)
        path = self.latents @ _CORNERS
        look: dict[str, Any] = {
            "color": drawing.BLUE,
            "linewidth": 1.4,
            "marker": "o",
            "markersize": 2.8,
            "zorder": 2,
            "label": "path",
        }
        self.lines_ = ax.plot(*path.T, **(look | line_kw))
        mark: dict[str, Any] = {"linestyle": "none", "marker": "o", "zorder": 3, "markersize": 8}
        mark |= {"markeredgecolor": drawing.INK, "markeredgewidth": 1.4}
        (self.start_,) = ax.plot(*path[:1].T, markerfacecolor="white", label="start", **mark)
        (self.end_,) = ax.plot(*path[-1:].T, markerfacecolor=drawing.ORANGE, label="end", **mark)
        ax.set(xlim=(-0.12, 1.12), ylim=(-0.1, 0.97), aspect="equal")
        ax.set_axis_off()
        ax.legend(loc="upper right", frameon=False, fontsize="small")

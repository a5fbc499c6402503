"""Display of one target with reconstructions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from micfast.arrays import to_numpy
from micfast.plotting import drawing
from micfast.plotting.reading import (
    chosen_modules,
    class_indices,
    named,
    read_inversion,
    read_one,
    read_values,
)
from micfast.sequences import ends
from micfast.settings import check_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from micfast.search.inversion import Inversion

_MAX_PER_LINE = 6
_WORDS = 9.0  # font size in points
_NOTES = {"path": ["grey: target"], "series": ["dashed: target"], "image": []}


class ReconstructionDisplay:
    """A target with modules' reconstructions and their errors.

    Use :meth:`from_estimator` or :meth:`from_inversion` to make one. Strokes and series are drawn
    over the target, images beside it.

    Parameters
    ----------
    target : array or Tensor of shape (n_timesteps, n_channels)
        Or (n_timesteps,) for one channel.
    reconstructions : array or Tensor of shape (n_shown, n_timesteps, n_channels)
        One panel each; (n_shown, n_timesteps) for one channel.
    errors : array-like of shape (n_shown,), optional
        Printed with the panels.
    labels : sequence of length n_shown, optional
        The classes that the reconstructions belong to; default 0, 1, ...
    names : sequence of str of length n_shown, optional
        Printed instead of the labels.
    predicted_label : optional
        The decision. Its panels are blue, or orange where ``true_label`` is another.
    true_label : optional
        The target's class. Its panels have a dashed blue frame where another was decided.
    rejected : bool
        Whether the target was rejected, which the heading then says.
    pose : str, optional
        How the target lies over the winner's drawing, such as "3 steps late, 6 % slower"; printed
        in the heading.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_panels,)
        The panels: ``ax_`` itself if there is one, else new axes in its place in the figure. For
        images the first panel is the target.
    figure_ : matplotlib.figure.Figure or matplotlib.figure.SubFigure
    target_artists_ : list of list of Line2D, or of AxesImage
        The target in each panel, one line per channel (one in all for strokes); for images, in the
        first alone.
    reconstruction_artists_ : list of list of Line2D, or of AxesImage
        The same for the reconstructions, one list per reconstruction.

    See Also
    --------
    micfast.plotting.plot_reconstructions : Many targets on one page, ready to print.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from micfast import ReconstructionDisplay
    >>> t = np.linspace(0, 1, 20)
    >>> target, drawn = np.sin(3 * t), np.stack([np.sin(2.9 * t), t])
    >>> display = ReconstructionDisplay(target, drawn, errors=[0.001, 0.2], labels=["sine", "line"])
    >>> len(display.plot(ax=Figure().subplots()).axes_)
    2
    """

    def __init__(
        self,
        target: Any,
        reconstructions: Any,
        *,
        errors: Any = None,
        labels: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        predicted_label: Any = None,
        true_label: Any = None,
        rejected: bool = False,
        pose: str | None = None,
    ) -> None:
        where = type(self).__name__
        target, drawn = to_numpy(target), to_numpy(reconstructions)
        self.target = target[:, None] if target.ndim == 1 else target
        self.reconstructions = drawn[..., None] if drawn.ndim == 2 else drawn
        shape, n_shown = self.target.shape, len(drawn)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(
                f"{where}: target must have shape (n_timesteps, n_channels), got {shape}"
            )
        if not n_shown or self.reconstructions.shape[1:] != shape:
            raise ValueError(
                f"{where}: reconstructions must have shape (n_shown, n_timesteps, n_channels) = "
                f"(*, {shape[0]}, {shape[1]}) with n_shown at least 1, got {drawn.shape}"
            )
        self.errors = None
        if errors is not None:
            self.errors = np.array(named(where, "errors", to_numpy(errors), n_shown), float)
        self.labels = named(where, "labels", labels, n_shown)
        self.names = named(where, "names", self.labels if names is None else names, n_shown)
        self.predicted_label, self.true_label = predicted_label, true_label
        self.rejected, self.pose = rejected, pose

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        index: int = 0,
        labels: Sequence[Any] | None = None,
        n_best: int = 1,
        module: Literal["best", "all"] | int = "best",
        ax: Axes | None = None,
        kind: drawing.Kind = "auto",
        **kwargs: Any,
    ) -> ReconstructionDisplay:
        """Draw how a fitted estimator's modules reconstruct one sequence.

        The estimator decides on this sequence once (:meth:`ModularInverseClassifier.decide`), and
        all that is drawn comes from that decision.

        Parameters
        ----------
        estimator : ModularInverseClassifier
            Fitted; or a pipeline or a search (with ``best_estimator_``) that ends in one. After
            other steps of a pipeline, sequences are drawn as those steps return them.
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels])
        y : array-like of shape (n_samples,), optional
            True labels.
        index : int
            Which sequence.
        labels : sequence, optional
            The classes to show. Default: those with the lowest errors.
        n_best : int
            How many of those; not used if ``labels`` is given.
        module : {"best", "all"} or int
            Which of each class's modules to draw: the one with the lowest error for this sequence,
            all of them, or the one with this number.
        ax, kind, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        ReconstructionDisplay
            Classes are ranked by ``decision.errors``. With ``module="best"`` these are the errors
            shown, else the modules' own. ``predicted_label`` is the answer of ``predict``: None if
            the sequence is rejected and ``reject_label`` is None.
        """
        where = f"{cls.__name__}.from_estimator"
        estimator, x, truth = read_one(where, estimator, X, y, index)
        decision = estimator.decide(x)
        classes = decision.classes.tolist()
        if labels is None:
            check_count(where, "n_best", n_best, 1, len(classes))
            chosen = np.argsort(decision.errors[0], kind="stable")[:n_best].tolist()
        else:
            chosen = class_indices(where, "labels", classes, labels)
        errors = decision.module_errors[:, 0]  # (R, C)
        n_modules = len(errors)
        if module == "all":
            pairs = [(r, c) for c in chosen for r in range(n_modules)]
        elif module == "best":
            pairs = [(int(errors[:, c].argmin()), c) for c in chosen]
        else:
            check_count(where, "module", module, 0, n_modules - 1)
            pairs = [(module, c) for c in chosen]
        drawn = [decision.reconstructions(classes[c], module=r)[0] for r, c in pairs]
        target = read_values(where, "X", x)[0]
        end = ends(target) or len(target)
        several = module == "all" and n_modules > 1
        display = cls(
            target[:end],
            np.stack(drawn)[:, :end],
            errors=[decision.errors[0, c] if module == "best" else errors[r, c] for r, c in pairs],
            labels=[classes[c] for _, c in pairs],
            names=[f"{classes[c]} ({r})" if several else str(classes[c]) for r, c in pairs],
            predicted_label=decision.labels.tolist()[0],
            true_label=truth,
            rejected=bool(decision.rejected[0]),
            pose=None if decision.poses is None else decision.poses.describe(0),
        )
        return display.plot(ax, kind=kind, **kwargs)

    @classmethod
    def from_inversion(
        cls,
        targets: Any,
        inversion: Inversion,
        *,
        index: int = 0,
        which: Literal["best", "all"] | int | Sequence[int] = "best",
        y_true: Any = None,
        standardizer: Any = None,
        ax: Axes | None = None,
        kind: drawing.Kind = "auto",
        **kwargs: Any,
    ) -> ReconstructionDisplay:
        """Draw how modules reconstruct one target of an inversion.

        Parameters
        ----------
        targets : array, Tensor or list, of shape (n_samples, n_timesteps[, n_channels])
            The targets that were inverted.
        inversion : Inversion
            Result of :func:`micfast.invert` for them.
        index : int
            Which target.
        which : {"best", "all"}, int or sequence of int
            The module with the lowest error, all modules, or those at these indices.
        y_true : array-like of shape (n_samples,), optional
            True labels, as in ``inversion.classes``.
        standardizer : optional
            Object with ``inverse_transform``; sequences are drawn in the units that it returns.
        ax, kind, **kwargs
            As in :meth:`plot`.

        Examples
        --------
        >>> import numpy as np
        >>> from matplotlib.figure import Figure
        >>> from micfast import ReconstructionDisplay
        >>> from micfast import GeneratorBank, invert
        >>> bank = GeneratorBank.random(
        ...     3, hidden_size=5, input_size=4, output_size=2, seeds=range(3), classes=list("abc")
        ... )
        >>> X = np.random.default_rng(0).normal(size=(6, 20, 2)).cumsum(axis=1)
        >>> display = ReconstructionDisplay.from_inversion(
        ...     X, invert(bank, X), which="all", ax=Figure().subplots()
        ... )
        >>> display.labels
        ['a', 'b', 'c']
        """
        where = f"{cls.__name__}.from_inversion"
        (found,) = read_inversion(where, targets, inversion, [index], y_true, standardizer)
        modules = chosen_modules(where, inversion, index, which)
        display = cls(
            found.target,
            found.drawn[modules],
            errors=found.errors[modules],
            labels=[inversion.classes[m] for m in modules],
            predicted_label=found.predicted_label,
            true_label=found.true_label,
            pose=found.pose,
        )
        return display.plot(ax, kind=kind, **kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        kind: drawing.Kind = "auto",
        n_columns: int | None = None,
        line_kw: dict[str, Any] | None = None,
        im_kw: dict[str, Any] | None = None,
    ) -> ReconstructionDisplay:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure. Several panels take its place in the figure's grid, so
            it must come from ``subplots``, ``add_subplot`` or the like.
        kind : {"auto", "path", "image", "series"}
            ``path`` joins (x, y) points to a pen stroke with a dot at its start, over the target in
            grey; ``image`` draws each time step as a row of pixels; ``series`` draws channels over
            time, over the target's, which are dashed. ``auto``: path for 2 channels, image for 8
            or more, else series.
        n_columns : int, optional
            Panels side by side, up to 6 by default.
        line_kw, im_kw : dict, optional
            Arguments of ``Axes.plot`` for the reconstructions' lines, of ``Axes.imshow`` for all
            images.
        """
        from matplotlib.ticker import MaxNLocator

        where = f"{type(self).__name__}.plot"
        drawn_as = drawing.resolve_kind(where, kind, self.target.shape[1])
        is_image = drawn_as == "image"
        n_panels = len(self.reconstructions) + is_image
        if n_columns is None:
            n_columns = math.ceil(n_panels / math.ceil(n_panels / _MAX_PER_LINE))
        check_count(where, "n_columns", n_columns, 1)
        n_columns = min(n_columns, n_panels)
        n_lines = math.ceil(n_panels / n_columns)
        brush = drawing.Brush.of(drawn_as, [(self.target, self.reconstructions)])
        size = (max(1.6 * n_columns, 4.0), 0.5 + n_lines * (1.5 * brush.aspect + 0.6))
        self.ax_ = ax = drawing.new_axes(where, ax, (4.8, 4.0) if n_panels == 1 else size)
        self.figure_ = ax.figure
        self.axes_ = np.array([ax])
        if n_panels > 1:
            self.axes_ = drawing.divide(where, ax, n_panels, n_columns)
            heading = ", ".join([*self._parts(), *_NOTES[drawn_as]])
            self.axes_[0].figure.suptitle(heading, **drawing.HEADING)
        pairs = []
        if is_image:
            pairs += [brush.draw(self.axes_[0], None, self.target, drawing.TARGET, im_kw=im_kw)]
            drawing.finish_panel(self.axes_[0], brush, drawing.TARGET, "target", " ", _WORDS)
        for i, panel in enumerate(self.axes_[int(is_image) :]):
            words = (_WORDS, 100.0) if n_panels > 1 else None
            pairs += [draw_panel(panel, self, i, brush, words, line_kw, im_kw)]
        self.target_artists_ = [pairs[0][1]] if is_image else [behind for behind, _ in pairs]
        self.reconstruction_artists_ = [front for _, front in pairs[int(is_image) :]]
        if n_panels == 1:
            self._label_one(drawn_as)
        elif drawn_as == "series":
            for panel in self.axes_[::n_columns]:
                panel.yaxis.set_major_locator(MaxNLocator(3))
                panel.tick_params(labelsize="x-small")
        return self

    def _parts(self) -> list[str]:
        """Parts of the heading."""
        parts = [] if self.true_label is None else [f"target: {self.true_label}"]
        if self.predicted_label is not None:
            parts.append(f"decided: {self.predicted_label}")
        elif self.rejected:
            parts.append("rejected")
        return parts if self.pose is None else [*parts, self.pose]

    def _label_one(self, kind: str) -> None:
        """Axis labels, legend and title of a single panel."""
        from matplotlib.ticker import MaxNLocator

        labels = ("x", "y") if kind == "path" else ("time step", "value")
        self.ax_.set(xlabel=labels[0], ylabel=labels[1])
        if kind == "series":
            self.ax_.xaxis.set_major_locator(MaxNLocator(integer=True))
        entries = [self.target_artists_[0][0], *self.reconstruction_artists_[0]]
        channels = [f"channel {c}" for c in range(len(entries) - 1)]
        names = ["target", *(["reconstruction"] if len(entries) == 2 else channels)]
        self.ax_.legend(entries, names, frameon=False, fontsize="small")
        drawn_by = f"drawn by: {self.names[0]}"
        if self.errors is not None:
            drawn_by += f", error {drawing.format_error(self.errors[0])}"
        heading = ", ".join(self._parts())
        heading = f"{heading}\n{drawn_by}" if heading else drawn_by
        self.ax_.set_title(heading, loc="left", fontsize="medium", parse_math=False)


def draw_panel(
    ax: Axes,
    display: ReconstructionDisplay,
    i: int,
    brush: drawing.Brush,
    words: tuple[float, float] | None = None,
    line_kw: dict[str, Any] | None = None,
    im_kw: dict[str, Any] | None = None,
) -> tuple[list[Any], list[Any]]:
    """Draw reconstruction ``i`` of a display over the target; returns the artists of both.

    ``words`` are the font size of name and error and the width that they may take up, in points;
    None writes none, and leaves the axes their frame.
    """
    style = drawing.style_of(display.labels[i], display.predicted_label, display.true_label)
    # On a page of strokes the target helps behind a few, and is in the way behind all.
    alone = brush.kind == "path" and brush.sparing and style is drawing.PLAIN
    target = None if alone else display.target
    artists = brush.draw(ax, target, display.reconstructions[i], style, line_kw, im_kw)
    if words is not None:
        size, width = words
        name = drawing.shortened(str(display.names[i]), width, size)
        error = "" if display.errors is None else drawing.format_error(display.errors[i])
        drawing.finish_panel(ax, brush, style, name, error, size)
    return artists

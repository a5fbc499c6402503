"""Pictures of fitted estimators and inversions, in the way of scikit-learn's displays.

A display holds the arrays that it draws. ``from_estimator`` and the like compute them and plot;
``plot`` draws them again, on other axes or with other settings.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from micfast import plots
from micfast._ragged import ends, to_numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from micfast.bank import Label
    from micfast.estimator import ModularInverseClassifier
    from micfast.inversion import Inversion

__all__ = ["CrossErrorDisplay", "LatentPathDisplay", "ReconstructionDisplay"]

Kind = Literal["auto", "path", "image", "series"]

_MAX_PER_LINE = 6
_MAX_VALUES = 12  # so many classes at most have their values written into the cells
# Okabe and Ito's colours without yellow, which is pale on white.
_COMPONENTS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#1C2733")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1.2, 1.2)), (0, (4, 1.4, 1.2, 1.4)))
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])


class ReconstructionDisplay:
    """A target and what modules make of it, with the errors.

    Use :meth:`from_estimator` or :meth:`from_inversion` to make one. Strokes and series lie over
    the target, images beside it.

    Parameters
    ----------
    target : array or Tensor of shape (n_timesteps, n_channels)
        Or (n_timesteps,) for one channel.
    reconstructions : array or Tensor of shape (n_shown, n_timesteps, n_channels)
        One panel each; (n_shown, n_timesteps) for one channel.
    errors : array-like of shape (n_shown,), optional
        Printed above the panels.
    labels : sequence of length n_shown, optional
        The classes that the reconstructions belong to; default 0, 1, ...
    names : sequence of str of length n_shown, optional
        Printed instead of the labels.
    predicted_label : optional
        The decision. Its panels are blue, or orange where ``true_label`` is another.
    true_label : optional
        The target's class. Its panels have a dashed blue frame where another was decided.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_panels,)
        The panels: ``ax_`` alone if there is one, else axes inside of it. For images the first
        panel is the target.
    figure_ : matplotlib.figure.Figure
    target_artists_ : list of list of Line2D, or of AxesImage
        The target in each panel, one line per channel (one in all for strokes); for images, in the
        first alone.
    reconstruction_artists_ : list of list of Line2D, or of AxesImage
        The same for the reconstructions, one list per reconstruction.

    Raises
    ------
    ValueError
        If shapes don't fit.

    See Also
    --------
    micfast.plots.plot_reconstructions : Many targets on one page, ready to print.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> t = np.linspace(0, 1, 20)
    >>> target, drawn = np.sin(3 * t), np.stack([np.sin(2.9 * t), t])
    >>> display = ReconstructionDisplay(target, drawn, errors=[0.001, 0.2], labels=["sine", "line"])
    >>> len(display.plot(ax=Figure().subplots()).axes_)
    2
    """

    ax_: Any
    axes_: np.ndarray
    figure_: Any
    target_artists_: list[list[Any]]
    reconstruction_artists_: list[list[Any]]

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
    ) -> None:
        where = type(self).__name__
        target, drawn = to_numpy(target), to_numpy(reconstructions)
        if target.ndim == 1:
            target = target[:, None]
        if drawn.ndim == 2:
            drawn = drawn[..., None]
        if target.ndim != 2 or 0 in target.shape:
            raise ValueError(
                f"{where}: target must have shape (n_timesteps, n_channels), got {target.shape}"
            )
        if drawn.ndim != 3 or not len(drawn) or drawn.shape[1:] != target.shape:
            raise ValueError(
                f"{where}: reconstructions must have shape (n_shown, n_timesteps, n_channels) = "
                f"(*, {target.shape[0]}, {target.shape[1]}) with n_shown at least 1, "
                f"got {drawn.shape}"
            )
        n_shown = len(drawn)
        self.target, self.reconstructions = target, drawn
        self.errors = None if errors is None else np.asarray(to_numpy(errors), float)
        if self.errors is not None and self.errors.shape != (n_shown,):
            raise ValueError(
                f"{where}: errors must have shape ({n_shown},), one per reconstruction, "
                f"got {self.errors.shape}"
            )
        self.labels = list(range(n_shown)) if labels is None else list(labels)
        self.names = [str(label) for label in self.labels] if names is None else list(names)
        for argument, values in (("labels", self.labels), ("names", self.names)):
            if len(values) != n_shown:
                raise ValueError(
                    f"{where}: {argument} must have length {n_shown}, one per reconstruction, "
                    f"got {len(values)}"
                )
        self.predicted_label, self.true_label = predicted_label, true_label

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        index: int = 0,
        labels: Sequence[Label] | None = None,
        n_best: int = 1,
        bank: int | None = 0,
        ax: Axes | None = None,
        kind: Kind = "auto",
        **kwargs: Any,
    ) -> ReconstructionDisplay:
        """Draw what a fitted estimator's modules make of one sequence.

        Parameters
        ----------
        estimator : ModularInverseClassifier
            Fitted; or a pipeline or a search (with ``best_estimator_``) that ends in one. Behind
            other steps of a pipeline, sequences are drawn as those steps leave them.
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels])
        y : array-like of shape (n_samples,), optional
            True labels.
        index : int
            Which sequence.
        labels : sequence, optional
            The classes whose modules are shown. Default: those of the lowest errors.
        n_best : int
            How many of those; not used where ``labels`` is given.
        bank : int or None
            Which of each class's modules (its bank's number in ``banks_``); None shows all.
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        kind, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        ReconstructionDisplay
            Errors are each module's mean squared error in standardised units. Classes are ranked
            by the errors that decide, and ``predicted_label`` is the answer of ``predict`` for
            this sequence alone (None where it is rejected and ``reject_label`` is None).

        Raises
        ------
        TypeError
            If ``estimator`` is another one, or a label is of another type than the classes.
        sklearn.exceptions.NotFittedError
            If it isn't fitted.
        ValueError
            If another argument isn't as described.

        Examples
        --------
        >>> ReconstructionDisplay.from_estimator(clf, X_test, y_test, n_best=3)  # doctest: +SKIP
        """
        where = f"{cls.__name__}.from_estimator"
        estimator, x, truth = _one_sequence(where, estimator, X, y, index)
        if labels is None:
            n_classes = len(estimator.classes_)
            _check_integer(where, "n_best", n_best, 1, n_classes)
            chosen = np.argsort(_class_errors(estimator, x)[0], kind="stable")[:n_best].tolist()
        else:
            chosen = _class_indices(where, "labels", estimator, labels)
        banks = range(len(estimator.banks_))
        if bank is not None:
            _check_integer(where, "bank", bank, 0, len(banks) - 1)
            banks = range(bank, bank + 1)
        drawn, errors = [], []
        for r in banks:
            found = estimator.invert(x, bank=r)
            sequences = found.reconstructions("all", backend=estimator.backend)[0]
            if estimator.standardizer_ is not None:
                sequences = estimator.standardizer_.inverse_transform(sequences)
            drawn.append(sequences)
            errors.append(found.errors[0])
        pairs = [(m, r) for m in chosen for r in range(len(banks))]
        classes = estimator.bank_.classes
        names = [str(classes[m]) for m, _ in pairs]
        if len(banks) > 1:
            names = [f"{name} ({r})" for name, (_, r) in zip(names, pairs, strict=True)]
        display = cls(
            to_numpy(x)[0],
            np.stack([drawn[r][m] for m, r in pairs]),
            errors=[errors[r][m] for m, r in pairs],
            labels=[classes[m] for m, _ in pairs],
            names=names,
            predicted_label=estimator.predict(x)[0],
            true_label=truth,
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
        kind: Kind = "auto",
        **kwargs: Any,
    ) -> ReconstructionDisplay:
        """Draw what modules make of one target of an inversion.

        Parameters
        ----------
        targets : array or Tensor of shape (n_samples, n_timesteps[, n_channels])
            Those that were inverted.
        inversion : Inversion
            Result of :func:`micfast.invert` for them.
        index : int
            Which target.
        which : {"best", "all"}, int or sequence of int
            The module of the lowest error, all modules, or those at these indices.
        y_true : array-like of shape (n_samples,), optional
            True labels, as in ``inversion.classes``.
        standardizer : optional
            Object with ``inverse_transform``; sequences are drawn in the units that it gives back.
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        kind, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        ReconstructionDisplay

        Raises
        ------
        ValueError
            If an argument isn't as described, or no module has an error for "best".

        Examples
        --------
        >>> import numpy as np
        >>> from matplotlib.figure import Figure
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
        targets = plots._sequences_to_numpy(where, "targets", targets)
        N = len(inversion.errors)
        if targets.ndim not in (2, 3) or len(targets) != N or targets.shape[1] != inversion.n_steps:
            raise ValueError(
                f"{where}: targets must have shape (n_samples, n_timesteps[, n_channels]) = "
                f"({N}, {inversion.n_steps}[, *]) as inverted, got {targets.shape}"
            )
        i = _check_index(where, index, N)
        modules = _module_indices(where, inversion, i, which)
        truth = _true_label(where, "y_true", y_true, N, i)
        one = replace(
            inversion,
            errors=inversion.errors[i : i + 1],
            latents=inversion.latents[i : i + 1],
            lengths=None,
        )
        drawn, target = to_numpy(one.reconstructions("all"))[0][modules], targets[i]
        if inversion.lengths is not None:
            end = int(inversion.lengths[i])
            drawn, target = drawn[:, :end], target[:end]
        if targets.ndim == 2:
            target = target[:, None]
        if standardizer is not None:
            drawn = to_numpy(standardizer.inverse_transform(drawn))
            target = to_numpy(standardizer.inverse_transform(target[None]))[0]
        display = cls(
            target,
            drawn,
            errors=to_numpy(one.errors)[0][modules],
            labels=[inversion.classes[m] for m in modules],
            predicted_label=one.predictions[0],
            true_label=truth,
        )
        return display.plot(ax, kind=kind, **kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        kind: Kind = "auto",
        n_columns: int | None = None,
        line_kw: dict[str, Any] | None = None,
        im_kw: dict[str, Any] | None = None,
    ) -> ReconstructionDisplay:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        kind : {"auto", "path", "image", "series"}
            ``path`` joins (x, y) points into a stroke with a dot where it starts, over the target
            in grey; ``image`` takes a time step for a row of pixels; ``series`` draws channels over
            time, over the target's, which are dashed. ``auto``: path for 2 channels, image for 8
            and more, else series.
        n_columns : int, optional
            Panels side by side, up to 6 by default.
        line_kw, im_kw : dict, optional
            Arguments of ``Axes.plot`` for the reconstructions' lines, of ``Axes.imshow`` for all
            images.

        Returns
        -------
        ReconstructionDisplay
            The display itself.

        Raises
        ------
        TypeError
            If ``ax`` is no matplotlib axes.
        ValueError
            If ``kind`` or ``n_columns`` isn't as described.
        """
        where = f"{type(self).__name__}.plot"
        drawn_as = _check_kind(where, kind, self.target.shape[1])
        n_panels = len(self.reconstructions) + (drawn_as == "image")
        if n_columns is None:
            n_columns = math.ceil(n_panels / math.ceil(n_panels / _MAX_PER_LINE))
        _check_integer(where, "n_columns", n_columns, 1)
        n_columns = min(n_columns, n_panels)
        n_lines = math.ceil(n_panels / n_columns)
        size = (4.8, 4.0) if n_panels == 1 else (max(1.6 * n_columns, 3.6), 0.4 + 1.9 * n_lines)
        self.ax_ = ax = _axes(where, ax, size)
        self.figure_ = ax.figure
        self.axes_ = _panels(ax, n_panels, n_columns)
        self.target_artists_, self.reconstruction_artists_ = [], []
        panels = list(self.axes_)
        images: dict[str, Any] = {}
        if drawn_as == "image":
            low, high = plots._padded_range(self.target, 0.0)
            images = {"vmin": low, "vmax": high, **(im_kw or {})}
            first = panels.pop(0)
            self.target_artists_.append([_image(first, self.target, plots._TARGET, images)])
            _head(first, "target", plots._TARGET)
        for i, (panel, drawn) in enumerate(zip(panels, self.reconstructions, strict=True)):
            style = self._style(i)
            if drawn_as == "image":
                self.reconstruction_artists_.append([_image(panel, drawn, style, images)])
            else:
                paint = _stroke if drawn_as == "path" else _series
                behind, front = paint(panel, self.target, drawn, style, line_kw or {})
                self.target_artists_.append(behind)
                self.reconstruction_artists_.append(front)
            head = self.names[i]
            if self.errors is not None:
                head += f"\n{plots._format_error(self.errors[i])}"
            if n_panels > 1:
                _head(panel, head, style)
        if drawn_as != "image":
            self._limit(drawn_as)
        self._label(drawn_as, n_columns)
        return self

    def _style(self, i: int) -> plots._Style:
        label, predicted, truth = self.labels[i], self.predicted_label, self.true_label
        if predicted is not None and label == predicted:
            right = truth is None or truth == predicted
            return plots._DECIDED if right else plots._MISTAKEN
        if truth is not None and label == truth:
            return plots._MISSED
        return plots._PLAIN

    def _limit(self, kind: str) -> None:
        """One scale for all panels, on which the target takes up a third at least."""
        limits = []
        for channels in ([0], [1]) if kind == "path" else (slice(None),):
            low, high = plots._padded_range(self.target[:, channels], 0.1)
            least, most = plots._padded_range(
                np.append(self.reconstructions[..., channels], (low, high)), 0.05
            )
            limits.append((max(least, 2 * low - high), min(most, 2 * high - low)))
        for panel in self.axes_:
            if kind == "path":
                panel.set(xlim=limits[0], ylim=limits[1], aspect="equal")
            else:
                panel.set(ylim=limits[0])

    def _label(self, kind: str, n_columns: int) -> None:
        """Words around the panels."""
        from matplotlib.ticker import MaxNLocator

        n_panels = len(self.axes_)
        parts = []
        if self.true_label is not None:
            parts.append(f"target: {self.true_label}")
        if self.predicted_label is not None:
            parts.append(f"decided: {self.predicted_label}")
        axis = {"path": ("x", "y"), "series": ("time step", "value"), "image": ("", "")}[kind]
        if n_panels == 1:
            error = ""
            if self.errors is not None:
                error = f", error {plots._format_error(self.errors[0])}"
            parts.append(f"drawn by: {self.names[0]}{error}")
            self.ax_.set(xlabel=axis[0], ylabel=axis[1])
            if kind == "series":
                self.ax_.xaxis.set_major_locator(MaxNLocator(integer=True))
            entries = [self.target_artists_[0][0], *self.reconstruction_artists_[0]]
            channels = [f"channel {c}" for c in range(len(entries) - 1)]
            names = ["target", *(["reconstruction"] if len(entries) == 2 else channels)]
            self.ax_.legend(entries, names, frameon=False, fontsize="small")
        else:
            notes = {"path": "grey: target", "series": "dashed: target", "image": ""}
            parts.append(notes[kind])
            for i, panel in enumerate(self.axes_):
                last = i >= n_panels - n_columns
                if kind != "series":
                    panel.set(xticks=[], yticks=[])
                    continue
                panel.tick_params(
                    labelsize="x-small", labelleft=not i % n_columns, labelbottom=last
                )
        title = ", ".join(part for part in parts if part)
        self.ax_.set_title(title, loc="left", fontsize="medium", parse_math=False)


class CrossErrorDisplay:
    """Heat map of how well every class's modules draw the sequences of every class.

    Use :meth:`from_estimator`, :meth:`from_inversion` or :meth:`from_predictions` to make one. A
    ring marks the smallest error of each row, a dot that of each column.

    Parameters
    ----------
    errors : array-like of shape (n_modules, n_classes)
        Mean errors: a row per module, a column per class of the sequences. Cells that aren't finite
        are left blank.
    module_labels : sequence of length n_modules, optional
        Names of the rows; default 0, 1, ...
    class_labels : sequence of length n_classes, optional
        Names of the columns; default the rows' if there are as many.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes drawn on.
    figure_ : matplotlib.figure.Figure
    im_ : matplotlib.image.AxesImage
        The heat map.
    text_ : ndarray of matplotlib.text.Text of shape (n_modules, n_classes), or None
        The values in the cells.
    row_minima_, column_minima_ : matplotlib.lines.Line2D or None
        The marks: rings, and dots.
    colorbar_ : matplotlib.colorbar.Colorbar or None

    Raises
    ------
    ValueError
        If shapes don't fit.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> display = CrossErrorDisplay([[0.01, 0.5], [0.4, 0.02]], module_labels=["a", "b"])
    >>> display.plot(ax=Figure().subplots()).text_[0, 1].get_text()
    '0.5'
    """

    ax_: Any
    figure_: Any
    im_: Any
    text_: np.ndarray | None
    row_minima_: Any
    column_minima_: Any
    colorbar_: Any

    def __init__(
        self,
        errors: Any,
        *,
        module_labels: Sequence[Any] | None = None,
        class_labels: Sequence[Any] | None = None,
    ) -> None:
        where = type(self).__name__
        self.errors = np.asarray(to_numpy(errors), float)
        if self.errors.ndim != 2 or 0 in self.errors.shape:
            raise ValueError(
                f"{where}: errors must have shape (n_modules, n_classes), got {self.errors.shape}"
            )
        n_rows, n_columns = self.errors.shape
        self.module_labels = list(range(n_rows) if module_labels is None else module_labels)
        if class_labels is None:
            class_labels = self.module_labels if n_rows == n_columns else range(n_columns)
        self.class_labels = list(class_labels)
        for name, labels, n in (
            ("module_labels", self.module_labels, n_rows),
            ("class_labels", self.class_labels, n_columns),
        ):
            if len(labels) != n:
                raise ValueError(f"{where}: {name} must have length {n}, got {len(labels)}")

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> CrossErrorDisplay:
        """Draw the mean errors of a fitted estimator's classes on labelled sequences.

        Parameters
        ----------
        estimator : ModularInverseClassifier
            Fitted; or a pipeline or a search (with ``best_estimator_``) that ends in one.
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels])
        y : array-like of shape (n_samples,)
            True labels; classes unknown to the estimator get columns of their own.
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        CrossErrorDisplay
            Of ``estimator.reconstruction_errors(X)``: mean squared errors in standardised units,
            means over a class's modules and over the sequences.

        Raises
        ------
        TypeError
            If ``estimator`` is another one.
        sklearn.exceptions.NotFittedError
            If it isn't fitted.
        ValueError
            If another argument isn't as described.

        Examples
        --------
        >>> CrossErrorDisplay.from_estimator(clf, X_test, y_test)               # doctest: +SKIP
        """
        where = f"{cls.__name__}.from_estimator"
        estimator, X = _resolve(where, estimator, X)
        errors, labels = estimator.reconstruction_errors(X), estimator.bank_.classes
        return cls._of(where, "y", y, errors, labels).plot(ax, **kwargs)

    @classmethod
    def from_inversion(
        cls, inversion: Inversion, y_true: Any, *, ax: Axes | None = None, **kwargs: Any
    ) -> CrossErrorDisplay:
        """Draw the mean errors of an inversion's modules.

        Parameters
        ----------
        inversion : Inversion
            Result of :func:`micfast.invert`.
        y_true : array-like of shape (n_samples,)
            True labels of its targets.
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        CrossErrorDisplay

        Raises
        ------
        ValueError
            If ``y_true`` isn't as described.
        """
        where = f"{cls.__name__}.from_inversion"
        display = cls._of(where, "y_true", y_true, inversion.errors, inversion.classes)
        return display.plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        errors: Any,
        *,
        labels: Sequence[Any] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> CrossErrorDisplay:
        """Draw the mean of errors that are there already.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels.
        errors : array or Tensor of shape (n_samples, n_modules)
            Error of each module on each sequence. A NaN makes its cell's mean NaN.
        labels : sequence of length n_modules, optional
            The modules' labels; default the sorted labels of ``y_true``.
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        CrossErrorDisplay
            Columns are those of ``labels`` that occur in ``y_true``, then its other labels, sorted.

        Raises
        ------
        ValueError
            If an argument isn't as described.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> errors = [[0.1, 0.8], [0.3, 0.6], [0.9, 0.2]]
        >>> display = CrossErrorDisplay.from_predictions(
        ...     ["a", "a", "b"], errors, ax=Figure().subplots()
        ... )
        >>> display.errors
        array([[0.2, 0.9],
               [0.7, 0.2]])
        """
        where = f"{cls.__name__}.from_predictions"
        return cls._of(where, "y_true", y_true, errors, labels).plot(ax, **kwargs)

    @classmethod
    def _of(
        cls, where: str, name: str, y: Any, errors: Any, labels: Sequence[Any] | None
    ) -> CrossErrorDisplay:
        errors = np.asarray(to_numpy(errors), float)
        if errors.ndim != 2 or 0 in errors.shape:
            raise ValueError(
                f"{where}: errors must have shape (n_samples, n_modules), got {errors.shape}"
            )
        y = _check_labels(where, name, y, len(errors))
        seen = np.unique(y).tolist()
        labels = seen if labels is None else list(labels)
        if len(labels) != errors.shape[1]:
            raise ValueError(
                f"{where}: labels must name {errors.shape[1]} modules, got {len(labels)}"
            )
        columns = [label for label in labels if label in seen]
        columns += [label for label in seen if label not in labels]
        means = np.stack([errors[y == label].mean(axis=0) for label in columns], axis=1)
        return cls(means, module_labels=labels, class_labels=columns)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        include_values: bool | None = None,
        values_format: str = ".2g",
        mark_minima: bool = True,
        log_scale: bool = True,
        cmap: Any = "cividis",
        colorbar: bool = True,
        xticks_rotation: float | Literal["horizontal", "vertical"] = "horizontal",
        im_kw: dict[str, Any] | None = None,
        text_kw: dict[str, Any] | None = None,
    ) -> CrossErrorDisplay:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        include_values : bool, optional
            Whether the cells show their values; default where there are 12 classes at most.
        values_format : str
            Format of those.
        mark_minima : bool
            Whether the smallest errors of rows and columns are marked.
        log_scale : bool
            Logarithmic colours; where an error is 0 they are linear all the same.
        cmap : str or matplotlib.colors.Colormap
        colorbar : bool
        xticks_rotation : float, "horizontal" or "vertical"
        im_kw, text_kw : dict, optional
            Arguments of ``Axes.imshow`` and, for the values, of ``Axes.text``.

        Returns
        -------
        CrossErrorDisplay
            The display itself.

        Raises
        ------
        TypeError
            If ``ax`` is no matplotlib axes.
        """
        from matplotlib.colors import LogNorm

        n_rows, n_columns = self.errors.shape
        most = max(n_rows, n_columns)
        side = max(4.2, min(0.5 * most + 1.6, 10.0))
        self.ax_ = ax = _axes(f"{type(self).__name__}.plot", ax, (side + 0.9, side))
        self.figure_ = ax.figure
        finite = self.errors[np.isfinite(self.errors)]
        look: dict[str, Any] = {"cmap": cmap, "interpolation": "nearest"}
        if log_scale and finite.size and finite.min() > 0:
            # LogNorm can't span a single value.
            low, high = float(finite.min()), float(finite.max())
            look["norm"] = LogNorm(low, high if high > low else 10 * low)
        if im_kw and {"norm", "vmin", "vmax"} & set(im_kw):
            look.pop("norm", None)
        self.im_ = ax.imshow(self.errors, **(look | (im_kw or {})))
        ax.set(xlabel="class of the sequences", ylabel="module")
        ax.set_xticks(range(n_columns), list(map(str, self.class_labels)))
        ax.set_yticks(range(n_rows), list(map(str, self.module_labels)))
        turns: dict[Any, float] = {"horizontal": 0.0, "vertical": 90.0}
        ax.tick_params(axis="x", rotation=turns.get(xticks_rotation, xticks_rotation))
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if include_values is None:
            include_values = most <= _MAX_VALUES
        self.text_ = self._write(values_format, text_kw or {}) if include_values else None
        self.row_minima_ = self.column_minima_ = None
        if mark_minima and finite.size:
            self._mark(corner=include_values)
        self.colorbar_ = None
        if colorbar:
            self.colorbar_ = ax.figure.colorbar(self.im_, ax=ax)
            scale = " (log scale)" if isinstance(self.im_.norm, LogNorm) else ""
            self.colorbar_.set_label(f"mean error{scale}")
            self.colorbar_.outline.set_visible(False)
        return self

    def _write(self, values_format: str, text_kw: dict[str, Any]) -> np.ndarray:
        text = np.empty(self.errors.shape, dtype=object)
        for (i, j), error in np.ndenumerate(self.errors):
            words, colour = "invalid", plots._MUTED
            if np.isfinite(error):
                words = format(error, values_format)
                red, green, blue, _ = self.im_.to_rgba(error)
                light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
                colour = "black" if light else "white"
            look = {"ha": "center", "va": "center", "color": colour, "fontsize": "small"}
            text[i, j] = self.ax_.text(j, i, words, **(look | text_kw))
        return text

    def _mark(self, corner: bool) -> None:
        """Rings and dots, white with a dark edge; in the cells' corners where values are shown."""
        from matplotlib.patheffects import withStroke

        ranked = np.where(np.isfinite(self.errors), self.errors, np.inf)
        rows = np.flatnonzero(np.isfinite(ranked).any(axis=1))
        columns = np.flatnonzero(np.isfinite(ranked).any(axis=0))
        shift = 0.34 if corner else 0.0
        size = float(np.clip(130 / len(ranked), 5.0, 8.0))
        look: dict[str, Any] = {"linestyle": "none", "marker": "o", "zorder": 3}
        (self.row_minima_,) = self.ax_.plot(
            ranked[rows].argmin(axis=1) + shift,
            rows - shift,
            markersize=size,
            markerfacecolor="none",
            markeredgecolor="white",
            markeredgewidth=1.0,
            label="smallest of the row",
            path_effects=[withStroke(linewidth=2.0, foreground="black")],
            **look,
        )
        (self.column_minima_,) = self.ax_.plot(
            columns + shift,
            ranked[:, columns].argmin(axis=0) - shift,
            markersize=0.55 * size,
            markerfacecolor="white",
            markeredgecolor="black",
            markeredgewidth=0.6,
            label="smallest of the column",
            **look,
        )
        self.ax_.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=2,
            frameon=False,
            fontsize="small",
            handletextpad=0.1,
            columnspacing=1.0,
            borderaxespad=0.2,
        )


class LatentPathDisplay:
    """How the input vector of a module moves while it is searched.

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

    Raises
    ------
    ValueError
        If shapes don't fit.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> path = [[1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1], [0.9, 0.1, 0.0]]
    >>> display = LatentPathDisplay(path).plot(ax=Figure().subplots())
    >>> [line.get_label() for line in display.lines_]
    ['type 0', 'type 1', 'type 2']
    """

    ax_: Any
    figure_: Any
    lines_: list[Any]
    start_: Any
    end_: Any

    def __init__(
        self,
        latents: Any,
        *,
        component_labels: Sequence[Any] | None = None,
        module_label: Any = None,
        true_label: Any = None,
    ) -> None:
        where = type(self).__name__
        self.latents = np.asarray(to_numpy(latents), float)
        if self.latents.ndim != 2 or 0 in self.latents.shape:
            raise ValueError(
                f"{where}: latents must have shape (n_iter + 1, n_types), got {self.latents.shape}"
            )
        K = self.latents.shape[1]
        if component_labels is None:
            component_labels = [f"type {k}" for k in range(K)]
        self.component_labels = [str(label) for label in component_labels]
        if len(self.component_labels) != K:
            raise ValueError(
                f"{where}: component_labels must have length {K}, got {len(self.component_labels)}"
            )
        self.module_label, self.true_label = module_label, true_label

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        index: int = 0,
        label: Label | None = None,
        bank: int = 0,
        n_iter: int | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> LatentPathDisplay:
        """Invert one sequence and draw the way of one module's input.

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
            Whose module; default that of the class with the lowest error.
        bank : int
            Which of the class's modules: its bank's number in ``banks_``.
        n_iter : int, optional
            Iterations; default the estimator's.
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        LatentPathDisplay

        Raises
        ------
        TypeError
            If ``estimator`` is another one, or ``label`` of another type than the classes.
        sklearn.exceptions.NotFittedError
            If it isn't fitted.
        ValueError
            If another argument isn't as described.

        Examples
        --------
        >>> LatentPathDisplay.from_estimator(clf, X_test, index=3)              # doctest: +SKIP
        """
        where = f"{cls.__name__}.from_estimator"
        estimator, x, truth = _one_sequence(where, estimator, X, y, index)
        _check_integer(where, "bank", bank, 0, len(estimator.banks_) - 1)
        if label is None:
            module = int(_class_errors(estimator, x)[0].argmin())
        else:
            (module,) = _class_indices(where, "label", estimator, [label])
        settings = {} if n_iter is None else {"n_iter": n_iter}
        found = estimator.invert(x, bank=bank, return_history=True, **settings)
        display = cls(
            found.latent_history[:, 0, module],
            module_label=found.classes[module],
            true_label=truth,
        )
        return display.plot(ax, **kwargs)

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
        """Draw the way of one module's input for one target of an inversion.

        Parameters
        ----------
        inversion : Inversion
            Result of :func:`micfast.invert` with ``return_history=True``.
        index : int
            Which target.
        which : "best" or int
            The module of the lowest error, or the one at this index.
        y_true : array-like of shape (n_samples,), optional
            True labels.
        ax : matplotlib.axes.Axes, optional
            Default: those of a new figure.
        **kwargs
            As in :meth:`plot`.

        Returns
        -------
        LatentPathDisplay

        Raises
        ------
        ValueError
            If the inversion holds no history, an argument isn't as described, or no module has an
            error for "best".

        Examples
        --------
        >>> import numpy as np
        >>> from matplotlib.figure import Figure
        >>> from micfast import GeneratorBank, invert
        >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
        >>> found = invert(bank, np.zeros((4, 10)), n_iter=7, return_history=True)
        >>> ax = Figure().subplots()
        >>> LatentPathDisplay.from_inversion(found, ax=ax, kind="ternary").latents.shape
        (8, 3)
        """
        where = f"{cls.__name__}.from_inversion"
        if inversion.latent_history is None:
            raise ValueError(
                f"{where}: inversion must hold its history: call invert with return_history=True"
            )
        N = len(inversion.errors)
        i = _check_index(where, index, N)
        if which != "best":
            _check_integer(where, "which", which, 0, len(inversion.classes) - 1)
        (module,) = _module_indices(where, inversion, i, which)
        display = cls(
            inversion.latent_history[:, i, module],
            module_label=inversion.classes[module],
            true_label=_true_label(where, "y_true", y_true, N, i),
        )
        return display.plot(ax, **kwargs)

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

        Returns
        -------
        LatentPathDisplay
            The display itself.

        Raises
        ------
        TypeError
            If ``ax`` is no matplotlib axes.
        ValueError
            If ``kind`` is unknown, or "ternary" for another number of types than 3 or for inputs
            that are no mixtures (negative, or of another sum than 1).
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
        self.ax_ = ax = _axes(where, ax, (5.2, 3.4) if kind == "lines" else (4.2, 3.9))
        self.figure_ = ax.figure
        if kind == "lines":
            self._plot_lines(line_kw or {})
        else:
            self._plot_ternary(line_kw or {})
        names = {"target": self.true_label, "module": self.module_label}
        title = ", ".join(f"{what}: {name}" for what, name in names.items() if name is not None)
        if title:
            ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
        return self

    def _plot_lines(self, line_kw: dict[str, Any]) -> None:
        from matplotlib.ticker import MaxNLocator

        ax, n_points = self.ax_, len(self.latents)
        self.lines_, self.start_, self.end_ = [], None, None
        for k, label in enumerate(self.component_labels):
            turn, colour = divmod(k, len(_COMPONENTS))
            look = {
                "color": _COMPONENTS[colour],
                "linestyle": _DASHES[turn % len(_DASHES)],
                "linewidth": 1.6,
                # So few points are to be seen one by one.
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
                ax.plot(*ends.T, color=plots._FRAME, linewidth=0.6, zorder=1)
        ax.plot(*_CORNERS[[0, 1, 2, 0]].T, color=plots._MUTED, linewidth=1.0, zorder=1)
        places: Any = (("right", "top"), ("left", "top"), ("center", "bottom"))
        for corner, label, (ha, va), shift in zip(
            _CORNERS, self.component_labels, places, (-0.02, -0.02, 0.02), strict=True
        ):
            ax.text(
                corner[0],
                corner[1] + shift,
                label,
                ha=ha,
                va=va,
                color=plots._INK,
                parse_math=False,
            )
        path = self.latents @ _CORNERS
        look: dict[str, Any] = {
            "color": plots._RIGHT,
            "linewidth": 1.4,
            "marker": "o",
            "markersize": 2.8,
            "zorder": 2,
            "label": "path",
        }
        self.lines_ = ax.plot(*path.T, **(look | line_kw))
        mark: dict[str, Any] = {"linestyle": "none", "marker": "o", "zorder": 3, "markersize": 8}
        mark |= {"markeredgecolor": plots._INK, "markeredgewidth": 1.4}
        (self.start_,) = ax.plot(*path[:1].T, markerfacecolor="white", label="start", **mark)
        (self.end_,) = ax.plot(*path[-1:].T, markerfacecolor=plots._WRONG, label="end", **mark)
        ax.set(xlim=(-0.12, 1.12), ylim=(-0.1, 0.97), aspect="equal")
        ax.set_axis_off()
        ax.legend(loc="upper right", frameon=False, fontsize="small")


# -- estimators and sequences --------------------------------------------------------------------


def _resolve(where: str, estimator: Any, X: Any) -> tuple[ModularInverseClassifier, Any]:
    """The fitted classifier in a search or behind a pipeline's steps, and what X is to it."""
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import check_is_fitted

    from micfast.estimator import ModularInverseClassifier

    given = estimator
    while not isinstance(estimator, ModularInverseClassifier):
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(estimator, Pipeline) and len(estimator):
            if len(estimator) > 1:
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        else:
            raise TypeError(
                f"{where}: estimator must be a ModularInverseClassifier, or a pipeline or fitted "
                f"search that ends in one, got {type(given).__name__}"
            )
    check_is_fitted(estimator)
    return estimator, X


def _one_sequence(
    where: str, estimator: Any, X: Any, y: Any, index: int
) -> tuple[ModularInverseClassifier, Any, Any]:
    """The classifier, the sequence as X of one sample, and its true label or None."""
    X = plots._sequences_to_numpy(where, "X", X) if not hasattr(X, "iloc") else X
    if X.ndim not in (2, 3):
        raise ValueError(
            f"{where}: X must have shape (n_samples, n_timesteps[, n_channels]), got {X.shape}"
        )
    i = _check_index(where, index, len(X))
    truth = _true_label(where, "y", y, len(X), i)
    x = X.iloc[[i]] if hasattr(X, "iloc") else X[i : i + 1]
    if X.ndim == 3:  # as far as it goes
        x = x[:, : ends(x)[0] or None]
    estimator, x = _resolve(where, estimator, x)
    return estimator, x, truth


def _class_errors(estimator: ModularInverseClassifier, x: Any) -> np.ndarray:
    """Errors (n, n_classes) as they decide."""
    R, M = len(estimator.banks_), len(estimator.classes_)
    return estimator.transform(x)[:, : R * M].reshape(-1, R, M).mean(axis=1)


def _class_indices(
    where: str, name: str, estimator: ModularInverseClassifier, labels: Any
) -> list[int]:
    """Places of labels among the classes."""
    classes = list(estimator.bank_.classes)
    if isinstance(labels, str) or not len(labels):
        raise ValueError(f"{where}: {name} must be a sequence of classes, got {labels!r}")
    unknown = [label for label in labels if label not in classes]
    if unknown:
        raise ValueError(f"{where}: {name} must be among the classes {classes}, got {unknown[0]!r}")
    return [classes.index(label) for label in labels]


def _module_indices(where: str, inversion: Inversion, i: int, which: Any) -> list[int]:
    """Places of the modules that ``which`` names for target i."""
    n_modules = len(inversion.classes)
    if isinstance(which, str):
        if which == "all":
            return list(range(n_modules))
        if which != "best":
            raise ValueError(
                f"{where}: which must be 'best', 'all' or module indices, got {which!r}"
            )
        best = int(inversion.best[i])
        if best < 0:
            raise ValueError(f"{where}: which must not be 'best' for target {i}: no error is known")
        return [best]
    modules = np.atleast_1d(to_numpy(which))
    if modules.ndim != 1 or not len(modules) or modules.dtype.kind not in "iu":
        raise ValueError(f"{where}: which must be 'best', 'all' or module indices, got {which!r}")
    if modules.min() < 0 or modules.max() >= n_modules:
        raise ValueError(
            f"{where}: which must hold indices from 0 to {n_modules - 1}, got {which!r}"
        )
    return modules.tolist()


# -- checks --------------------------------------------------------------------------------------


def _check_integer(
    where: str, name: str, value: Any, lowest: int, highest: int | None = None
) -> None:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < lowest or (highest is not None and value > highest):
        rule = f"of at least {lowest}" if highest is None else f"from {lowest} to {highest}"
        raise ValueError(f"{where}: {name} must be an integer {rule}, got {value!r}")


def _check_index(where: str, index: Any, n: int) -> int:
    """The index, counted from the start."""
    _check_integer(where, "index", index, -n, n - 1)
    return int(index) % n


def _check_labels(where: str, name: str, y: Any, n: int) -> np.ndarray:
    y = np.asarray(to_numpy(y))
    if y.shape != (n,):
        raise ValueError(f"{where}: {name} must have shape ({n},), got {y.shape}")
    return y


def _true_label(where: str, name: str, y: Any, n: int, i: int) -> Any:
    return None if y is None else _check_labels(where, name, y, n).tolist()[i]


def _check_kind(where: str, kind: Any, n_channels: int) -> str:
    known = ("auto", "path", "image", "series")
    if kind not in known:
        raise ValueError(f"{where}: kind must be one of {', '.join(known)}, got {kind!r}")
    if kind == "path" and n_channels != 2:
        raise ValueError(f"{where}: kind 'path' must have 2 channels (x, y), got {n_channels}")
    return plots._resolve_kind(kind, n_channels)


# -- drawing -------------------------------------------------------------------------------------


def _axes(where: str, ax: Any, size: tuple[float, float]) -> Any:
    """The axes given, or those of a new pyplot figure, as scikit-learn's displays do it."""
    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=size, layout="constrained")[1]
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"{where}: ax must be a matplotlib Axes, got {type(ax).__name__}")
    return ax


def _panels(ax: Any, n_panels: int, n_columns: int) -> np.ndarray:
    """The axes themselves for one panel, else a grid of axes in them."""
    panels = np.empty(n_panels, dtype=object)
    if n_panels == 1:
        panels[0] = ax
        return panels
    ax.set_axis_off()
    n_lines = math.ceil(n_panels / n_columns)
    for i in range(n_panels):
        line, column = divmod(i, n_columns)
        w, h = 1 / n_columns, 1 / n_lines
        # Above each panel there is room for two lines of text.
        panels[i] = ax.inset_axes(
            (column * w + 0.04 * w, 1 - (line + 1) * h + 0.02 * h, 0.92 * w, 0.72 * h)
        )
    return panels


def _head(panel: Any, text: str, style: plots._Style) -> None:
    """Title and frame of one of several panels."""
    panel.set_title(
        text,
        fontsize="small",
        color=style.text,
        fontweight="bold" if style.bold else "normal",
        parse_math=False,
        pad=3,
    )
    for spine in panel.spines.values():
        spine.set(
            edgecolor=style.frame,
            linewidth=style.width,
            linestyle=(0, (2.4, 1.6)) if style.dashed else "-",
        )


def _image(panel: Any, values: np.ndarray, style: plots._Style, im_kw: dict[str, Any]) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    ink = LinearSegmentedColormap.from_list("ink", ["white", style.stroke])
    return panel.imshow(values, **({"cmap": ink, "interpolation": "nearest"} | im_kw))


def _stroke(
    panel: Any, target: np.ndarray, drawn: np.ndarray, style: plots._Style, line_kw: dict[str, Any]
) -> tuple[list[Any], list[Any]]:
    lines = []
    for points, colour, more in ((target, plots._GHOST, {}), (drawn, style.stroke, line_kw)):
        look: dict[str, Any] = {"color": colour, "linewidth": 1.8, "solid_capstyle": "round"}
        # The dot at the start is the line's own marker, so that it moves with it.
        look |= {"marker": "o", "markersize": 4.5, "markevery": [0]}
        lines.append(panel.plot(*points.T, **(look | more)))
    return lines[0], lines[1]


def _series(
    panel: Any, target: np.ndarray, drawn: np.ndarray, style: plots._Style, line_kw: dict[str, Any]
) -> tuple[list[Any], list[Any]]:
    steps, behind, front = np.arange(len(target)), [], []
    for channel in range(target.shape[1]):
        colour = plots._CHANNELS[channel % len(plots._CHANNELS)]
        if target.shape[1] == 1:
            colour = style.stroke
        # Several channels' targets are told apart by colour, too.
        pale = plots._MUTED if target.shape[1] == 1 else colour
        dashed: dict[str, Any] = {"color": pale, "linewidth": 1.0, "linestyle": (0, (2.6, 1.8))}
        behind += panel.plot(steps, target[:, channel], **dashed)
        look: dict[str, Any] = {"color": colour, "linewidth": 1.6}
        front += panel.plot(steps, drawn[:, channel], **(look | line_kw))
    return behind, front

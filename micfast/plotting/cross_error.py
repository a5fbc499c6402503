"""Display of the errors between all classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from micfast.plotting import drawing
from micfast.plotting.reading import as_matrix, check_labels, named, resolve_estimator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from micfast.search.inversion import Inversion

_MAX_VALUES = 12  # with more classes the cells don't show their values


class CrossErrorDisplay:
    """Heat map of how well every class's modules reconstruct the sequences of every class.

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

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from micfast import CrossErrorDisplay
    >>> display = CrossErrorDisplay([[0.01, 0.5], [0.4, 0.02]], module_labels=["a", "b"])
    >>> display.plot(ax=Figure().subplots()).text_[0, 1].get_text()
    '0.5'
    """

    def __init__(
        self,
        errors: Any,
        *,
        module_labels: Sequence[Any] | None = None,
        class_labels: Sequence[Any] | None = None,
    ) -> None:
        where = type(self).__name__
        self.errors = as_matrix(where, "errors", errors, "(n_modules, n_classes)")
        n_rows, n_columns = self.errors.shape
        self.module_labels = named(where, "module_labels", module_labels, n_rows)
        if class_labels is None and n_rows == n_columns:
            class_labels = self.module_labels
        self.class_labels = named(where, "class_labels", class_labels, n_columns)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, ax: Axes | None = None, **kwargs: Any
    ) -> CrossErrorDisplay:
        """Draw the mean errors of a fitted estimator's classes on labelled sequences.

        Parameters
        ----------
        estimator : ModularInverseClassifier
            Fitted; or a pipeline or a search (with ``best_estimator_``) that ends in one.
        X : array-like or Tensor of shape (n_samples, n_timesteps[, n_channels])
        y : array-like of shape (n_samples,)
            True labels; classes unknown to the estimator get columns of their own.
        ax, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        CrossErrorDisplay
            Of ``estimator.decide(X).errors``, the errors that decide.
        """
        estimator, X = resolve_estimator(f"{cls.__name__}.from_estimator", estimator, X)
        decision = estimator.decide(X)
        labels = decision.classes.tolist()
        return cls.from_predictions(y, decision.errors, labels=labels, ax=ax, **kwargs)

    @classmethod
    def from_inversion(
        cls, inversion: Inversion, y_true: Any, *, ax: Axes | None = None, **kwargs: Any
    ) -> CrossErrorDisplay:
        """Draw the mean errors of an inversion's modules; arguments as in `from_predictions`."""
        errors, labels = inversion.errors, inversion.classes
        return cls.from_predictions(y_true, errors, labels=labels, ax=ax, **kwargs)

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
        """Draw the means of given errors.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels.
        errors : array or Tensor of shape (n_samples, n_modules)
            Error of each module on each sequence. A NaN makes its cell's mean NaN.
        labels : sequence of length n_modules, optional
            The modules' labels; default the sorted labels of ``y_true``.
        ax, **kwargs
            As in :meth:`plot`.

        Returns
        -------
        CrossErrorDisplay
            Columns are those of ``labels`` that occur in ``y_true``, then its other labels, sorted.

        Examples
        --------
        >>> from matplotlib.figure import Figure
        >>> from micfast import CrossErrorDisplay
        >>> errors = [[0.1, 0.8], [0.3, 0.6], [0.9, 0.2]]
        >>> display = CrossErrorDisplay.from_predictions(
        ...     ["a", "a", "b"], errors, ax=Figure().subplots()
        ... )
        >>> display.errors
        array([[0.2, 0.9],
               [0.7, 0.2]])
        """
        where = f"{cls.__name__}.from_predictions"
        errors = as_matrix(where, "errors", errors, "(n_samples, n_modules)")
        y = check_labels(where, "y_true", y_true, len(errors))
        seen = np.unique(y).tolist()
        labels = named(where, "labels", seen if labels is None else labels, errors.shape[1])
        columns = [label for label in labels if label in seen]
        columns += [label for label in seen if label not in labels]
        means = np.stack([errors[y == label].mean(axis=0) for label in columns], axis=1)
        return cls(means, module_labels=labels, class_labels=columns).plot(ax, **kwargs)

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
            Logarithmic colours; they are linear anyway if an error is 0.
        cmap : str or matplotlib.colors.Colormap
        colorbar : bool
        xticks_rotation : float, "horizontal" or "vertical"
        im_kw, text_kw : dict, optional
            Arguments of ``Axes.imshow`` and, for the values, of ``Axes.text``.
        """
        from matplotlib.colors import LogNorm

        n_rows, n_columns = self.errors.shape
        most = max(n_rows, n_columns)
        side = max(4.2, min(0.5 * most + 1.6, 10.0))
        self.ax_ = ax = drawing.new_axes(f"{type(self).__name__}.plot", ax, (side + 0.9, side))
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
        ax.set_xticks(range(n_columns), map(str, self.class_labels), rotation=xticks_rotation)
        ax.set_yticks(range(n_rows), map(str, self.module_labels))
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if include_values is None:
            include_values = most <= _MAX_VALUES
        self.text_ = self._write(values_format, text_kw or {}) if include_values else None
        self.row_minima_, self.column_minima_ = None, None
        if mark_minima and finite.size:
            self._mark(shift=0.34 if include_values else 0.0)
        self.colorbar_ = ax.figure.colorbar(self.im_, ax=ax) if colorbar else None
        if self.colorbar_ is not None:
            scale = " (log scale)" if isinstance(self.im_.norm, LogNorm) else ""
            self.colorbar_.set_label(f"mean error{scale}")
            self.colorbar_.outline.set_visible(False)
        return self

    def _write(self, values_format: str, text_kw: dict[str, Any]) -> np.ndarray:
        text = np.empty(self.errors.shape, dtype=object)
        for (i, j), error in np.ndenumerate(self.errors):
            words, colour = "invalid", drawing.MUTED
            if np.isfinite(error):
                words = format(error, values_format)
                red, green, blue, _ = self.im_.to_rgba(np.array([error]))[0]
                light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
                colour = "black" if light else "white"
            look = {"ha": "center", "va": "center", "color": colour, "fontsize": "small"}
            text[i, j] = self.ax_.text(j, i, words, **(look | text_kw))
        return text

    def _mark(self, shift: float) -> None:
        """Rings and dots, in the cells' corners where they hold values."""
        from matplotlib.patheffects import withStroke

        ranked = np.where(np.isfinite(self.errors), self.errors, np.inf)
        rows = np.flatnonzero(np.isfinite(ranked).any(axis=1))
        columns = np.flatnonzero(np.isfinite(ranked).any(axis=0))
        size = float(np.clip(130 / len(ranked), 5.0, 8.0))
        # White with a dark edge, to be seen on any colour.
        ring: dict[str, Any] = {"mfc": "none", "mec": "white", "mew": 1.0, "ms": size}
        ring["path_effects"] = [withStroke(linewidth=2.0, foreground="black")]
        dot: dict[str, Any] = {"mfc": "white", "mec": "black", "mew": 0.6, "ms": 0.55 * size}
        x, y = ranked[rows].argmin(axis=1), ranked[:, columns].argmin(axis=0)
        (self.row_minima_,) = self.ax_.plot(
            x + shift, rows - shift, "o", label="smallest of the row", **ring
        )
        (self.column_minima_,) = self.ax_.plot(
            columns + shift, y - shift, "o", label="smallest of the column", **dot
        )
        look: dict[str, Any] = {"frameon": False, "fontsize": "small", "handletextpad": 0.1}
        look |= {"bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.2, "columnspacing": 1.0}
        self.ax_.legend(loc="lower left", ncols=2, **look)

"""Display of a module's training: its loss, and how it draws its types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from micfast.plotting import drawing
from micfast.plotting.reading import read_values, resolve_estimator
from micfast.settings import check_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TrainingDisplay:
    """The loss of one module's training, and its types with its drawings of them.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    loss_curve : array of shape (n_points,)
    types, drawings : array of shape (n_types, n_timesteps, n_channels)
        NaN after the end of shorter types.
    label : optional
        Class of the module, for the title.
    report : dict, optional
        The module's entry in ``training_report_``, for the title.

    Attributes
    ----------
    ax_ : ndarray of matplotlib.axes.Axes
        That of the loss, then one per type.
    figure_ : matplotlib.figure.Figure
    line_ : matplotlib.lines.Line2D
        The loss.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from micfast import TrainingDisplay
    >>> types = np.linspace(0, 1, 20).reshape(2, 10, 1)
    >>> display = TrainingDisplay([1, 0.1, 0.01], types, types + 0.05)
    >>> display.plot(ax=Figure().subplots()).ax_.shape
    (3,)
    """

    def __init__(
        self,
        loss_curve: Any,
        types: Any,
        drawings: Any,
        *,
        label: Any = None,
        report: dict[str, Any] | None = None,
    ) -> None:
        where = type(self).__name__
        self.loss_curve = np.asarray(loss_curve, dtype=np.float64)
        self.types = read_values(where, "types", types)
        self.drawings = read_values(where, "drawings", drawings)
        if self.loss_curve.ndim != 1 or self.types.shape != self.drawings.shape:
            raise ValueError(
                f"{where}: loss_curve must have one dimension, and types and drawings the same "
                f"shape, got {self.loss_curve.shape}, {self.types.shape}, {self.drawings.shape}"
            )
        self.label, self.report = label, report

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        label: Any = None,
        module: int = 0,
        ax: Axes | None = None,
        kind: drawing.Kind = "auto",
    ) -> TrainingDisplay:
        """Draw how one module of a fitted classifier was trained.

        Parameters
        ----------
        estimator : ModularInverseClassifier
            Fitted; or a pipeline or a search (with ``best_estimator_``) that ends in one.
        label : str, int, float or bool, optional
            The class whose module is shown; default the one with the largest relative error.
        module : int
            Which of the class's modules.
        ax, kind
            As in :meth:`plot`.
        """
        where = f"{cls.__name__}.from_estimator"
        estimator, _ = resolve_estimator(where, estimator, None)
        R = len(estimator.banks_)
        r = check_count(where, "module", module, 0, R - 1)
        bank, reports = estimator.banks_[r], estimator.training_report_[r::R]
        if label is None:
            errors = [one["relative_mse"] for one in reports]
            label = bank.classes[int(np.nan_to_num(errors, nan=np.inf).argmax())]
        c = bank.index(label)
        types = estimator.types_[c]
        drawings = bank.select(indices=[c]).generate(np.eye(bank.input_size), types.shape[1])[0]
        if estimator.standardizer_ is not None:
            drawings = estimator.standardizer_.inverse_transform(drawings)
        drawings = np.where(np.isnan(types).all(axis=-1, keepdims=True), np.nan, drawings)
        display = cls(reports[c]["loss_curve"], types, drawings, label=label, report=reports[c])
        return display.plot(ax=ax, kind=kind)

    def plot(self, *, ax: Axes | None = None, kind: drawing.Kind = "auto") -> TrainingDisplay:
        """Draw.

        Parameters
        ----------
        ax : Axes, optional
            Its place in a grid is divided into panels; default a new figure.
        kind : {"auto", "path", "series", "image"}
            How types are drawn: as strokes (two channels), over time, or as images.

        Returns
        -------
        self
        """
        where, K = f"{type(self).__name__}.plot", len(self.types)
        kind_used = drawing.resolve_kind(where, kind, self.types.shape[2])
        pairs = [(t, d[None]) for t, d in zip(self.types, self.drawings, strict=True)]
        brush = drawing.Brush.of(kind_used, pairs)
        ax = drawing.new_axes(where, ax, (1.7 * (K + 1), 2.2))
        self.ax_ = drawing.divide(where, ax, K + 1, K + 1)
        self.figure_ = self.ax_[0].figure.figure
        (self.line_,) = self.ax_[0].plot(self.loss_curve, color=drawing.BLUE, linewidth=1.2)
        self.ax_[0].set_yscale("log")
        self.ax_[0].set_box_aspect(brush.aspect if kind_used == "series" else 1)
        self.ax_[0].set_title("loss", fontsize=7.2, pad=3)
        self.ax_[0].tick_params(which="both", labelsize=6)
        for k, (panel, target, drawn) in enumerate(
            zip(self.ax_[1:], self.types, self.drawings, strict=True)
        ):
            brush.draw(panel, target, drawn, drawing.PLAIN)
            error = drawing.format_error(float(np.nanmean(np.square(drawn - target))))
            drawing.finish_panel(panel, brush, drawing.PLAIN, f"type {k}", error)
        self.ax_[0].figure.suptitle(self._title(), fontsize="small", parse_math=False)
        return self

    def _title(self) -> str:
        parts = [] if self.label is None else [f"class {self.label}"]
        if self.report is not None:
            steps = ", ".join(f"{name}: {n} steps" for name, n in self.report["steps"].items())
            parts += [f"relative error {self.report['relative_mse']:.2%}", steps]
        return ", ".join(parts)

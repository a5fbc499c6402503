"""The estimator's file: what is kept beside the modules, and how it is read back."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from micfast.arrays import to_numpy
from micfast.classify.experts import Expectation, Experts
from micfast.classify.fitting import FittedClass
from micfast.classify.panel import Panel, Views
from micfast.classify.views import VIEWS, views_of, voting_of
from micfast.data.standardize import Standardizer
from micfast.generators.bank import GeneratorBank
from micfast.generators.files import BankFileError, read_parts, write_parts
from micfast.generators.labels import Label
from micfast.kernels.weights import Weights
from micfast.search.loss import Loss
from micfast.search.pose import Pose
from micfast.search.solvers import SOLVERS
from micfast.search.starts import STARTS
from micfast.search.starts.given import Given
from micfast.sequences import require_values
from micfast.settings import Settings
from micfast.training.initializations import INITIALIZATIONS
from micfast.training.methods import METHODS, Method
from micfast.training.selections import SELECTIONS, TypeSelection
from micfast.training.settings import Training

if TYPE_CHECKING:
    from micfast.classify.estimator import ModularInverseClassifier

__all__ = ["load", "save"]

_KIND = "ModularInverseClassifier"
_CLASS_DTYPES = {
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(f"float{bits}" for bits in (16, 32, 64)),
}


def save(estimator: ModularInverseClassifier, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator, see :meth:`ModularInverseClassifier.save`."""
    kind = estimator.classes_.dtype.kind
    params = estimator.get_params(deep=False)
    document = {
        "kind": _KIND,
        "params": {name: _param_to_json(value) for name, value in params.items()},
        "class_dtype": {"U": "str", "O": "object"}.get(kind, estimator.classes_.dtype.name),
        "n_banks": len(estimator.banks_),
        "n_timesteps_in": estimator.n_timesteps_in_,
        "feature_names_in": getattr(estimator, "feature_names_in_", np.array([])).tolist(),
        "channel_names_in": estimator.channel_names_in_,
        "temperature": estimator.temperature_,
        "entropy": estimator.entropy_.tolist(),
        "type_info": [_info_to_json(info) for info in estimator.type_info_],
        "training_report": [_report_to_json(report) for report in estimator.training_report_],
        "calibration": [
            {name: errors.tolist() for name, errors in own.items()}
            for own in estimator.calibration_
        ],
    }
    tensors = {"types": torch.from_numpy(estimator.types_)}
    panel_document, panel_tensors = _panel_to_parts(estimator)
    document["panel"] = panel_document
    tensors |= panel_tensors
    for r, bank in enumerate(estimator.banks_[1:], start=1):
        tensors |= {f"bank{r}.{name}": tensor for name, tensor in bank.weights.named()}
    if estimator.standardizer_ is not None:
        document["standardizer_axis"] = estimator.standardizer_.axis
        tensors["standardizer_mean"] = torch.from_numpy(estimator.standardizer_.mean_)
        tensors["standardizer_scale"] = torch.from_numpy(estimator.standardizer_.scale_)
    first = estimator.bank_
    write_parts(path, first.weights, first.classes, first.metadata, tensors, document)


def load(
    cls: type[ModularInverseClassifier], path: str | os.PathLike[str]
) -> ModularInverseClassifier:
    """Read a fitted estimator, see :meth:`ModularInverseClassifier.load`."""
    weights, classes, metadata, tensors, document = read_parts(path)
    if not isinstance(document, dict) or document.get("kind") != _KIND:
        raise BankFileError(path, "holds a bank but no estimator: read it with GeneratorBank.load")
    try:
        bank = GeneratorBank(weights, classes, metadata)
        return _from_parts(cls, bank, tensors, document)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise BankFileError(path, f"the estimator's part is inconsistent ({reason})") from error


def _from_parts(
    cls: type[ModularInverseClassifier],
    bank: GeneratorBank,
    tensors: dict[str, torch.Tensor],
    document: dict[str, Any],
) -> ModularInverseClassifier:
    """Build an estimator from a file's parts; any error means a damaged file."""
    params = {name: _param_from_json(value) for name, value in document["params"].items()}
    estimator = cls(**params)
    estimator.resolved_settings()
    M, T, C = bank.n_modules, document["n_timesteps_in"], bank.output_size
    banks = [bank]
    for r in range(1, document["n_banks"]):
        banks.append(GeneratorBank(Weights.from_mapping(tensors, f"bank{r}."), bank.classes))
    arrays = {name: to_numpy(tensor.double()) for name, tensor in tensors.items()}
    axis = document.get("standardizer_axis")
    restored = _panel_from_parts(document["panel"], arrays, axis, T)
    views = 1 if restored is None else restored[0].views.n_drawn
    others = [
        [Weights.from_mapping(tensors, f"view{v}.bank{r}.") for r in range(document["n_banks"])]
        for v in range(1, views)
    ]
    arrays = {name: array for name, array in arrays.items() if not name.startswith("view")}
    _check_arrays(arrays, bank, axis, T)
    estimator.standardizer_ = None
    if axis is not None:
        mean, scale = arrays["standardizer_mean"], arrays["standardizer_scale"]
        estimator.standardizer_ = Standardizer(axis, mean, scale)
    estimator.temperature_ = float(document["temperature"])
    if not (math.isfinite(estimator.temperature_) and estimator.temperature_ > 0):
        raise ValueError("temperature must be finite and above 0")
    estimator.entropy_ = np.array(document["entropy"], dtype=np.uint32)
    if estimator.entropy_.shape != (4,):
        raise ValueError("entropy must be 4 numbers")
    R, reports = len(banks), document["training_report"]
    n = R * views
    for name, n_entries in (("training_report", M * n), ("type_info", M), ("calibration", M)):
        if len(document[name]) != n_entries:
            raise ValueError(f"{name} must have {n_entries} entries")
    fitted = [
        FittedClass(
            weights=Weights.concat(bank.weights[c : c + 1] for bank in banks),
            types=arrays["types"][c],
            info=_info_from_json(info),
            reports=[
                _report_from_json(report, label, i % R)
                for i, report in enumerate(reports[c * n : c * n + n])
            ],
            calibration=_errors_from_json(own, bank.input_size, restored),
            others=tuple(Weights.concat(one[c : c + 1] for one in view) for view in others),
        )
        for c, (label, info, own) in enumerate(
            zip(bank.classes, document["type_info"], document["calibration"], strict=True)
        )
    ]
    estimator.restore_panel(*(restored or (None, None, None)))
    estimator.restore(fitted, _labels_from_json(bank.classes, document["class_dtype"]))
    estimator.keep_thresholds()
    estimator.n_timesteps_in_, estimator.n_channels_in_ = T, C
    estimator.n_features_in_ = T * C
    names = document["feature_names_in"]
    if names:
        estimator.feature_names_in_ = np.array(names, dtype=object)
        if len(names) != estimator.n_features_in_ or set(map(type, names)) != {str}:
            raise ValueError("feature_names_in must be one str per feature")
    channels = document["channel_names_in"]
    if channels is not None and (len(channels) != C or set(map(type, channels)) != {str}):
        raise ValueError("channel_names_in must be one str per channel")
    estimator.channel_names_in_ = None if channels is None else tuple(channels)
    return estimator


def _check_arrays(
    arrays: dict[str, NDArray[np.float64]], bank: GeneratorBank, axis: str | None, T: Any
) -> None:
    """Check types and standardisation."""
    C = bank.output_size
    expected: dict[str, tuple[int, ...]] = {"types": (bank.n_modules, bank.input_size, T, C)}
    if axis is not None:
        n_scales = (C,) if axis == "channel" else (1,)
        expected |= {"standardizer_mean": n_scales, "standardizer_scale": n_scales}
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != expected or type(T) is not int or bank.dtype != torch.float32:
        raise ValueError(f"its float32 tensors must have shapes {expected}, got {shapes}")
    for name, array in arrays.items():
        if not (np.isfinite(array) | (np.isnan(array) & (name == "types"))).all():
            raise ValueError(f"{name} must be finite")
    require_values(_KIND, "types", arrays["types"].reshape(-1, T, C), "omit")
    if axis is not None and not (arrays["standardizer_scale"] > 0).all():
        raise ValueError("the standardizer's scale must be positive")


# -- views and experts ----------------------------------------------------------------------------


def _panel_to_parts(
    estimator: ModularInverseClassifier,
) -> tuple[dict[str, Any] | None, dict[str, torch.Tensor]]:
    """What is kept of the views, their modules and weights."""
    panel, experts = estimator.panel, estimator.experts_
    if panel is None or experts is None:
        return None, {}
    if strangers := [name for name in panel.views.names if name not in VIEWS]:
        raise TypeError(
            f"{_KIND}.save: views must be names, a file holds no functions; got {strangers}"
        )
    tensors = {}
    for v, scale in enumerate(panel.views.standardizers):
        if scale is not None:
            tensors[f"view{v}_mean"] = torch.from_numpy(scale.mean_)
            tensors[f"view{v}_scale"] = torch.from_numpy(scale.scale_)
    fitted = estimator.fitted_classes()
    for v in range(1, panel.views.n_drawn):
        for r in range(len(estimator.banks_)):
            own = Weights.concat(one.others[v - 1][r : r + 1] for one in fitted)
            tensors |= {f"view{v}.bank{r}.{name}": tensor for name, tensor in own.named()}
    expected = estimator.expectation_
    document = {
        "views": panel.views.names,
        "n_drawn": panel.views.n_drawn,
        "pose": _param_to_json(panel.pose),
        "hull": panel.voting,
        "taus": experts.taus.tolist(),
        "floors": experts.floors.tolist(),
        "expectation": None if expected is None else vars(expected),
    }
    return document, tensors


def _panel_from_parts(
    document: dict[str, Any] | None, arrays: dict[str, NDArray[np.float64]], axis: Any, T: int
) -> tuple[Panel, Experts, Expectation | None] | None:
    if document is None:
        return None
    views = views_of(tuple(document["views"]))
    scales: list[Standardizer | None] = [None] * len(views)
    for v in range(1, len(views) if axis is not None else 1):
        mean, scale = arrays[f"view{v}_mean"], arrays[f"view{v}_scale"]
        if mean.ndim != 1 or mean.shape != scale.shape or not (scale > 0).all():
            raise ValueError(f"the standardizer of view {views[v].name} must be positive")
        scales[v] = Standardizer(axis, mean, scale)
    pose = _param_from_json(document["pose"])
    if not (pose is None or isinstance(pose, Pose)):
        raise ValueError("pose must be a pose")
    n_drawn = document.get("n_drawn", len(views))
    if type(n_drawn) is not int or not 1 <= n_drawn <= len(views):
        raise ValueError(f"n_drawn must be an int from 1 to {len(views)}")
    seen = Views(views, n_drawn, tuple(scales), T)
    # Files of before have True or False: in all views, or in none.
    voting = tuple(view.name for view in voting_of(document["hull"], views))
    if not set(voting) <= set(seen.names):
        raise ValueError(f"hull must be among the views {seen.names}")
    panel = Panel(seen, pose, voting)
    taus, floors = (np.array(document[name], dtype=np.float64) for name in ("taus", "floors"))
    for name, values in (("taus", taus), ("floors", floors)):
        if values.shape != (len(panel.names),) or not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name} must be a finite number per expert")
    if not taus.sum() > 0:
        raise ValueError("taus must be positive")
    expected = document["expectation"]
    expectation = None if expected is None else Expectation(**expected)
    return panel, Experts(panel.names, taus, floors), expectation


# -- parameters ----------------------------------------------------------------------------------


def _param_to_json(value: Any) -> Any:
    """A parameter as JSON; settings objects as their kind, name and fields."""
    if isinstance(value, Given):
        return {"settings": "latents", "latents": value.latents.tolist()}
    if isinstance(value, Settings):
        fields = {name: _param_to_json(field) for name, field in value.as_dict().items()}
        # Methods of training have names that solvers have, too.
        kind = "method " if isinstance(value, Method) else ""
        return {"settings": kind + value.name or "training", **fields}
    if isinstance(value, np.random.RandomState | np.random.Generator | np.random.SeedSequence):
        return None
    return list(value) if isinstance(value, tuple) else value


def _param_from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, dict):
        return value
    fields = {name: _param_from_json(field) for name, field in value.items()}
    name = fields.pop("settings")
    if name == "latents":
        return Given(value["latents"])
    kinds: dict[str, Any] = {"training": Training, "pose": Pose, "loss": Loss}
    if name in kinds:
        return kinds[name](**fields)
    if name.startswith("method "):
        method: Any = METHODS[name.removeprefix("method ")]
        return method(**fields)
    for registry in (SOLVERS, STARTS, SELECTIONS, INITIALIZATIONS):
        if name in registry:
            entry: Any = registry[name]
            return entry(**fields)
    raise ValueError(f"unknown settings {name!r}")


# -- labels and lists ----------------------------------------------------------------------------


def _labels_from_json(labels: Sequence[Label], dtype: str) -> np.ndarray:
    """classes_ of a file; the width of str comes from the labels, not from the file's claim."""
    if dtype == "object":
        classes = np.array(labels, dtype=object)
    elif dtype == "str":
        classes = np.array(labels)
    elif dtype in _CLASS_DTYPES:
        classes = np.array(labels).astype(dtype)
    else:
        raise ValueError(f"class_dtype must be a NumPy type of labels, got {dtype!r}")
    if classes.tolist() != list(labels) or np.unique(classes).tolist() != list(labels):
        raise ValueError(f"the classes must be sorted and of dtype {dtype}")
    return classes


def _float_to_json(value: float) -> float | None:
    """A number, or None for one that JSON lacks (a module that diverged has error NaN)."""
    return float(value) if math.isfinite(value) else None


def _float_from_json(value: Any) -> float:
    return math.nan if value is None else float(value)


def _report_to_json(report: dict[str, Any]) -> dict[str, Any]:
    return report | {
        "mse": _float_to_json(report["mse"]),
        "relative_mse": _float_to_json(report["relative_mse"]),
        "loss_curve": [_float_to_json(loss) for loss in report["loss_curve"].tolist()],
    }


def _report_from_json(report: dict[str, Any], label: Label, module: int) -> dict[str, Any]:
    curve = [_float_from_json(loss) for loss in report["loss_curve"]]
    return {
        "label": label,
        "view": str(report["view"]),
        "module": module,
        "n_samples": int(report["n_samples"]),
        "n_types_found": int(report["n_types_found"]),
        "attempts": int(report["attempts"]),
        "seeds": [int(seed) for seed in report["seeds"]],
        "mse": _float_from_json(report["mse"]),
        "relative_mse": _float_from_json(report["relative_mse"]),
        "learned": bool(report["learned"]),
        "reason": str(report["reason"]),
        "steps": {str(name): int(n) for name, n in report["steps"].items()},
        "seconds": float(report["seconds"]),
        "loss_curve": np.array(curve, dtype=np.float32),
    }


def _errors_from_json(
    own: dict[str, Any], n_types: int, panel: Any
) -> dict[str, NDArray[np.float64]]:
    errors = {name: np.array(own[name], dtype=np.float64) for name in ("types", "samples")}
    for name, values in errors.items():
        if values.ndim != 1 or not len(values) or not (values >= 0).all():
            raise ValueError(f"calibration must hold errors of at least 0 on {name}")
    if len(errors["types"]) != n_types or not np.isfinite(np.concatenate([*errors.values()])).all():
        raise ValueError(f"calibration must hold {n_types} finite errors on types")
    found = {"types": errors["types"], "samples": np.sort(errors["samples"])}
    if panel is not None:
        found["experts"] = np.array(own["experts"], dtype=np.float64)
        shape, E = found["experts"].shape, len(panel[1].taus)
        if shape != (E, shape[-1]) or not shape[-1] or not (found["experts"] >= 0).all():
            raise ValueError(f"calibration must hold errors of {E} experts of at least 0")
    return found


def _info_to_json(info: TypeSelection) -> dict[str, Any]:
    return {
        "labels": info.labels.tolist(),
        "index": info.index.tolist(),
        "inertia": _float_to_json(info.inertia),
        "n_iter": info.n_iter,
    }


def _info_from_json(info: dict[str, Any]) -> TypeSelection:
    return TypeSelection(
        labels=np.array(info["labels"], dtype=np.int64),
        index=np.array(info["index"], dtype=np.int64),
        inertia=_float_from_json(info["inertia"]),
        n_iter=int(info["n_iter"]),
    )

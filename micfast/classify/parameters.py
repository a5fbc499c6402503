"""Nested parameters: ``solver__n_iter`` of an estimator whose settings objects are immutable."""

from __future__ import annotations

from typing import Any, Self

from micfast.settings import Settings

__all__ = ["SettingsParameters", "flattened"]


def flattened(prefix: str, settings: Settings) -> dict[str, Any]:
    """The fields of a settings object, and of those within it, by their nested names."""
    flat = {}
    for name, value in settings.as_dict().items():
        flat[f"{prefix}__{name}"] = value
        if isinstance(value, Settings):
            flat |= flattened(f"{prefix}__{name}", value)
    return flat


def _replaced(settings: Settings, path: str, value: Any) -> Settings:
    """A copy with another value at a nested name."""
    name, _, rest = path.partition("__")
    if rest:
        inner = settings.as_dict().get(name)
        if not isinstance(inner, Settings):
            raise ValueError(f"{type(settings).__name__} has no nested settings {name!r}")
        value = _replaced(inner, rest, value)
    return settings.replace(**{name: value})


class SettingsParameters:
    """Mixin of estimators some of whose parameters are settings objects, or None, or names.

    ``get_params(deep=True)`` shows the fields of the settings that will be used, and
    ``set_params`` replaces the settings object.
    """

    def resolved_settings(self) -> dict[str, Settings]:
        """The settings objects to use, by parameter name."""
        raise NotImplementedError

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of the estimator.

        Parameters
        ----------
        deep : bool
            Whether to include the fields of the settings objects, as ``solver__n_iter``.

        Returns
        -------
        dict
        """
        params: dict[str, Any] = super().get_params(deep=False)  # type: ignore[misc]
        if deep:
            try:
                resolved = self.resolved_settings()
            except (TypeError, ValueError):  # invalid until fit says so
                return params
            for name, settings in resolved.items():
                params |= flattened(name, settings)
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, nested ones too.

        Parameters
        ----------
        **params
            Values by name, such as ``n_types=3`` or ``solver__n_iter=4``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such parameter, or a setting is invalid.
        """
        plain = {name: value for name, value in params.items() if "__" not in name}
        super().set_params(**plain)  # type: ignore[misc]
        for path, value in params.items():
            name, _, rest = path.partition("__")
            if not rest:
                continue
            resolved = self.resolved_settings()
            if name not in resolved:
                raise ValueError(
                    f"{type(self).__name__}: parameter {path!r} is unknown; nested parameters "
                    f"start with one of {[*resolved]}"
                )
            replaced = _replaced(resolved[name], rest, value)
            # What get_params(deep=True) answered, given back, leaves None and names as they are.
            if replaced != resolved[name]:
                setattr(self, name, replaced)
        return self

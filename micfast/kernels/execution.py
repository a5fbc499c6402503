"""Where and how work is done; results do not depend on it."""

from __future__ import annotations

from dataclasses import dataclass

from micfast.kernels.backend import BACKENDS
from micfast.progress import Progress
from micfast.settings import Settings, check_choice, check_count

__all__ = ["Execution"]


@dataclass(frozen=True)
class Execution(Settings):
    """Which implementation runs, on how many threads, in chunks of what size.

    Results do not depend on ``n_threads``, ``chunk_size`` or ``progress``, bit for bit. Where a
    function takes an ``execution``, the name of a backend does as well.

    Parameters
    ----------
    backend : {"auto", "cpu", "cuda", "torch"}
        "cpu" and "cuda" are the compiled kernels, "torch" is the PyTorch reference on the bank's
        device; "auto" takes the kernel of that device if it is available.
    n_threads : int, optional
        Threads of the CPU kernels; ``torch.get_num_threads()`` by default.
    chunk_size : int, optional
        Targets per chunk of an inversion; changes memory use only. Default: about 32 MB a chunk
        (256 MB for ``backend="torch"``, where autograd keeps the intermediate values).
    progress : bool or callable
        True shows a progress bar; a callable receives the fraction done, from 0 to 1.

    Raises
    ------
    TypeError, ValueError
        For values that are not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from micfast import Execution, GeneratorBank, invert
    >>> bank = GeneratorBank.random(2, hidden_size=5, input_size=3, output_size=1, seeds=[0, 1])
    >>> X = np.ones((100, 20))
    >>> small = invert(bank, X, execution=Execution(n_threads=1, chunk_size=7))
    >>> bool((small.errors == invert(bank, X).errors).all())
    True
    >>> invert(bank, X[:2], execution="torch").errors.shape
    (2, 2)
    """

    backend: str = "auto"
    n_threads: int | None = None
    chunk_size: int | None = None
    progress: Progress = False

    def __post_init__(self) -> None:
        check_choice("Execution", "backend", self.backend, BACKENDS)
        if self.n_threads is not None:
            self.set("n_threads", check_count("Execution", "n_threads", self.n_threads, 1, 2**15))
        if self.chunk_size is not None:
            self.set("chunk_size", check_count("Execution", "chunk_size", self.chunk_size, 1))

    @classmethod
    def of(cls, value: Execution | str | None) -> Execution:
        """The execution a user asked for: as given, by the backend's name, or the default.

        Raises
        ------
        TypeError
            If it is something else.
        """
        if value is None:
            return _DEFAULT
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, cls):
            raise TypeError(
                f"execution must be an Execution or the name of a backend, got {value!r}"
            )
        return value


_DEFAULT = Execution()

"""What surrounds a decoder's recurrent cell: where the latent enters, what follows the read-out.

Equations: ``docs/conventions.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from micfast.settings import Settings, check_choice, check_count, check_flag

__all__ = ["CELLS", "LATENTS", "OUTPUTS", "Decoder"]

# In the order of csrc/problem.h.
LATENTS = ("first", "every", "state", "tanh_state")
OUTPUTS = ("identity", "tanh", "sigmoid", "exp", "softplus")
CELLS = ("lstm", "gru")


@dataclass(frozen=True)
class Decoder(Settings):
    """The structure of a decoder with one or two recurrent layers and a linear read-out.

    Parameters
    ----------
    latent : {"first", "every", "state", "tanh_state"}
        Where the latent enters: as the input of the first step (the paper's), as that of every
        step, as the initial state (h_0, or h_0 and c_0; itself or through ``nn.Linear``), or as
        the initial state through ``nn.Linear`` and tanh.
    output : {"identity", "tanh", "sigmoid", "exp", "softplus"}
        What follows the read-out. An affine map by constants may follow that.
    feeds_back : bool
        Whether each step's read-out is the next step's input (beside the latent, where that enters
        at every step). Of modules alone: in :class:`Weights` it is expressed by other weights.
    cell : {"lstm", "gru"}
        The layer's cell, that of ``nn.LSTM`` or ``nn.GRU``. GRUs are drawn and inverted on the CPU;
        micfast does not train them.
    n_layers : {1, 2}
        Two layers are expressed as one with the units of both, of which the second layer's lag a
        step behind: so one step more is drawn, and the first is left out. Outputs are not fed back,
        the latent sets no initial state unless they are GRUs, and micfast does not train them.

    Examples
    --------
    >>> from micfast import Decoder
    >>> Decoder(latent="every", output="tanh")
    Decoder(latent='every', output='tanh', feeds_back=False, cell='lstm', n_layers=1)
    """

    latent: str = "first"
    output: str = "identity"
    feeds_back: bool = False
    cell: str = "lstm"
    n_layers: int = 1

    def __post_init__(self) -> None:
        check_choice("Decoder", "latent", self.latent, LATENTS)
        check_choice("Decoder", "output", self.output, OUTPUTS)
        check_flag("Decoder", "feeds_back", self.feeds_back)
        check_choice("Decoder", "cell", self.cell, CELLS)
        self.set("n_layers", check_count("Decoder", "n_layers", self.n_layers, 1, 2))

    @property
    def sets_state(self) -> bool:
        """Whether the latent sets the initial state."""
        return self.latent in ("state", "tanh_state")

    @classmethod
    def of(cls, where: str, value: Any) -> Decoder | None:
        """A decoder or None, checked.

        Raises
        ------
        TypeError
            If it is something else.
        """
        if value is not None and not isinstance(value, cls):
            raise TypeError(
                f"{where}: decoder must be a micfast.Decoder or None, got {type(value).__name__}"
            )
        return value

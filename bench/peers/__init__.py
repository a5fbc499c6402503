"""The ways to do the same work: micfast and what one would use instead.

A peer is a class with ``id``, ``label``, :meth:`Peer.available`, :meth:`Peer.invert` and
:meth:`Peer.train`. They take the problems of ``cases.py`` and return what the equality step
compares.
"""

from __future__ import annotations

from collections.abc import Callable

import micfast
from bench.peers.base import Peer
from bench.peers.ours import Micfast, OtherSolver
from bench.peers.pytorch import Compiled, NnLstm, Original, Unrolled
from bench.peers.xla import Jax

__all__ = ["DEFAULT_PEERS", "PEERS", "make_peers"]

PEERS: dict[str, Callable[[], Peer]] = {
    "micfast": Micfast,
    "jax": Jax,
    "nn_lstm": NnLstm,
    "compile": Compiled,
    "unrolled": Unrolled,
    "original": Original,
}
# Without "unrolled", which compiles for minutes.
DEFAULT_PEERS = ("micfast", "jax", "nn_lstm", "compile", "original")


def make_peers(wanted: list[str] | None = None) -> list[Peer]:
    """The peers by id, micfast first; by default :data:`DEFAULT_PEERS`.

    Naming ``micfast`` includes its rows on the other instruction sets of this machine, and those
    by other algorithms; a suite takes the kinds that it is about.

    Raises
    ------
    ValueError
        For an unknown id.
    """
    wanted = list(DEFAULT_PEERS if wanted is None else wanted)
    unknown = sorted(set(wanted) - set(PEERS))
    if unknown:
        raise ValueError(f"peers must be among {', '.join(PEERS)}, got {', '.join(unknown)}")
    peers: list[Peer] = []
    for id_ in sorted(set(wanted), key=list(PEERS).index):
        peers.append(PEERS[id_]())
        if id_ == "micfast":
            config = micfast.config()
            peers += [Micfast(isa) for isa in config.get("isas", []) if isa != config["isa"]]
            peers += [OtherSolver("uniform", 8), OtherSolver("nearest", 2)]
    return peers

"""A part of the bench: something that is prepared, measured and written down on its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from bench.peers.table import Peer
from bench.plan import Plan
from bench.series import Say
from bench.signer import Signer

Figures: TypeAlias = dict[str, Any]
"""What a part has measured, as JSON."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a part gets."""

    directory: Path
    signer: Signer
    chosen: Plan
    peers: Sequence[Peer]
    """Those that are installed."""
    say: Say
    left_out: dict[str, str] = field(default_factory=dict)
    """Name and reason of everything that cannot be measured here."""

    def has(self, peer: str) -> bool:
        """Whether a peer of this name is measured."""
        return any(each.name == peer for each in self.peers)


@dataclass(frozen=True, slots=True)
class Part:
    """One part."""

    what: str
    """A line that says what it measures."""
    measure: Callable[[Run], Figures]
    """Raises BenchError."""
    needs: Sequence[str] = ()
    """Programs without which there is no measurement."""
    asks_peers: bool = False
    prepare: Callable[[Run], None] | None = None
    """Installs what it needs; notes in `left_out` what it can do without. Raises BenchError."""

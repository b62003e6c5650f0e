"""The programs that read variables, by prefix."""

import os
from collections.abc import Mapping, Sequence

from pdp.settings.base import Loaded
from pdp.settings.forward import ForwardSettings
from pdp.settings.server import Settings
from pdp.settings.sidecar import SidecarSettings
from pdp.settings.variables import unknown_variables

PROGRAMS: Mapping[str, type[Loaded]] = {
    "PDP_": Settings,
    "PDP_SIDECAR_": SidecarSettings,
    "PDP_FORWARD_": ForwardSettings,
}


def variable_problems() -> Sequence[str]:
    """A sentence about each variable of the environment that has our prefix and is not known."""
    return list(unknown_variables(os.environ, PROGRAMS).values())  # noqa: TID251

"""Whether RPCs are traced: without `traces_url` nothing of OpenTelemetry is imported."""

import functools
from collections.abc import Callable, Sequence

from pdp.wire import Application


def application_type(traces_url: str | None, service: str) -> Callable[..., Application]:
    """Returns a constructor of the application of a process.

    Args:
        traces_url: Receives spans; None: there are none.
        service: The name of the service in spans.

    Raises:
        ValueError: The extra `traces` is not installed.
    """
    if traces_url is None:
        return Application
    try:
        from pdp.wire.tracing import TracedApplication, open_provider  # noqa: PLC0415  # an extra
    except ImportError:
        raise ValueError("traces_url: needs more packages: pip install 'pdp[traces]'") from None
    return functools.partial(TracedApplication, open_provider(traces_url, service))


def outgoing_headers(traces_url: str | None) -> Callable[[], Sequence[tuple[str, str]]]:
    """Returns the function that makes the headers which continue the current trace at a server."""
    if traces_url is None:
        return tuple
    from pdp.wire import tracing  # noqa: PLC0415  # an extra

    return tracing.outgoing_headers

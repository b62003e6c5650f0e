"""`pdp serve`."""

import os
import sys
from typing import Annotated, Any

import typer

from pdp.cli.options import Config
from pdp.cli.variables import require_known_variables


def serve(
    listen: Annotated[
        str | None, typer.Option(help="host:port or unix:PATH of the gRPC port.")
    ] = None,
    config: Config = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback without safe callers.")
    ] = False,
    worker: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Answers Check over gRPC, until SIGTERM."""
    from pdp.process.logs import configure_logs
    from pdp.process.scheduling import prefer_batches
    from pdp.process.supervisor import METRICS_VARIABLE, supervise
    from pdp.settings import Settings, check_free, check_tls

    overrides: dict[str, Any] = {}
    if listen is not None:
        overrides["listen"] = listen
    if insecure:
        overrides["insecure"] = True
    require_known_variables()
    settings = Settings.load(config, **overrides)
    configure_logs(settings.log_level, settings.log_format)
    check_tls(settings.tls)
    check_free(settings.listen, shared=settings.processes > 1)
    if settings.console.listen is not None:
        check_tls(settings.console.tls)
        check_free(settings.console.listen, shared=settings.processes > 1)
    if settings.processes > 1 and worker is None:
        supervise(settings, [sys.executable, "-m", "pdp", *sys.argv[1:]], os.environ)  # noqa: TID251
        return
    origin = "pdp" if worker is None else f"pdp-{worker}"
    # prometheus_client decides at import whether processes share their metrics.
    from pdp.process.app import Service
    from pdp.process.lifecycle import run_until_stopped

    prefer_batches()
    service = Service(
        settings,
        origin=origin,
        metrics_directory=os.environ.get(METRICS_VARIABLE),  # noqa: TID251
    )
    if not run_until_stopped(service, drain_seconds=settings.shutdown_seconds):
        raise typer.Exit(1)

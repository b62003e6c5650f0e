"""`pdp sidecar`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pdp.cli.options import Config
from pdp.cli.variables import require_known_variables


def sidecar(
    upstream: Annotated[
        list[str] | None,
        typer.Option(help="host:port of a server; once for each, the first is asked first."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(help="unix:PATH or host:port of the gRPC port.")
    ] = None,
    http_listen: Annotated[
        str | None, typer.Option(help="host:port of probes and metrics.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="TLS to upstream: authority of its certificate.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="TLS to upstream: the sidecar's own certificate.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="TLS to upstream: private key of the certificate.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the sidecar's API key.")
    ] = None,
    config: Config = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Clear text to upstream, or beyond loopback without callers."
        ),
    ] = False,
) -> None:
    """Answers Check beside a service, from answers that are still good, until SIGTERM."""
    from pdp.process.logs import configure_logs
    from pdp.process.scheduling import prefer_batches
    from pdp.settings import SidecarSettings, check_certificate, check_free, check_tls

    tls = {"ca_file": ca, "certificate_file": certificate, "private_key_file": key}
    given: dict[str, Any] = {
        "upstreams": upstream or None,
        "listen": listen,
        "http_listen": http_listen,
        "upstream_tls": {name: file for name, file in tls.items() if file is not None} or None,
        "api_key_file": api_key_file,
        "insecure": insecure or None,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    require_known_variables()
    settings = SidecarSettings.load(config, **overrides)
    configure_logs(settings.log_level, settings.log_format)
    check_tls(settings.tls)
    upstream_tls = settings.upstream_tls
    if upstream_tls and upstream_tls.certificate_file and upstream_tls.private_key_file:
        check_certificate(
            upstream_tls.certificate_file,
            upstream_tls.private_key_file,
            upstream_tls.ca_file,
            "upstream_tls",
        )
    check_free(settings.listen, shared=False)
    from pdp.process.lifecycle import run_until_stopped
    from pdp.sidecar.app import Sidecar

    prefer_batches()
    if not run_until_stopped(Sidecar(settings), drain_seconds=settings.shutdown_seconds):
        raise typer.Exit(1)

"""`pdp audit forward`: sends the decision log to a SIEM, continuously."""

import typer

from pdp.cli.options import Config
from pdp.cli.variables import require_known_variables


def forward(
    config: Config = None,
) -> None:
    """Forwards the decision log to a file, an HTTP receiver or a syslog server, until SIGTERM."""
    from pdp.process.lifecycle import run_until_stopped
    from pdp.process.logs import configure_logs
    from pdp.settings import ForwardSettings
    from pdp.siem.app import ForwarderProcess
    from pdp.siem.forwarder import STOP_SECONDS_MAX

    require_known_variables()
    settings = ForwardSettings.load(config)
    configure_logs(settings.log_level, settings.log_format)
    if not run_until_stopped(ForwarderProcess(settings), drain_seconds=STOP_SECONDS_MAX):
        raise typer.Exit(1)

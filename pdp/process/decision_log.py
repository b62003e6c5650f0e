"""The parts of a process that write and ship its decision log."""

from typing import NamedTuple

from pdp.audit import Destination, Period, Recorder, Shares, Shipper
from pdp.audit.transparency import Notary, covered_by, open_notary
from pdp.clock import Clock
from pdp.gauges import Gauges
from pdp.process.lifecycle import Part
from pdp.settings import Settings, SidecarSettings


class DecisionLogParts(NamedTuple):
    """The log of one process."""

    recorder: Recorder
    shipper: Shipper
    notary: Notary | None
    """None: there is no tree over the log."""

    def gauges(self) -> Gauges:
        """For metrics."""
        tree = self.notary.gauges() if self.notary is not None else {}
        return {**self.recorder.gauges(), **tree}

    def part(self) -> Part:
        """Starts and stops all of them."""

        def start() -> None:
            self.recorder.start()
            if self.notary is not None:
                self.notary.start()
            self.shipper.start()

        def stop() -> None:
            # In this order: the last pass of the shipper ships the last records of the recorder,
            # and the last checkpoint covers them.
            self.recorder.stop()
            self.shipper.stop()
            if self.notary is not None:
                self.notary.stop()

        return Part(start, stop)


def decision_log_parts(
    settings: Settings | SidecarSettings,
    origin: str,
    destination: Destination,
    *,
    clock: Clock,
    period: Period | None = None,
) -> DecisionLogParts:
    """Creates the parts.

    Args:
        settings: The settings of the process.
        origin: The name of the process in the log.
        destination: Where records are shipped.
        clock: The time of decisions.
        period: States how far the log is shipped; None: it is not stated.
    """
    directory, tree = settings.audit_directory, settings.audit_tree
    shares = Shares(settings.audit_share_bytes_per_second, settings.audit_share_burst_bytes)
    covered = covered_by(tree, directory / origin)
    recorder = Recorder(directory, origin, clock=clock, shares=shares, covered=covered)
    notary = open_notary(tree, recorder)
    shipper = Shipper(directory, destination, recorder, notary=notary, period=period)
    return DecisionLogParts(recorder, shipper, notary)

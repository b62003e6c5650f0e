"""The HTTP side: health, readiness and metrics. It answers no authorization question.

In: GET requests of probes and scrapers. Out: text. Never a setting, a secret or a name of an actor.
"""

from pdp.http.metrics import Metrics
from pdp.http.server import HttpServer

__all__ = ["HttpServer", "Metrics"]

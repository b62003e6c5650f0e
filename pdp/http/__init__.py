"""The HTTP port: health, readiness, metrics and webhooks. It answers no authorization question.

In: GET requests of probes and scrapers; POST requests, which it limits and passes on unparsed. Out:
text. Never: returns a setting, a secret or the name of an actor.
"""

from pdp.http.application import WEBHOOK_PATH, http_application
from pdp.http.bounded_post import PostHandler

__all__ = ["WEBHOOK_PATH", "PostHandler", "http_application"]

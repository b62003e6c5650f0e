"""Room 5: decisions on record.

In:  decision records (`Recorder.record`, `Recorder.offer`), a directory, a SQL engine.
Out: the same records in SQL (`Shipper`), found again there (`DecisionLog`); a report on segments
     (`verify_segments`).

Holds:
- When `record` returns, its records are on disk and survive SIGKILL and a loss of power.
- What was not synced is never taken for recorded: a failed sync ends its segment and its waiters
  get AuditUnavailable, which is no answer, not a silent denial.
- What `offer` had to drop is in the log itself, as a gap with a count.
- Each recorded decision is in SQL once, and its segment stays until it is.
- Nothing here waits without a bound, and no queue grows without one.

Never: sees a token (records hold its fingerprint only), repeats what a driver said, alters or
deletes a segment that does not hold (it is kept for people), knows facts, identity or the wire.
"""

from pdp.audit.queries import DecisionFilter, DecisionLog
from pdp.audit.recorder import Recorder, RecorderCounts
from pdp.audit.records import MalformedRecordError, decode, encode, new_decision_id
from pdp.audit.shipper import Shipper, ShipperCounts
from pdp.audit.verify import Problem, Report, verify_segments

__all__ = [
    "DecisionFilter",
    "DecisionLog",
    "MalformedRecordError",
    "Problem",
    "Recorder",
    "RecorderCounts",
    "Report",
    "Shipper",
    "ShipperCounts",
    "decode",
    "encode",
    "new_decision_id",
    "verify_segments",
]

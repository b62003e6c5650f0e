"""Room 5: decisions on record.

In:  decision records (`Recorder.record`, `Recorder.offer`), a directory, a SQL engine; what other
     recorders' shippers bring (`Reports`).
Out: the same records in SQL (`Shipper`, `SqlDestination`), found again there (`DecisionLog`);
     reports on segments (`verify_segments`) and on SQL (`verify_sql`).

Holds:
- When `record` returns, its records are on disk and survive SIGKILL and a loss of power.
- What was not synced is never taken for recorded: a failed sync ends its segment and its waiters
  get AuditUnavailable, which is no answer, not a silent denial.
- What `offer` had to drop is in the log itself, as a gap with a count.
- Equal denials soon after each other share a record, and a synced count says how many they are.
- No caller fills more of the log than its share: it gets ShareExceeded, and no decision.
- What others do to the files is noticed before the next batch is acknowledged.
- Each recorded decision is in SQL once, and its segment stays until it is.
- What a caller reports bears its name, and takes the place of nothing.
- Nothing here waits without a bound, and no queue grows without one.

Never: sees a token (records hold its fingerprint only), repeats what a driver said, alters or
deletes a segment that does not hold (it is kept for people), knows facts, identity or the wire.
"""

from pdp.audit.destinations import Destination, Refusal, SqlDestination
from pdp.audit.order import Cursor
from pdp.audit.queries import DecisionFilter, DecisionLog, Followed
from pdp.audit.record_building import build_records
from pdp.audit.recorder import Recorder, RecorderCounts
from pdp.audit.records import MalformedRecordError, decode, encode, new_decision_id
from pdp.audit.reports import AHEAD_SECONDS_MAX, Reports
from pdp.audit.segments import KIND_GAP, KIND_RECORD, Frame, Log, Place
from pdp.audit.shares import Shares
from pdp.audit.shipper import Shipper, ShipperCounts
from pdp.audit.verify import Problem, Report, verify_segments
from pdp.audit.verify_sql import SqlReport, shipped_places, verify_sql

__all__ = [
    "AHEAD_SECONDS_MAX",
    "KIND_GAP",
    "KIND_RECORD",
    "Cursor",
    "DecisionFilter",
    "DecisionLog",
    "Destination",
    "Followed",
    "Frame",
    "Log",
    "MalformedRecordError",
    "Place",
    "Problem",
    "Recorder",
    "RecorderCounts",
    "Refusal",
    "Report",
    "Reports",
    "Shares",
    "Shipper",
    "ShipperCounts",
    "SqlDestination",
    "SqlReport",
    "build_records",
    "decode",
    "encode",
    "new_decision_id",
    "shipped_places",
    "verify_segments",
    "verify_sql",
]

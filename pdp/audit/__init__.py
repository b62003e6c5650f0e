"""Room 5: the decision log.

In:  decision records (`DecisionRecord`) for `Recorder.record` and `Recorder.try_write`, a
     directory, a SQL engine; logs that sidecars report (`Reports`).
Out: the same records in SQL (`Shipper`, `SqlDestination`), queried there (`DecisionLog`,
     `Findings`), counted (`Statistics`, `find_anomalies`), and for which time they are complete
     (`Coverage`);
     administration records, which `facts` writes, in the log (`AdministrationLog`);
     reports on segments (`verify_segments`) and on SQL (`verify_sql`).

Invariants:
- When `record` returns, its records are on disk and survive SIGKILL and a loss of power.
- Unsynced records never count as recorded: a failed sync ends its segment, and its callers get
  AuditUnavailable, which is no answer, not a silent denial.
- Records that `try_write` had to drop are in the log as a gap with a count.
- Equal denials within a short time share a record, and a synced count states their number.
- No caller writes more of the log than its share: it gets ShareExceeded and no decision.
- Changes to the files by other processes are detected before the next acknowledgement.
- Counts per minute and hour are of the records in SQL, in the same transaction.
- Each recorded decision is in SQL exactly once. Its segment is deleted only after that.
- A caller's reports carry its name and cannot replace other records.
- Each administration record has one place in the log, after its change is committed.
- Every wait and every queue is bounded.

`transparency/` makes trees and signed checkpoints of the segments on disk. Only the deletion of
segments waits for it.

Never: sees a token (records hold its fingerprint only), repeats texts of a driver, changes or
deletes a damaged segment (operators inspect it), knows facts, identity or the wire.
"""

from pdp.audit.administration_log import AdministrationLog, ChangeFilter, append_records
from pdp.audit.anomalies import Anomaly, Unusual, find_anomalies
from pdp.audit.coverage import Coverage, Missing, Period, Process, Uncovered, read_processes
from pdp.audit.decision_filters import DecisionFilter
from pdp.audit.destinations import Destination, Refusal, SqlDestination
from pdp.audit.findings import Finding, FindingPage, Findings, Window
from pdp.audit.order import Cursor
from pdp.audit.queries import DecisionLog, Followed, Gap, Listed
from pdp.audit.record_building import build_records
from pdp.audit.recorder import Recorder, RecorderCounts
from pdp.audit.records import (
    AnswerSource,
    DecisionRecord,
    MalformedRecordError,
    decode,
    encode,
    new_decision_id,
)
from pdp.audit.reports import AHEAD_SECONDS_MAX, Reports
from pdp.audit.segments import KIND_GAP, KIND_RECORD, Frame, Log, Place
from pdp.audit.shares import Shares
from pdp.audit.shipper import Shipper, ShipperCounts
from pdp.audit.statistics import Activity, Statistics
from pdp.audit.stored_frames import shipped_places
from pdp.audit.verify_segments import Problem, Report, verify_segments
from pdp.audit.verify_sql import SqlReport, verify_sql

__all__ = [
    "AHEAD_SECONDS_MAX",
    "KIND_GAP",
    "KIND_RECORD",
    "Activity",
    "AdministrationLog",
    "Anomaly",
    "AnswerSource",
    "ChangeFilter",
    "Coverage",
    "Cursor",
    "DecisionFilter",
    "DecisionLog",
    "DecisionRecord",
    "Destination",
    "Finding",
    "FindingPage",
    "Findings",
    "Followed",
    "Frame",
    "Gap",
    "Listed",
    "Log",
    "MalformedRecordError",
    "Missing",
    "Period",
    "Place",
    "Problem",
    "Process",
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
    "Statistics",
    "Uncovered",
    "Unusual",
    "Window",
    "append_records",
    "build_records",
    "decode",
    "encode",
    "find_anomalies",
    "new_decision_id",
    "read_processes",
    "shipped_places",
    "verify_segments",
    "verify_sql",
]

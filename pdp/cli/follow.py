"""`pdp audit list --follow` and `--after`: the decision log from a cursor on."""

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import grpc

from pdp.cli.listing import PAGE_ITEMS, print_message
from pdp.cli.output import note
from pdp.cli.records import print_table

if TYPE_CHECKING:
    from pdpapi.v1 import audit_service_pb2 as pb

POLL_SECONDS = 0.5
RETRY_SECONDS_MAX = 5.0
PASSING = frozenset(
    (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    )
)
"""Statuses of a restart or of a full server: a later request may succeed."""


class Follower:
    """Prints what follows a cursor, each record once.

    The cursor moves only after a record is printed. So a request that is repeated, to the same
    server or to another replica, continues after the last printed record.
    """

    def __init__(
        self,
        ask: "Callable[[pb.FollowDecisionsRequest], pb.FollowDecisionsResponse]",
        query: "pb.ListDecisionsRequest",
        *,
        as_json: bool,
    ) -> None:
        from pdpapi.v1 import audit_service_pb2 as pb

        self._ask = ask
        self._request = pb.FollowDecisionsRequest(query=query)
        self._request.query.page_size = PAGE_ITEMS
        self._as_json = as_json
        self._shown: set[tuple[str, str]] = set()
        """Records of the list that was shown first: they may follow the cursor too."""
        self._failing = False

    def start_after(self, cursor: str) -> None:
        """Begins after a cursor; empty: with the first record of the log."""
        self._request.cursor = cursor

    def start_at_end(self) -> None:
        """Begins with what reaches the log from now on. Raises grpc.RpcError."""
        request = type(self._request)(from_end=True)
        self._request.cursor = self._ask(request).cursor

    def show_first(self, records: "Sequence[pb.DecisionRecord]") -> None:
        """Prints what was listed after `start_at_end`."""
        self._shown = set(map(_key, records))
        if self._as_json:
            for record in records:
                print_message(record, cursor=self._request.cursor)
        else:
            print_table(records)

    def run(self, *, forever: bool) -> None:
        """Prints what follows; `forever`: until it is interrupted, through restarts of the server.

        Raises grpc.RpcError, with `forever` only for errors that a repetition does not resolve.
        """
        try:
            while True:
                page = self._answer(patient=forever)
                self._show(page)
                if page.more:
                    continue
                if not forever:
                    return
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            if not self._as_json:
                note(f"to continue from here: --after {self._request.cursor}")
            raise

    def _show(self, page: "pb.FollowDecisionsResponse") -> None:
        new = [item for item in page.decisions if _key(item.decision) not in self._shown]
        if self._as_json:
            for item in new:
                print_message(item.decision, cursor=item.cursor)
        elif new:
            print_table([item.decision for item in new], heading=False)
        self._request.cursor = page.cursor

    def _answer(self, *, patient: bool) -> "pb.FollowDecisionsResponse":
        seconds = POLL_SECONDS
        while True:
            try:
                page = self._ask(self._request)
            except grpc.RpcError as error:
                if not patient or error.code() not in PASSING:
                    raise
                if not self._failing:
                    note(f"{error.code().name}: {error.details()}; asks again until it answers")
                self._failing = True
                # Apart from other followers, which were cut off at the same moment.
                time.sleep(seconds * random.uniform(0.5, 1))  # noqa: S311  # no secret
                seconds = min(2 * seconds, RETRY_SECONDS_MAX)
                continue
            if self._failing:
                note("the server answers again; nothing was left out")
            self._failing = False
            return page


def _key(record: "pb.DecisionRecord") -> tuple[str, str]:
    return record.decision_id, record.reported_by

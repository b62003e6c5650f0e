"""Access reviews: what the security team asks about grants, users and the decision log.

In:  questions with a page's place; verdicts of reviewers.
Out: pages of findings, what a user may do, campaigns.

Facts and the decision log find the rows (`facts/store/grant_lists.py`, `audit/findings.py`), and
the code of lists decides what a user may do. This room joins them, and owns campaigns.

Invariants:
- No claim is made about a time for which the log may lack decisions: `Coverage` comes with it.
- A page does a bounded amount of work and is short rather than late.
- A verdict is stored together with its effect, in one transaction, and is never replaced.
- Nobody decides about a grant to themselves.

Never: evaluates a rule itself, sees a token, reads the environment.
"""

from pdp.reviews.campaigns import (
    CONSOLE_REVIEWER,
    Campaign,
    CampaignItem,
    Campaigns,
    ItemPage,
    Outcome,
    Verdict,
)
from pdp.reviews.grants import GrantFinding, GrantFindingPage, GrantReviews
from pdp.reviews.user_access import Row, UserAccess, UserAccessPage, UserAccessQueries

__all__ = [
    "CONSOLE_REVIEWER",
    "Campaign",
    "CampaignItem",
    "Campaigns",
    "GrantFinding",
    "GrantFindingPage",
    "GrantReviews",
    "ItemPage",
    "Outcome",
    "Row",
    "UserAccess",
    "UserAccessPage",
    "UserAccessQueries",
    "Verdict",
]

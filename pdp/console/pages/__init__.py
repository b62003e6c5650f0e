"""The pages, by group. A group is a module with a tuple `PAGES`; list it here to add it."""

from typing import Final

from pdp.console.pages import (
    activity,
    campaigns,
    changes,
    decisions,
    people,
    playground,
    proofs,
    reviews,
)

PAGES: Final = (
    *activity.PAGES,
    *decisions.PAGES,
    *proofs.PAGES,
    *people.PAGES,
    *reviews.PAGES,
    *campaigns.PAGES,
    *changes.PAGES,
    *playground.PAGES,
)
MENU: Final = tuple(page for page in PAGES if page.in_menu)
MENU_OF_ORGANIZATION: Final = tuple(page for page in MENU if page.of_organization)

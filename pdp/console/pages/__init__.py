"""The pages, by group. A group is a module with a tuple `PAGES`; list it here to add it."""

from typing import Final

from pdp.console.pages import activity, decisions, people, playground, policy

PAGES: Final = (
    *activity.PAGES,
    *decisions.PAGES,
    *people.PAGES,
    *policy.PAGES,
    *playground.PAGES,
)
MENU: Final = tuple(page for page in PAGES if page.in_menu)

"""The console: pages in a browser for the security team. They need no JavaScript.

In:  requests of a browser on a port of its own. Out: HTML, one style sheet and one image.

Invariants:
1. Each page asks for its permission before anything is read, with the decision of Check: user,
   session and permission are looked up for every request, and the decision is logged, an allow too.
2. A session is a random secret in a cookie, of which the database has the hash, for 15 minutes at
   most. It begins with a verified session token of Clerk or with a one-time link.
3. A POST needs the origin of the console, and a value that follows from the secret in the cookie.
4. Nothing is computed here: pages show what the rooms below answer.
5. A session that is limited to one organization sees only the pages made for it (`tenant.py`). The
   decision itself refuses every other page (ADR 40).
6. Only `pages/campaigns.py` writes: campaigns and verdicts, for POSTs of users with console:review.
7. What people or tokens wrote is text: templates escape it, and controls are visible.

Never: writes anything else, runs a script, loads anything from another origin, shows a token.

A module of `pages/` is a group of pages; `pages/__init__.py` lists them.
"""

from pdp.console.application import console_application
from pdp.console.parts import ConsoleParts
from pdp.console.sign_in import LINK_SECONDS, sign_in_link

__all__ = ["LINK_SECONDS", "ConsoleParts", "console_application", "sign_in_link"]

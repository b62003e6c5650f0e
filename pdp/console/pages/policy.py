"""The policy as text."""

from typing import Final

from pdp.console.parts import ConsoleParts, Page, Shown, Visit

SECTIONS: Final = ("permissions", "resource_types", "roles", "routes")
CHARACTERS_MAX: Final = 256 * 1024


async def show(parts: ConsoleParts, _: Visit) -> Shown:
    """The document that `pdp export` gives, without people, grants and resources."""
    text, revision = await parts.blocking(lambda: parts.administrator.export(SECTIONS))
    values = {
        "text": text[:CHARACTERS_MAX],
        "is_cut": len(text) > CHARACTERS_MAX,
        "revision": revision,
        "sections": SECTIONS,
    }
    return Shown("policy.html", values)


PAGES = (Page("/policy", "policy", "Policy", show, in_menu=True),)

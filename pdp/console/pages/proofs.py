"""The proof that a decision or a change is in its log, as `pdp audit prove` prints it."""

from starlette.responses import Response

from pdp.audit.transparency import DamagedTreeError
from pdp.audit.transparency.notes import unverified_checkpoint
from pdp.audit.transparency.proofs import CHANGE_ID, find_in_sql, find_trees, prove_record
from pdp.console.parts import ConsoleParts, Page, Shown, Visit
from pdp.console.rendering import address
from pdp.errors import NotFound


async def show(parts: ConsoleParts, visit: Visit) -> Shown | Response:
    """A proof of inclusion, as a page or a file. The id of a change is REVISION/NUMBER."""
    id_, found, problem = visit.get("id"), "", ""
    try:
        found = await parts.blocking(lambda: _proof(parts, id_))
    except (DamagedTreeError, OSError) as error:
        problem = str(error)
    if found and visit.get("as") == "file":
        name = 'attachment; filename="record.tlog-proof"'
        return Response(found, media_type="text/plain", headers={"content-disposition": name})
    note = found.partition("\n\n")[2]
    is_change = CHANGE_ID.fullmatch(id_) is not None
    values = {
        "id": id_,
        "is_change": is_change,
        "within": "/changes" if is_change else "/decisions",
        "proof_text": found,
        "note": note,
        "checkpoint": unverified_checkpoint(note) if note else None,
        "problem": problem,
        "file": address("/proof", id=id_, **{"as": "file"}),
    }
    return Shown("proof.html", values)


def _proof(parts: ConsoleParts, id_: str) -> str:
    """Raises NotFound, DamagedTreeError, OSError, DatabaseUnavailable."""
    if parts.trees is None:
        raise DamagedTreeError("the log has no trees: audit_tree is not set")
    found = find_in_sql(parts.store.engine, id_)
    if not found:
        raise NotFound("record", id_)
    return prove_record(find_trees([parts.trees]), found[0])


PAGES = (Page("/proof", "proof", "Proof of inclusion", show),)

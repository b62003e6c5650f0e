"""A session of the console while the database is away, and after another server took over."""

from pathlib import Path

import psycopg
from sqlalchemy import URL, make_url

from examples.company import ANALYST, company
from pdp.database.migrations import migrate
from tests.kit.clusters import started_cluster
from tests.kit.console import running_console
from tests.kit.server import token_of
from tests.kit.waiting import eventually


def has_campaign(url: URL) -> bool:
    """Also of a server that takes no writes."""
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(text) as connection:
        found = connection.execute("SELECT count(*) FROM review_campaigns").fetchone()
    return found == (1,)


def test_a_session_ends_with_a_failover_and_nothing_is_shown_before(tmp_path: Path) -> None:
    with started_cluster() as cluster:
        primary = make_url(cluster.database())
        migrate(primary.render_as_string(hide_password=False))
        with cluster.standby() as standby:
            followed = make_url(standby.url).set(database=primary.database)
            hosts = [make_url(each.url).query["host"] for each in (cluster, standby)]
            both = primary.update_query_dict({"host": hosts})
            url = both.render_as_string(hide_password=False)
            made = company(1, 4, 2)
            with running_console(tmp_path, 0, made, DATABASE_URL=url) as console:
                visitor = console.signed_in()
                assert "user_harbor_0" in visitor.get("/people").text
                opened = {"proof": visitor.proof("/reviews"), "name": "Q4", "role": "APPROVER"}
                campaign = visitor.post("/campaigns", opened).headers["location"]
                verdict = {
                    "proof": opened["proof"],
                    "id": campaign.partition("id=")[2],
                    "item-1": "on",
                    "outcome": "revoked",
                    "reason": "left",
                }
                eventually(lambda: has_campaign(followed), what="the standby has the campaign")
                cluster.kill()
                away = visitor.get("/people")
                assert away.status_code == 503
                assert "user_harbor_0" not in away.text
                assert "pdp-console" in visitor.http.cookies, "it is not signed out either"
                assert visitor.post("/campaign/verdicts", verdict).status_code == 503
                standby.promote()
                eventually(
                    lambda: visitor.get("/people").status_code == 303,
                    seconds=30,
                    what="the session has ended: the new server may lack a sign-out",
                )
                eventually(
                    lambda: visitor.sign_in(token_of(ANALYST)).status_code == 303,
                    seconds=30,
                    what="signing in works again",
                )
                assert "user_harbor_0" in visitor.get("/people").text
                # A form of before is refused; one of now decides about the same grant.
                assert visitor.post("/campaign/verdicts", verdict).status_code == 403
                assert "<b>revoked</b>" not in visitor.get(campaign).text
                verdict["proof"] = visitor.proof("/reviews")
                assert visitor.post("/campaign/verdicts", verdict).status_code == 303
                assert "<b>revoked</b>" in visitor.get(campaign).text

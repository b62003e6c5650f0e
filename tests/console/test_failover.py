"""A session of the console while the database is away, and after another server took over."""

from pathlib import Path

from sqlalchemy import make_url

from examples.company import ANALYST, company
from pdp.database.migrations import migrate
from tests.kit.clusters import started_cluster
from tests.kit.console import running_console
from tests.kit.server import token_of
from tests.kit.waiting import eventually


def test_a_session_ends_with_a_failover_and_nothing_is_shown_before(tmp_path: Path) -> None:
    with started_cluster() as cluster:
        primary = make_url(cluster.database())
        migrate(primary.render_as_string(hide_password=False))
        with cluster.standby() as standby:
            hosts = [make_url(each.url).query["host"] for each in (cluster, standby)]
            both = primary.update_query_dict({"host": hosts})
            url = both.render_as_string(hide_password=False)
            made = company(1, 4, 2)
            with running_console(tmp_path, 0, made, DATABASE_URL=url) as console:
                visitor = console.signed_in()
                assert "user_harbor_0" in visitor.get("/people").text
                cluster.kill()
                away = visitor.get("/people")
                assert away.status_code == 503
                assert "user_harbor_0" not in away.text
                assert "pdp-console" in visitor.http.cookies, "it is not signed out either"
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

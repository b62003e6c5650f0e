"""What Django's querysets take of `odd_values.py`, as JSON: lists of ids by database.

python -m tests.kit.filters.django_odd_values DIRECTORY POSTGRESQL_URL
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings
from pdp_client.plans import FilterUnsupported, Plan
from pdp_filters import Compare, Field, Operator
from sqlalchemy import create_engine, make_url

from tests.kit.filters.odd_values import PLANS, TYPE, fill


def main(directory: str, postgresql: str) -> None:
    file = f"{directory}/rows.db"
    url = make_url(postgresql)
    server = {"NAME": url.database, "USER": url.username, "HOST": url.query.get("host", url.host)}
    settings.configure(
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": file},
            "postgresql": {"ENGINE": "django.db.backends.postgresql", **server},
        },
    )
    django.setup()
    from django.db import models
    from pdp_client.django_orm import q, register

    class Priced(models.Model):
        id = models.IntegerField(primary_key=True)
        price = models.DecimalField(null=True, max_digits=9, decimal_places=2)
        score = models.FloatField(null=True)
        code = models.TextField()
        made = models.DateTimeField(null=True)

        class Meta:
            app_label = "filters"
            managed = False
            db_table = "priced"

    names = ("price", "score", "code", "made")
    register(Priced, TYPE, id="id", attributes={name: name for name in names})
    with create_engine(f"sqlite:///{file}").connect() as connection:
        fill(connection)
    found = {
        name: [
            list(
                Priced.objects.using(name)
                .filter(q(plan, Priced))
                .order_by("id")
                .values_list("id", flat=True)
            )
            for plan in PLANS
        ]
        for name in ("default", "postgresql")
    }
    sys.stdout.write(json.dumps({"taken": found, "refused": _refusal(q, Priced)}))


def _refusal(q: Callable[[Plan, type], Any], model: type) -> str:
    """How a column of times is refused."""
    made = Compare(Operator.LESS, Field(("attributes", "made")), "2026")
    try:
        q(Plan(f"{TYPE}:view", TYPE, made), model)
    except FilterUnsupported as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What Django's querysets take of `odd_values.py`, as JSON: lists of ids by database.

python -m tests.kit.filters.django_odd_values DIRECTORY POSTGRESQL_URL
"""

import json
import sys

import django
from django.conf import settings
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

        class Meta:
            app_label = "filters"
            managed = False
            db_table = "priced"

    register(Priced, TYPE, id="id", attributes={n: n for n in ("price", "score", "code")})
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
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

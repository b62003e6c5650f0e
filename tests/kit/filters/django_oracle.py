"""Holds Django's querysets against decisions, in a process of its own: Django's settings are made
once in each.

    python -m tests.kit.filters.django_oracle DIRECTORY POSTGRESQL_URL
"""

import sys
from collections import Counter
from random import Random

import django
from django.conf import settings
from sqlalchemy import create_engine, make_url

from tests.kit.filters.oracle import (
    CASES_PER_ROWS,
    SEEDS,
    allowed_of,
    assert_not_degenerate,
    kind_of,
)
from tests.kit.filters.tables import Base, put
from tests.kit.filters.worlds import plan_of, random_case, random_rows, received


def main(directory: str, postgresql: str) -> None:
    file = f"{directory}/rows.db"
    url = make_url(postgresql)
    server = {"NAME": url.database, "USER": url.username, "HOST": url.query.get("host", url.host)}
    settings.configure(
        INSTALLED_APPS=["tests.kit.filters"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": file},
            "postgresql": {"ENGINE": "django.db.backends.postgresql", **server},
        },
    )
    django.setup()
    from pdp_client.django_orm import q

    from tests.kit.filters.django_models import Lesson

    engines = [
        create_engine(f"sqlite:///{file}"),
        create_engine(url.set(drivername="postgresql+psycopg")),
    ]
    for engine in engines:
        Base.metadata.create_all(engine)
    found: Counter[str] = Counter()
    for seed in SEEDS:
        random = Random(seed)
        rows, above = random_rows(random)
        for engine in engines:
            with engine.begin() as connection:
                put(connection, rows, above)
        for _ in range(CASES_PER_ROWS):
            case = random_case(random, rows, above)
            plan = received(plan_of(case), case)
            allowed = allowed_of(case)
            found["superset" if plan.check_each_row else "exact"] += 1
            found[kind_of(allowed, rows)] += 1
            condition = q(plan, Lesson)
            for name in ("default", "postgresql"):
                query = Lesson.objects.using(name).filter(condition)
                taken = list(query.values_list("id", flat=True))
                fits = allowed <= set(taken) if plan.check_each_row else allowed == set(taken)
                assert fits, f"seed {seed} on {name}: {taken}, not {allowed}: {query.query}"
                assert len(taken) == len(set(taken))
    assert_not_degenerate(found)
    sys.stdout.write(f"{len(SEEDS) * CASES_PER_ROWS} worlds\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

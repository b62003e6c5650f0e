"""A store on either engine."""

import pytest
from sqlalchemy import Engine

from pdp.facts import Store


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine)

"""Run by Alembic: applies the revisions on the connection, and within the transaction, that
`migrate` made."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()

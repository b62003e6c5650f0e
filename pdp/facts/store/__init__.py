"""The SQL part: tables, entities, the log of changes. It never imports `replica`.

Reads and writes are the same code for every kind of entity: `store.py`, by the tables that
`rows.py` names. `loader.py` reads what a decision needs. `clerk_objects.py` keeps Clerk's
own objects, from which memberships and users follow.
"""

"""SQL databases: how one is opened, what its errors become, and the history of the schema.

Shared by `facts` and `audit`, whose tables are in one database.
"""

"""SQL databases: opening them, translating their errors, and the migrations of the schema.

Used by `facts` and `audit`, whose tables are in the same database.
"""

"""Row-level security: the policy as one SQL migration for PostgreSQL.

In:  a policy, a configuration that says which table is which resource type, and the catalog of the
     database that holds both the decision point's tables and the application's.
Out: SQL that makes PostgreSQL show and take exactly the rows for which Check allows; and findings
     about a database where that no longer holds.

Never: changes a database. An operator applies the migration.

Invariants:
1. No actor, no rows. An actor that Check refuses has no rows either.
2. Rules, roles and resource types are compiled in; users, memberships, grants and revoked sessions
   are read when a statement runs.
3. What cannot be compiled exactly is refused by name.
4. Every name and text that comes from a policy or a configuration is quoted in `sql`, nowhere else.
"""

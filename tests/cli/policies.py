"""A policy with findings for `pdp lint`."""

LINTED = """permissions: [course:edit]
roles:
  A: {allow: [course:edit]}
  B: {}
grants:
  # lint: silence grant-never-ends: staff
  - {role: A, user: u, organization: o}
"""

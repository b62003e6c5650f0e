"""A policy with findings for `pdp lint`."""

LINTED = """permissions: [course:edit]
roles:
  A: {allow: [course:edit]}
  B: {}
grants:
  # lint: silence grant-never-ends: staff
  - {role: A, user: u, organization: o}
"""

CANDIDATE = """\
version: 1
permissions:
  course:create: Add a course
  course:view: See a course
  course:edit: Change a course
  course:delete: Remove a course
  lesson:view: See a lesson
  report:view: See the school's reports
roles:
  ADMIN: {allow: ["course:*"]}
  INSTRUCTOR:
    inherits: [STUDENT]
    allow:
      - course:create
      - permission: course:edit
        when: "!has(resource.attributes.archived)"
  STUDENT: {allow: [course:view, lesson:view]}
"""
"""A candidate for the policy of the school."""

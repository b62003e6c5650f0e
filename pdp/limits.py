"""Every bound that a request meets, by name. Exceeding one is `errors.LimitExceeded`,
which says the name, the bound and the value; a token past its bound is a denial instead."""

TOKEN_BYTES_MAX = 8 * 1024
BATCH_ITEMS_MAX = 1_000
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
METADATA_BYTES_MAX = 16 * 1024
IDENTIFIER_CHARACTERS_MAX = 256
NAME_CHARACTERS_MAX = 128
DESCRIPTION_CHARACTERS_MAX = 1_024
REASON_CHARACTERS_MAX = 500
"""Of the reason that a write gives."""
ATTRIBUTE_DEPTH_MAX = 16
ATTRIBUTE_NODES_MAX = 1_000
ATTRIBUTE_BYTES_MAX = 64 * 1024
CONDITION_CHARACTERS_MAX = 4_096
CONDITION_COST_MAX = 5_000
"""Of all conditions of one question together, in microseconds of one core, roughly."""
CONDITION_COST_UNCHARGED_MAX = 1_250
"""A condition that cannot cost more than this, whatever is sent or stored, is not charged."""
PLAN_NODES_MAX = 10_000
"""Nodes and values of the filter of a plan: ids of granted resources, elements of known lists."""
RESOURCE_DEPTH_MAX = 16
ROLE_DEPTH_MAX = 32
PAGE_ITEMS_DEFAULT = 100
PAGE_ITEMS_MAX = 1_000
DOCUMENT_BYTES_MAX = 64 * 1024 * 1024
"""Of a policy document, as it is exported and applied: some 600,000 users."""
APPLY_BYTES_MAX = DOCUMENT_BYTES_MAX + 64 * 1024
"""Of a request that applies one. The listener `grpc` takes MESSAGE_BYTES_MAX of any request."""
DOCUMENT_CHANGES_MAX = 10_000
"""How many changes of a document an answer names; the others are counted."""
DOCUMENT_DEPTH_MAX = 32
VIOLATIONS_MAX = 100
REPORT_FRAMES_MAX = 1_000
REPORT_BYTES_MAX = 2 * 1024 * 1024
REPORT_RECORD_BYTES_MAX = 16 * 1024
CONNECTIONS_MAX = 4_096
"""Open connections of the gRPC port of a process."""
STREAMS_MAX = 256
"""Requests at once on one connection."""
WINDOW_BYTES = 256 * 1024
"""Of a request's body that a client may send before it is read."""
RPCS_PER_THREAD_MAX = 32
"""Requests at once in a process, for each thread of the pool."""

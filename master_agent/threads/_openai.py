"""What the wires take of `master_agent.openai_server`, which they share with the pictures by OpenAI."""

from master_agent.openai_server import (
    OPENAI,
    QUOTED,
    Deadline,
    RefusedRequestError,
    Said,
    Server,
    read_said,
    request_options,
    retry_after,
    sendable,
    usage_of,
)

__all__ = [
    "OPENAI",
    "QUOTED",
    "Deadline",
    "RefusedRequestError",
    "Said",
    "Server",
    "read_said",
    "request_options",
    "retry_after",
    "sendable",
    "usage_of",
]

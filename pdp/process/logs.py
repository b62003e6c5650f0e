"""Structured logs on standard error: JSON lines for machines, colours for people."""

import logging
import sys

import structlog

from pdp.printable import printable


def configure_logs(level: str, form: str) -> None:
    """Sets up structlog, and sends the warnings of libraries through the same renderer.

    Args:
        level: The lowest level that is logged: `debug`, `info`, `warning` or `error`.
        form: `json` or `console`.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else _PlainRenderer(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    # Below WARNING libraries log their requests, which may contain tokens.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


class _PlainRenderer:
    """Renders for a terminal, with non-printable characters escaped: some values (paths, ids,
    messages) are untrusted."""

    def __init__(self, renderer: structlog.dev.ConsoleRenderer) -> None:
        self._renderer = renderer

    def __call__(
        self,
        logger: structlog.typing.WrappedLogger,
        name: str,
        event_dict: structlog.typing.EventDict,
    ) -> str:
        return self._renderer(
            logger, name, {key: _plain(key, value) for key, value in event_dict.items()}
        )


def _plain(key: str, value: object) -> object:
    """A value with its texts escaped. Other values are rendered with `repr`, which escapes."""
    if not isinstance(value, str):
        return value
    if key in {"exception", "stack"}:
        # A traceback has lines. Its last ones repeat untrusted text, so lines are indented.
        return "\n  ".join(map(printable, value.split("\n")))
    return printable(value)

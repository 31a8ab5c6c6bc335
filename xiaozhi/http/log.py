"""What the HTTP library writes into the log about requests that are no HTTP: nothing, by default."""

import logging

from aiohttp.http_exceptions import HttpProcessingError

_LIBRARY = "aiohttp.server"


class _NoStrangersTracebacks(logging.Filter):
    """Port scanners and broken clients would fill the log, a traceback for each request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything else through."""
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def quiet_bad_requests() -> None:
    """Log no traceback for a request that cannot be parsed; it is answered with 400 all the same."""
    logger = logging.getLogger(_LIBRARY)
    if not any(isinstance(one, _NoStrangersTracebacks) for one in logger.filters):
        logger.addFilter(_NoStrangersTracebacks())

"""A turn is over: its record goes to whoever wants it."""

import logging

from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.services import Services
from xiaozhi.turn.trace import TurnTrace

_turns = logging.getLogger("xiaozhi.turn")


def report_turn(services: Services, link: DeviceLink, device_id: str, trace: TurnTrace) -> None:
    """Tell the listeners of the process, the log and a client that asked for records; words only where wanted."""
    for listener in services.on_turn:
        listener(device_id, trace)
    record = trace.message()
    words = {"heard": trace.heard, "said": trace.said} if services.settings.log.transcripts else {}
    _turns.info("turn", extra={"device": device_id, **trace.summary(), **words})
    _turns.debug("trace", extra={"device": device_id, **{key: record[key] for key in record if key != "type"}})
    link.trace(record)

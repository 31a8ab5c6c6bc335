"""A turn is over: what was heard of it goes into the history, and its record to whoever wants it."""

import logging
from collections.abc import Callable, Sequence

from xiaozhi.conversation.context import ConversationContext
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.engines import Engines
from xiaozhi.conversation.planning import InHistory
from xiaozhi.conversation.reply import Reply
from xiaozhi.turn.trace import TurnTrace

_turns = logging.getLogger("xiaozhi.turn")


class TurnRecords:
    """Keeps one conversation's turns.

    Args:
        engines: whether the log may hold words.
        context: keeps what was heard.
        listeners: told of every turn: whose it was and its record.
        link: to a client that asked for records; words only where wanted.
        device_id: for the log.
    """

    def __init__(
        self,
        engines: Engines,
        context: ConversationContext,
        listeners: Sequence[Callable[[str, TurnTrace], None]],
        link: DeviceLink,
        device_id: str,
    ) -> None:
        self._engines = engines
        self._listeners = listeners
        self._context = context
        self._link = link
        self._device_id = device_id

    def over(self, reply: Reply) -> None:
        """A reply is over, whoever began it; one that was never committed leaves nothing behind.

        A device that is frozen or out of range takes nothing, and hears nothing, long before it is found out.
        """
        trace, plan = reply.trace, reply.plan
        if not reply.committed:
            return
        if plan.in_history is InHistory.ALWAYS or (
            plan.in_history is InHistory.BROKEN_OFF and trace.interrupted is not None
        ):
            untaken_ms = self._link.untaken_ms(trace.generation)
            heard_ms = min(reply.pacer.played_ms(), reply.pacer.sent_ms - untaken_ms)
            self._context.add(trace, reply.pacer.spoken(), heard_ms, cut=untaken_ms > 0.0)
            if not plan.unasked:
                self._tell(trace)
        elif not plan.unasked:
            self.unheard(trace)

    def unheard(self, trace: TurnTrace) -> None:
        """A turn that is no part of the history: somebody has spoken and could not be understood."""
        self._context.skip_turn()
        self._tell(trace)

    def _tell(self, trace: TurnTrace) -> None:
        for listener in self._listeners:
            listener(self._device_id, trace)
        record = trace.message()
        words = {"heard": trace.heard, "said": trace.said} if self._engines.settings.log.transcripts else {}
        about = {"device": self._device_id}
        _turns.info("turn", extra={**about, **trace.summary(), **words})
        _turns.debug("trace", extra={**about, **{key: record[key] for key in record if key != "type"}})
        self._link.trace(record)

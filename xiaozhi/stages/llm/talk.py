"""What has become of one request to the endpoints so far: words, tries, errors. Asks nobody."""

import logging
from dataclasses import replace
from typing import Final

from xiaozhi.stages.llm.continuation import Seam
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta, RouteNote
from xiaozhi.text.complexity import Route
from xiaozhi.upstream.failure import FailureKind

_log = logging.getLogger(__name__)

# Endpoints asked without a new word of the reply, hedges not counted: by then somebody has waited for long enough.
_MAX_ATTEMPTS: Final = 4
# The same when the user already hears the beginning: a reply that ends in the middle is worse than a late one.
_MAX_TO_GO_ON: Final = 8
# Over a whole reply that breaks off again and again.
_MAX_IN_ALL: Final = 16
# Failures that say nothing about a second try at the same place, when there is no other.
_WORTH_ANOTHER_TRY: Final = frozenset({FailureKind.CONNECTION, FailureKind.BROKEN, FailureKind.NONSENSE})


class Talk:
    """One request, from its first question to the last word of its reply.

    Args:
        request: what is asked.
        route: the tier that should answer; None when there is nothing to choose.
        unfit: names of endpoints that cannot answer it, such as those whose model does not see.
    """

    def __init__(self, request: ChatRequest, route: Route | None, unfit: frozenset[str]) -> None:
        self.request = request
        self.route = route
        self.tiers: tuple[str, ...] = () if route is None else tuple(filter(None, (route.tier, route.fallback)))
        self.prefer = next((one.provider.endpoint for one in reversed(request.messages) if one.provider), "")
        """The endpoint whose thoughts are in the request: it alone can go on from them."""
        self.said = ""
        """The reply so far."""
        self.tried: set[str] = set(unfit)
        """Endpoints not to be asked now: those that are unfit, being asked, or failed."""
        self.asked = 0
        """Endpoints asked since the last new word, hedges not counted."""
        self.fell_out: set[str] = set()
        """Endpoints that could not answer."""
        self.called = False
        """It wants tools: what it says next will be the answer."""
        self.attempts = 0
        """Requests sent in all."""
        self.hedged = False
        """The time for company has come once."""
        self.with_hedge = False
        """There was company."""
        self.spoke: list[str] = []
        """Endpoints whose words these are, in order."""
        self.continued = 0
        """Times it broke off with something said already."""
        self._said_before = 0
        self._errors: list[str] = []
        self._worth_retrying: set[str] = set()

    @property
    def may_ask(self) -> bool:
        """Whether one more may be asked without a new word."""
        return self.asked < (_MAX_TO_GO_ON if self.said.strip() else _MAX_ATTEMPTS)

    @property
    def may_go_on(self) -> bool:
        """The same, and not too many have been asked over the whole reply."""
        return self.may_ask and self.attempts < _MAX_IN_ALL

    def started(self, name: str) -> None:
        """An endpoint is asked."""
        self.attempts += 1
        self.tried.add(name)

    def joined(self, seam: Seam, delta: Delta) -> Delta | None:
        """The delta as it follows on what was said; None when nothing is left of it."""
        text = seam.push(delta.text) if delta.text else ""
        if delta.tool_calls:
            self.called = True
            text += seam.flush()
        self.said += text
        if not text and not delta.tool_calls and not delta.calling:
            return None
        return replace(delta, text=text)

    def failed(self, name: str, error: ChatError) -> None:
        """An endpoint could not answer, or not to the end."""
        self._errors.append(str(error))
        self.fell_out.add(name)
        self._worth_retrying.discard(name)
        if error.kind in _WORTH_ANOTHER_TRY:
            self._worth_retrying.add(name)
        _log.info("%s (%s)", error, error.kind.value)

    def progressed(self) -> bool:
        """Whether anything has been said; where it is more than the last time, patience begins again."""
        before, self._said_before = self._said_before, len(self.said.strip())
        if self._said_before > before:
            self.asked = 1
        return self._said_before > 0

    def retry(self, name: str) -> None:
        """An endpoint may be asked once more when nobody else is left."""
        self._worth_retrying.add(name)

    def try_again(self) -> bool:
        """Nobody else is left: let those be asked once more whose failure may have been chance. Once or twice."""
        again, self._worth_retrying = self._worth_retrying, set()
        if not again or self.asked >= (3 if self.said else 2) * len(self.tried):
            return False
        self.tried -= again
        return True

    def error(self, otherwise: str = "no endpoint is well now") -> ChatError:
        """Why nobody answers."""
        return ChatError("; ".join(dict.fromkeys(self._errors)) or otherwise)

    def tell(self) -> None:
        """Say who answers."""
        route = str(self.route) if self.route is not None else ""
        note = RouteNote("+".join(self.spoke), route, self.attempts, self.with_hedge)
        _log.debug("answered by %s, %s, attempt %d", note.endpoint, route or "not routed", note.attempts)
        if self.request.on_note is not None:
            self.request.on_note(note)

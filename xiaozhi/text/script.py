"""A fixed text as the clauses that a voice speaks. Pure."""

from dataclasses import replace

from xiaozhi.events import Clause
from xiaozhi.text.clauses import ClauseSplitter
from xiaozhi.text.emotions import emotion_in
from xiaozhi.text.language import language_of
from xiaozhi.text.markup import Markup
from xiaozhi.text.speakable import cleaned


def script_of(text: str, *, language: str = "", emotion: str = "") -> list[Clause]:
    """Cut a text into clauses, the first with the emotion; empty where nothing of it can be spoken.

    Args:
        text: what to say; an emoji at its beginning is its emotion, as in a model's reply.
        language: of a text that does not show its own; Chinese when empty.
        emotion: one of the 21 names; empty takes the emoji's, or `neutral`.
    """
    markup, splitter = Markup(), ClauseSplitter()
    clauses: list[Clause] = []
    silent = ""  # what is only shown, with the next clause
    for raw in [*splitter.push(markup.push(text) + markup.flush()), *splitter.flush()]:
        emotion = emotion or emotion_in(raw)
        shown, speech = cleaned(raw, language=language)
        shown = f"{silent} {shown}".strip()
        if speech:
            spoken = language_of(speech, default=language or "zh")
            clauses.append(Clause(shown, speech, spoken, "" if clauses else emotion or "neutral"))
        silent = "" if speech else shown
    if clauses and silent:
        clauses[-1] = replace(clauses[-1], text=f"{clauses[-1].text} {silent}")
    return clauses

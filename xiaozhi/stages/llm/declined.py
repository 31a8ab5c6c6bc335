"""What providers say when they do not want to answer a question: no failure, and another one would be answered.

The words are those of the providers' own documents: Azure, OpenAI, Gemini, OpenRouter, Qwen (`data_inspection_failed`),
Zhipu (reason `sensitive`, error 1301), Moonshot (`high risk`), DeepSeek (`Content Exists Risk`), MiniMax
(`new_sensitive`), Doubao (`SensitiveContentDetected`), Baidu, Hunyuan and Spark (in Chinese).
"""

import re
from typing import Final

_REASON: Final = re.compile(
    r"filter|sensitive|safety|refus|prohibit|recitation|block|spii|moderat|risk|violat|censor|inspect", re.IGNORECASE
)
_ERROR: Final = re.compile(
    r"content[ _-]?(?:filter|polic|management|moderation|exists)|data[ _]?inspection|inappropriate|unsafe"
    r"|(?<!case[ -])sensitive|high[ _-]risk|requires moderation|is flagged|was flagged|flagged by|censor"
    r"|prohibited_content|responsible ?ai|safety (?:system|filter|polic|setting)"
    r"|敏感|不安全|违规|违禁|不当|审核不|风控",
    re.IGNORECASE,
)
_STATUSES: Final = frozenset({400, 403, 422, 451})


def declined_by_reason(reason: str) -> bool:
    """Whether a `finish_reason` says that the answer was withheld."""
    return _REASON.search(reason) is not None


def declined_by_error(error: object, status: int = 400) -> bool:
    """Whether an error is about what was asked or answered.

    Args:
        error: the error object, or its text.
        status: of the HTTP response.
    """
    return status in _STATUSES and _ERROR.search(str(error)[:2000]) is not None

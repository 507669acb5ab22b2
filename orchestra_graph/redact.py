"""What looks like a key or a password: refused in files, hidden in errors."""

from __future__ import annotations

import re
from typing import Final

SECRET_KEY: Final = re.compile(r"(?i)(api[_-]?key|secret|password|token|authorization)$")
"""Names of fields that hold a secret."""

_STARTS: Final = r"sk-|sk_|pk-|hf_|gh[pousr]_|github_pat_|gsk_|tvly-|nvapi-|lsv2_|xox[a-z]-|xai-|AIza|AKIA"

SECRET_VALUE: Final = re.compile(rf"(?i:bearer\s+)\S+|({_STARTS})[A-Za-z0-9_-]{{8,}}|[a-z]+://[^/\s]*:[^/\s]*@.*")
"""A value that is a secret, or holds one, as a whole."""

_IN_TEXT: Final = re.compile(
    rf"(?i:\b(?:bearer|basic)\s+)[^\s'\",;]{{8,}}|(?<![A-Za-z0-9_-])(?:{_STARTS})[A-Za-z0-9_-]{{8,}}|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
    r"|([?&](?i:[\w.-]*(?:key|secret|password|token|appid|sig|signature)=))[^\s&'\"#]+"
)
"""What is hidden; of a URL's query the value, so that the name in the one group still says which it was."""
_HIDDEN: Final = "[secret]"


def hide_secrets(text: str) -> str:
    """A text without the keys and passwords in it, as far as they can be told by their form.

    Example:
        >>> hide_secrets("401: no such key sk-abcdefgh12345678")
        '401: no such key [secret]'
    """
    return _IN_TEXT.sub(rf"\1{_HIDDEN}", text)

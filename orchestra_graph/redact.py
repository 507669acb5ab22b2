"""What looks like a key or a password: refused in files, hidden in errors."""

from __future__ import annotations

import re
from typing import Final

SECRET_KEY: Final = re.compile(r"(?i)(api[_-]?key|secret|password|token|authorization)$")
"""Names of fields that hold a secret."""

_STARTS: Final = r"sk-|sk_|pk-|hf_|gh[pousr]_|github_pat_|gsk_|tvly-|nvapi-|lsv2_|xox[a-z]-|xai-|AIza|AKIA"

SECRET_VALUE: Final = re.compile(rf"(?i:bearer\s+)\S+|({_STARTS})[A-Za-z0-9_-]{{8,}}|[a-z]+://[^/\s]*:[^/\s]*@.*")
"""A value that is a secret, or holds one, as a whole."""

_END: Final = r"\s'\",;"
_NO_WORD: Final = rf"(?=[^\d{_END}]*\d|(?:[^a-z{_END}]*[a-z][^A-Z{_END}]*[A-Z]){{2}}|[^={_END}]*={{1,2}}(?:[{_END}]|$))"
"""Digits, capitals within or base64's end: the basic operation and a bearer certificate are none."""

_IN_TEXT: Final = re.compile(
    rf"(?P<header>(?i:authorization)\W{{1,5}}(?:b['\"])?)(?i:bearer|basic)\s+[^{_END}]{{8,}}"
    rf"|(?i:\b(?:bearer|basic)\s+){_NO_WORD}[^{_END}]{{8,}}"
    rf"|(?<![A-Za-z0-9_-])(?:{_STARTS})[A-Za-z0-9_-]{{8,}}"
    # Of a URL all before the last @ of its host; a name alone is a secret in the web only.
    r"|(?<=://)[^/\s'\":@?#]*:[^/\s'\"]+(?=@)|(?:(?<=http://)|(?<=https://))[^/\s'\"?#]+(?=@)"
    r"|(?P<field>[?&](?i:[\w.-]*(?:key|secret|password|token|appid|sig|signature)=))[^\s&'\"#]+"
)
"""What is hidden, behind the name in one of the groups, which still says what it was."""
_HIDDEN: Final = "[secret]"


def hide_secrets(text: str) -> str:
    """A text without the keys and passwords in it, as far as they can be told by their form.

    Example:
        >>> hide_secrets("401: no such key sk-abcdefgh12345678")
        '401: no such key [secret]'
    """
    return _IN_TEXT.sub(rf"\g<header>\g<field>{_HIDDEN}", text)

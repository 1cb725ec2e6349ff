"""Finds API keys of Email Bison: a plugin of detect-secrets, which loads this file by its path."""

import re

from detect_secrets.plugins.base import RegexBasedDetector


class EmailBisonKeyDetector(RegexBasedDetector):
    """A number, a pipe, and the 40 letters and digits or more of a key."""

    secret_type = "API key of Email Bison"  # noqa: S105 - the name of a kind
    denylist = (re.compile(r"\b\d{1,9}\|[A-Za-z0-9]{40,}\b"),)

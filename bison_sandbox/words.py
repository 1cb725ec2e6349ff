"""Variants and faults as somebody types them on the command line."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from bison_sandbox.faults import KINDS, Fault, fault_from
from bison_sandbox.options import SandboxError
from bison_sandbox.requests import InvalidError
from bison_sandbox.variants import Variants


def manners_from_words(words: Sequence[str]) -> Variants:
    """Variants from texts `NAME=VALUE`; later ones win.

    Raises SandboxError, which names the values allowed.
    """
    variants = Variants()
    defaults = asdict(variants)
    for word in words:
        values = {
            name: _like(defaults.get(name), text) for name, text in _pairs([word], word).items()
        }
        try:
            variants = variants.changed(values)
        except InvalidError as error:
            raise _refused(word, error) from error
    return variants


def fault_from_words(text: str) -> Fault:
    """A fault from a text `KIND name=value …`, quoted as for a shell.

    A value is read as JSON where the option is not a text and the value can be read so. Raises
    SandboxError, which names what is allowed.
    """
    try:
        kind, *words = shlex.split(text) or [""]
    except ValueError as error:
        raise SandboxError(f"The sandbox can't take {text!r}: its quotes don't match.") from error
    values = {
        name: value if name in _text_options(kind) else _json_or_text(value)
        for name, value in _pairs(words, text).items()
    }
    try:
        return fault_from({**values, "kind": kind})
    except InvalidError as error:
        raise _refused(text, error) from error


def _pairs(words: Iterable[str], text: str) -> Mapping[str, str]:
    pairs = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise SandboxError(f"The sandbox can't take {text!r}: {word!r} is not NAME=VALUE.")
        pairs[name] = value
    return pairs


def _refused(text: str, error: InvalidError) -> SandboxError:
    sentences = [sentence for each in (error.errors or {}).values() for sentence in each]
    return SandboxError(f"The sandbox can't take {text!r}. {' '.join(sentences)}")


def _like(default: object, text: str) -> object:
    """A text as the kind of value that a variant has; the text itself where it is none."""
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text, text)
    if isinstance(default, float):
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _text_options(kind: str) -> set[str]:
    fields = KINDS.get(kind, Fault).model_fields
    return {name for name, field in fields.items() if field.annotation in (str, str | None)}


def _json_or_text(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value

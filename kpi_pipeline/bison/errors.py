"""What can go wrong with a call, each as a sentence for the person who can mend it."""

# The names say what happened; all of them are errors, so "Error" would only lengthen them.
# ruff: noqa: N818


class BisonError(Exception):
    """A call to Email Bison that gave no usable answer.

    `client` is the workspace's slug, or "instance NAME" where the call concerns no single client;
    `call` is the method and path; `remedy` says what to do next. No key ever stands in it.
    """

    def __init__(self, client: str, call: str, what: str, remedy: str) -> None:
        super().__init__(client, call, what, remedy)
        self.client = client
        self.call = call
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.client}: {self.call} {self.what}. {self.remedy}."


class RejectedKey(BisonError):
    """The key is not valid, or not for this workspace (401, 403)."""


class MissingKey(BisonError):
    """There is no key to call with: the client has none, and the instance no master key."""


class WrongWorkspace(BisonError):
    """The key acts in another workspace than the registry says."""


class WorkspaceGone(BisonError):
    """The workspace does not exist any more (404)."""


class RateLimited(BisonError):
    """Too many calls (429), still after the last try.

    `alone_seconds` is how long this client alone is to wait; 0 where the pacing holds back all.
    """

    alone_seconds = 0.0


class Unavailable(BisonError):
    """Time-outs, broken connections, 408 or 5xx, still after the last try."""


class MalformedAnswer(BisonError):
    """An answer that can't be believed: no JSON, another shape, or a failure told with 200."""


class RefusedRequest(BisonError):
    """The request itself was refused: a redirect or any other 4xx, such as 422.

    `status` is the HTTP status; `message` is what the server said, cleaned and cut short.
    """

    def __init__(
        self, client: str, call: str, what: str, remedy: str, status: int, message: str
    ) -> None:
        super().__init__(client, call, what, remedy)
        self.args = (client, call, what, remedy, status, message)
        self.status = status
        self.message = message

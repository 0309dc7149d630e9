"""Every exception that groschen raises on purpose.

Each message says what was found, what was expected and what to do. The command line prints it as one sentence
and exits with `exit_status`; anything else that escapes is a bug and keeps its traceback.
"""


class GroschenError(Exception):
    """Something failed for a reason that the user can act on."""

    exit_status = 1


class BadFile(GroschenError):
    """A checkpoint, tokenizer or data file is missing, truncated, corrupt or does not fit its neighbours."""


class Unsupported(GroschenError):
    """A setting, architecture or field that is not honoured here; the message names it."""


class DoesNotFit(GroschenError):
    """The memory of this machine or the context of the model is too small for what was asked."""


class BadRequest(GroschenError):
    """A request or a setting is out of its range or contradicts another one.

    field: the name of the setting, where one alone is to blame; None where the message is all there is.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class VerifierFailed(GroschenError):
    """A task's verifier gave errors instead of verdicts, so often that nothing can be said."""


class UsageError(GroschenError):
    """The command line was used wrongly: an unknown flag, a missing argument."""

    exit_status = 2

"""The one exception that is meant to be read by a person."""


class UserError(Exception):
    """Something the user can mend.

    The text says what happened, where, and what to do next. Commands print it as one sentence and exit
    with code 1; a service that can go on without the thing reports it on its health topic instead.
    """


def no_space(path: object) -> UserError:
    """The error for a full disk (ENOSPC) met while writing ``path``."""
    return UserError(
        f"the disk that holds {path} is full; nothing half-written was left behind: "
        "free some space and try again"
    )

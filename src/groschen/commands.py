"""Commands of this program as text that can be pasted into a shell, whatever a path holds."""

import shlex


def command(*words: object) -> str:
    """The command line `groschen WORD...`, each word quoted where a shell would read it otherwise."""
    return shlex.join(["groschen", *map(str, words)])

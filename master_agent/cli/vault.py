"""Keys in the keyring of the system: a variable's name goes in, its key comes out, or None where there is no keyring.

The package `keyring` is an extra, imported when a key is looked up that stands nowhere else. A keyring that is shut,
broken or not there counts as one that holds nothing.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec

from master_agent.errors import SettingsError

SERVICE = "master-agent"


def lookup() -> Callable[[str], str | None] | None:
    """What looks a key up; None where the extra is not installed, or keyring's own variable turns it off."""
    off = os.environ.get("PYTHON_KEYRING_BACKEND", "").startswith(("keyring.backends.fail", "keyring.backends.null"))
    return None if off or find_spec("keyring") is None else _get


def usable() -> bool:
    """Whether there is a keyring that keys can be put into."""
    if lookup() is None:
        return False
    from keyring import get_keyring
    from keyring.backends import fail, null

    with suppress(Exception):  # a backend may raise anything while it looks for its service
        return not isinstance(get_keyring(), fail.Keyring | null.Keyring)
    return False


def put(variable: str, key: str) -> None:
    """Puts a key into the keyring; SettingsError when it does not take it."""
    import keyring

    try:
        keyring.set_password(SERVICE, variable, key)
    except Exception as error:  # each backend has errors of its own; their words may not hold the key
        said = type(error).__name__
        raise SettingsError(f"the keyring did not take {variable} ({said})", hint="Put it into .env instead.") from None


def _get(variable: str) -> str | None:
    with suppress(Exception):  # no service, no session, a person who says no: then the key is not there
        import keyring

        return keyring.get_password(SERVICE, variable)
    return None

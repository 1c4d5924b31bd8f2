"""What a message says of the user's values and exceptions: in any case something.

The user's classes may say nothing, or raise when they are asked: no error may be lost to that.
"""

# What to do where nothing awaits.
AWAIT = "await within a plain function, as asyncio.run does (map_async and agents are not built yet)"
# Of a value in a message.
_CHARS_MAX = 100


def words(error: BaseException) -> str:
    """What an exception says; its class's name where that is nothing."""
    try:
        return str(error) or type(error).__name__
    except Exception as another:  # noqa: BLE001 - the user's __str__
        return f"{type(error).__name__}, whose own text raises {type(another).__name__}"


def shown(value: object, chars_max: int = _CHARS_MAX) -> str:
    """A value as its class shows it, cut after `chars_max`; its class's name where that raises."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the user's __repr__
        text = f"a {type(value).__name__}"
    return text if len(text) <= chars_max else text[:chars_max] + "…"

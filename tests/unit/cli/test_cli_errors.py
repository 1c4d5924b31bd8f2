"""What an error says, and its exit code."""

from typing import Any

import pytest

from tailrace.cli.errors import CommandError, NotFoundError, UsageError, exit_code_of, message_of, report, user_place
from tailrace.log.errors import (
    CorruptError,
    DiskFullError,
    FencedError,
    InvalidError,
    LogLockedError,
    TopicNotFoundError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("x"), 1),
        (InvalidError("x"), 1),
        (DiskFullError("x"), 1),
        (ValueError("x"), 1),
        (UsageError("x"), 2),
        (NotFoundError("x"), 3),
        (TopicNotFoundError("x"), 3),
        (FileNotFoundError(2, "No such file", "x"), 3),
        (CorruptError("x", file="f", position=0), 4),
        (LogLockedError("x", pid=1), 5),
        (FencedError("x"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code


def test_a_message_is_one_line() -> None:
    assert message_of(InvalidError("two\n  lines")) == "two lines"
    assert message_of(PermissionError(13, "Permission denied", "data")) == "data: Permission denied"


def raised(source: str, module: str) -> Exception:
    scope: dict[str, Any] = {"__name__": module}
    exec(compile(source, f"/home/user/{module}.py", "exec"), scope)  # the user's module
    try:
        scope["f"]()
    except (ValueError, ZeroDivisionError) as error:
        return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)  # without this frame
    raise AssertionError


def test_a_users_exception_names_file_and_line() -> None:
    error = raised("def f():\n    import json\n    return json.loads('{')\n", "shop")
    assert user_place(error) == "/home/user/shop.py:3"
    assert message_of(error).startswith("/home/user/shop.py:3: JSONDecodeError: ")


def test_a_syntax_error_names_its_place_once() -> None:
    with pytest.raises(SyntaxError) as caught:
        compile("x = 1\nif x\n", "/home/user/shop.py", "exec")
    assert message_of(caught.value) == "/home/user/shop.py:2: SyntaxError: expected ':'"


def test_a_module_in_a_folder_of_our_name_is_still_the_users() -> None:
    """Frames are judged by module, and a checkout may hold anything under its folder."""
    assert user_place(raised("def f():\n    1 / 0\n", "tailrace_shop")) == "/home/user/tailrace_shop.py:2"


def test_a_fault_of_ours_says_so() -> None:
    assert "--debug" in message_of(raised("def f():\n    1 / 0\n", "tailrace.log.x"))


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(raised("def f():\n    1 / 0\n", "shop"), debug=True) == 1
    assert "Traceback" in capsys.readouterr().err
    assert report(InvalidError("no"), debug=False) == 1
    assert capsys.readouterr().err == "error: no\n"

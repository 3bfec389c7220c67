"""What a call that must be refused says."""

from collections.abc import Callable

import pytest

from vqdna_jax.errors import InputError


def refusal(call: Callable, *arguments, error: type[Exception] = InputError, **keywords) -> str:
    """The message of the error that the call must raise, which is one line."""
    with pytest.raises(error) as refused:
        call(*arguments, **keywords)
    assert "\n" not in str(refused.value)
    return str(refused.value)

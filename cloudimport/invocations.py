"""Hearing when Lambda's first invocation has ended: after it the sandbox may be frozen for good.

Until then a thread has perhaps not run for a quarter of a second. AWS' runtime interface client asks for the
next event at that moment, by a method of its own that this stands in front of, once. Import budget: ``sys``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MODULE, _CLASS, _METHOD = "awslambdaric.lambda_runtime_client", "LambdaRuntimeClient", "wait_next_invocation"
#: The function of the client in whose course the handler runs.
_INVOKES = "handle_event_request"


def after_first(tell: Callable[[], None]) -> None:
    """Have ``tell`` called when an invocation has ended, where there is such a client: this one, or the next.

    It must not raise anything.
    """
    client: Any = getattr(sys.modules.get(_MODULE), _CLASS, None)
    original = getattr(client, _METHOD, None)
    if original is None:
        return
    own = vars(client).get(_METHOD)
    waits = [] if _is_invoked() else [None]  # the end of the initialisation, which is none of an invocation

    def wait_next_invocation(*arguments: Any, **options: Any) -> Any:
        if waits:
            waits.pop()
        elif vars(client).get(_METHOD) is wait_next_invocation:
            if own is None:
                delattr(client, _METHOD)
            else:
                setattr(client, _METHOD, own)
            tell()
        return original(*arguments, **options)

    setattr(client, _METHOD, wait_next_invocation)


def _is_invoked() -> bool:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == _INVOKES:
            return True
    return False

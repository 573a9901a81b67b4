"""The other end of :class:`~tracereplay.whatif.processes.Processes`: ``python -m tracereplay.whatif.worker``."""

from __future__ import annotations

import pickle
import traceback
from multiprocessing.connection import Connection

from tracereplay.replay.child import begin_child


def serve(pipe: Connection) -> None:
    """Answer calls until the other end hangs up."""
    pipe.send(None)
    while True:
        try:
            message = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(answer(message))


def answer(message: bytes) -> bytes:
    """What a call gives: (True, its result, "") or (False, its error, the traceback)."""
    try:
        fn, args, kwargs = pickle.loads(message)
        return pickle.dumps((True, fn(*args, **kwargs), ""))
    except Exception as error:  # whatever it is, it is raised at the other end
        told = "".join(traceback.format_exception(error))
        try:
            made = pickle.dumps((False, error, told))
            pickle.loads(made)  # an error whose arguments are not its message fails here only
        except Exception:
            made = pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}"), told))
        return made


if __name__ == "__main__":
    serve(begin_child())

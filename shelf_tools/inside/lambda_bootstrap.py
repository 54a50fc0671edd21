"""Starts a Python runtime in a Lambda-like sandbox: AWS' interface client if it is there, else ours.

It stands at /var/runtime/bootstrap.py. ``bootstrap_prelude.py`` beside it runs before the handler's module is
imported.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def _complete_path() -> None:
    """Put the function's folder first, then those of the layers, as the managed runtimes do.

    As there, a function (or a wrapper) that sets ``PYTHONPATH`` has to name the layers' folders itself.
    """
    if "PYTHONPATH" not in os.environ:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        sys.path[:0] = [f"/opt/python/lib/{version}/site-packages", "/opt/python"]
        os.environ["PYTHONPATH"] = os.environ["LAMBDA_RUNTIME_DIR"]
    sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])


def _prelude() -> None:
    path = os.path.join(HERE, "bootstrap_prelude.py")
    if os.path.isfile(path):
        with open(path) as file:
            exec(compile(file.read(), path, "exec"), {"__name__": "prelude"})


def main() -> None:
    """Serve invocations for good."""
    _complete_path()
    if not os.path.isdir(os.path.join(HERE, "awslambdaric")):
        import lambda_runtime  # beside this script

        lambda_runtime.main(_prelude)
    _prelude()
    from awslambdaric import bootstrap

    root, handler, address = (
        os.environ[name] for name in ("LAMBDA_TASK_ROOT", "_HANDLER", "AWS_LAMBDA_RUNTIME_API")
    )
    arguments = bootstrap.run.__code__.co_varnames[: bootstrap.run.__code__.co_argcount]
    if "lambda_runtime_client" in arguments:  # since 3.0
        from awslambdaric.lambda_runtime_client import LambdaRuntimeClient

        bootstrap.run(handler=handler, lambda_runtime_client=LambdaRuntimeClient(address))
    else:
        bootstrap.run(root, handler, address)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-only
"""Entry point when the directory itself is run: ``/usr/bin/python3 /path/to/collectors ARGS``.

The directory is loaded as package ``collectors`` whatever its name, and leaves ``sys.path``: its module
names must not shadow anyone's.
"""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def _load_package() -> None:
    if "collectors" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "collectors", str(HERE / "__init__.py"), submodule_search_locations=[str(HERE)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["collectors"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != HERE]
    _load_package()
    from collectors.command import main

    sys.exit(main(sys.argv[1:]))

"""The version of this package, as `pyproject.toml` has it.

Written here too: to ask `importlib.metadata` costs more than a request.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"

"""The names that the package exports: there, lazy, and of no module."""

import pkgutil
import subprocess
import sys

import pytest

import sharedattn as sa


def test_every_exported_name_is_there():
    for name in sa.__all__:
        assert getattr(sa, name) is getattr(sa, name)
        assert name in dir(sa)
    assert sa.__all__ == sorted(sa.__all__)
    with pytest.raises(AttributeError, match="module 'sharedattn' has no attribute 'Nothing'"):
        sa.Nothing  # noqa: B018


def test_no_module_bears_an_exported_name():
    modules = {module.name for module in pkgutil.iter_modules(sa.__path__)}
    assert {"search", "costs"} <= modules
    assert not modules & set(sa.__all__)


def test_importing_the_package_imports_nothing_else():
    code = "import sharedattn, sys; print(*(m for m in ('torch', 'timm') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "" and done.returncode == 0, done.stderr

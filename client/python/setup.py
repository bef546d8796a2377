"""Build step of the package: generates the stubs of structattn.v1 from proto/.

Run by pip; everything else is in pyproject.toml.
"""

import pathlib
import sys

import setuptools
from setuptools.command.build_py import build_py

# Under pip the folder of this file is not on the path.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import generate_stubs  # noqa: E402


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        generate_stubs.generate(pathlib.Path(self.build_lib))


setuptools.setup(cmdclass={"build_py": BuildWithStubs})

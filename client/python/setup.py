"""Build step of the package: generates the stubs of structattn.v1 from proto/.

Run by pip; everything else is in pyproject.toml.
"""

import pathlib

import setuptools
from setuptools.command.build_py import build_py

import generate_stubs


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        generate_stubs.generate(pathlib.Path(self.build_lib))


setuptools.setup(cmdclass={"build_py": BuildWithStubs})

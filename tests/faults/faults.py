"""Fault tests of the real server, family by family; ends with a table.

Usage: faults.py [--long] [--model FILE] SERVER_BINARY TOY_MODEL_WRITER PROTO_ROOT FAMILY...
  --long        also what takes longer than ten seconds or needs root; what cannot be done on this
                machine says why in the table
  --model FILE  instead of the toy model; then the bounds of time hold for a machine of its speed
  FAMILY        a module beside this file: clients descriptors http2_abuse ...
Runs in an environment with tests/server/requirements.txt.
"""

import argparse
import importlib
import sys
import unittest

import harness


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--model")
    parser.add_argument("binary")
    parser.add_argument("writer")
    parser.add_argument("proto_root")
    parser.add_argument("families", nargs="+")
    arguments = parser.parse_args()
    harness.Setup.long = arguments.long
    harness.prepare(arguments.binary, arguments.writer, arguments.proto_root, arguments.model)
    suite = unittest.TestSuite()
    for family in arguments.families:
        module = importlib.import_module(family)
        suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
    runner = unittest.TextTestRunner(verbosity=2, resultclass=harness.TableResult)
    result = runner.run(suite)
    harness.print_table()
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())

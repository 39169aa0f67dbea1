"""Runs unittest modules and prints a line for each test: PASSED, FAILED or SKIPPED, its name, and why.

A test's name is the sentence that its method's name makes. What failed goes to standard error.
"""

import re
import sys
import unittest


class Lines(unittest.TestResult):
    def __init__(self, about):
        super().__init__()
        self.about = about
        self.count = 0

    def name(self, test):
        method = getattr(test, "_testMethodName", "")
        if not method.startswith("test_"):
            return f"{self.about}: {test}"
        # A number only orders the tests of a class.
        sentence = re.sub(r"^test_(\d+_)?", "", method).replace("_", " ")
        return f"{self.about}: {sentence}"

    def startTest(self, test):
        super().startTest(test)
        self.count += 1
        self.bad_parts = False

    def addSuccess(self, test):
        super().addSuccess(test)
        if not self.bad_parts:
            print(f"PASSED {self.name(test)}", flush=True)

    def failed(self, test, text):
        print(text, file=sys.stderr)
        print(f"FAILED {self.name(test)}", flush=True)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.failed(test, self.failures[-1][1])

    def addError(self, test, error):
        super().addError(test, error)
        self.failed(test, self.errors[-1][1])

    def addSubTest(self, test, part, error):
        super().addSubTest(test, part, error)
        if error is not None:
            print(f"{part}\n{(self.failures + self.errors)[-1][1]}", file=sys.stderr)
            if not self.bad_parts:
                print(f"FAILED {self.name(test)}", flush=True)
            self.bad_parts = True

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        print(f"SKIPPED {self.name(test)}: {reason}", flush=True)


def main(about, *modules):
    suite = unittest.defaultTestLoader.loadTestsFromNames(modules)
    result = Lines(about)
    suite.run(result)
    if result.count == 0 and not result.skipped:
        print(f"FAILED {about}: there are no tests in {', '.join(modules)}")
        return 1
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

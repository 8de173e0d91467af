"""Runs parts of scripts/bench in this kernel, and keeps the results of each in BENCH_WORK/out."""

import argparse
import importlib
import sys
import time
import traceback

import host


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    options.add_argument("--full", action="store_true")
    options.add_argument("parts", nargs="+")
    settings = options.parse_args()
    settings.rounds = 2 if settings.quick else 5
    settings.rounds_large = 1 if settings.quick else 3
    host.on_signals()
    code = 0
    for name in settings.parts:
        host.say(f"== {name}")
        results = host.Results(name, settings)
        try:
            importlib.import_module(f"parts.{name}").measure(results, settings)
        except KeyboardInterrupt:
            host.say(f"   {name} was interrupted")
            host.end_all()
            return 130
        except Exception:
            traceback.print_exc(file=sys.stdout)
            host.say(f"   {name} ended early; its earlier results stay")
            code = 1
        else:
            results.save()
        results.show()
        host.say(f"   {name} took {time.monotonic() - results.begun:.0f} s")
        host.end_all()
    return code


if __name__ == "__main__":
    sys.exit(main())

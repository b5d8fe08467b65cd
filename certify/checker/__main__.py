"""``python3 -I -S certify/checker DIR``: the checker as a program, from its folder or an archive."""

import sys
from importlib import import_module
from pathlib import Path

if not __package__:  # run by its path: make it a package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

raise SystemExit(import_module(__package__ or "checker").main(sys.argv[1:]))

"""tools/eval.py that keeps its sequence after every frame, and is killed when it writes that or a result:
`killed_keeping.py NUMBER SHARE ARGUMENT...` (dying.py)."""

import runpy
import sys

from dying import die_in_sync

from hiptrack.config import REPO_ROOT
from hiptrack.evaluation import unfinished

number, share = int(sys.argv.pop(1)), float(sys.argv.pop(1))
unfinished.INTERVAL = 0
die_in_sync("/.hiptrack-", number, share)  # the names of write_atomically: what is kept, and now and then a result
runpy.run_path(str(REPO_ROOT / "tools" / "eval.py"), run_name="__main__")

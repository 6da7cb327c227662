"""tools/train.py that is killed while it writes a checkpoint: `killed_saving.py NUMBER SHARE ARGUMENT...` (dying.py)."""

import runpy
import sys

from dying import die_in_sync

from hiptrack.config import REPO_ROOT

number, share = int(sys.argv.pop(1)), float(sys.argv.pop(1))
die_in_sync("/checkpoints/tmp-", number, share)
runpy.run_path(str(REPO_ROOT / "tools" / "train.py"), run_name="__main__")

import subprocess
import sys
from pathlib import Path

import plumbline.core.statistics


def test_no_statistic_imports_scipy_until_it_is_called() -> None:
    """A trial imports its interval, and scipy would cost it a second."""
    folder = Path(plumbline.core.statistics.__path__[0])
    modules = [f"plumbline.core.statistics.{path.stem}" for path in sorted(folder.glob("[a-z]*.py"))]
    assert len(modules) > 5
    program = f"import sys, {', '.join(modules)}; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

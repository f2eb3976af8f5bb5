"""Take the picture for README and docs out of the recommendation example's report.

python docs/images/make_recommendation.py out/recommendation/report.html
"""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

PICTURE = re.compile(r'<img src="data:image/png;base64,([^"]+)"')

if __name__ == "__main__":
    found = PICTURE.search(Path(sys.argv[1]).read_text(encoding="utf-8"))
    assert found is not None, "the report holds no picture"
    Path(__file__).with_name("recommendation.png").write_bytes(base64.b64decode(found[1]))

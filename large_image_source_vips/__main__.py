"""
Run the command line: ``python -m large_image_source_vips``.
"""

import sys

from .command_line.main import main

if __name__ == '__main__':
    sys.exit(main())

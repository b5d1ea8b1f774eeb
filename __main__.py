"""`python -m lyrics`: the command line, as the script `lyrics` gives it."""

import sys

from lyrics_cli.main import main

if __name__ == "__main__":
    sys.exit(main())

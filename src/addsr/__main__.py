"""python -m addsr."""

from addsr.cli.app import main

if __name__ == "__main__":
    main()

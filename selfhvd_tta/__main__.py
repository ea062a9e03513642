"""``python -m selfhvd_tta``."""

from selfhvd_tta.cli import main

if __name__ == "__main__":
    main()

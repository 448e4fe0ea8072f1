"""`python -m landscape_cli`, for where the command itself is not on the path."""

from landscape_cli.main import main


if __name__ == "__main__":
    main()

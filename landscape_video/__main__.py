"""`python -m landscape_video`, for where the command itself is not on the path."""

from landscape_video.cli.main import main


if __name__ == "__main__":
    main()

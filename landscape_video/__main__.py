"""Run the command as `python -m landscape_video`."""

from landscape_video.cli.main import main


if __name__ == "__main__":
    main()

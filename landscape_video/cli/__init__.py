"""The `landscape-video` command, one file per subcommand."""

"""Systems that make the clips: pipelines of ours and of others, and folders of clips."""

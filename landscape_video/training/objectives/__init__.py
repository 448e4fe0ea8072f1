"""What trains, and its loss."""

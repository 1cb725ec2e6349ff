"""What the pages of the dashboard read, a file for each subject."""

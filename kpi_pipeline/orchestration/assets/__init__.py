"""The assets: thin wrappers around the packages `sync` and `inbox`."""

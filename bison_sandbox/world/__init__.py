"""The invented agency: its workspaces, numbers, replies, leads, keys and clock."""

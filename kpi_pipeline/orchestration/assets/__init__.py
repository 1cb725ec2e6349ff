"""The software-defined assets: thin wrappers of the room `sync`."""

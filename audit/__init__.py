"""What `make audit` examines: secrets in the tree and its history, and packages we depend on."""

"""The data API: rows, clients and status for programs, with their description (OpenAPI)."""

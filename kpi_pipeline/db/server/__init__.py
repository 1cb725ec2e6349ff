"""The PostgreSQL server: connections, addresses, its clock, retries, the embedded one."""

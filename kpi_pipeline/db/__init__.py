"""The KPI database: tables, migrations, reads and writes, and the embedded server."""

"""The guard of the web pages: allowed hosts, same origin, login and sessions. No Dagster."""

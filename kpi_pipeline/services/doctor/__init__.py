"""Whether everything holds that an installation needs, check by check; `run.py` lists them."""

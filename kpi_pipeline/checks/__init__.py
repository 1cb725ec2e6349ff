"""What is wrong with the data, if anything: the rules of the checks, over what the tables hold."""

"""The experiments of the command line, and the code that all of them share."""

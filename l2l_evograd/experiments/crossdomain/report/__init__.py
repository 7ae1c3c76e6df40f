"""Tables, pictures and reports of runs."""

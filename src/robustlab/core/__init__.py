"""Tools that every floor may use: errors, random numbers, files, processes, the console."""

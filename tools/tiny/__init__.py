"""The recipe that trains the small LTX-Video model shipped with ringreel."""

"""The endpoints: the file that describes them, their organizations and their secrets."""

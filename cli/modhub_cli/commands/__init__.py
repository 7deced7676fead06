"""One file per command. Importing it imports click and nothing heavy; the library is imported on use."""

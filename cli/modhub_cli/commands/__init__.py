"""One file per command. Importing one imports click and nothing heavy; the work is imported when it runs."""

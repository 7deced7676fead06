"""What slim networks are fitted on, and how."""

"""The Hugging Face Hub protocol: one file for each kind of thing that clients ask for."""

"""The Hugging Face Hub protocol: its routes, a file for each kind of resource."""
